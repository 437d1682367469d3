//! A data set that is ready to be trained on.

use crate::{
    cache::{Cache, Key},
    cifar,
    info::{DatasetInfo, DatasetKind, PerClass},
    layout::enumerate,
    list::{Listed, list, list_files},
    members::Members,
    options::{Balance, DatasetOptions, LoaderOptions, OnBadImage, Split},
    parallel::Workers,
    source::{Source, Worker},
    spool::Spool,
    statistics::{self, MAX_SAMPLE, Statistics, Sums},
};
use alexnode_core::{Error, ErrorCode, Result};
use std::{
    collections::HashMap,
    sync::{OnceLock, atomic::AtomicBool},
    time::Instant,
};

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
    /// The label of each class of the source.
    labels: Vec<usize>,
    kept: [Vec<Kept>; 2],
    balance: Balance,
    threads: usize,
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
        let workers = Workers { threads: options.threads(), cancel };
        let cache = Cache::new(options.cache_dir.as_deref());
        let (mut dataset, stamp) = Self::list(options, cancel)?;
        dataset.statistics = match dataset.measure(&stamp, &cache, workers) {
            // A file has gone bad, without a trace at it, since an earlier run found it in order: look at all of them again.
            Err(error) if error.code() == ErrorCode::Data && dataset.forget_findings() => {
                return Self::open(options, cancel);
            }
            measured => measured?,
        };
        dataset.info.mean = dataset.statistics.colour;
        if options.on_bad_image == OnBadImage::Error {
            dataset.try_val(&stamp, &cache, workers)?;
        }
        dataset.info.seconds = start.elapsed().as_secs_f64();
        Ok(dataset)
    }

    /// As [`open`](Self::open), but without the statistics and without a look at pixels that only they need. Also gives what changes when
    /// the bytes may have changed.
    pub(crate) fn list(options: &DatasetOptions, cancel: &AtomicBool) -> Result<(Self, Key)> {
        options.check()?;
        let workers = Workers { threads: options.threads(), cancel };
        let listed = list(options, &Cache::new(options.cache_dir.as_deref()), workers)?;
        Self::of(listed, options)
    }

    /// As [`open`](Self::open), of images that were handed over; `options.source` only names them.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn of_spool(spool: Spool, options: &DatasetOptions, cancel: &AtomicBool) -> Result<Self> {
        let start = Instant::now();
        options.check()?;
        let workers = Workers { threads: options.threads(), cancel };
        let cache = Cache::new(options.cache_dir.as_deref());
        let (files, layout) = spool.finish(&options.source)?;
        let listed = list_files(options, DatasetKind::Stream, files, layout, &cache, workers)?;
        let (mut dataset, stamp) = Self::of(listed, options)?;
        dataset.statistics = dataset.measure(&stamp, &cache, workers)?;
        dataset.info.mean = dataset.statistics.colour;
        dataset.info.seconds = start.elapsed().as_secs_f64();
        Ok(dataset)
    }

    fn of(listed: Listed, options: &DatasetOptions) -> Result<(Self, Key)> {
        let Listed {
            kind,
            classes,
            split,
            source,
            usable,
            skipped,
            quarantined,
            kept_together,
            taken_apart,
            fingerprint,
            stamp,
        } = listed;
        let size = options.image_size;
        let (classes, labels) = numbered(classes, options.classes.as_deref());
        let lengths = [0, 1].map(|split| usable[split].len());
        let mut members = usable.map(|usable| Members::new((0..usable.len() as u32).collect(), usable));
        if let Some(limit) = options.limit.filter(|&limit| limit < members[0].count) {
            let kept = members[0].first(options.seed, limit);
            members[0] = Members::new(kept, std::mem::take(&mut members[0].usable));
        }
        let kept = match &source {
            Source::Cifar(_) if size == cifar::SIDE => Default::default(),
            // Reading one is as fast as copying one that was kept.
            Source::Pack(pack) if pack.is_raw() => Default::default(),
            _ => kept_slots(lengths, size * size * 3, options.keep_bytes),
        };
        let mut dataset = Self {
            source,
            info: DatasetInfo {
                kind,
                source: options.source.clone(),
                train: members[0].count,
                val: members[1].count,
                image_size: size,
                split,
                per_class: PerClass::default(),
                class_weights: None,
                skipped,
                quarantined,
                kept_together,
                taken_apart,
                mean: [0.0; 3],
                fingerprint,
                seconds: 0.0,
                classes,
            },
            statistics: Sums::new(0).finish(),
            members,
            labels,
            kept,
            balance: options.balance,
            threads: options.threads(),
        };
        dataset.info.per_class = PerClass { train: dataset.count(Split::Train), val: dataset.count(Split::Val) };
        if options.balance == Balance::Loss {
            dataset.info.class_weights = Some(weights(&dataset.info.per_class.train));
        }
        dataset.check_classes()?;
        Ok((dataset, stamp))
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
        self.source.name(split, id, &self.info.source)
    }
    /// Images of `split`, those that are left out among them: an id of a minibatch is taken modulo this.
    pub(crate) fn ids(&self, split: Split) -> u32 {
        self.members[split.index()].usable.len() as u32
    }
    /// The ids of an epoch, in their order.
    pub(crate) fn order(&self, options: &LoaderOptions) -> Vec<u32> {
        let LoaderOptions { split, seed, epoch, shuffle, limit, .. } = *options;
        let members = &self.members[split.index()];
        let balanced = self.balance == Balance::Sample && split == Split::Train && shuffle && limit.is_none();
        if balanced {
            members.balanced(seed, epoch, self.info.classes.len(), |id| self.class(split, id))
        } else {
            members.order(seed, epoch, shuffle, limit)
        }
    }

    /// How many threads may prepare images.
    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    /// For every id of a split, whether the image can be used.
    pub(crate) fn usable(&self, split: Split) -> &[bool] {
        &self.members[split.index()].usable
    }
    /// Index of the class of an image.
    pub(crate) fn class(&self, split: Split, id: u32) -> usize {
        self.labels[self.source.class(split, id)]
    }
    /// What an image is called in the data set, wherever that lies.
    pub(crate) fn own_name(&self, split: Split, id: u32) -> String {
        self.source.own_name(split, id)
    }
    /// What kind of source the images come from; of a pack, what that was made of.
    pub(crate) fn made_of(&self) -> DatasetKind {
        if let Source::Pack(pack) = &self.source { pack.made_of() } else { self.info.kind }
    }
    /// Writes image `id` to `out`, and keeps nothing.
    pub(crate) fn render(&self, split: Split, id: u32, worker: &mut Worker, out: &mut [u8]) -> Result<()> {
        self.source.render(split, id, self.info.image_size, worker, out)
    }

    /// The images with these ids of a split, `size * size * 3` bytes each, in their order.
    ///
    /// # Errors
    /// `ERR_USAGE` for an id that the split does not have, `ERR_DATA` for an image that cannot be read, `ERR_ABORTED` where `cancel` is set.
    pub fn images(&self, split: Split, ids: &[u32], cancel: &AtomicBool) -> Result<Vec<u8>> {
        let usable = self.usable(split);
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
        self.source.render(split, id, self.info.image_size, worker, out)?;
        let class = self.class(split, id) as i32;
        if let Some(slot) = slot {
            slot.get_or_init(|| (class, out.as_ref().into()));
        }
        Ok(class)
    }

    fn measure(&self, stamp: &Key, cache: &Cache, workers: Workers<'_>) -> Result<Statistics> {
        let size = self.info.image_size;
        let train = self.members[0].order(0, 0, false, None);
        let whole = self.members[0].candidates.len() == self.members[0].usable.len();
        let sample = match &self.source {
            Source::Pack(pack) if whole && pack.image_size() == size => return pack.statistics(),
            // Already in memory: all of it, as the published means are.
            Source::Cifar(_) => train,
            Source::Pack(pack) if pack.made_of() == DatasetKind::Cifar10 => train,
            _ => statistics::sample(&train, MAX_SAMPLE),
        };
        let ids: &[u8] = &sample.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<_>>();
        let parts = [&b"statistics 1"[..], stamp.bytes(), self.info.fingerprint.as_bytes(), &size.to_le_bytes(), ids];
        let key = Key::of(parts);
        if let Some(kept) = cache.load("statistics", &key).and_then(|b| Statistics::from_bytes(&b, size)) {
            return Ok(kept);
        }
        let init = || Worker::new(size);
        let statistics = statistics::measure(&sample, size, workers, init, |worker, id, image| {
            self.prepare(Split::Train, id, worker, image).map(|_| ())
        })?;
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
        let mut counts = vec![0; self.info.classes.len()];
        ids.into_iter().for_each(|id| counts[self.class(split, id)] += 1);
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
                    "Repair the files that were skipped or add others; every class needs images in train and in val.",
                ));
            }
        }
        Ok(())
    }
}

