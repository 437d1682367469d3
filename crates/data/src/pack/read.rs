//! A pack as a source of images.

use super::{Colours, MANIFEST, MEAN, Manifest, PackFormat, SUMS, failed, labels, names, npy, places, sha256};
use crate::{
    cache::Key,
    files::read_up_to,
    info::{DatasetKind, Skipped, SplitOrigin},
    options::Split,
    statistics::Statistics,
};
use alexnode_core::{Error, Result};
use std::{
    collections::HashMap,
    fs::{self, File},
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// What to do about a damaged pack.
pub(super) const REPAIR: &str = "`data verify` lists what is damaged; copy the pack again, or pack the data again.";

/// An open pack. Images are read when they are asked for, by position, which for pieces of this size is no slower than a mapping, does
/// not count as memory of the process, and makes an error of a file that is cut off.
pub struct Pack {
    folder: PathBuf,
    manifest: Manifest,
    stamp: Key,
    parts: [Part; 2],
}

struct Part {
    shards: Vec<File>,
    /// -1 where an image was left out.
    labels: Vec<i32>,
    /// Begin in the shard and bytes of each JPEG, one after the other.
    places: Vec<u64>,
    names: OnceLock<Names>,
}

/// The lines of a file.
struct Names {
    text: String,
    begins: Vec<usize>,
}

impl Names {
    fn new(text: String) -> Self {
        let begins = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, begins }
    }
    fn get(&self, line: usize) -> Option<&str> {
        self.text.get(*self.begins.get(line)?..)?.lines().next()
    }
}

impl Pack {
    /// Whether there is a pack in `folder`.
    pub fn is_at(folder: &Path) -> bool {
        folder.join(MANIFEST).is_file()
    }

    /// Opens the pack in `folder`. Everything but the images is checked against its sums; of the shards it is the size.
    ///
    /// # Errors
    /// `ERR_DATA` naming the file that is missing, damaged or of another version.
    pub fn open(folder: &Path) -> Result<Self> {
        let sums = Sums::read(folder)?;
        let manifest = Self::manifest(folder)?;
        sums.check(folder, MANIFEST)?;
        let stamp = Key::of([&b"pack"[..], sums.text.as_bytes()]);
        Self::assemble(folder, manifest, stamp, |name| sums.check(folder, name))
    }

