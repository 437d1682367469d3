//! Sources as they are found: which images there are, of which classes, on which side, and which of them can be used.

use crate::{
    cache::{Cache, Key},
    cifar::{self, Cifar},
    dataset::{DatasetKind, Skipped, SplitOrigin},
    files::Files,
    generated, ilsvrc,
    layout::{self, Item, Layout},
    listed,
    options::{DatasetOptions, OnBadImage, Split},
    pack::Pack,
    parallel::Workers,
    quarantine,
    scan::{self, Depth, Finding, Scan, bad_image},
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
            "`--data` takes a folder with a folder per class, a .tar of one, a list (.csv, .jsonl), a pack, the archives of ILSVRC2012, the CIFAR-10 binaries, or `generated`",
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
        fingerprint: fingerprint.hex(),
        stamp: fingerprint,
    }
}

fn list_pack(options: &DatasetOptions, pack: Pack) -> Result<Listed> {
    let (source, wanted, side) = (&options.source, options.image_size, pack.image_size());
    if wanted > side {
        return Err(Error::usage(format!("{source}: the pack has images of {side} pixels, {wanted} are wanted"))
            .hint(format!("pack the data again with `--size {wanted}` or larger")));
    }
    Ok(Listed {
        kind: DatasetKind::Pack,
        classes: pack.classes().to_vec(),
        split: pack.split_origin(),
        usable: Split::ALL.map(|split| pack.usable(split)),
        skipped: pack.skipped(),
        quarantined: 0,
        kept_together: 0,
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
    let mut kept_together = 0;
    if !layout.given {
        let (items, findings): (Vec<Item>, Vec<Finding>) = std::mem::take(&mut lists[0]).into_iter().unzip();
        let Sides { of, together } =
            split::by_content(&options.source, &items, &findings, &layout.classes, options.val_fraction)?;
        for ((item, finding), side) in items.into_iter().zip(findings).zip(of) {
            lists[side.index()].push((item, finding));
        }
        kept_together = together;
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
        quarantined: 0,
        kept_together,
        fingerprint: Key::of(parts.iter().map(Vec::as_slice)).hex(),
        stamp,
    })
}
