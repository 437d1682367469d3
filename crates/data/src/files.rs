//! Files in a folder or in a .tar: listed once, then read one by one. Nothing is unpacked, nothing is written.

use crate::decode::{self, Format, Kind, Reason};
use alexnode_core::{Error, Result};
use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

/// A picture file larger than this is refused before it is read.
const MAX_FILE: u64 = 256 << 20;

/// A file that may be a picture.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Relative to the root of the folder or the archive.
    pub path: Box<Path>,
    /// Bytes.
    pub size: u64,
    /// In a folder its [`times`], to notice a change; in an archive where it begins there, and which of the archives that is.
    pub at: [u64; 2],
}

impl Default for Entry {
    fn default() -> Self {
        Self { path: Path::new("").into(), size: 0, at: [0; 2] }
    }
}

/// A folder, or archives.
pub(crate) struct Files {
    root: PathBuf,
    /// Empty for a folder.
    archives: Vec<(PathBuf, File)>,
    /// Changes when the archives do.
    mark: Vec<u8>,
}

impl Files {
    /// Lists the pictures below the folder `root`, hidden files and folders left out, links followed.
    ///
    /// # Errors
    /// `ERR_DATA` naming a folder that cannot be read.
    pub fn folder(root: &Path) -> Result<(Self, Vec<Entry>)> {
        let files = Self::below(root);
        let mut entries = Vec::new();
        files.walk(Path::new(""), &mut Vec::new(), &mut entries)?;
        Ok((files, entries))
    }

    /// Lists the pictures in the archive `path`: one pass over its headers. Also gives whether there are labels beside them.
    ///
    /// # Errors
    /// `ERR_DATA` where it is no archive, is compressed or is cut off.
    pub fn tar(path: &Path) -> Result<(Self, Vec<Entry>, bool)> {
        let files = Self::archives(path, &[path.to_path_buf()])?;
        let mut entries: Vec<Entry> = Vec::new();
        let mut labelled = false;
        files.members(0, None, |found| {
            labelled |= is_label(&found.path);
            if !found.path.iter().any(hidden) && files.may_be_picture(&found) {
                entries.push(found);
            }
            Ok(())
        })?;
        // A path that occurs twice was appended to the archive later: the last one counts.
        entries.reverse();
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        entries.dedup_by(|a, b| a.path == b.path);
        Ok((files, entries, labelled))
    }

    /// Several archives that belong together; `root` is where they lie.
    ///
    /// # Errors
    /// `ERR_DATA` where one cannot be opened or is compressed.
    pub fn archives(root: &Path, paths: &[PathBuf]) -> Result<Self> {
        let mut files = Self::below(root);
        for path in paths {
            let unreadable = |e| unreadable(path, e);
            let file = File::open(path).map_err(unreadable)?;
            let meta = file.metadata().map_err(unreadable)?;
            let mut magic = [0; 6];
            let known = read_up_to(&file, 0, &mut magic).map_err(unreadable)?;
            if let Some(name) = compression(&magic[..known]) {
                return Err(Error::data(format!("{}: the archive is compressed ({name})", path.display()))
                    .hint("Decompress it first: images are read from their place inside the .tar."));
            }
            let times = times(&meta);
            files.mark.extend([meta.len(), times[0], times[1]].into_iter().flat_map(u64::to_le_bytes));
            files.archives.push((path.clone(), file));
        }
        Ok(files)
    }

    /// A file that holds the contents of all entries; `mark` changes when they do.
    pub fn spooled(name: &str, file: File, mark: Vec<u8>) -> Self {
        Self { root: name.into(), archives: vec![(name.into(), file)], mark }
    }