    /// What `pack.json` says.
    pub(super) fn manifest(folder: &Path) -> Result<Manifest> {
        let path = folder.join(MANIFEST);
        let bytes = fs::read(&path).map_err(|e| failed(&path, "read", e))?;
        let other = || {
            Error::data(format!("{}: not a pack that this version of alexnode reads", path.display()))
                .hint("Pack the data again, or use the version of alexnode that made the pack.")
        };
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|e| other().caused_by(e))?;
        if manifest.format != Manifest::FORMAT || manifest.version != Manifest::VERSION || manifest.shard_images == 0 {
            return Err(other());
        }
        Ok(manifest)
    }

    /// Opens the files of `manifest`; `read` gives the content of the small ones.
    pub(super) fn assemble(
        folder: &Path,
        manifest: Manifest,
        stamp: Key,
        read: impl Fn(&str) -> Result<Vec<u8>>,
    ) -> Result<Self> {
        let part = |split: Split| -> Result<Part> {
            let images = manifest.part(split).images;
            let shards = (0..manifest.shards(split)).map(|shard| open_shard(folder, &manifest, split, shard));
            let labels = array(folder, &labels(split), &[images], &read)?;
            if let Some(wrong) = labels.iter().find(|&&label| !(-1..manifest.classes.len() as i32).contains(&label)) {
                return Err(Error::data(format!(
                    "{}: there is no class {wrong}",
                    folder.join(super::labels(split)).display()
                ))
                .hint(REPAIR));
            }
            let encoded = manifest.kept == PackFormat::Tar;
            let places = if encoded { array(folder, &places(split), &[images, 2], &read)? } else { Vec::new() };
            Ok(Part { shards: shards.collect::<Result<_>>()?, labels, places, names: OnceLock::new() })
        };
        let parts = [part(Split::Train)?, part(Split::Val)?];
        Ok(Self { folder: folder.to_path_buf(), stamp, parts, manifest })
    }

    /// Whether the images are kept as pixels.
    pub(crate) fn is_raw(&self) -> bool {
        self.manifest.kept == PackFormat::Npy
    }
    /// Side of the images in pixels.
    pub fn image_size(&self) -> usize {
        self.manifest.image_size
    }
    /// Names of the classes, in the order of the labels.
    pub fn classes(&self) -> &[String] {
        &self.manifest.classes
    }
    /// What kind of source it was made of.
    pub(crate) fn made_of(&self) -> DatasetKind {
        self.manifest.source.kind
    }
    pub(crate) fn split_origin(&self) -> SplitOrigin {
        self.manifest.split
    }
    /// That of the source, as long as the pixels are those that the source would give at `size`.
    pub(crate) fn fingerprint(&self, size: usize) -> String {
        let own = &self.manifest.source.fingerprint;
        if self.is_raw() && size == self.image_size() {
            return own.clone();
        }
        let form = if self.is_raw() { "npy" } else { "tar" };
        Key::of([&b"pack"[..], own.as_bytes(), form.as_bytes(), &self.image_size().to_le_bytes()]).hex()
    }
    pub(crate) fn stamp(&self) -> Key {
        self.stamp
    }
    /// For every id of a split, whether the image is there.
    pub(crate) fn usable(&self, split: Split) -> Vec<bool> {
        self.parts[split.index()].labels.iter().map(|&label| label >= 0).collect()
    }
    /// What was left out.
    pub(crate) fn skipped(&self) -> Vec<Skipped> {
        let name = |path: &str| format!("{}:{path}", self.folder.display());
        self.manifest.skipped.iter().map(|s| Skipped { path: name(&s.path), reason: s.reason.clone() }).collect()
    }
    /// Class of an image that is there.
    pub(crate) fn class(&self, split: Split, id: u32) -> usize {
        self.parts[split.index()].labels[id as usize].max(0) as usize
    }
    /// What the image was called in the source.
    pub(crate) fn own_name(&self, split: Split, id: u32) -> String {
        let names = self.parts[split.index()].names.get_or_init(|| {
            // Names are for messages only: without the file there are ids.
            Names::new(fs::read_to_string(self.folder.join(names(split))).unwrap_or_default())
        });
        names
            .get(id as usize)
            .filter(|name| !name.is_empty())
            .map_or_else(|| format!("{}/{id}", split.name()), str::to_string)
    }
    /// `pack:name`.
    pub(crate) fn name(&self, split: Split, id: u32) -> String {
        format!("{}:{}", self.folder.display(), self.own_name(split, id))
    }

    /// Those of the training images at the size of the pack.
    ///
    /// # Errors
    /// `ERR_DATA` where the mean image is missing or damaged.
    pub(crate) fn statistics(&self) -> Result<Statistics> {
        let size = self.image_size();
        let read = |name: &str| Sums::read(&self.folder)?.check(&self.folder, name);
        let mean = array(&self.folder, MEAN, &[size, size, 3], read)?;
        let Colours { mean: colour, stdevs, vectors } = self.manifest.colours;
        Ok(Statistics { mean, stdevs, vectors, colour })
    }

    /// The file and the place in it of an image.
    fn place(&self, split: Split, id: u32) -> (&File, u64, usize) {
        let part = &self.parts[split.index()];
        let (id, per) = (id as usize, self.manifest.shard_images);
        let shard = &part.shards[id / per];
        if self.is_raw() {
            let bytes = self.manifest.image_bytes();
            let header = npy::header::<u8>(&raw_shape(&self.manifest, split, id / per)).len();
            (shard, (header + id % per * bytes) as u64, bytes)
        } else {
            (shard, part.places[2 * id], part.places[2 * id + 1] as usize)
        }
    }

    /// Pixels of an image of a raw pack, `size * size * 3` bytes, to `out`.
    ///
    /// # Errors
    /// `ERR_DATA` where they cannot be read.
    pub(crate) fn read_raw(&self, split: Split, id: u32, out: &mut [u8]) -> Result<()> {
        let (file, begin, bytes) = self.place(split, id);
        if out.len() != bytes {
            return Err(Error::shape(format!("an image of {bytes} bytes does not fit {}", out.len())));
        }
        let got = read_up_to(file, begin, out).map_err(|e| self.damaged(split, id, &format!("cannot be read: {e}")))?;
        if got < bytes { Err(self.damaged(split, id, "the file is cut off")) } else { Ok(()) }
    }

    /// Bytes of an image as they are kept, in `buffer`, whose memory is reused.
    ///
    /// # Errors
    /// `ERR_DATA` where they cannot be read.
    pub(crate) fn read(&self, split: Split, id: u32, buffer: &mut Vec<u8>) -> Result<()> {
        let (file, begin, bytes) = self.place(split, id);
        let cut = || self.damaged(split, id, "the file is cut off");
        let length = file.metadata().map_or(0, |meta| meta.len());
        if begin.checked_add(bytes as u64).is_none_or(|end| end > length) {
            return Err(cut());
        }
        buffer.resize(bytes, 0);
        let got =
            read_up_to(file, begin, buffer).map_err(|e| self.damaged(split, id, &format!("cannot be read: {e}")))?;
        if got < bytes { Err(cut()) } else { Ok(()) }
    }

    /// An image of the pack that is not what it was.
    pub(crate) fn damaged(&self, split: Split, id: u32, reason: &str) -> Error {
        let shard = self.manifest.shard_name(split, id as usize / self.manifest.shard_images);
        Error::data(format!("{} in {shard}: {reason}", self.name(split, id))).hint(REPAIR)
    }
}

