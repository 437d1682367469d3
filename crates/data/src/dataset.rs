//! A data set that is ready to be trained on.

use crate::{
    cache::{Cache, Key},
    cifar::{self, Cifar},
    files::{Entry, Files},
    generated,
    layout::{self, Item, enumerate},
    loader::Loader,
    members::Members,
    options::{DatasetOptions, LoaderOptions, OnBadImage, Split},
    parallel::Workers,
    prepare::{KEEP, Preparer},
    scan::{self, Depth, Finding, Memory, Scan},
    split,
    statistics::{self, MAX_SAMPLE, Statistics, Sums},
};
use alexnode_core::{Error, ErrorCode, Result};
use image::metadata::Orientation;
use serde::Serialize;
use std::{
    path::Path,
    sync::{Arc, OnceLock, atomic::AtomicBool},
    time::Instant,
};

/// Prepared images are kept in memory up to this many bytes, so that a small data set is decoded once and not once per epoch.
const KEPT_BYTES: usize = 512 << 20;

/// What kind of source a data set came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DatasetKind {
    /// Drawn from a seed.
    Generated,
    /// A folder per class.
    Folder,
    /// A folder per class in a .tar.
    Tar,
    /// The CIFAR-10 binaries.
    Cifar10,
}

/// Where the split into train and val came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum SplitOrigin {
    /// The source says so.
    #[serde(rename = "given")]
    Given,
    /// The SHA-256 of each file decided.
    #[serde(rename = "by content hash")]
    ByContentHash,
    /// Both are generated.
    #[serde(rename = "generated")]
    Generated,
}

/// A file that was left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// Its path; `archive.tar:path` inside an archive.
    pub path: String,
    /// Why it cannot be decoded.
    pub reason: String,
}

/// Usable images of each class, in the order of the classes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PerClass {
    /// To learn from.
    pub train: Vec<usize>,
    /// To be judged on.
    pub val: Vec<usize>,
}

/// What there is to say about a data set.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DatasetInfo {
    /// What kind of source.
    pub kind: DatasetKind,
    /// The source, as it was named.
    pub source: String,
    /// Names of the classes, in natural order; a label is an index into them.
    pub classes: Vec<String>,
    /// Usable training images, after `limit`.
    pub train: usize,
    /// Usable validation images.
    pub val: usize,
    /// Side of the stored images in pixels.
    pub image_size: usize,
    /// Where the split came from.
    pub split: SplitOrigin,
    /// Images of each class.
    pub per_class: PerClass,
    /// Files that were left out.
    pub skipped: Vec<Skipped>,
    /// Mean R, G, B of the training images, from 0 to 255.
    pub mean: [f64; 3],
    /// SHA-256 (hexadecimal) of the sorted list of images: of their paths and sizes, of their content where the split depends on it, of
    /// the whole data for CIFAR-10. The same wherever the data lies; `limit` does not change it.
    pub fingerprint: String,
    /// How long opening took.
    pub seconds: f64,
}

/// Where the bytes of an image come from.
enum Source {
    Generated {
        seed: u64,
    },
    Files {
        files: Files,
        items: [Vec<Item>; 2],
        /// Where bad files are skipped: what says which are.
        skip: Option<Memory>,
    },
    Cifar(Cifar),
}

/// An image that stays in memory: its class and its bytes.
type Kept = OnceLock<(i32, Box<[u8]>)>;

/// Images with classes, in two splits, prepared to one size: what a [`Loader`] reads.
///
/// The id of an image is its index in its split's list, which is sorted by class and path (CIFAR-10: as in the files) and depends on
/// no seed; an image that is left out keeps its place in it.
pub struct Dataset {
    source: Source,
    info: DatasetInfo,
    statistics: Statistics,
    members: [Members; 2],
    kept: [Vec<Kept>; 2],
    threads: usize,
}

