//! The files of ILSVRC2012 as they are handed out: a .tar of a .tar per class to learn from, a flat .tar to be judged on, and the development
//! kit with what the latter shows. The kit numbers the classes in an order of its own (`ILSVRC2012_ID`); here as everywhere they are
//! sorted by their WordNet ids, and labels go from number to id to class.
//!
//! Paths are those of the usual folders (`train/n01440764/n01440764_18.JPEG`), so that ids, order and fingerprint are theirs, too.

mod mat;

use crate::{
    files::{Entry, Files},
    layout::{self, Classes, Item, Layout},
};
use alexnode_core::{Error, Result};
use flate2::read::GzDecoder;
use std::{
    collections::HashMap,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

const TRAIN: [&str; 2] = ["ILSVRC2012_img_train.tar", "img_train.tar"];
const VAL: [&str; 2] = ["ILSVRC2012_img_val.tar", "img_val.tar"];
const META: &str = "meta.mat";
const TRUTH: &str = "ILSVRC2012_validation_ground_truth.txt";
const KIT: &str = "ILSVRC2012_devkit_t12";
/// The two files of the kit are small.
const MAX_KIT: u64 = 64 << 20;

/// The archives in a folder.
pub(crate) struct Found {
    train: PathBuf,
    val: Option<PathBuf>,
}

/// Looks for the archives; `None` where there is none of training images.
pub(crate) fn find(folder: &Path) -> Option<Found> {
    let first = |names: [&str; 2]| names.into_iter().map(|name| folder.join(name)).find(|path| path.is_file());
    Some(Found { train: first(TRAIN)?, val: first(VAL) })
}

/// Lists the images: one pass over the headers of the archives.
///
/// # Errors
/// `ERR_DATA` where an archive is cut off or the kit does not fit it.
pub(crate) fn open(folder: &Path, found: &Found) -> Result<(Files, Layout)> {
    let paths: Vec<PathBuf> = std::iter::once(&found.train).chain(&found.val).cloned().collect();
    let files = Files::archives(folder, &paths)?;
    let mut classes = Classes::default();
    let mut lists = [Vec::new(), Vec::new()];
    let mut inner = Vec::new();
    files.members(0, None, |entry| {
        if entry.path.extension().is_some_and(|end| end == "tar") {
            inner.push(entry);
        }
        Ok(())
    })?;
    if inner.is_empty() {
        return Err(Error::data(format!("{}: there are no archives of classes in it", found.train.display()))
            .hint("It holds a .tar per class, n01440764.tar and on; the file is as it was handed out."));
    }
    for archive in inner {
        let wnid = archive.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let class = classes.number(&wnid);
        files.members(0, Some(&archive), |entry| {
            let path = Path::new("train").join(&wnid).join(&entry.path).into();
            lists[0].push(Item { entry: Entry { path, ..entry }, class });
            Ok(())
        })?;
    }
    if found.val.is_some() {
        let kit = Kit::read(folder)?;
        files.members(1, None, |entry| {
            let wnid = kit.class(&entry.path)?;
            let class = classes.number(wnid);
            let path = Path::new("val").join(wnid).join(entry.path.file_name().unwrap_or_default()).into();
            lists[1].push(Item { entry: Entry { path, ..entry }, class });
            Ok(())
        })?;
    }
    let layout = layout::arranged(&folder.display().to_string(), classes, lists, found.val.is_some())?;
    Ok((files, layout))
}

/// What the development kit says about the validation images.
struct Kit {
    /// Where the truth was found, for messages.
    path: PathBuf,
    /// `ILSVRC2012_ID` of validation image `i + 1`.
    truth: Vec<u32>,
    /// WordNet id by `ILSVRC2012_ID`.
    wnids: HashMap<u32, String>,
}

impl Kit {
    fn read(folder: &Path) -> Result<Self> {
        let (_, meta) = kit_file(folder, META)?;
        let (path, truth) = kit_file(folder, TRUTH)?;
        let wnids = mat::synsets(&meta).map_err(|reason| {
            Error::data(format!("{}: {META}: {reason}", folder.display()))
                .hint("Take the file from the development kit of ILSVRC2012 again.")
        })?;
        let wrong = |line: &str| {
            Error::data(format!("{}: expected the number of a class per line, got '{line}'", path.display()))
                .hint("Take the file from the development kit of ILSVRC2012 again.")
        };
        let text = String::from_utf8_lossy(&truth);
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let truth = lines.map(|line| line.parse().map_err(|_| wrong(line))).collect::<Result<_>>()?;
        Ok(Self { path, truth, wnids })
    }

    /// The WordNet id of what a validation image shows.
    fn class(&self, image: &Path) -> Result<&str> {
        let name = image.file_stem().unwrap_or_default().to_string_lossy();
        let unknown = |what: String| {
            Error::data(format!("{}: {what}", image.display()))
                .hint("The archive and the development kit are of different sets; take both of ILSVRC2012.")
        };
        let number = name.rsplit('_').next().and_then(|digits| digits.parse::<usize>().ok());
        let number = number.ok_or_else(|| unknown("expected a name such as ILSVRC2012_val_00000001.JPEG".into()))?;
        let id = number.checked_sub(1).and_then(|index| self.truth.get(index));
        let id = id.ok_or_else(|| unknown(format!("image {number} is not in {}", self.path.display())))?;
        let wnid = self.wnids.get(id).ok_or_else(|| unknown(format!("class {id} is not in {META}")))?;
        Ok(wnid)
    }
}

/// A file of the kit: beside the archives, in the unpacked kit, or in the kit as it is handed out.
fn kit_file(folder: &Path, name: &str) -> Result<(PathBuf, Vec<u8>)> {
    for place in ["", "data", &format!("{KIT}/data")] {
        let path = folder.join(place).join(name);
        if path.is_file() {
            let bytes = fs::read(&path)
                .map_err(|e| Error::data(format!("{}: cannot be read: {e}", path.display())).caused_by(e))?;
            return Ok((path, bytes));
        }
    }
    let kit = folder.join(format!("{KIT}.tar.gz"));
    if kit.is_file() {
        let unreadable =
            |e| Error::data(format!("{}: cannot be read: {e}", kit.display())).caused_by(e).hint("Download it again.");
        let mut archive = tar::Archive::new(GzDecoder::new(File::open(&kit).map_err(unreadable)?));
        for entry in archive.entries().map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            if entry.path().is_ok_and(|path| path.file_name().is_some_and(|file| file == name)) {
                let mut bytes = Vec::new();
                entry.take(MAX_KIT).read_to_end(&mut bytes).map_err(unreadable)?;
                return Ok((kit.join(name), bytes));
            }
        }
    }
    Err(Error::data(format!("{}: {name} is missing", folder.display())).hint(format!(
        "Put {KIT}.tar.gz, or {META} and {TRUTH} out of it, beside the archives: they say what the validation images show."
    )))
}