/// Shape of a raw shard.
pub(super) fn raw_shape(manifest: &Manifest, split: Split, shard: usize) -> [usize; 4] {
    let size = manifest.image_size;
    [manifest.ids(split, shard).len(), size, size, 3]
}

fn open_shard(folder: &Path, manifest: &Manifest, split: Split, shard: usize) -> Result<File> {
    let path = folder.join(manifest.shard_name(split, shard));
    let file = File::open(&path).map_err(|e| failed(&path, "opened", e).hint(REPAIR))?;
    if manifest.kept == PackFormat::Npy {
        let shape = raw_shape(manifest, split, shard);
        let header = npy::header::<u8>(&shape);
        let expected = (header.len() + shape.iter().product::<usize>()) as u64;
        let mut begin = vec![0; header.len()];
        let known = read_up_to(&file, 0, &mut begin).map_err(|e| failed(&path, "read", e))?;
        let length = file.metadata().map_err(|e| failed(&path, "read", e))?.len();
        if length != expected || known != header.len() || begin != header {
            return Err(Error::data(format!(
                "{}: expected {expected} bytes for images of {shape:?}, got {length}",
                path.display()
            ))
            .hint(REPAIR));
        }
    }
    Ok(file)
}

fn array<T: npy::Element>(
    folder: &Path,
    name: &str,
    shape: &[usize],
    read: impl Fn(&str) -> Result<Vec<u8>>,
) -> Result<Vec<T>> {
    let bytes = read(name)?;
    npy::elements(shape, &bytes).ok_or_else(|| {
        let path = folder.join(name);
        Error::data(format!("{}: not an array of {} with shape {shape:?}", path.display(), T::DESCR)).hint(REPAIR)
    })
}

/// `SHA256SUMS`.
pub(super) struct Sums {
    text: String,
    of: HashMap<String, String>,
}

impl Sums {
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(SUMS);
        let text = fs::read_to_string(&path).map_err(|e| failed(&path, "read", e).hint(REPAIR))?;
        let of = text
            .lines()
            .filter_map(|line| line.split_once("  "))
            .map(|(sum, name)| (name.into(), sum.into()))
            .collect();
        Ok(Self { text, of })
    }

    /// The sum of a file, where there is one.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.of.get(name).map(String::as_str)
    }

    /// The content of a file that is as it was.
    pub fn check(&self, folder: &Path, name: &str) -> Result<Vec<u8>> {
        let path = folder.join(name);
        let bytes = fs::read(&path).map_err(|e| failed(&path, "read", e).hint(REPAIR))?;
        if self.get(name) != Some(&sha256(&bytes)) {
            return Err(
                Error::data(format!("{}: damaged: its SHA-256 is not the one in {SUMS}", path.display())).hint(REPAIR)
            );
        }
        Ok(bytes)
    }
}
