//! A look at a whole folder before anything is trained on it: what is in it, and what stands in the way.
//!
//! Every file is read and decoded once; what was found is kept, so that a scan goes on where an earlier one was stopped. Of each file some
//! hundred bytes stay in memory, of no picture its pixels. Nothing in the folder is changed.
//!
//! | module | about |
//! |---|---|
//! | `facts` | one look at one file |
//! | `journal` | what was found, on the disk |
//! | `place` | which class and split a file belongs to |
//! | `collect`, [`report`] | the findings |

mod collect;
mod facts;
mod journal;
mod place;
pub mod report;

use crate::{
    cache::{Cache, Key},
    files::{Entry, Files},
    options::usable_threads,
    parallel::Workers,
};
use alexnode_core::{Error, ErrorCode, Result};
pub(crate) use collect::text;
use collect::{Known, collect};
use facts::{Facts, Look, Looker};
use journal::{Journal, Stamp, stamp};
use report::{Findings, LeaveOut, Limits};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

/// How long a step takes, about.
const STEP: Duration = Duration::from_millis(300);

/// What to scan, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SurveyOptions {
    /// The folder.
    pub source: PathBuf,
    /// A picture whose shorter side has fewer pixels is tiny. Default 32.
    #[serde(default = "default_tiny")]
    pub tiny: u32,
    /// A picture of more millions of pixels is huge. Default 25.
    #[serde(default = "default_huge")]
    pub huge: f64,
    /// What the quarantine holds beside unreadable files. Default: nothing.
    #[serde(default)]
    pub leave_out: Vec<LeaveOut>,
    /// Threads that decode. Default: as many as the process may use.
    #[serde(default)]
    pub threads: Option<usize>,
    /// Where findings are kept. Default: `$XDG_CACHE_HOME/alexnode`, else `~/.cache/alexnode`.
    #[serde(default)]
    pub cache_dir: Option<PathBuf>,
}

fn default_tiny() -> u32 {
    32
}

fn default_huge() -> f64 {
    25.0
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Files that were looked at, now or by an earlier scan.
    pub done: usize,
    /// All files.
    pub images: usize,
}

/// A scan: [`step`](Self::step) until there is nothing left, then [`findings`](Self::findings).
pub struct Survey {
    options: SurveyOptions,
    files: Files,
    /// Sorted by path.
    entries: Vec<Entry>,
    facts: Vec<Option<Facts>>,
    bad: BTreeMap<u32, String>,
    /// Still to be looked at, the next one last.
    open: Vec<u32>,
    journal: Journal,
    quarantine: Option<PathBuf>,
    threads: usize,
    /// Files that take about as long as a step should.
    stride: usize,
}

impl Survey {
    /// Lists the folder and reads what an earlier scan of it has found.
    ///
    /// # Errors
    /// `ERR_USAGE` for impossible options; `ERR_DATA` where the folder does not exist, is none, cannot be read or has no pictures.
    pub fn open(options: &SurveyOptions) -> Result<Self> {
        let shown = options.source.display();
        if options.threads == Some(0) {
            return Err(Error::usage("threads: expected at least 1, got 0"));
        }
        if options.huge.is_nan() || options.huge < 0.0 {
            return Err(Error::usage(format!("huge: expected millions of pixels, got {}", options.huge)));
        }
        let meta = std::fs::metadata(&options.source).map_err(|e| {
            Error::data(format!("{shown}: cannot be opened: {e}")).caused_by(e).hint("Name a folder of images.")
        })?;
        if !meta.is_dir() {
            return Err(Error::data(format!("{shown}: is no folder"))
                .hint("Scan looks at folders; unpack an archive to have it scanned."));
        }
        let (files, mut entries) = Files::folder(&options.source)?;
        if entries.is_empty() {
            return Err(Error::data(format!("{shown}: there are no images in it"))
                .hint("Expected a folder per class (photos/cat/1.jpg, photos/dog/2.jpg), with or without train/ and val/ around."));
        }
        entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        let root = std::fs::canonicalize(&options.source).unwrap_or_else(|_| options.source.clone());
        let key = Key::of([root.as_os_str().as_encoded_bytes()]).hex();
        let cache = Cache::new(options.cache_dir.as_deref());
        let stamps: HashMap<Stamp, u32> = (0u32..).zip(&entries).map(|(at, entry)| (stamp(entry), at)).collect();
        let place = cache.place(&format!("looks-{}", &key[..16]));
        let (journal, known) = Journal::open(place.as_deref(), &stamps);
        let mut survey = Self {
            options: options.clone(),
            files,
            facts: vec![None; entries.len()],
            bad: BTreeMap::new(),
            open: Vec::new(),
            journal,
            quarantine: cache.place(&format!("quarantine-{}.ndjson", &key[..16])),
            threads: options.threads.unwrap_or_else(usable_threads),
            stride: 32,
            entries,
        };
        known.into_iter().for_each(|(at, look)| survey.note(at, look));
        let is_open = |at: &u32| survey.facts[*at as usize].is_none() && !survey.bad.contains_key(at);
        survey.open = (0..survey.entries.len() as u32).rev().filter(is_open).collect();
        Ok(survey)
    }

