//! Packs: a data set prepared once and for all, in files that other tools can read, too.
//!
//! ```text
//! pack.json            what it is: classes, numbers of images, colours, what was left out
//! SHA256SUMS           of every other file; `sha256sum -c SHA256SUMS` checks it as well
//! mean.npy             mean image of the training images, f32, (size, size, 3)
//! train-00000.npy ...  images as u8, (n, size, size, 3), R G B; black where a file was left out
//!   or train-00000.tar WebDataset: 000000000.jpg beside 000000000.cls with the index of the class
//! train-labels.npy     i32, (images); -1 where a file was left out
//! train-places.npy     of a .tar: u64, (images, 2): where the JPEG begins in its shard, and its bytes
//! train-names.txt      a line per image: what it was called in the source
//! val-...              the same for the other split
//! ```
//!
//! The index of an image in `labels` is its id, the same as in the source: order and random numbers of a training do not change.

mod npy;
mod read;
mod verify;
mod write;

pub use read::Pack;
pub use verify::{Checked, Damaged, Verifier};
pub use write::{Packer, Packing, Progress};

use crate::{
    info::{DatasetKind, Skipped, SplitOrigin},
    options::{DatasetOptions, Split},
    statistics::Statistics,
};
use alexnode_core::{Error, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

const MANIFEST: &str = "pack.json";
const SUMS: &str = "SHA256SUMS";
const MEAN: &str = "mean.npy";
/// Images of a raw shard: 400 MB at 256 pixels, which is what a kill can cost.
const RAW_SHARD: usize = 2048;
/// Images of an encoded shard: some 250 MB at 256 pixels.
const ENCODED_SHARD: usize = 8192;
/// Quality of the JPEGs: that of the 2012 code (make-data).
const QUALITY: u8 = 95;

/// How the images are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PackFormat {
    /// Pixels as they are, `size * size * 3` bytes an image.
    #[default]
    Npy,
    /// JPEGs in .tar files.
    Tar,
}

/// What to pack, and where to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PackOptions {
    /// The source; its `image_size` is that of the pack. A `limit` is refused: leaving images out is a matter of the training.
    pub data: DatasetOptions,
    /// The folder to write: absent, empty, or begun by the same call.
    pub target: PathBuf,
    /// How the images are kept. Default: raw.
    #[serde(default)]
    pub format: PackFormat,
    /// Images per shard. Default: 2048 raw ones, 8192 JPEGs.
    #[serde(default)]
    pub shard_images: Option<usize>,
}

impl PackOptions {
    fn check(&self) -> Result<()> {
        if self.shard_images == Some(0) {
            return Err(Error::usage("shardImages: expected at least 1 image, got 0"));
        }
        if self.data.limit.is_some() {
            return Err(Error::usage("limit: a pack has all images of its source")
                .hint("Pack all of them and give the limit to the training."));
        }
        Ok(())
    }

    fn shard_images(&self) -> usize {
        self.shard_images.unwrap_or(match self.format {
            PackFormat::Npy => RAW_SHARD,
            PackFormat::Tar => ENCODED_SHARD,
        })
    }
}

/// The images of one split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Part {
    /// Ids, those of left out files among them.
    images: usize,
    /// Images that are there.
    usable: usize,
}

/// What the pack was made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Origin {
    kind: DatasetKind,
    fingerprint: String,
}

/// What is written in `pack.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    format: String,
    version: u32,
    kept: PackFormat,
    image_size: usize,
    shard_images: usize,
    classes: Vec<String>,
    split: SplitOrigin,
    source: Origin,
    train: Part,
    val: Part,
    skipped: Vec<Skipped>,
    colours: Colours,
}

/// What [`Statistics`] has beside the mean image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Colours {
    mean: [f64; 3],
    stdevs: [f32; 3],
    vectors: [[f32; 3]; 3],
}

impl From<&Statistics> for Colours {
    fn from(statistics: &Statistics) -> Self {
        let Statistics { stdevs, vectors, colour, .. } = *statistics;
        Self { mean: colour, stdevs, vectors }
    }
}

impl Manifest {
    const FORMAT: &str = "alexnode-pack";
    const VERSION: u32 = 1;

    fn part(&self, split: Split) -> Part {
        [self.train, self.val][split.index()]
    }
    fn shards(&self, split: Split) -> usize {
        self.part(split).images.div_ceil(self.shard_images)
    }
    fn image_bytes(&self) -> usize {
        self.image_size * self.image_size * 3
    }
    fn shard_name(&self, split: Split, shard: usize) -> String {
        let end = match self.kept {
            PackFormat::Npy => "npy",
            PackFormat::Tar => "tar",
        };
        format!("{}-{shard:05}.{end}", split.name())
    }
    /// Ids of a shard.
    fn ids(&self, split: Split, shard: usize) -> std::ops::Range<usize> {
        let first = shard * self.shard_images;
        first..(first + self.shard_images).min(self.part(split).images)
    }
    /// Every file of the pack but `SHA256SUMS`, sorted by name.
    fn files(&self) -> Vec<String> {
        let mut files = vec![MANIFEST.to_string(), MEAN.into()];
        for split in Split::ALL {
            files.extend((0..self.shards(split)).map(|shard| self.shard_name(split, shard)));
            files.extend([labels(split), names(split)]);
            if self.kept == PackFormat::Tar {
                files.push(places(split));
            }
        }
        files.sort_unstable();
        files
    }
}

fn labels(split: Split) -> String {
    format!("{}-labels.npy", split.name())
}
fn places(split: Split) -> String {
    format!("{}-places.npy", split.name())
}
fn names(split: Split) -> String {
    format!("{}-names.txt", split.name())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// An error of the file system at `path`.
fn failed(path: &Path, doing: &str, e: io::Error) -> Error {
    let full = e.kind() == io::ErrorKind::StorageFull;
    let error = Error::data(format!("{}: cannot be {doing}: {e}", path.display())).caused_by(e);
    if full { error.hint("Make room and run the same command again: it goes on where it stopped.") } else { error }
}

/// Writes a whole file that is complete or not there, even after a loss of power.
fn persist(folder: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let path = folder.join(name);
    let write = || -> io::Result<()> {
        let part = folder.join(format!("{name}.part"));
        let mut file = File::create(&part)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&part, &path)?;
        sync_folder(folder)
    };
    write().map_err(|e| failed(&path, "written", e))
}

/// Sees to it that a rename in `folder` is on the disk.
fn sync_folder(folder: &Path) -> io::Result<()> {
    // Other systems cannot open folders, and need not.
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}
