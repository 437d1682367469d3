//! Writing a pack. A shard is complete, with a note of its sum, or not there: a run that was killed goes on with the first shard that is
//! missing, and the files come out the same.

use super::{
    Colours, MANIFEST, MEAN, Manifest, Origin, Pack, PackFormat, PackOptions, Part, QUALITY, SUMS, failed, hex, labels,
    names, npy, persist, places, read::raw_shape, sha256, sync_folder,
};
use crate::{
    cache::Key,
    dataset::Dataset,
    info::{DatasetKind, Skipped},
    options::{DatasetOptions, Split},
    parallel::Workers,
    source::{Source, Worker},
    statistics::{self, MAX_SAMPLE},
};
use alexnode_core::{Error, Result};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

/// The folder in the target where notes lie until all is done.
const PROGRESS: &str = "progress";
const PLAN: &str = "plan.json";
/// Images that a thread prepares between two writes.
const GRAIN: usize = 16;
/// How long a step works before it reports.
const STEP: Duration = Duration::from_millis(250);
/// Images that are encoded to forecast the room that all of them need.
const TRIAL: usize = 24;
/// Bytes of a member of a .tar beside its content: its header, what fills its last block, and the member with the class.
const MEMBER: u64 = 512 + 256 + 1024;

/// What is about to be written.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Packing {
    /// Images of both splits.
    pub images: usize,
    /// Those in shards that an earlier run completed.
    pub done: usize,
    /// Bytes of the whole pack: exact for raw images but for the names, an estimate for JPEGs.
    pub bytes: u64,
    /// Bytes still to be written.
    pub left: u64,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Images of train and val.
    pub splits: [usize; 2],
    /// Files that are left out.
    pub skipped: Vec<Skipped>,
    /// Whether the pack was complete before.
    pub complete: bool,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Images written, in this run and before.
    pub done: usize,
    /// Images to write.
    pub images: usize,
    /// Bytes written to shards, in this run and before.
    pub bytes: u64,
}

/// What is noted of a complete shard.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    sha256: String,
    bytes: u64,
    /// Begin and length of each JPEG.
    places: Vec<[u64; 2]>,
}

/// A shard that is being written.
struct Shard {
    file: BufWriter<File>,
    path: PathBuf,
    sum: Sha256,
    bytes: u64,
    places: Vec<[u64; 2]>,
}

/// Prepared images of one shard, in order; `None` where one is left out.
struct Block {
    split: Split,
    shard: usize,
    first: usize,
    images: Vec<Option<Prepared>>,
}

/// An image as it is kept, and the index of its class.
type Prepared = (Vec<u8>, usize);

/// Writes a pack, step by step.
pub struct Packer {
    dataset: Dataset,
    target: PathBuf,
    manifest: Manifest,
    threads: usize,
    packing: Packing,
    /// Shards that are still to be written, the next one last.
    shards: Vec<(Split, usize)>,
    /// The next id of the shard at hand.
    next: usize,
    /// Prepared, but not written yet.
    pending: Option<Block>,
    open: Option<Shard>,
    progress: Progress,
    finished: bool,
}

impl Packer {
    /// Lists the source and finds out what there is to do; writes nothing but the plan.
    ///
    /// # Errors
    /// `ERR_USAGE` for impossible options, a target inside the source, or one that holds something else. Otherwise as [`Dataset::open`].
    pub fn open(options: &PackOptions, cancel: &AtomicBool) -> Result<Self> {
        options.check()?;
        let target = std::path::absolute(&options.target).map_err(|e| failed(&options.target, "used", e))?;
        check_apart(&options.data.source, &target)?;
        let (dataset, _) = Dataset::list(&options.data, cancel)?;
        let manifest = manifest(&dataset, options);
        let empty = fs::read_dir(&target).map_or(true, |mut items| items.next().is_none());
        let done = if empty { Vec::new() } else { continued(&target, &manifest)? };
        let complete = Pack::is_at(&target);
        let mut all: Vec<(Split, usize)> = Split::ALL
            .into_iter()
            .flat_map(|split| (0..manifest.shards(split)).map(move |shard| (split, shard)))
            .collect();
        let total = forecast(&dataset, &manifest)?;
        let (mut images, mut written) = (0, 0);
        for (shard, note) in &done {
            images += usable(&dataset, shard.0, manifest.ids(shard.0, shard.1));
            written += note.bytes;
        }
        all.retain(|shard| !complete && !done.iter().any(|(other, _)| other == shard));
        all.reverse();
        let info = dataset.info();
        let packing = Packing {
            images: info.train + info.val,
            done: if complete { info.train + info.val } else { images },
            bytes: total,
            left: if complete { 0 } else { total.saturating_sub(written) },
            classes: info.classes.clone(),
            splits: [info.train, info.val],
            skipped: info.skipped.clone(),
            complete,
        };
        let progress = Progress { done: packing.done, images: packing.images, bytes: written };
        Ok(Self {
            threads: options.data.threads(),
            dataset,
            target,
            manifest,
            packing,
            shards: all,
            next: 0,
            pending: None,
            open: None,
            progress,
            finished: complete,
        })
    }

