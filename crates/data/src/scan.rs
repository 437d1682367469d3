//! One look at every file when a data set is opened: is it a picture, what is the hash of its bytes, and what does it look like.

mod findings;

pub(crate) use findings::Findings;

use crate::{
    cache::{Cache, Key, KeyMaker},
    decode::{self, Decoder},
    files::{Entry, Files},
    layout::Item,
    options::OnBadImage,
    parallel::Workers,
    print::{Print, Printer},
};
use alexnode_core::{Error, Result};
use sha2::{Digest, Sha256};
use std::time::{Duration, Instant};

/// The beginning of a file that nearly always holds the size of the picture.
const HEAD: u64 = 64 << 10;
/// Files that are looked at before what was found is noted.
const AT_ONCE: usize = 16 << 10;
/// What was noted is kept this often, so that a kill costs little.
const KEEP_EVERY: Duration = Duration::from_secs(30);

/// The first half of a SHA-256: enough to tell all pictures apart, and 1.3 million are kept.
pub(crate) type Hash = [u8; 16];

/// Of a SHA-256.
pub(crate) fn half(sum: &[u8; 32]) -> Hash {
    std::array::from_fn(|i| sum[i])
}

/// What a look at a file showed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Finding {
    /// That of its bytes, where asked for.
    pub hash: Option<Hash>,
    /// What it looks like, where asked for and where there is something to see.
    pub print: Option<Print>,
    /// Why it cannot be used.
    pub bad: Option<String>,
    /// Nothing is known about its bytes, because they could not be read. That may change without any trace at the file, so such a
    /// finding is never relied on: the next time the file is looked at again.
    pub unread: bool,
}

impl Finding {
    const UNREAD: Self = Self { hash: None, print: None, bad: None, unread: true };
}

/// What looking at all files gave.
pub(crate) struct Scan {
    /// One for each item, in their order.
    pub findings: Findings,
    /// Where it is kept.
    pub memory: Memory,
}

/// Findings that outlast the run.
pub(crate) struct Memory {
    cache: Cache,
    key: Key,
    /// Whether some of the findings were made in an earlier run.
    pub used: bool,
}

impl Memory {
    /// Sees to it that every file is looked at anew the next time, because a finding has turned out wrong; `false` where it cannot.
    pub fn forget(&self) -> bool {
        self.cache.forget("scan", &self.key)
    }
}

/// How closely to look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Depth {
    /// `Skip` decodes every picture, `Error` alone only reads its head.
    pub on_bad_image: OnBadImage,
    /// Whether hashes and prints are wanted, for which every picture must be decoded.
    pub hash: bool,
}

/// Identifies the files as they are now: a changed file changes it.
pub(crate) fn stamp<'a>(files: &Files, items: impl Iterator<Item = &'a Item> + Clone) -> Key {
    let root = std::fs::canonicalize(files.root()).unwrap_or_else(|_| files.root().to_path_buf());
    let path = |item: &'a Item| item.entry.path.as_os_str().as_encoded_bytes();
    let mut key = KeyMaker::default();
    key.part(root.as_os_str().as_encoded_bytes());
    key.begin(files.mark().len() + items.clone().map(|item| path(item).len() + 1 + 3 * 8).sum::<usize>());
    key.piece(files.mark());
    for item in items {
        let Entry { size, at, .. } = item.entry;
        key.piece(path(item));
        key.piece(&[0]);
        [size, at[0], at[1]].iter().for_each(|n| key.piece(&n.to_le_bytes()));
    }
    key.finish()
}

/// Looks at all `items` of which nothing is known yet and keeps what it found under `stamp`, also where it is cancelled.
///
/// # Errors
/// `ERR_ABORTED` after a cancel. A bad file is a finding, not an error.
pub(crate) fn scan(
    files: &Files,
    items: &[&Item],
    depth: Depth,
    stamp: &Key,
    cache: &Cache,
    workers: Workers<'_>,
) -> Result<Scan> {
    let full = depth.hash || depth.on_bad_image == OnBadImage::Skip;
    let key = Key::of([&b"scan 6"[..], stamp.bytes(), &[u8::from(full), u8::from(depth.hash)]]);
    let kept = cache.load("scan", &key).and_then(|bytes| Findings::from_bytes(&bytes, depth.hash));
    let mut findings = kept.filter(|findings| findings.len() <= items.len()).unwrap_or_default();
    let open: Vec<u32> = findings.unread().into_iter().chain(findings.len() as u32..items.len() as u32).collect();
    let mut kept_at = Instant::now();
    // Some at a time: what they give is in memory twice until it is noted.
    for open in open.chunks(AT_ONCE) {
        let look = |looker: &mut Looker, i: usize| Ok(looker.look(files, items[open[i] as usize], full, depth.hash));
        let looks =
            workers.map(16, open.len(), Looker::new, look).inspect_err(|_| findings.keep(cache, "scan", &key))?;
        for (&i, finding) in open.iter().zip(looks) {
            if (i as usize) < findings.len() {
                findings.set(i as usize, finding);
            } else {
                findings.push(finding);
            }
        }
        if kept_at.elapsed() >= KEEP_EVERY {
            findings.keep(cache, "scan", &key);
            kept_at = Instant::now();
        }
    }
    if !open.is_empty() {
        findings.keep(cache, "scan", &key);
    }
    let memory = Memory { cache: cache.clone(), key, used: open.len() < items.len() };
    Ok(Scan { findings, memory })
}

/// Looks at one file after the other with the same working memory. One per thread.
struct Looker {
    printer: Printer,
    bytes: Vec<u8>,
    decoder: Decoder,
}

impl Looker {
    fn new() -> Self {
        Self { printer: Printer::new(), bytes: Vec::new(), decoder: Decoder::default() }
    }

    fn look(&mut self, files: &Files, item: &Item, full: bool, hash: bool) -> Finding {
        let Self { printer, bytes, decoder } = self;
        let most = if full { u64::MAX } else { HEAD };
        if let Err(reason) = files.read(&item.entry, most, bytes) {
            return Finding { bad: Some(reason), ..Finding::UNREAD };
        }
        let mut finding =
            Finding { hash: hash.then(|| half(&Sha256::digest(&bytes).into())), unread: false, ..Finding::UNREAD };
        let mut result = if full { decoder.decode(bytes) } else { decode::header(bytes, item.entry.size) };
        if result.is_err() && (bytes.len() as u64) < item.entry.size {
            // A long preview or colour profile may stand before the size.
            result = match files.read(&item.entry, u64::MAX, bytes) {
                Ok(()) => decode::header(bytes, item.entry.size),
                Err(reason) => return Finding { bad: Some(reason), ..Finding::UNREAD },
            };
        }
        let print = result.and_then(|picture| if hash { printer.print(&picture, decoder.pixels()) } else { Ok(None) });
        match print {
            Ok(print) => finding.print = print,
            Err(reason) => finding.bad = Some(reason),
        }
        finding
    }
}

/// A file that cannot be used, with what to do about it.
pub(crate) fn bad_image(name: &str, reason: &str) -> Error {
    Error::data(format!("{name}: {reason}"))
        .hint("Repair, convert or remove the file, or leave such files out with `--on-bad-image skip`.")
}

/// A file that was in order when bad ones were left out. Leaving it out now would change the minibatches after it in a way that no later
/// run could repeat.
pub(crate) fn gone_bad(name: &str, reason: &str, found: &Memory) -> Error {
    found.forget();
    Error::data(format!("{name}: {reason}; when the data set was opened, it was in order")).hint(
        "Start again, or go on with `--resume`: a file that is bad then is left out and listed. Or repair it first.",
    )
}
