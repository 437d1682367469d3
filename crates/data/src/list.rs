//! Sources as they are found: which images there are, of which classes, on which side, and which of them can be used.

use crate::{
    cache::{Cache, Key, KeyMaker},
    cifar::{self, Cifar},
    files::Files,
    generated, ilsvrc,
    info::{DatasetKind, Skipped, SplitOrigin},
    layout::{self, Item, Layout},
    listed,
    options::{DatasetOptions, OnBadImage, Split},
    pack::Pack,
    parallel::Workers,
    quarantine,
    scan::{self, Depth, Scan, bad_image},
    source::Source,
    split::{self, Sides},
    webdataset,
};
use alexnode_core::{Error, Result};
use std::path::Path;

/// A source that has been listed and split, before anything is known about its pixels.
pub(crate) struct Listed {
    pub kind: DatasetKind,
    pub classes: Vec<String>,
    pub split: SplitOrigin,
    pub source: Source,
    /// For every id of each split, whether it can be used.
    pub usable: [Vec<bool>; 2],
    pub skipped: Vec<Skipped>,
    pub quarantined: usize,
    pub kept_together: usize,
    pub taken_apart: usize,
    pub fingerprint: String,
    /// Changes when the bytes may have changed.
    pub stamp: Key,
}

/// What `options.source` names.
///
/// # Errors
/// As [`Dataset::open`](crate::Dataset::open), as far as it can be known without decoding.
pub(crate) fn list(options: &DatasetOptions, cache: &Cache, workers: Workers<'_>) -> Result<Listed> {
    if options.source == "generated" {
        options.has_files("the generated set")?;
        return Ok(list_generated(options.seed));
    }
    let path = Path::new(&options.source);
    let meta = std::fs::metadata(path).map_err(|e| {
        Error::data(format!("{}: cannot be opened: {e}", options.source)).caused_by(e).hint(
            "`--data` takes a folder with a folder per class, a .tar of one, a list (.csv, .jsonl), a pack, the archives of ILSVRC2012, the CIFAR-10 binaries, or `generated`.",
        )
    })?;
    if !meta.is_dir() {
        if listed::is_list(path) {
            options.has_files("a list")?;
            let (files, layout) = listed::open(path)?;
            return list_files(options, DatasetKind::List, files, layout, cache, workers);
        }
        let (files, mut entries, labelled) = Files::tar(path)?;
        if labelled {
            options.has_files("a WebDataset")?;
            let (files, layout) = webdataset::open(path, &[path.to_path_buf()])?;
            return list_files(options, DatasetKind::WebDataset, files, layout, cache, workers);
        }
        let quarantined = quarantine::leave_out(options.quarantine.as_deref(), &mut entries)?;
        let layout = layout::arrange(&options.source, entries)?;
        let listed = list_files(options, DatasetKind::Tar, files, layout, cache, workers)?;
        return Ok(Listed { quarantined, ..listed });
    }
    if Pack::is_at(path) {
        options.has_files("a pack")?;
        return list_pack(options, Pack::open(path)?);
    }
    if let Some(found) = cifar::find(path)? {
        options.has_files("CIFAR-10")?;
        return list_cifar(Cifar::read(&found, cache, workers)?);
    }
    if let Some(found) = ilsvrc::find(path) {
        options.has_files("ILSVRC2012")?;
        let (files, layout) = ilsvrc::open(path, &found)?;
        return list_files(options, DatasetKind::Ilsvrc2012, files, layout, cache, workers);
    }
    if let Some(shards) = webdataset::shards(path) {
        options.has_files("a WebDataset")?;
        let (files, layout) = webdataset::open(path, &shards)?;
        return list_files(options, DatasetKind::WebDataset, files, layout, cache, workers);
    }
    let (files, mut entries) = Files::folder(path)?;
    let quarantined = quarantine::leave_out(options.quarantine.as_deref(), &mut entries)?;
    let layout = layout::arrange(&options.source, entries)?;
    let listed = list_files(options, DatasetKind::Folder, files, layout, cache, workers)?;
    Ok(Listed { quarantined, ..listed })
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
        quarantined: 0,
        kept_together: 0,
        taken_apart: 0,
        fingerprint: fingerprint.hex(),
        stamp: fingerprint,
    }
}