    /// What there is to do.
    pub fn packing(&self) -> &Packing {
        &self.packing
    }

    /// Works for a moment; `None` when all is done.
    ///
    /// # Errors
    /// `ERR_DATA` naming the image that cannot be decoded or the file that cannot be written. `ERR_ABORTED` after a cancel. The same call goes
    /// on after the last complete shard.
    pub fn step(&mut self, cancel: &AtomicBool) -> Result<Option<Progress>> {
        if self.finished {
            return Ok(None);
        }
        let start = Instant::now();
        if self.progress.done == 0 && self.open.is_none() {
            self.begin()?;
        }
        let workers = Workers { threads: self.threads, cancel };
        while start.elapsed() < STEP && !self.finished {
            let Some(&(split, shard)) = self.shards.last() else {
                self.write_pending()?;
                self.finish(workers)?;
                self.finished = true;
                break;
            };
            let ids = self.manifest.ids(split, shard);
            let first = self.next.max(ids.start);
            let end = (first + GRAIN * self.threads).min(ids.end);
            let (dataset, manifest) = (&self.dataset, &self.manifest);
            let (pending, open, target) = (self.pending.take(), &mut self.open, &self.target);
            // The last block is written while the next one is prepared.
            let (images, written) = std::thread::scope(|scope| {
                let writer = scope.spawn(move || match pending {
                    Some(block) => write(open, target, manifest, &block),
                    None => Ok(0),
                });
                let images = prepare(dataset, manifest.kept, split, first..end, workers);
                let stopped = || Err(Error::data("the thread that writes stopped unexpectedly"));
                (images, writer.join().unwrap_or_else(|_| stopped()))
            });
            self.progress.bytes += written?;
            let images = images?;
            self.progress.done += images.iter().flatten().count();
            self.pending = Some(Block { split, shard, first, images });
            self.next = end;
            if end == ids.end {
                self.shards.pop();
                self.next = 0;
            }
        }
        Ok(Some(self.progress))
    }

    fn write_pending(&mut self) -> Result<()> {
        if let Some(block) = self.pending.take() {
            self.progress.bytes += write(&mut self.open, &self.target, &self.manifest, &block)?;
        }
        Ok(())
    }

    /// Makes the folders and notes the plan.
    fn begin(&self) -> Result<()> {
        let notes = self.target.join(PROGRESS);
        fs::create_dir_all(&notes).map_err(|e| failed(&notes, "made", e))?;
        persist(&notes, PLAN, &text(&self.manifest)?)
    }

