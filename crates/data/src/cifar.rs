//! The CIFAR-10 binaries: `data_batch_*.bin` to learn from, `test_batch.bin` to be judged on, plain or as .xz.
//! A record is a label byte and 32x32 bytes each of red, green and blue (<https://www.cs.toronto.edu/~kriz/cifar.html>).

use crate::{
    cache::{Cache, Key},
    layout::natural,
    options::Split,
    parallel::Workers,
};
use alexnode_core::{Error, Result};
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File},
    io::{BufReader, Read},
    path::{Path, PathBuf},
};

/// Side of the images in pixels.
pub(crate) const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;
const RECORD: usize = 1 + 3 * PLANE;
/// A file with more records than this is not CIFAR-10 (whose files have 10,000), whatever a compressed one claims.
const MAX_RECORDS: usize = 100_000;

const CLASSES: [&str; 10] = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// The images in memory, channels last.
pub(crate) struct Cifar {
    pub classes: Vec<String>,
    parts: [Vec<Part>; 2],
}

/// The files of a data set.
pub(crate) struct Found {
    train: Vec<PathBuf>,
    test: PathBuf,
    names: Option<PathBuf>,
}

/// Looks for the files in `folder`, or in the folder in it that the official archive makes; `None` where there is no training file of
/// CIFAR-10.
///
/// # Errors
/// `ERR_DATA` where the test file is missing.
pub(crate) fn find(folder: &Path) -> Result<Option<Found>> {
    match find_in(folder)? {
        None => find_in(&folder.join("cifar-10-batches-bin")),
        found => Ok(found),
    }
}

fn find_in(folder: &Path) -> Result<Option<Found>> {
    let mut train: Vec<(String, PathBuf)> = Vec::new();
    let mut test = None;
    // A folder that cannot be read is reported by whoever lists it next.
    let Ok(items) = fs::read_dir(folder) else { return Ok(None) };
    for path in items.flatten().map(|item| item.path()) {
        let Some(name) = path.file_name().and_then(|n| n.to_str()) else { continue };
        let Some(stem) = name.strip_suffix(".xz").unwrap_or(name).strip_suffix(".bin").map(str::to_string) else {
            continue;
        };
        if stem == "test_batch" {
            // Where a file is there in both forms, the plain one is read.
            test = Some(test.take().filter(|_| name.ends_with(".xz")).unwrap_or(path));
        } else if stem.starts_with("data_batch_") {
            match train.iter_mut().find(|(s, _)| *s == stem) {
                Some((_, kept)) if !name.ends_with(".xz") => *kept = path,
                Some(_) => {}
                None => train.push((stem, path)),
            }
        }
    }
    if train.is_empty() {
        return Ok(None);
    }
    let test = test.ok_or_else(|| {
        Error::data(format!("{}: test_batch.bin (or test_batch.bin.xz) is missing", folder.display()))
            .hint("Put it beside the data_batch files: its images are the validation set.")
    })?;
    train.sort_by(|a, b| natural(&a.0, &b.0));
    let names = Some(folder.join("batches.meta.txt")).filter(|p| p.is_file());
    Ok(Some(Found { train: train.into_iter().map(|(_, path)| path).collect(), test, names }))
}

impl Cifar {
    /// Reads all files, one on each thread. What was compressed is kept plain in `cache`, since decompressing takes seconds.
    ///
    /// # Errors
    /// `ERR_DATA` naming the file that is damaged.
    pub fn read(found: &Found, cache: &Cache, workers: Workers<'_>) -> Result<Self> {
        let classes = match &found.names {
            Some(path) => class_names(path)?,
            None => CLASSES.map(str::to_string).to_vec(),
        };
        let paths: Vec<&PathBuf> = found.train.iter().chain([&found.test]).collect();
        let mut train = workers.map(1, paths.len(), || (), |(), i| read_file(paths[i], classes.len(), cache))?;
        let mut val = train.split_off(found.train.len());
        for parts in [&mut train, &mut val] {
            let mut first = 0;
            for part in parts.iter_mut() {
                part.first = first;
                first += part.labels.len();
            }
        }
        Ok(Self { classes, parts: [train, val] })
    }