/// Working memory of a thread that prepares images.
pub(crate) struct Worker {
    preparer: Preparer,
    file: Vec<u8>,
}

impl Worker {
    pub fn new(image_size: usize) -> Self {
        Self { preparer: Preparer::new(image_size), file: Vec::new() }
    }
}

/// A source that has been listed and split, before anything is known about its pixels.
struct Listed {
    kind: DatasetKind,
    classes: Vec<String>,
    split: SplitOrigin,
    source: Source,
    /// For every id of each split, whether it can be used.
    usable: [Vec<bool>; 2],
    skipped: Vec<Skipped>,
    fingerprint: Key,
    /// Changes when the bytes may have changed.
    stamp: Key,
}

impl Dataset {
    /// Lists the source, splits it where it has no split of its own, looks for bad files and computes the statistics, for which up to
    /// 10,000 images of each split are decoded. What took long is kept in the cache folder. `cancel` may be set from another thread.
    ///
    /// # Errors
    /// `ERR_USAGE` for impossible options. `ERR_DATA`, naming the culprit, where the source does not exist or cannot be read, has no
    /// images, no class folders, fewer than two classes, different classes in train and val, or a file that is no picture and must
    /// not be skipped. `ERR_ABORTED` after a cancel.
    pub fn open(options: &DatasetOptions, cancel: &AtomicBool) -> Result<Self> {
        let start = Instant::now();
        options.check()?;
        let workers = Workers { threads: options.threads(), cancel };
        let cache = Cache::new(options.cache_dir.as_deref());
        let listed = list(options, &cache, workers)?;
        let size = options.image_size;
        let lengths = [0, 1].map(|split| listed.usable[split].len());
        let [train, val] = listed.usable;
        let mut members = [train, val].map(|usable| Members::new((0..usable.len() as u32).collect(), usable));
        if let Some(limit) = options.limit.filter(|&limit| limit < members[0].count) {
            let kept = members[0].first(options.seed, limit);
            members[0] = Members::new(kept, std::mem::take(&mut members[0].usable));
        }
        let kept = match &listed.source {
            Source::Cifar(_) if size == cifar::SIDE => Default::default(),
            _ => kept_slots(lengths, size * size * 3),
        };
        let mut dataset = Self {
            source: listed.source,
            info: DatasetInfo {
                kind: listed.kind,
                source: options.source.clone(),
                train: members[0].count,
                val: members[1].count,
                image_size: size,
                split: listed.split,
                per_class: PerClass::default(),
                skipped: listed.skipped,
                mean: [0.0; 3],
                fingerprint: listed.fingerprint.hex(),
                seconds: 0.0,
                classes: listed.classes,
            },
            statistics: Sums::new(0).finish(),
            members,
            kept,
            threads: workers.threads,
        };
        dataset.statistics = match dataset.measure(&listed.stamp, &cache, workers) {
            // A file has gone bad, without a trace at it, since an earlier run found it in order: look at all of them again.
            Err(error) if error.code() == ErrorCode::Data && dataset.forget_findings() => {
                return Self::open(options, cancel);
            }
            measured => measured?,
        };
        dataset.info.mean = dataset.statistics.colour;
        dataset.info.per_class = PerClass { train: dataset.count(Split::Train), val: dataset.count(Split::Val) };
        dataset.check_classes()?;
        if options.on_bad_image == OnBadImage::Error {
            dataset.try_val(&listed.stamp, &cache, workers)?;
        }
        dataset.info.seconds = start.elapsed().as_secs_f64();
        Ok(dataset)
    }

