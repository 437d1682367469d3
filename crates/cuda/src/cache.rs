//! Compiled kernels on the user's disk. A file's name says all that it was made from, so it is never wrong, and several processes may
//! write the same one: it appears whole, by renaming.

use alexnode_core::{Error, Result};
use sha2::{Digest, Sha256};
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Bytes that the cache keeps; the files that were used least recently go first.
const LIMIT: u64 = 512 << 20;
/// How the folders begin in which files are made.
const SCRATCH: &str = ".building-";
/// After which time such a folder belongs to nobody: its process was killed.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// A folder of compiled kernels.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
    limit: u64,
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
        Self { folder: folder.into(), limit: LIMIT }
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
        let path = self.path(kind, extension, parts);
        if path.is_file() {
            used(&path);
            return Ok(path);
        }
        let refused = |e: io::Error| {
            Error::device(format!("cannot write compiled kernels to {}", self.folder.display()))
                .hint("Set ALEXNODE_CACHE to a folder that can be written.")
                .caused_by(e)
        };
        fs::create_dir_all(&self.folder).map_err(refused)?;
        let scratch = tempfile::Builder::new().prefix(SCRATCH).tempdir_in(&self.folder).map_err(refused)?;
        let made = scratch.path().join("made");
        make(&made)?;
        // Its bytes first, then its name: after a power failure too there is no file with less in it.
        fs::File::open(&made).and_then(|file| file.sync_all()).map_err(refused)?;
        fs::rename(&made, &path).map_err(refused)?;
        self.trim(&path);
        Ok(path)
    }

    /// The content of the file made from `parts`, if there is one.
    pub fn read(&self, kind: &str, extension: &str, parts: &[&str]) -> Option<Vec<u8>> {
        let path = self.path(kind, extension, parts);
        let content = fs::read(&path).ok()?;
        used(&path);
        Some(content)
    }

    /// Keeps `content` as the file made from `parts`.
    ///
    /// # Errors
    /// `ERR_DEVICE` where the folder cannot be written.
    pub fn write(&self, kind: &str, extension: &str, parts: &[&str], content: &[u8]) -> Result<()> {
        let write = |path: &Path| {
            fs::write(path, content).map_err(|e| Error::device(format!("cannot write {}", path.display())).caused_by(e))
        };
        self.file(kind, extension, parts, write).map(drop)
    }

    fn path(&self, kind: &str, extension: &str, parts: &[&str]) -> PathBuf {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let digest: String = hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        self.folder.join(format!("{kind}-{digest}.{extension}"))
    }

    /// Removes what was used least recently until the rest fits, and what killed processes have left. Failures are nobody's business:
    /// another process may have been faster.
    fn trim(&self, keep: &Path) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let mut files: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for entry in entries.flatten() {
            let Ok(data) = entry.metadata() else { continue };
            let Ok(modified) = data.modified() else { continue };
            if data.is_file() {
                files.push((modified, data.len(), entry.path()));
            } else if entry.file_name().to_string_lossy().starts_with(SCRATCH)
                && modified.elapsed().is_ok_and(|age| age > ABANDONED)
            {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        files.sort();
        let mut total: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, bytes, path) in files {
            if total <= self.limit {
                return;
            }
            let gone = |e: io::Error| e.kind() == io::ErrorKind::NotFound;
            if path != keep && fs::remove_file(&path).map_or_else(gone, |()| true) {
                total -= bytes;
            }
        }
    }
}

/// So that the file counts as used; a cache on a disk that cannot be written still serves.
fn used(path: &Path) {
    let _ = fs::File::options().append(true).open(path).and_then(|file| file.set_modified(SystemTime::now()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        cell::Cell,
        env,
        process::{Command, Stdio},
        thread,
    };

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

    #[test]
    fn what_was_used_least_recently_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache { limit: 2500, ..Cache::at(folder.path()) };
        let put = |name: &str| cache.write("test", "bin", &[name], &[7; 1000]).unwrap();
        let has = |name: &str| cache.read("test", "bin", &[name]).is_some();
        let age = |path: &Path, seconds: u64| {
            let time = SystemTime::now() - Duration::from_secs(seconds);
            fs::File::open(path).unwrap().set_modified(time).unwrap();
        };
        let scratch = folder.path().join(".building-killed");
        fs::create_dir(&scratch).unwrap();
        fs::write(scratch.join("made"), "half").unwrap();
        fs::create_dir(folder.path().join("nvrtc")).unwrap();
        age(&folder.path().join("nvrtc"), 999_999);
        put("a");
        put("b");
        assert!(scratch.exists(), "somebody may still be at it");
        age(&cache.path("test", "bin", &["a"]), 300);
        age(&cache.path("test", "bin", &["b"]), 200);
        age(&scratch, 999_999);
        // Reading counts as using.
        assert!(has("a"));
        put("c");
        assert_eq!((has("a"), has("b"), has("c")), (true, false, true));
        assert!(!scratch.exists() && folder.path().join("nvrtc").exists());
        // One that is larger than all is kept until the next one comes.
        cache.write("test", "bin", &["huge"], &[7; 9000]).unwrap();
        assert_eq!((has("a"), has("c"), has("huge")), (false, false, true));
    }

    /// Several processes, several threads each, in a cache that is too small for all: whatever is read is whole.
    #[test]
    fn processes_share_a_cache() {
        const FOLDER: &str = "ALEXNODE_TEST_SHARED_CACHE";
        let work = |folder: &Path| {
            let cache = Cache { limit: 200_000, ..Cache::at(folder) };
            let content = |i: usize| vec![i as u8; 20_000 + i];
            thread::scope(|scope| {
                for thread in 0..4 {
                    let cache = &cache;
                    scope.spawn(move || {
                        for i in (0..40).map(|i| (i * (2 * thread + 1)) % 20) {
                            let parts: &[&str] = &["shared", &i.to_string()];
                            if let Some(read) = cache.read("test", "bin", parts) {
                                assert!(read == content(i), "{i} is not whole");
                            }
                            cache.write("test", "bin", parts, &content(i)).unwrap();
                        }
                    });
                }
            });
        };
        if let Some(folder) = env::var_os(FOLDER) {
            return work(Path::new(&folder));
        }
        let folder = tempfile::tempdir().unwrap();
        let program = env::current_exe().unwrap();
        let name = "cache::tests::processes_share_a_cache";
        let mut processes: Vec<_> = (0..3)
            .map(|_| {
                let mut command = Command::new(&program);
                command.args(["--exact", name]).env(FOLDER, folder.path()).stdout(Stdio::null());
                command.spawn().unwrap()
            })
            .collect();
        work(folder.path());
        for process in &mut processes {
            assert!(process.wait().unwrap().success());
        }
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(left.iter().all(|path| path.is_file()), "{left:?}");
        let bytes: u64 = left.iter().map(|path| path.metadata().unwrap().len()).sum();
        assert!((20_000..=220_000).contains(&bytes), "{bytes} bytes");
    }
}