fn list_pack(options: &DatasetOptions, pack: Pack) -> Result<Listed> {
    let (source, wanted, side) = (&options.source, options.image_size, pack.image_size());
    if wanted > side {
        return Err(Error::usage(format!("{source}: the pack has images of {side} pixels, {wanted} are wanted"))
            .hint(format!("Pack the data again with `--size {wanted}` or larger.")));
    }
    Ok(Listed {
        kind: DatasetKind::Pack,
        classes: pack.classes().to_vec(),
        split: pack.split_origin(),
        usable: Split::ALL.map(|split| pack.usable(split)),
        skipped: pack.skipped(),
        quarantined: 0,
        kept_together: 0,
        taken_apart: 0,
        fingerprint: pack.fingerprint(wanted),
        stamp: pack.stamp(),
        source: Source::Pack(Box::new(pack)),
    })
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
        quarantined: 0,
        kept_together: 0,
        taken_apart: 0,
        fingerprint: fingerprint.hex(),
        stamp: fingerprint,
    })
}

/// Files whose classes are known, and their splits if need be.
pub(crate) fn list_files(
    options: &DatasetOptions,
    kind: DatasetKind,
    files: Files,
    mut layout: Layout,
    cache: &Cache,
    workers: Workers<'_>,
) -> Result<Listed> {
    let depth = Depth { on_bad_image: options.on_bad_image, hash: !layout.given };
    let all: Vec<&Item> = layout.items.iter().flatten().collect();
    let stamp = scan::stamp(&files, all.iter().copied());
    let Scan { findings, memory } = scan::scan(&files, &all, depth, &stamp, cache, workers)?;
    let bad: Vec<Skipped> =
        findings.bad().map(|(i, reason)| Skipped { path: files.name(&all[i].entry), reason: reason.into() }).collect();
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
            .hint("Convert them to JPEG or PNG."));
    }
    drop(all);
    let mut items = std::mem::take(&mut layout.items);
    // Where the finding of every item is.
    let middle = items[0].len();
    let mut places =
        [0..middle, middle..middle + items[1].len()].map(|range| range.map(|at| at as u32).collect::<Vec<_>>());
    let (mut kept_together, mut taken_apart) = (0, 0);
    if !layout.given {
        let Sides { of: sides, together, apart } =
            split::by_content(&options.source, &items[0], &findings, &layout.classes, options.val_fraction, workers)?;
        (kept_together, taken_apart) = (together, apart);
        places =
            Split::ALL.map(|split| (0..).zip(&sides).filter(|(_, side)| **side == split).map(|(at, _)| at).collect());
        // In place: all of them twice would be much.
        let mut sides = sides.into_iter();
        items[1] = items[0].extract_if(.., |_| sides.next() == Some(Split::Val)).collect();
    }
    let mut fingerprint = KeyMaker::default();
    fingerprint.part(b"files");
    let mut line = Vec::new();
    for split in Split::ALL {
        fingerprint.part(split.name().as_bytes());
        for (item, &at) in items[split.index()].iter().zip(&places[split.index()]) {
            line.clear();
            line.extend_from_slice(layout.classes[item.class as usize].as_bytes());
            line.push(0);
            line.extend_from_slice(item.entry.path.as_os_str().as_encoded_bytes());
            line.push(0);
            line.extend_from_slice(&item.entry.size.to_le_bytes());
            line.extend(findings.hash(at as usize).iter().flatten());
            line.push(u8::from(findings.reason(at as usize).is_some()));
            fingerprint.part(&line);
        }
    }
    let usable = places.map(|places| places.into_iter().map(|at| findings.reason(at as usize).is_none()).collect());
    Ok(Listed {
        kind,
        split: if layout.given { SplitOrigin::Given } else { SplitOrigin::ByContentHash },
        classes: layout.classes,
        source: Source::Files { files, items, skip: (options.on_bad_image == OnBadImage::Skip).then_some(memory) },
        usable,
        skipped: bad,
        quarantined: 0,
        kept_together,
        taken_apart,
        fingerprint: fingerprint.finish().hex(),
        stamp,
    })
}
