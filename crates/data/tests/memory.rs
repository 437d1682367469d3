//! How much memory data sets of the size of ImageNet take: some bytes per image, and nothing for the images themselves.
//!
//! `ALEXNODE_TEST_FILES=100000 ALEXNODE_TEST_ENTRIES=1300000 cargo test -p alexnode-data --test memory -- --nocapture` does it at full
//! size, which takes some minutes and 2 GB of room for temporary files. Only Linux says how much memory a process has had.

mod support;

use alexnode_core::BatchSource;
use alexnode_data::{
    Dataset, DatasetKind, DatasetOptions, Split, SplitOrigin,
    pack::{PackFormat, PackOptions, Packer},
};
use sha2::{Digest, Sha256};
use std::{
    fmt::Write,
    fs,
    io::{BufWriter, Write as _},
    path::Path,
    sync::{Arc, atomic::AtomicBool},
};
use support::{images, loader, open, photos};

/// What is asked for: the whole process, at full size.
const MOST: u64 = 300_000_000;
/// What an image may add, by which less than full size is judged.
const PER_IMAGE: u64 = 200;
/// The same where the split is made here, from the hash and the print of each.
const UNSPLIT: u64 = 220;
/// What opening and reading takes whatever the size: images under way, buffers of threads, the mean image.
const FIXED: u64 = 24_000_000;
/// So large that no prepared images are kept for the next epoch.
const SIZE: usize = 128;
static NEVER: AtomicBool = AtomicBool::new(false);

fn count(name: &str, otherwise: usize) -> usize {
    std::env::var(name).map_or(otherwise, |n| n.parse().unwrap())
}

/// Resident memory of this process in bytes: the most since `forget`, and now.
fn resident() -> Option<[u64; 2]> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(1024 * line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?)
    };
    Some([of("VmHWM:")?, of("VmRSS:")?])
}

/// Opens `source`, reads some minibatches of two epochs and looks at names, then judges what that took.
fn within(source: &Path, kind: DatasetKind, count: usize, per_image: u64) {
    let peak_can_be_reset = fs::write("/proc/self/clear_refs", "5").is_ok();
    let Some([_, before]) = resident().filter(|_| peak_can_be_reset) else {
        eprintln!("SKIPPED: this system does not say how much memory a process has had");
        return;
    };
    let options = DatasetOptions { threads: Some(2), ..DatasetOptions::new(source.to_str().unwrap(), SIZE) };
    let data = open(&options).unwrap();
    // Where the split is made here, about one in ten is for judging.
    let whole = if data.info().split == SplitOrigin::Given { 0 } else { data.len(Split::Val) };
    assert_eq!((data.info().kind, data.len(Split::Train) + whole), (kind, count));
    read(&data);
    let [most, _] = resident().unwrap();
    let each = most.saturating_sub(before + FIXED) / count as u64;
    eprintln!(
        "{kind:?}, {:?}, {count} images: {:.1} MB before, {:.1} MB at most, {each} bytes for each",
        data.info().split,
        before as f64 / 1e6,
        most as f64 / 1e6
    );
    assert!(most < MOST, "{kind:?}: {most} bytes");
    assert!(each <= per_image, "{kind:?}: {each} bytes for each of {count} images");
}

fn read(data: &Arc<Dataset>) {
    for epoch in 0..2 {
        let mut loader = data.loader(&alexnode_data::LoaderOptions { epoch, ..loader(Split::Train, 32) }).unwrap();
        for _ in 0..4 {
            let batch = loader.next().unwrap().unwrap();
            assert!(!data.name(Split::Train, batch.ids[0]).is_empty());
            loader.recycle(batch);
        }
    }
}

/// The name of image `i` of class `i % 10`: like those of ImageNet.
fn name(split: &str, i: usize) -> String {
    format!("{split}/n{:08}/n{:08}_{i}.png", i % 10, i % 10)
}

fn folder(root: &Path, count: usize, picture: &[u8]) {
    for (split, count) in [("train", count), ("val", 10)] {
        for i in 0..count {
            let path = root.join(name(split, i));
            if i < 10 {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
            }
            fs::write(path, picture).unwrap();
        }
    }
}

fn archive(path: &Path, count: usize, picture: &[u8]) {
    let mut archive = tar::Builder::new(BufWriter::new(fs::File::create(path).unwrap()));
    for (split, count) in [("train", count), ("val", 10)] {
        for i in 0..count {
            let mut header = tar::Header::new_gnu();
            header.set_size(picture.len() as u64);
            archive.append_data(&mut header, name(split, i), picture).unwrap();
        }
    }
    archive.into_inner().unwrap().flush().unwrap();
}