    /// Images of `split`.
    pub fn len(&self, split: Split) -> usize {
        self.parts[split.index()].iter().map(|part| part.labels.len()).sum()
    }
    /// SHA-256 of every (uncompressed) file of `split`.
    pub fn hashes(&self, split: Split) -> impl Iterator<Item = &[u8; 32]> {
        self.parts[split.index()].iter().map(|part| &part.hash)
    }
    /// Class, and `32 * 32 * 3` bytes, channels last.
    pub fn image(&self, split: Split, id: usize) -> (u8, &[u8]) {
        let parts = &self.parts[split.index()];
        let part = &parts[parts.partition_point(|part| part.first <= id) - 1];
        let i = id - part.first;
        (part.labels[i], &part.pixels[i * 3 * PLANE..][..3 * PLANE])
    }
}

fn class_names(path: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(path)
        .map_err(|e| Error::data(format!("{}: cannot be read: {e}", path.display())).caused_by(e))?;
    let names: Vec<String> = text.lines().map(str::trim).filter(|l| !l.is_empty()).map(str::to_string).collect();
    if !(2..=256).contains(&names.len()) {
        return Err(Error::data(format!(
            "{}: expected a class name per line, got {} lines",
            path.display(),
            names.len()
        ))
        .hint("The file of CIFAR-10 has ten; without the file its names are used."));
    }
    Ok(names)
}

/// What one file holds.
struct Part {
    /// The id of its first image.
    first: usize,
    hash: [u8; 32],
    labels: Vec<u8>,
    pixels: Vec<u8>,
}

fn read_file(path: &Path, classes: usize, cache: &Cache) -> Result<Part> {
    let failed = |e: std::io::Error| {
        Error::data(format!("{}: cannot be read: {e}", path.display()))
            .caused_by(e)
            .hint("Copy or download the file again.")
    };
    let file = File::open(path).map_err(failed)?;
    let most = (MAX_RECORDS * RECORD) as u64 + 1;
    let mut raw = Vec::new();
    if path.extension().is_some_and(|e| e == "xz") {
        let meta = file.metadata().map_err(failed)?;
        let place = fs::canonicalize(path).map_err(failed)?;
        let time = format!("{:?}", meta.modified().ok());
        let key = Key::of([place.as_os_str().as_encoded_bytes(), &meta.len().to_le_bytes(), time.as_bytes()]);
        if let Some(kept) = cache.load("cifar", &key) {
            raw = kept;
        } else {
            let file = BufReader::with_capacity(1 << 20, file);
            lzma_rust2::XzReader::new(file, true).take(most).read_to_end(&mut raw).map_err(failed)?;
            cache.store("cifar", &key, &raw);
        }
    } else {
        file.take(most).read_to_end(&mut raw).map_err(failed)?;
    }
    if raw.is_empty() || raw.len() % RECORD != 0 || raw.len() as u64 == most {
        return Err(Error::data(format!(
            "{}: expected a multiple of {RECORD} bytes (CIFAR-10 records), got {}",
            path.display(),
            raw.len()
        ))
        .hint("Copy or download the file again."));
    }
    let mut part = Part {
        first: 0,
        hash: Sha256::digest(&raw).into(),
        labels: Vec::new(),
        pixels: vec![0; raw.len() / RECORD * 3 * PLANE],
    };
    for (i, (record, image)) in raw.chunks_exact(RECORD).zip(part.pixels.chunks_exact_mut(3 * PLANE)).enumerate() {
        if usize::from(record[0]) >= classes {
            return Err(Error::data(format!(
                "{}: record {i} has class {}, but there are {classes} classes",
                path.display(),
                record[0]
            )));
        }
        part.labels.push(record[0]);
        let [red, green, blue] = [0, 1, 2].map(|c| &record[1 + c * PLANE..][..PLANE]);
        for (pixel, ((r, g), b)) in image.chunks_exact_mut(3).zip(red.iter().zip(green).zip(blue)) {
            pixel.copy_from_slice(&[*r, *g, *b]);
        }
    }
    Ok(part)
}
