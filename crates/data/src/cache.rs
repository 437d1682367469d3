//! Findings about a data set that are costly to make again: which files are bad, content hashes, statistics.

use sha2::{Digest, Sha256};
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

/// Findings of one kind that are kept at most; the oldest go first.
const MOST: usize = 32;

/// A folder of files named by the hash of what they depend on. Every file ends with the hash of its content, so a damaged one counts
/// as absent. Keeping and reading never fail a run: what cannot be kept is computed again next time.
#[derive(Clone)]
pub(crate) struct Cache {
    dir: Option<PathBuf>,
}

impl Cache {
    /// In `dir`, by default in the user's cache folder; without either nothing is kept.
    pub fn new(dir: Option<&Path>) -> Self {
        Self { dir: dir.map(Path::to_path_buf).or_else(default_dir) }
    }

    /// What was kept as `kind` under `key`.
    pub fn load(&self, kind: &str, key: &Key) -> Option<Vec<u8>> {
        let mut bytes = fs::read(self.path(kind, key)?).ok()?;
        let at = bytes.len().checked_sub(32)?;
        let sum = bytes.split_off(at);
        (Sha256::digest(&bytes)[..] == sum[..]).then_some(bytes)
    }

    /// Keeps `bytes`, all or nothing.
    pub fn store(&self, kind: &str, key: &Key, bytes: &[u8]) {
        self.store_pieces(kind, key, &[bytes]);
    }

    /// Keeps what the pieces are together, all or nothing.
    pub fn store_pieces(&self, kind: &str, key: &Key, pieces: &[&[u8]]) {
        let Some(path) = self.path(kind, key) else { return };
        let Some(dir) = path.parent() else { return };
        let write = || -> std::io::Result<()> {
            fs::create_dir_all(dir)?;
            let mut file = tempfile::NamedTempFile::new_in(dir)?;
            let mut sum = Sha256::new();
            for piece in pieces {
                file.write_all(piece)?;
                sum.update(piece);
            }
            file.write_all(&sum.finalize())?;
            file.persist(&path)?;
            forget_old(dir, kind)
        };
        // A read-only or full disk is no reason to stop: see the type's description.
        let _ = write();
    }

    /// Drops what was kept as `kind` under `key`; `false` where it is still there.
    pub fn forget(&self, kind: &str, key: &Key) -> bool {
        let removed = self.path(kind, key).is_some_and(|path| fs::remove_file(path).is_ok());
        removed || self.load(kind, key).is_none()
    }

    /// Where a file called `name`, which is kept by other rules, belongs.
    pub fn place(&self, name: &str) -> Option<PathBuf> {
        Some(self.dir.as_ref()?.join(name))
    }

    fn path(&self, kind: &str, key: &Key) -> Option<PathBuf> {
        Some(self.dir.as_ref()?.join(format!("{kind}-{}", hex(&key.0))))
    }
}

fn forget_old(dir: &Path, kind: &str) -> std::io::Result<()> {
    let prefix = format!("{kind}-");
    let mut files = Vec::new();
    for item in fs::read_dir(dir)? {
        let item = item?;
        if item.file_name().to_str().is_some_and(|name| name.starts_with(&prefix)) {
            files.push((item.metadata()?.modified()?, item.path()));
        }
    }
    files.sort();
    let excess = files.len().saturating_sub(MOST);
    files.iter().take(excess).try_for_each(|(_, path)| fs::remove_file(path))
}

fn default_dir() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("LOCALAPPDATA"))
        .or_else(|| Some(std::env::home_dir()?.join(".cache")))
        .map(|dir| dir.join("alexnode"))
}

/// The hash of everything that a finding depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key([u8; 32]);

impl Key {
    /// Of parts that cannot run into each other: each is preceded by its length.
    pub fn of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut key = KeyMaker::default();
        parts.into_iter().for_each(|part| key.part(part));
        key.finish()
    }
    /// As bytes, to be part of another key.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
    /// 64 lower-case hexadecimal digits.
    pub fn hex(&self) -> String {
        hex(&self.0)
    }
}

/// A key of parts that are never in memory together.
#[derive(Default)]
pub(crate) struct KeyMaker(Sha256);

impl KeyMaker {
    /// Adds a part.
    pub fn part(&mut self, part: &[u8]) {
        self.begin(part.len());
        self.piece(part);
    }
    /// Begins a part of so many bytes, which come in pieces.
    pub fn begin(&mut self, length: usize) {
        self.0.update((length as u64).to_le_bytes());
    }
    /// Adds a piece of the part that has begun.
    pub fn piece(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }
    /// The key of all parts.
    pub fn finish(self) -> Key {
        Key(self.0.finalize().into())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_and_damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(Some(&dir.path().join("deep/er")));
        let key = Key::of([&b"a"[..], b"b"]);
        assert_ne!(key, Key::of([&b"ab"[..], b""]));
        let mut pieces = KeyMaker::default();
        pieces.part(b"long");
        pieces.begin(3);
        [&b"e"[..], b"", b"nd"].into_iter().for_each(|piece| pieces.piece(piece));
        assert_eq!(pieces.finish(), Key::of([&b"long"[..], b"end"]));
        assert_eq!(cache.load("x", &key), None);
        cache.store("x", &key, b"found");
        assert_eq!(cache.load("x", &key).as_deref(), Some(&b"found"[..]));
        assert_eq!(cache.load("y", &key), None);
        cache.store("y", &key, b"wrong");
        assert!(cache.forget("y", &key) && cache.forget("never", &key));
        assert_eq!(cache.load("y", &key), None);
        let path = cache.path("x", &key).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes[0] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(cache.load("x", &key), None);
        fs::write(&path, b"short").unwrap();
        assert_eq!(cache.load("x", &key), None);
    }

    #[test]
    fn old_findings_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(Some(dir.path()));
        let key = |i: usize| Key::of([&i.to_le_bytes()[..]]);
        cache.store("other", &key(0), b"stays");
        for i in 0..MOST + 3 {
            cache.store("x", &key(i), b"found");
            // File times may be coarse: make the order certain.
            let path = cache.path("x", &key(i)).unwrap();
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000 + i as u64);
            fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
        }
        assert!(cache.load("other", &key(0)).is_some() && cache.load("x", &key(MOST + 2)).is_some());
        assert!((0..3).all(|i| cache.load("x", &key(i)).is_none()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), MOST + 1);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_no_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let cache = Cache::new(Some(file.path()));
        let key = Key::of([&b"a"[..]]);
        cache.store("x", &key, b"found");
        assert_eq!(cache.load("x", &key), None);
    }
}