    /// Writes what stands for the whole: labels, names, statistics, sums; the manifest comes last, and makes it a pack.
    fn finish(&mut self, workers: Workers<'_>) -> Result<()> {
        let (target, manifest) = (&self.target, &mut self.manifest);
        let mut sums: HashMap<String, String> = HashMap::new();
        for split in Split::ALL {
            let images = manifest.part(split).images;
            let mut spots: Vec<u64> = Vec::new();
            for shard in 0..manifest.shards(split) {
                let name = manifest.shard_name(split, shard);
                let note = note(target, &name).ok_or_else(|| {
                    Error::data(format!(
                        "{}: the note of a complete shard is gone",
                        target.join(PROGRESS).join(&name).display()
                    ))
                    .hint("Run the same command again: it writes that shard anew.")
                })?;
                spots.extend(note.places.as_flattened());
                sums.insert(name, note.sha256);
            }
            let usable = self.dataset.usable(split);
            let class = |id: usize| if usable[id] { self.dataset.class(split, id as u32) as i32 } else { -1 };
            let lines = |id: usize| {
                let name = self.dataset.own_name(split, id as u32);
                name.replace(['\n', '\r'], "\u{fffd}") + "\n"
            };
            let mut files = vec![
                (labels(split), npy::file(&[images], &(0..images).map(class).collect::<Vec<_>>())),
                (names(split), (0..images).map(lines).collect::<String>().into_bytes()),
            ];
            if manifest.kept == PackFormat::Tar {
                files.push((places(split), npy::file(&[images, 2], &spots)));
            }
            for (name, bytes) in files {
                persist(target, &name, &bytes)?;
                sums.insert(name, sha256(&bytes));
            }
        }
        // From the pack itself, so that the statistics are those of what a training will see.
        let size = manifest.image_size;
        let read = |name: &str| fs::read(target.join(name)).map_err(|e| failed(&target.join(name), "read", e));
        let source = Source::Pack(Box::new(Pack::assemble(target, manifest.clone(), Key::of([]), read)?));
        let train: Vec<u32> =
            (0u32..).zip(self.dataset.usable(Split::Train)).filter_map(|(id, &is)| is.then_some(id)).collect();
        let sample =
            if manifest.source.kind == DatasetKind::Cifar10 { train } else { statistics::sample(&train, MAX_SAMPLE) };
        let statistics = statistics::measure(
            &sample,
            size,
            workers,
            || Worker::new(size),
            |worker, id, image| source.render(Split::Train, id, size, worker, image).map(|_| ()),
        )?;
        manifest.colours = Colours::from(&statistics);
        let mean = npy::file(&[size, size, 3], &statistics.mean);
        persist(target, MEAN, &mean)?;
        sums.insert(MEAN.into(), sha256(&mean));
        let whole = text(manifest)?;
        sums.insert(MANIFEST.into(), sha256(&whole));
        let lines: String =
            manifest.files().iter().filter_map(|name| Some(format!("{}  {name}\n", sums.get(name)?))).collect();
        persist(target, SUMS, lines.as_bytes())?;
        persist(target, MANIFEST, &whole)?;
        remove_notes(target)
    }
}

/// Notes are of no use beside a complete pack.
fn remove_notes(target: &Path) -> Result<()> {
    let notes = target.join(PROGRESS);
    match fs::remove_dir_all(&notes) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(failed(&notes, "removed", e)),
        _ => Ok(()),
    }
}