    /// The members of an archive, or of one inside it that `inner` says where to find. What `visit` refuses ends it.
    ///
    /// # Errors
    /// `ERR_DATA` where it is no archive or is cut off.
    pub fn members(
        &self,
        archive: u32,
        inner: Option<&Entry>,
        mut visit: impl FnMut(Entry) -> Result<()>,
    ) -> Result<()> {
        let (path, file) = &self.archives[archive as usize];
        let named = || inner.map_or_else(|| path.clone(), |inner| self.name(inner).into());
        let unreadable = |e: io::Error| unreadable(&named(), e);
        let total = match inner {
            Some(inner) => inner.size,
            None => file.metadata().map_err(unreadable)?.len(),
        };
        let begin = inner.map_or(0, |inner| inner.at[0]);
        let mut region = tar::Archive::new(Region { file, begin, length: total, at: 0 });
        for entry in region.entries_with_seek().map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let path: PathBuf = entry.path().map_err(unreadable)?.components().collect();
            let place = entry.raw_file_position();
            if place.checked_add(entry.size()).is_none_or(|end| end > total) {
                return Err(Error::data(format!(
                    "{}: the archive is cut off: '{}' ends beyond it",
                    named().display(),
                    path.display()
                ))
                .hint("Copy or download it again."));
            }
            visit(Entry {
                path: path.strip_prefix(".").unwrap_or(&path).into(),
                size: entry.size(),
                at: [begin + place, u64::from(archive)],
            })?;
        }
        Ok(())
    }

    /// Files that are named from the folder `root`.
    pub fn below(root: &Path) -> Self {
        Self { root: root.to_path_buf(), archives: Vec::new(), mark: Vec::new() }
    }

    /// Changes when archives do, wherever they lie.
    pub fn mark(&self) -> &[u8] {
        &self.mark
    }

    /// The folder or archive.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The archive that `entry` is in.
    fn archive(&self, entry: &Entry) -> Option<&(PathBuf, File)> {
        // In a folder there are none, and the number is a time.
        self.archives.get(usize::try_from(entry.at[1]).ok()?)
    }

    /// How a message names `entry`.
    pub fn name(&self, entry: &Entry) -> String {
        match self.archive(entry) {
            None => self.root.join(&entry.path).display().to_string(),
            Some((path, _)) => format!("{}:{}", path.display(), entry.path.display()),
        }
    }

    /// Reads the first `most` bytes of `entry`, or all, into `buffer`, whose memory is reused.
    pub fn read(&self, entry: &Entry, most: u64, buffer: &mut Vec<u8>) -> Result<(), Reason> {
        if entry.size > MAX_FILE {
            return Err(format!("the file has {} bytes, more than the {MAX_FILE} allowed for a picture", entry.size));
        }
        let failed = |e: io::Error| format!("cannot be read: {e}");
        let expected = entry.size.min(most) as usize;
        buffer.clear();
        match self.archive(entry) {
            Some((_, archive)) => {
                buffer.resize(expected, 0);
                let got = read_up_to(archive, entry.at[0], buffer).map_err(failed)?;
                buffer.truncate(got);
            }
            None => {
                let file = File::open(self.root.join(&entry.path)).map_err(failed)?;
                buffer.reserve_exact(expected);
                file.take(most.min(MAX_FILE)).read_to_end(buffer).map_err(failed)?;
            }
        }
        if buffer.len() < expected {
            return Err("the file became shorter since it was listed".into());
        }
        Ok(())
    }

    fn walk(&self, folder: &Path, links: &mut Vec<PathBuf>, entries: &mut Vec<Entry>) -> Result<()> {
        let full = self.root.join(folder);
        let unreadable = |e: io::Error| {
            Error::data(format!("{}: the folder cannot be read: {e}", full.display()))
                .caused_by(e)
                .hint("Check that it exists and that you may read it (`ls -ld`).")
        };
        for item in fs::read_dir(&full).map_err(unreadable)? {
            let item = item.map_err(unreadable)?;
            let name = item.file_name();
            if hidden(&name) {
                continue;
            }
            let path = folder.join(&name);
            let link = item.file_type().map_err(unreadable)?.is_symlink();
            match fs::metadata(item.path()) {
                Ok(meta) if meta.is_dir() && link => {
                    let target = fs::canonicalize(item.path()).map_err(unreadable)?;
                    let here = fs::canonicalize(&full).map_err(unreadable)?;
                    // A link to where it came from would never end.
                    if !here.starts_with(&target) && !links.contains(&target) {
                        links.push(target);
                        self.walk(&path, links, entries)?;
                        links.pop();
                    }
                }
                Ok(meta) if meta.is_dir() => self.walk(&path, links, entries)?,
                Ok(meta) if meta.is_file() => {
                    let entry = Entry { path: path.into(), size: meta.len(), at: times(&meta) };
                    if self.may_be_picture(&entry) {
                        entries.push(entry);
                    }
                }
                // Sockets and devices are no pictures.
                Ok(_) => {}
                // A link that leads nowhere: listed, so that reading it says what is wrong.
                Err(_) => {
                    let entry = Entry { path: path.into(), ..Entry::default() };
                    if has_picture_name(&entry.path) {
                        entries.push(entry);
                    }
                }
            }
        }
        Ok(())
    }

    /// A file counts when its name says picture (then it must be one) or when its first bytes do.
    fn may_be_picture(&self, entry: &Entry) -> bool {
        if has_picture_name(&entry.path) {
            return true;
        }
        let mut start = Vec::new();
        // "BM" alone, the mark of BMP, begins many a text.
        self.read(entry, 16, &mut start).is_ok()
            && matches!(decode::sniff(&start), Kind::Known(format) if format != Format::Bmp)
    }
}

