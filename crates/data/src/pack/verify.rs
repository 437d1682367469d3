//! Whether a pack is what was written.

use super::{Pack, SUMS, failed, hex, read::Sums};
use crate::{options::usable_threads, parallel::Workers};
use alexnode_core::{Error, Result};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

/// A file that is not what was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Damaged {
    /// Its name in the pack.
    pub file: String,
    /// What is wrong with it.
    pub reason: String,
}

/// How far checking has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Files read.
    pub files: usize,
    /// Bytes read.
    pub bytes: u64,
    /// Files to read.
    pub of: usize,
    /// What was found.
    pub damaged: Vec<Damaged>,
}

/// Reads every file of a pack, some at a time, and compares its SHA-256.
pub struct Verifier {
    folder: PathBuf,
    files: Vec<String>,
    sums: Sums,
    threads: usize,
    checked: Checked,
    assembled: bool,
}

impl Verifier {
    /// Begins with the pack in `folder`, on up to `threads` threads (default: as many as the process may use).
    ///
    /// # Errors
    /// `ERR_DATA` where there is no pack, or its list of sums is gone.
    pub fn open(folder: &Path, threads: Option<usize>) -> Result<Self> {
        if !Pack::is_at(folder) {
            return Err(Error::data(format!("{}: there is no pack in it (no pack.json)", folder.display())).hint(
                "A pack is what `data pack SRC DST` writes; one that was interrupted is finished by the same command.",
            ));
        }
        let sums = Sums::read(folder)?;
        let files = Pack::manifest(folder).map_or_else(|_| vec!["pack.json".to_string()], |manifest| manifest.files());
        let checked = Checked { of: files.len(), ..Checked::default() };
        Ok(Self {
            folder: folder.into(),
            files,
            sums,
            threads: threads.unwrap_or_else(usable_threads),
            checked,
            assembled: false,
        })
    }

    /// Reads some more files; `None` when all have been read. What is damaged is a finding, not an error.
    ///
    /// # Errors
    /// `ERR_ABORTED` after a cancel.
    pub fn step(&mut self, cancel: &AtomicBool) -> Result<Option<Checked>> {
        let first = self.checked.files;
        if first == self.files.len() {
            if self.assembled {
                return Ok(None);
            }
            self.assembled = true;
            // All sums right, and still no pack: whatever wrote it was wrong.
            if self.checked.damaged.is_empty()
                && let Err(error) = Pack::open(&self.folder)
            {
                self.checked.damaged.push(Damaged { file: "pack.json".into(), reason: error.message().into() });
            }
            return Ok(Some(self.checked.clone()));
        }
        let end = (first + self.threads).min(self.files.len());
        let workers = Workers { threads: self.threads, cancel };
        let (files, folder, sums) = (&self.files[first..end], &self.folder, &self.sums);
        let results = workers.map(1, files.len(), || (), |(), i| Ok(check(folder, &files[i], sums)))?;
        for (file, result) in files.iter().zip(results) {
            match result {
                Ok(bytes) => self.checked.bytes += bytes,
                Err(reason) => self.checked.damaged.push(Damaged { file: file.clone(), reason }),
            }
        }
        self.checked.files = end;
        Ok(Some(self.checked.clone()))
    }
}

fn check(folder: &Path, name: &str, sums: &Sums) -> Result<u64, String> {
    let Some(expected) = sums.get(name) else { return Err(format!("not listed in {SUMS}")) };
    let path = folder.join(name);
    let unreadable = |e| failed(&path, "read", e).message().to_string();
    let mut file = File::open(&path).map_err(unreadable)?;
    let (mut sum, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        let got = file.read(&mut buffer).map_err(unreadable)?;
        if got == 0 {
            break;
        }
        sum.update(&buffer[..got]);
        bytes += got as u64;
    }
    let found = hex(&sum.finalize());
    if found == expected { Ok(bytes) } else { Err(format!("its SHA-256 is {found}, {expected} was written")) }
}