    /// How far it has come.
    pub fn progress(&self) -> Progress {
        Progress { done: self.entries.len() - self.open.len(), images: self.entries.len() }
    }

    /// Where a quarantine list is written when nobody says where: beside what is kept, never in the folder. `None` where there is no place.
    pub fn quarantine(&self) -> Option<&Path> {
        self.quarantine.as_deref()
    }

    /// Looks at some more files; `None` when all have been looked at.
    ///
    /// # Errors
    /// `ERR_ABORTED` after a cancel; what was found before stays.
    pub fn step(&mut self, cancel: &AtomicBool) -> Result<Option<Progress>> {
        if self.open.is_empty() {
            return Ok(None);
        }
        let begin = Instant::now();
        let next: Vec<u32> = self.open.iter().rev().take(self.stride).copied().collect();
        let workers = Workers { threads: self.threads, cancel };
        let (files, entries) = (&self.files, &self.entries);
        let looks = workers
            .map(1, next.len(), Looker::new, |looker, i| Ok(looker.look(files, &entries[next[i] as usize])))
            .map_err(|error| match error.code() {
                ErrorCode::Aborted => Error::new(ErrorCode::Aborted, "the scan was stopped"),
                _ => error,
            })?;
        self.journal.append(next.iter().zip(&looks).map(|(at, look)| (stamp(&entries[*at as usize]), look)));
        self.open.truncate(self.open.len() - next.len());
        next.into_iter().zip(looks).for_each(|(at, look)| self.note(at, look));
        let share = STEP.as_secs_f64() / begin.elapsed().as_secs_f64().max(1e-6);
        self.stride = (self.stride as f64 * share.clamp(0.25, 4.0)).clamp(1.0, 1e4) as usize;
        Ok(Some(self.progress()))
    }

    fn note(&mut self, at: u32, look: Look) {
        match look {
            Look::Usable(facts) => self.facts[at as usize] = Some(facts),
            Look::Bad(reason) | Look::Unread(reason) => drop(self.bad.insert(at, reason)),
        }
    }

    /// What was found.
    ///
    /// # Errors
    /// `ERR_USAGE` where files are still to be looked at; `ERR_DATA` where the folder can no longer be listed;
    /// `ERR_ABORTED` after a cancel.
    pub fn findings(&self, cancel: &AtomicBool) -> Result<Findings> {
        if !self.open.is_empty() {
            return Err(Error::usage(format!("{} files have not been looked at yet", self.open.len())));
        }
        let known = Known { root: &self.options.source, entries: &self.entries, facts: &self.facts, bad: &self.bad };
        let limits = Limits { tiny: self.options.tiny, huge: self.options.huge };
        collect(&known, limits, &self.options.leave_out, Workers { threads: self.threads, cancel })
    }
}