fn unreadable(path: &Path, e: io::Error) -> Error {
    Error::data(format!("{}: cannot be read as a .tar archive: {e}", path.display())).caused_by(e).hint(
        "Name a folder with a folder per class, a .tar of one (not compressed), or a folder with the CIFAR-10 binaries.",
    )
}

/// A part of a file, as a file of its own.
struct Region<'a> {
    file: &'a File,
    begin: u64,
    length: u64,
    at: u64,
}

impl Read for Region<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = self.length.saturating_sub(self.at).min(buffer.len() as u64) as usize;
        let got = read_up_to(self.file, self.begin + self.at, &mut buffer[..most])?;
        self.at += got as u64;
        Ok(got)
    }
}

impl Seek for Region<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.length.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

/// Nanoseconds since 1970 of the last change of the content and, on Unix, of the last change of anything: nobody can set that one, so
/// that other bytes under an old time are noticed, and so is a change of who may read the file.
pub(crate) fn times(meta: &fs::Metadata) -> [u64; 2] {
    let modified = meta.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
    #[cfg(unix)]
    let changed = {
        use std::os::unix::fs::MetadataExt;
        (meta.ctime() as u64).wrapping_mul(1_000_000_000).wrapping_add(meta.ctime_nsec() as u64)
    };
    #[cfg(not(unix))]
    let changed = 0;
    [modified.map_or(0, |d| d.as_nanos() as u64), changed]
}

pub(crate) fn has_picture_name(path: &Path) -> bool {
    const NAMES: [&str; 15] = [
        "jpg", "jpeg", "jpe", "jfif", "png", "gif", "bmp", "webp", "tif", "tiff", "heic", "heif", "avif", "jp2", "jxl",
    ];
    path.extension().and_then(OsStr::to_str).is_some_and(|e| NAMES.iter().any(|n| e.eq_ignore_ascii_case(n)))
}

/// Whether a file of a WebDataset is the label of a picture. (A .json may be one, and may be anything else.)
pub(crate) fn is_label(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "cls")
}

/// Files that systems leave behind: `.DS_Store`, `.ipynb_checkpoints`, `__MACOSX`, `@eaDir`, `Thumbs.db`.
pub(crate) fn hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
        || ["__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini"].iter().any(|n| name == *n)
}

fn compression(magic: &[u8]) -> Option<&'static str> {
    [
        (&b"\x1f\x8b"[..], "gzip"),
        (b"\xfd7zXZ", "xz"),
        (b"BZh", "bzip2"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"PK\x03\x04", "zip"),
    ]
    .into_iter()
    .find_map(|(start, name)| magic.starts_with(start).then_some(name))
}

/// Reads at a position without moving the file's own, so that threads share one file.
pub(crate) fn read_up_to(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        #[cfg(unix)]
        let got = std::os::unix::fs::FileExt::read_at(file, &mut buffer[done..], offset + done as u64);
        #[cfg(windows)]
        let got = std::os::windows::fs::FileExt::seek_read(file, &mut buffer[done..], offset + done as u64);
        match got {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}