/// The names in the order that is wanted, if it is of these names, with the place of each of the source's.
fn numbered(names: Vec<String>, wanted: Option<&[String]>) -> (Vec<String>, Vec<usize>) {
    let places: Option<Vec<usize>> = wanted.filter(|wanted| wanted.len() == names.len()).and_then(|wanted| {
        let places: HashMap<&String, usize> = wanted.iter().zip(0..).collect();
        names.iter().map(|name| places.get(name).copied()).collect()
    });
    match (places, wanted) {
        (Some(places), Some(wanted)) => (wanted.to_vec(), places),
        _ => {
            let all = (0..names.len()).collect();
            (names, all)
        }
    }
}

/// [`DatasetInfo::class_weights`] for so many images of each class.
fn weights(counts: &[usize]) -> Vec<f32> {
    let present = counts.iter().filter(|count| **count > 0).count();
    let each = counts.iter().sum::<usize>() as f64 / present as f64;
    counts.iter().map(|&count| if count == 0 { 0.0 } else { (each / count as f64) as f32 }).collect()
}

/// Places for the images that stay in memory. All of them where they fit; of a larger set the first ones, if it is a quarter at least:
/// fewer would cost memory and save nothing.
fn kept_slots(lengths: [usize; 2], image_bytes: usize, most: usize) -> [Vec<Kept>; 2] {
    let room = most / image_bytes;
    let total = lengths[0] + lengths[1];
    let room = if 4 * room >= total { room.min(total) } else { 0 };
    let train = lengths[0].min(room);
    let val = lengths[1].min(room - train);
    [train, val].map(|n| (0..n).map(|_| Kept::new()).collect())
}