    /// What there is to say about it.
    pub fn info(&self) -> &DatasetInfo {
        &self.info
    }
    /// Usable images of `split`, after `limit`.
    pub fn len(&self, split: Split) -> usize {
        self.members[split.index()].count
    }
    /// Whether a split has no usable images; never after [`open`](Self::open).
    pub fn is_empty(&self, split: Split) -> bool {
        self.len(split) == 0
    }
    /// Mean image and colour components of the training images.
    pub fn statistics(&self) -> &Statistics {
        &self.statistics
    }
    /// How a message names image `id` of `split`: the path of its file, or what it is called in a source without files.
    ///
    /// # Panics
    /// Where the split has no such image.
    pub fn name(&self, split: Split, id: u32) -> String {
        match &self.source {
            Source::Files { files, items, .. } => files.name(&items[split.index()][id as usize].entry),
            Source::Generated { .. } | Source::Cifar(_) => format!("{}:{}:{id}", self.info.source, split.name()),
        }
    }
    /// Minibatches of one epoch, prepared ahead on threads of their own.
    ///
    /// # Errors
    /// `ERR_USAGE` for a batch or limit of 0; `ERR_DATA` where no thread can be started.
    pub fn loader(self: &Arc<Self>, options: &LoaderOptions) -> Result<Loader> {
        let order =
            self.members[options.split.index()].order(options.seed, options.epoch, options.shuffle, options.limit);
        Loader::start(Arc::clone(self), options, order, self.threads)
    }

    /// The images with these ids of a split, `size * size * 3` bytes each, in their order.
    ///
    /// # Errors
    /// `ERR_USAGE` for an id that the split does not have, `ERR_DATA` for an image that cannot be read, `ERR_ABORTED` where `cancel` is set.
    pub fn images(&self, split: Split, ids: &[u32], cancel: &AtomicBool) -> Result<Vec<u8>> {
        let usable = &self.members[split.index()].usable;
        if let Some(id) = ids.iter().find(|id| usable.get(**id as usize) != Some(&true)) {
            return Err(Error::usage(format!("{} has no usable image {id}", split.name())));
        }
        let workers = Workers { threads: self.threads, cancel };
        let init = || Worker::new(self.info.image_size);
        let images = workers.map(1, ids.len(), init, |worker, index| {
            let mut image = vec![0; self.image_bytes()];
            self.prepare(split, ids[index], worker, &mut image)?;
            Ok(image)
        })?;
        Ok(images.concat())
    }

    /// Bytes of a prepared image.
    pub(crate) fn image_bytes(&self) -> usize {
        self.info.image_size * self.info.image_size * 3
    }

    /// Writes image `id` to `out` and gives its class.
    pub(crate) fn prepare(&self, split: Split, id: u32, worker: &mut Worker, out: &mut [u8]) -> Result<i32> {
        let slot = self.kept[split.index()].get(id as usize);
        if let Some((class, image)) = slot.and_then(OnceLock::get) {
            out.copy_from_slice(image);
            return Ok(*class);
        }
        let class = self.render(split, id, worker, out)?;
        if let Some(slot) = slot {
            slot.get_or_init(|| (class, out.as_ref().into()));
        }
        Ok(class)
    }

    fn render(&self, split: Split, id: u32, worker: &mut Worker, out: &mut [u8]) -> Result<i32> {
        let size = self.info.image_size;
        match &self.source {
            Source::Generated { seed } => Ok(generated::render(*seed, split.index() as u32, id, size, out) as i32),
            Source::Cifar(cifar) => {
                let (class, image) = cifar.image(split, id as usize);
                if size == cifar::SIDE {
                    out.copy_from_slice(image);
                } else {
                    let turned = Orientation::NoTransforms;
                    let fitted = worker.preparer.fit(image, cifar::SIDE, cifar::SIDE, turned, out);
                    fitted.map_err(|reason| Error::data(format!("{} image {id}: {reason}", split.name())))?;
                }
                Ok(i32::from(class))
            }
            Source::Files { files, items, skip } => {
                let item = &items[split.index()][id as usize];
                let read = files.read(&item.entry, u64::MAX, &mut worker.file);
                read.and_then(|()| worker.preparer.prepare(&worker.file, out)).map_err(|reason| {
                    let name = files.name(&item.entry);
                    skip.as_ref().map_or_else(|| bad_image(&name, &reason), |found| gone_bad(&name, &reason, found))
                })?;
                if worker.file.capacity() > KEEP {
                    worker.file = Vec::new();
                }
                Ok(item.class as i32)
            }
        }
    }