fn text(manifest: &Manifest) -> Result<Vec<u8>> {
    let mut bytes =
        serde_json::to_vec_pretty(manifest).map_err(|e| Error::data(format!("the pack cannot be described: {e}")))?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn manifest(dataset: &Dataset, options: &PackOptions) -> Manifest {
    let DatasetOptions { image_size, .. } = options.data;
    let info = dataset.info();
    let part = |split: Split| Part { images: dataset.usable(split).len(), usable: dataset.len(split) };
    let reasons: HashMap<&str, &str> = info.skipped.iter().map(|s| (s.path.as_str(), s.reason.as_str())).collect();
    let mut skipped = Vec::new();
    for split in Split::ALL {
        for id in (0u32..).zip(dataset.usable(split)).filter_map(|(id, &usable)| (!usable).then_some(id)) {
            let reason =
                reasons.get(dataset.name(split, id).as_str()).map_or("left out of the source", |reason| reason);
            skipped.push(Skipped { path: dataset.own_name(split, id), reason: reason.to_string() });
        }
    }
    Manifest {
        format: Manifest::FORMAT.into(),
        version: Manifest::VERSION,
        kept: options.format,
        image_size,
        shard_images: options.shard_images(),
        classes: info.classes.clone(),
        split: info.split,
        source: Origin { kind: dataset.made_of(), fingerprint: info.fingerprint.clone() },
        train: part(Split::Train),
        val: part(Split::Val),
        skipped,
        colours: Colours::default(),
    }
}

/// The target is neither in the source, where it would become part of it, nor the source itself.
fn check_apart(source: &str, target: &Path) -> Result<()> {
    let Ok(source) = fs::canonicalize(source) else { return Ok(()) };
    let there = target.ancestors().find_map(|path| Some((path, fs::canonicalize(path).ok()?)));
    let inside =
        there.is_some_and(|(path, real)| real.join(target.strip_prefix(path).unwrap_or(target)).starts_with(&source));
    if inside {
        return Err(Error::usage(format!("{}: lies in the source of the pack", target.display()))
            .hint("Name a folder outside of it."));
    }
    Ok(())
}

/// The complete shards of an earlier run of the same call.
fn continued(target: &Path, manifest: &Manifest) -> Result<Vec<((Split, usize), Note)>> {
    let shown = target.display();
    let plan = |path: PathBuf| -> Option<Manifest> { serde_json::from_slice(&fs::read(path).ok()?).ok() };
    let before = if Pack::is_at(target) { plan(target.join(MANIFEST)) } else { plan(target.join(PROGRESS).join(PLAN)) };
    let Some(mut before) = before else {
        return Err(Error::usage(format!("{shown}: the folder is not empty, and holds no pack that was begun"))
            .hint("Name a new folder, or empty this one."));
    };
    before.colours = manifest.colours;
    if before != *manifest {
        return Err(Error::usage(format!(
            "{shown}: holds a pack of other data or with other options: {}",
            difference(&before, manifest)
        ))
        .hint("Give the same options to go on with it, name a new folder, or remove this one."));
    }
    if Pack::is_at(target) {
        remove_notes(target)?;
        return Ok(Vec::new());
    }
    let mut done = Vec::new();
    for split in Split::ALL {
        for shard in 0..manifest.shards(split) {
            let name = manifest.shard_name(split, shard);
            let length = fs::metadata(target.join(&name)).map(|meta| meta.len()).ok();
            if let Some(note) = note(target, &name).filter(|note| Some(note.bytes) == length) {
                done.push(((split, shard), note));
            }
        }
    }
    Ok(done)
}

/// What differs between two plans, for a message.
fn difference(before: &Manifest, now: &Manifest) -> String {
    let of = |m: &Manifest| serde_json::to_value(m).unwrap_or_default();
    let (before, now) = (of(before), of(now));
    let names = before.as_object().into_iter().flatten().filter(|(key, value)| now.get(key) != Some(value));
    names.map(|(key, _)| key.as_str()).collect::<Vec<_>>().join(", ")
}

fn note(target: &Path, shard: &str) -> Option<Note> {
    serde_json::from_slice(&fs::read(target.join(PROGRESS).join(format!("{shard}.json"))).ok()?).ok()
}

/// Bytes of the whole pack.
fn forecast(dataset: &Dataset, manifest: &Manifest) -> Result<u64> {
    let mut total = (manifest.image_bytes() * 4) as u64 + (1 << 20);
    for split in Split::ALL {
        let Part { images, usable } = manifest.part(split);
        // A label, a place, and a name of middling length.
        total += 64 * images as u64;
        total += match manifest.kept {
            PackFormat::Npy => (images * manifest.image_bytes()) as u64,
            PackFormat::Tar => usable as u64 * MEMBER,
        };
    }
    if manifest.kept == PackFormat::Tar {
        let ids: Vec<u32> =
            (0u32..).zip(dataset.usable(Split::Train)).filter_map(|(id, &is)| is.then_some(id)).collect();
        let count = TRIAL.min(ids.len());
        let mut worker = Worker::new(manifest.image_size);
        let mut image = vec![0; manifest.image_bytes()];
        let mut bytes = 0;
        for i in 0..count {
            dataset.render(Split::Train, ids[i * ids.len() / count], &mut worker, &mut image)?;
            bytes += encode(&image, manifest.image_size)?.len() as u64;
        }
        total += bytes / count.max(1) as u64 * (manifest.train.usable + manifest.val.usable) as u64;
    }
    Ok(total)
}

fn usable(dataset: &Dataset, split: Split, ids: std::ops::Range<usize>) -> usize {
    dataset.usable(split)[ids].iter().filter(|&&usable| usable).count()
}

fn encode(image: &[u8], size: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, QUALITY);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    let side = size as u16;
    encoder
        .encode(image, side, side, ColorType::Rgb)
        .map_err(|e| Error::data(format!("an image cannot be encoded: {e}")))?;
    Ok(bytes)
}