/// An archive without splits, of `count` pictures all of which are different.
fn unsplit(path: &Path, count: usize) {
    let mut archive = tar::Builder::new(BufWriter::new(fs::File::create(path).unwrap()));
    for i in 0..count {
        let mut word = i as u64 + 1;
        let pixels: [u8; 48] = std::array::from_fn(|_| {
            word = word.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (word >> 56) as u8
        });
        let picture = images::png(4, 4, &pixels, image::ExtendedColorType::Rgb8);
        let mut header = tar::Header::new_gnu();
        header.set_size(picture.len() as u64);
        archive.append_data(&mut header, name("photos", i), &picture[..]).unwrap();
    }
    archive.into_inner().unwrap().flush().unwrap();
}

/// A pack whose index speaks of `count` training images, all of which lie in the place of the first.
fn pack(target: &Path, count: usize) {
    let source = target.with_extension("source");
    photos(&source);
    let data = DatasetOptions { threads: Some(1), ..DatasetOptions::new(source.to_str().unwrap(), SIZE) };
    let data = DatasetOptions { cache_dir: Some(target.with_extension("cache")), ..data };
    let mut packer =
        Packer::open(&PackOptions { data, target: target.into(), format: PackFormat::Tar, shard_images: None }, &NEVER)
            .unwrap();
    while packer.step(&NEVER).unwrap().is_some() {}
    let mut manifest: serde_json::Value = serde_json::from_slice(&fs::read(target.join("pack.json")).unwrap()).unwrap();
    manifest["shardImages"] = count.into();
    manifest["train"] = serde_json::json!({ "images": count, "usable": count });
    fs::write(target.join("pack.json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
    let places = fs::read(target.join("train-places.npy")).unwrap();
    let labels = (0..count).flat_map(|i| ((i % 2) as i32).to_le_bytes()).collect::<Vec<u8>>();
    fs::write(target.join("train-labels.npy"), array("<i4", &format!("({count},)"), &labels)).unwrap();
    let places = places[places.len() - 24 * 16..][..16].repeat(count);
    fs::write(target.join("train-places.npy"), array("<u8", &format!("({count}, 2)"), &places)).unwrap();
    let mut names = String::new();
    (0..count).for_each(|i| writeln!(names, "{}", name("train", i)).unwrap());
    fs::write(target.join("train-names.txt"), names).unwrap();
    let sums = fs::read_to_string(target.join("SHA256SUMS")).unwrap();
    let sums: String = sums
        .lines()
        .map(|line| {
            let name = line.split_once("  ").unwrap().1;
            let sum: String =
                Sha256::digest(fs::read(target.join(name)).unwrap()).iter().map(|b| format!("{b:02x}")).collect();
            format!("{sum}  {name}\n")
        })
        .collect();
    fs::write(target.join("SHA256SUMS"), sums).unwrap();
}

/// A file of NumPy.
fn array(descr: &str, shape: &str, bytes: &[u8]) -> Vec<u8> {
    let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    let text = format!("{text}{}\n", " ".repeat((64 - (11 + text.len()) % 64) % 64));
    [b"\x93NUMPY\x01\0", &(text.len() as u16).to_le_bytes()[..], text.as_bytes(), bytes].concat()
}

/// One test: what others do in this process meanwhile would count.
#[test]
fn memory_does_not_grow_with_the_images() {
    let files = count("ALEXNODE_TEST_FILES", 20_000);
    let entries = count("ALEXNODE_TEST_ENTRIES", 100_000);
    let dir = tempfile::tempdir().unwrap();
    let picture = images::png(2, 2, &[7; 12], image::ExtendedColorType::Rgb8);
    folder(&dir.path().join("folder"), files, &picture);
    archive(&dir.path().join("all.tar"), entries, &picture);
    pack(&dir.path().join("pack"), entries);
    unsplit(&dir.path().join("unsplit.tar"), entries);
    within(&dir.path().join("folder"), DatasetKind::Folder, files, PER_IMAGE);
    // Before the others: what they give back may stay with the process.
    within(&dir.path().join("unsplit.tar"), DatasetKind::Tar, entries, UNSPLIT);
    within(&dir.path().join("all.tar"), DatasetKind::Tar, entries, PER_IMAGE);
    within(&dir.path().join("pack"), DatasetKind::Pack, entries, PER_IMAGE);
}