    fn measure(&self, stamp: &Key, cache: &Cache, workers: Workers<'_>) -> Result<Statistics> {
        let size = self.info.image_size;
        let train = self.members[0].order(0, 0, false, None);
        let sample = match self.source {
            // Already in memory: all of it, as the published means are.
            Source::Cifar(_) => train,
            _ => statistics::sample(&train, MAX_SAMPLE),
        };
        let ids: &[u8] = &sample.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<_>>();
        let parts = [&b"statistics 1"[..], stamp.bytes(), self.info.fingerprint.as_bytes(), &size.to_le_bytes(), ids];
        let key = Key::of(parts);
        if let Some(kept) = cache.load("statistics", &key).and_then(|b| Statistics::from_bytes(&b, size)) {
            return Ok(kept);
        }
        let init = || (Worker::new(size), vec![0; self.image_bytes()], Sums::new(size));
        let parts = workers.fold(4, sample.len(), init, |(worker, image, sums), i| {
            self.prepare(Split::Train, sample[i], worker, image)?;
            sums.add(image);
            Ok(())
        })?;
        let mut sums = Sums::new(size);
        parts.iter().for_each(|(_, _, part)| sums.merge(part));
        let statistics = sums.finish();
        cache.store("statistics", &key, &statistics.to_bytes());
        Ok(statistics)
    }

    /// Whether the findings of an earlier run were relied on to skip bad files, and are forgotten now.
    fn forget_findings(&self) -> bool {
        matches!(&self.source, Source::Files { skip: Some(found), .. } if found.used && found.forget())
    }

    /// Decodes validation images once, so that a damaged one is found now and not hours later, after the first epoch. (Training images
    /// get the same from [`measure`](Self::measure).)
    fn try_val(&self, stamp: &Key, cache: &Cache, workers: Workers<'_>) -> Result<()> {
        let Source::Files { .. } = self.source else { return Ok(()) };
        let size = self.info.image_size;
        let key = Key::of([&b"val 1"[..], stamp.bytes(), self.info.fingerprint.as_bytes(), &size.to_le_bytes()]);
        if cache.load("val", &key).is_some() {
            return Ok(());
        }
        let sample = statistics::sample(&self.members[1].order(0, 0, false, None), MAX_SAMPLE);
        let init = || (Worker::new(size), vec![0; self.image_bytes()]);
        workers.fold(4, sample.len(), init, |(worker, image), i| {
            self.prepare(Split::Val, sample[i], worker, image).map(|_| ())
        })?;
        cache.store("val", &key, b"decoded");
        Ok(())
    }

    /// Usable images of each class.
    fn count(&self, split: Split) -> Vec<usize> {
        let ids = self.members[split.index()].order(0, 0, false, None);
        let classes: Vec<usize> = match &self.source {
            Source::Files { items, .. } => {
                ids.iter().map(|&id| items[split.index()][id as usize].class as usize).collect()
            }
            Source::Cifar(cifar) => ids.iter().map(|&id| usize::from(cifar.image(split, id as usize).0)).collect(),
            Source::Generated { .. } => ids.iter().map(|&id| id as usize % generated::CLASSES.len()).collect(),
        };
        let mut counts = vec![0; self.info.classes.len()];
        classes.into_iter().for_each(|class| counts[class] += 1);
        counts
    }