fn prepare(
    dataset: &Dataset,
    kept: PackFormat,
    split: Split,
    ids: std::ops::Range<usize>,
    workers: Workers<'_>,
) -> Result<Vec<Option<Prepared>>> {
    let size = dataset.info().image_size;
    let usable = dataset.usable(split);
    workers.map(
        1,
        ids.len(),
        || Worker::new(size),
        |worker, i| {
            let id = ids.start + i;
            if !usable[id] {
                return Ok(None);
            }
            let mut image = vec![0; dataset.image_bytes()];
            dataset.render(split, id as u32, worker, &mut image)?;
            let bytes = match kept {
                PackFormat::Npy => image,
                PackFormat::Tar => encode(&image, size)?,
            };
            Ok(Some((bytes, dataset.class(split, id as u32))))
        },
    )
}

/// Writes a block to its shard, which begins or ends with it as may be. Gives the bytes written.
fn write(open: &mut Option<Shard>, target: &Path, manifest: &Manifest, block: &Block) -> Result<u64> {
    let name = manifest.shard_name(block.split, block.shard);
    let ids = manifest.ids(block.split, block.shard);
    if block.first == ids.start {
        *open = Some(Shard::begin(target.join(format!("{name}.part")))?);
        if let (PackFormat::Npy, Some(shard)) = (manifest.kept, open.as_mut()) {
            shard.write(&npy::header::<u8>(&raw_shape(manifest, block.split, block.shard)))?;
        }
    }
    let Some(shard) = open else { return Err(Error::data(format!("{name}: begins in its middle"))) };
    let before = shard.bytes;
    for (id, image) in (block.first..).zip(&block.images) {
        match (manifest.kept, image) {
            (PackFormat::Npy, Some((image, _))) => shard.write(image)?,
            (PackFormat::Npy, None) => shard.write(&vec![0; manifest.image_bytes()])?,
            (PackFormat::Tar, Some((image, class))) => {
                let begin = shard.member(&format!("{id:09}.jpg"), image)?;
                shard.places.push([begin, image.len() as u64]);
                shard.member(&format!("{id:09}.cls"), class.to_string().as_bytes())?;
            }
            (PackFormat::Tar, None) => shard.places.push([0; 2]),
        }
    }
    let mut written = shard.bytes - before;
    if block.first + block.images.len() == ids.end
        && let Some(mut shard) = open.take()
    {
        if manifest.kept == PackFormat::Tar {
            // The end of an archive.
            shard.write(&[0; 1024])?;
            written += 1024;
        }
        shard.end(target, &name)?;
    }
    Ok(written)
}

impl Shard {
    fn begin(path: PathBuf) -> Result<Self> {
        let file = File::create(&path).map_err(|e| failed(&path, "written", e))?;
        Ok(Self {
            file: BufWriter::with_capacity(1 << 20, file),
            path,
            sum: Sha256::new(),
            bytes: 0,
            places: Vec::new(),
        })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.sum.update(bytes);
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|e| failed(&self.path, "written", e))
    }

    /// A file of the archive, the same wherever and whenever it is written. Gives where its content begins.
    fn member(&mut self, name: &str, content: &[u8]) -> Result<u64> {
        let mut header = tar::Header::new_ustar();
        header.set_path(name).map_err(|e| failed(&self.path, "written", e))?;
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_entry_type(tar::EntryType::Regular);
        header.set_cksum();
        self.write(header.as_bytes())?;
        let begin = self.bytes;
        self.write(content)?;
        self.write(&[0; 512][..(512 - content.len() % 512) % 512])?;
        Ok(begin)
    }

    /// Makes it complete, and notes its sum.
    fn end(self, target: &Path, name: &str) -> Result<()> {
        let Self { file, path, sum, bytes, places } = self;
        let to = target.join(name);
        let done = || -> std::io::Result<()> {
            file.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
            fs::rename(&path, &to)?;
            sync_folder(target)
        };
        done().map_err(|e| failed(&to, "written", e))?;
        let note = Note { sha256: hex(&sum.finalize()), bytes, places };
        let note = serde_json::to_vec(&note).map_err(|e| Error::data(format!("{name}: cannot be noted: {e}")))?;
        persist(&target.join(PROGRESS), &format!("{name}.json"), &note)
    }
}
