//! Compiled kernels on the user's disk. A file's name says all that it was made from, so it is never wrong, and several processes may
//! write the same one: it appears whole, by renaming.

use alexnode_core::{Error, Result};
use sha2::{Digest, Sha256};
use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// Bytes that the cache keeps; the files that were used least recently go first.
const LIMIT: u64 = 512 << 20;

/// A folder of compiled kernels.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// The cache of this user: `$ALEXNODE_CACHE`, else `$XDG_CACHE_HOME/alexnode`, else `~/.cache/alexnode`, else a folder for temporary files.
    pub fn of_user() -> Self {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let folder = set("ALEXNODE_CACHE")
            .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("alexnode")))
            .or_else(|| set("HOME").map(|dir| dir.join(".cache/alexnode")))
            .unwrap_or_else(|| std::env::temp_dir().join("alexnode"));
        Self::at(folder)
    }

    /// The cache in `folder`.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Bytes of all its files.
    pub fn bytes(&self) -> u64 {
        let entries = fs::read_dir(&self.folder).into_iter().flatten();
        entries
            .filter_map(|entry| entry.ok()?.metadata().ok())
            .filter(fs::Metadata::is_file)
            .map(|data| data.len())
            .sum()
    }

    /// The file made from `parts`, named `<kind>-<hash>.<extension>`; where there is none, `make` writes it to the path it is given.
    ///
    /// # Errors
    /// Those of `make`; `ERR_DEVICE` where the folder cannot be written.
    pub fn file(
        &self,
        kind: &str,
        extension: &str,
        parts: &[&str],
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let digest: String = hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let path = self.folder.join(format!("{kind}-{digest}.{extension}"));
        if path.is_file() {
            // So that it counts as used; a cache on a disk that cannot be written still serves.
            let _ = fs::File::options().append(true).open(&path).and_then(|f| f.set_modified(SystemTime::now()));
            return Ok(path);
        }
        let refused = |e: std::io::Error| {
            Error::device(format!("cannot write compiled kernels to {}", self.folder.display()))
                .hint("set ALEXNODE_CACHE to a folder that can be written")
                .caused_by(e)
        };
        fs::create_dir_all(&self.folder).map_err(refused)?;
        let scratch = tempfile::Builder::new().prefix(".building-").tempdir_in(&self.folder).map_err(refused)?;
        let made = scratch.path().join("made");
        make(&made)?;
        fs::rename(&made, &path).map_err(refused)?;
        self.trim(&path);
        Ok(path)
    }

    /// Removes what was used least recently until the rest fits. Failures are nobody's business: another process may have been faster.
    fn trim(&self, keep: &Path) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let mut files: Vec<(SystemTime, u64, PathBuf)> = entries
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let data = entry.metadata().ok().filter(fs::Metadata::is_file)?;
                Some((data.modified().ok()?, data.len(), entry.path()))
            })
            .collect();
        files.sort();
        let mut total: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, bytes, path) in files {
            if total > LIMIT && path != keep && fs::remove_file(&path).is_ok() {
                total -= bytes;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{cell::Cell, thread};

    #[test]
    fn a_file_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path().join("new"));
        let made = Cell::new(0);
        let get = |part: &str| {
            cache.file("test", "bin", &["a", part], |path| {
                made.set(made.get() + 1);
                fs::write(path, part).map_err(|e| Error::kernel(e.to_string()))
            })
        };
        let (first, again, other) = (get("b").unwrap(), get("b").unwrap(), get("c").unwrap());
        assert_eq!((first == again, first == other, made.get()), (true, false, 2));
        assert_eq!(fs::read_to_string(first).unwrap(), "b");
    }

    #[test]
    fn a_failure_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path());
        assert!(cache.file("test", "bin", &["x"], |_| Err(Error::kernel("no"))).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn many_may_make_the_same_file() {
        let folder = tempfile::tempdir().unwrap();
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let cache = Cache::at(folder.path());
                    let path = cache.file("test", "bin", &["same"], |path| {
                        fs::write(path, vec![7; 100_000]).map_err(|e| Error::kernel(e.to_string()))
                    });
                    assert_eq!(fs::read(path.unwrap()).unwrap(), vec![7; 100_000]);
                });
            }
        });
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