    /// Every class has a usable image on both sides. A `limit` may leave training classes empty: that is its nature.
    fn check_classes(&self) -> Result<()> {
        let PerClass { train, val } = &self.info.per_class;
        let limited = self.members[0].candidates.len() < self.members[0].usable.len();
        for (side, counts) in [("train", train), ("val", val)] {
            if limited && side == "train" {
                continue;
            }
            let empty: Vec<&String> =
                self.info.classes.iter().zip(counts).filter(|(_, n)| **n == 0).map(|(class, _)| class).collect();
            if !empty.is_empty() {
                return Err(Error::data(format!(
                    "{}: no usable image is left in {side} of: {}",
                    self.info.source,
                    enumerate(&empty)
                ))
                .hint(
                    "repair the files that were skipped or add others; every class needs images in train and in val",
                ));
            }
        }
        Ok(())
    }
}

/// Places for the images that stay in memory. All of them where they fit; of a larger set the first ones, if it is a quarter at least:
/// fewer would cost memory and save nothing.
fn kept_slots(lengths: [usize; 2], image_bytes: usize) -> [Vec<Kept>; 2] {
    let room = KEPT_BYTES / image_bytes;
    let total = lengths[0] + lengths[1];
    let room = if 4 * room >= total { room.min(total) } else { 0 };
    let train = lengths[0].min(room);
    let val = lengths[1].min(room - train);
    [train, val].map(|n| (0..n).map(|_| Kept::new()).collect())
}

fn bad_image(name: &str, reason: &str) -> Error {
    Error::data(format!("{name}: {reason}"))
        .hint("repair, convert or remove the file, or leave such files out with `--on-bad-image skip`")
}

/// A file that was in order when bad ones were left out. Leaving it out now would change the minibatches after it in a way that no later
/// run could repeat.
fn gone_bad(name: &str, reason: &str, found: &Memory) -> Error {
    found.forget();
    Error::data(format!("{name}: {reason}; when the data set was opened, it was in order")).hint(
        "start again, or go on with `--resume`: a file that is bad then is left out and listed. Or repair it first",
    )
}

fn list(options: &DatasetOptions, cache: &Cache, workers: Workers<'_>) -> Result<Listed> {
    if options.source == "generated" {
        return Ok(list_generated(options.seed));
    }
    let path = Path::new(&options.source);
    let meta = std::fs::metadata(path).map_err(|e| {
        Error::data(format!("{}: cannot be opened: {e}", options.source)).caused_by(e).hint(
            "`--data` takes a folder with a folder per class, a .tar of one, a folder with the CIFAR-10 binaries, or `generated`",
        )
    })?;
    if !meta.is_dir() {
        let (files, entries) = Files::tar(path)?;
        return list_files(options, DatasetKind::Tar, files, entries, cache, workers);
    }
    if let Some(found) = cifar::find(path)? {
        return list_cifar(Cifar::read(&found, cache, workers)?);
    }
    let (files, entries) = Files::folder(path)?;
    list_files(options, DatasetKind::Folder, files, entries, cache, workers)
}

fn list_generated(seed: u64) -> Listed {
    // A few images stand for the generator: a new version of it is another data set.
    let mut image = vec![0; 32 * 32 * 3];
    let mut parts = vec![b"generated".to_vec(), seed.to_le_bytes().to_vec()];
    for id in 0..8 {
        let class = generated::render(seed, Split::Train.index() as u32, id, 32, &mut image);
        parts.push([&[class as u8], &image[..]].concat());
    }
    let fingerprint = Key::of(parts.iter().map(Vec::as_slice));
    Listed {
        kind: DatasetKind::Generated,
        classes: generated::CLASSES.map(str::to_string).to_vec(),
        split: SplitOrigin::Generated,
        source: Source::Generated { seed },
        usable: [generated::TRAIN, generated::VAL].map(|n| vec![true; n as usize]),
        skipped: Vec::new(),
        fingerprint,
        stamp: fingerprint,
    }
}

fn list_cifar(cifar: Cifar) -> Result<Listed> {
    let mut parts = vec![b"cifar10".to_vec()];
    for split in Split::ALL {
        parts.push(split.name().into());
        parts.extend(cifar.hashes(split).map(|hash| hash.to_vec()));
    }
    let fingerprint = Key::of(parts.iter().map(Vec::as_slice));
    Ok(Listed {
        kind: DatasetKind::Cifar10,
        classes: cifar.classes.clone(),
        split: SplitOrigin::Given,
        usable: Split::ALL.map(|split| vec![true; cifar.len(split)]),
        source: Source::Cifar(cifar),
        skipped: Vec::new(),
        fingerprint,
        stamp: fingerprint,
    })
}

fn list_files(
    options: &DatasetOptions,
    kind: DatasetKind,
    files: Files,
    entries: Vec<Entry>,
    cache: &Cache,
    workers: Workers<'_>,
) -> Result<Listed> {
    let mut layout = layout::arrange(&options.source, entries)?;
    let depth = Depth { on_bad_image: options.on_bad_image, hash: !layout.given };
    let all: Vec<&Item> = layout.items.iter().flatten().collect();
    let stamp = scan::stamp(&files, all.iter().copied());
    let Scan { findings, memory } = scan::scan(&files, &all, depth, &stamp, cache, workers)?;
    let bad: Vec<Skipped> = all
        .iter()
        .zip(&findings)
        .filter_map(|(item, f)| Some(Skipped { path: files.name(&item.entry), reason: f.bad.clone()? }))
        .collect();
    if let (OnBadImage::Error, Some(first)) = (options.on_bad_image, bad.first()) {
        let error = bad_image(&first.path, &first.reason);
        return Err(match bad.len() {
            1 => error,
            n => error.caused_by(format!("{} more files cannot be used either", n - 1)),
        });
    }
    if bad.len() == all.len() {
        return Err(Error::data(format!("{}: none of its {} images can be decoded", options.source, all.len()))
            .caused_by(format!("{}: {}", bad[0].path, bad[0].reason))
            .hint("convert them to JPEG or PNG"));
    }
    let mut findings = findings.into_iter();
    let mut lists: [Vec<(Item, Finding)>; 2] =
        std::mem::take(&mut layout.items).map(|items| items.into_iter().zip(findings.by_ref()).collect());
    if !layout.given {
        let (items, findings): (Vec<Item>, Vec<Finding>) = std::mem::take(&mut lists[0]).into_iter().unzip();
        let sides = split::by_content(&options.source, &items, &findings, &layout.classes, options.val_fraction)?;
        for ((item, finding), side) in items.into_iter().zip(findings).zip(sides) {
            lists[side.index()].push((item, finding));
        }
    }
    let mut parts: Vec<Vec<u8>> = vec![b"files".to_vec()];
    for (split, list) in Split::ALL.iter().zip(&lists) {
        parts.push(split.name().into());
        for (item, finding) in list {
            let class = &layout.classes[item.class as usize];
            let mut line = class.clone().into_bytes();
            line.push(0);
            line.extend_from_slice(item.entry.path.as_os_str().as_encoded_bytes());
            line.push(0);
            line.extend_from_slice(&item.entry.size.to_le_bytes());
            line.extend(finding.hash.iter().flatten());
            line.push(u8::from(finding.bad.is_some()));
            parts.push(line);
        }
    }
    let usable = lists.each_ref().map(|list| list.iter().map(|(_, f)| f.bad.is_none()).collect());
    Ok(Listed {
        kind,
        split: if layout.given { SplitOrigin::Given } else { SplitOrigin::ByContentHash },
        classes: layout.classes,
        source: Source::Files {
            files,
            items: lists.map(|list| list.into_iter().map(|(item, _)| item).collect()),
            skip: (options.on_bad_image == OnBadImage::Skip).then_some(memory),
        },
        usable,
        skipped: bad,
        fingerprint: Key::of(parts.iter().map(Vec::as_slice)),
        stamp,
    })
}
