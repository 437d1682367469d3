//! Packs: the same images as the source has, in files that survive a kill and tell of damage.

mod support;

use alexnode_core::ErrorCode;
use alexnode_data::{
    Dataset, DatasetOptions, OnBadImage, Split,
    pack::{PackFormat, PackOptions, Packer, Verifier},
};
use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{Arc, atomic::AtomicBool},
};
use support::{drain, loader, open, pack as archive, photos, write};

static NEVER: AtomicBool = AtomicBool::new(false);
const SIZE: usize = 16;

fn options(source: &Path, target: &Path, format: PackFormat) -> PackOptions {
    let data = DatasetOptions { threads: Some(2), ..DatasetOptions::new(source.to_str().unwrap(), SIZE) };
    let cache_dir = Some(target.with_extension("cache"));
    let data = DatasetOptions { cache_dir, on_bad_image: OnBadImage::Skip, ..data };
    PackOptions { data, target: target.into(), format, shard_images: Some(7) }
}

fn write_all(options: &PackOptions) {
    let mut packer = Packer::open(options, &NEVER).unwrap();
    while packer.step(&NEVER).unwrap().is_some() {}
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let items = fs::read_dir(folder).unwrap().map(|item| item.unwrap());
    items.map(|item| (item.file_name().into_string().unwrap(), fs::read(item.path()).unwrap())).collect()
}

/// Photos, two of which are none.
fn source() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    photos(&dir.path().join("photos"));
    write(dir.path(), "photos/train/cat/3.jpg", b"<html>");
    write(dir.path(), "photos/val/dog/12.jpg", b"");
    dir
}

fn opened(path: &Path, size: usize) -> Arc<Dataset> {
    let options = DatasetOptions { threads: Some(3), ..DatasetOptions::new(path.to_str().unwrap(), size) };
    open(&DatasetOptions { on_bad_image: OnBadImage::Skip, ..options }).unwrap()
}

#[test]
fn a_raw_pack_is_the_source_bit_for_bit() {
    let dir = source();
    let (photos, target) = (dir.path().join("photos"), dir.path().join("pack"));
    write_all(&options(&photos, &target, PackFormat::Npy));
    let [folder, packed] = [&photos, &target].map(|path| opened(path, SIZE));
    for split in Split::ALL {
        assert_eq!(drain(&folder, &loader(split, 5)), drain(&packed, &loader(split, 5)));
    }
    assert_eq!(folder.statistics(), packed.statistics());
    let [a, b] = [folder.info(), packed.info()];
    assert_eq!(
        (&a.fingerprint, &a.classes, &a.per_class, a.split),
        (&b.fingerprint, &b.classes, &b.per_class, b.split)
    );
    assert_eq!((a.skipped.len(), b.skipped.len()), (2, 2));
    assert_eq!(b.skipped[0].reason, a.skipped[0].reason);
    assert!(packed.name(Split::Train, 0).ends_with("pack:train/cat/0.jpg"), "{}", packed.name(Split::Train, 0));
    // Smaller images are made of the kept ones, larger ones are not.
    assert_eq!(opened(&target, 8).info().image_size, 8);
    assert_ne!(opened(&target, 8).info().fingerprint, b.fingerprint);
    let error = open(&DatasetOptions::new(target.to_str().unwrap(), 32)).map(|_| ()).unwrap_err();
    assert!(
        error.code() == ErrorCode::Usage && error.message().contains("images of 16 pixels, 32 are wanted"),
        "{error}"
    );
    // A pack of the pack is the pack.
    let again = dir.path().join("again");
    write_all(&options(&target, &again, PackFormat::Npy));
    assert_eq!(files(&target), files(&again));
}

#[test]
fn arrays_are_what_numpy_would_map() {
    let dir = source();
    let target = dir.path().join("pack");
    write_all(&options(&dir.path().join("photos"), &target, PackFormat::Npy));
    let files = files(&target);
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    let expected = "SHA256SUMS mean.npy pack.json train-00000.npy train-00001.npy train-00002.npy train-00003.npy train-labels.npy \
        train-names.txt val-00000.npy val-labels.npy val-names.txt";
    assert_eq!(names.join(" "), expected);
    let header = String::from_utf8_lossy(&files["train-00003.npy"][..128]).into_owned();
    assert!(header.contains("{'descr': '|u1', 'fortran_order': False, 'shape': (3, 16, 16, 3), }"), "{header}");
    assert_eq!(files["train-00000.npy"].len(), 128 + 7 * SIZE * SIZE * 3);
    let labels: Vec<i32> =
        files["train-labels.npy"][128..].chunks(4).map(|b| i32::from_le_bytes(b.try_into().unwrap())).collect();
    assert_eq!(labels.len(), 24);
    let bad = labels.iter().position(|&label| label == -1).unwrap();
    let names: Vec<&str> = std::str::from_utf8(&files["train-names.txt"]).unwrap().lines().collect();
    assert_eq!((names.len(), names[bad]), (24, "train/cat/3.jpg"));
}

#[test]
fn an_encoded_pack_is_a_web_dataset_of_jpegs() {
    let dir = source();
    let (photos, target) = (dir.path().join("photos"), dir.path().join("pack"));
    write_all(&options(&photos, &target, PackFormat::Tar));
    let [folder, packed] = [&photos, &target].map(|path| opened(path, SIZE));
    for split in Split::ALL {
        for (a, b) in drain(&folder, &loader(split, 5)).iter().zip(&drain(&packed, &loader(split, 5))) {
            assert_eq!((&a.ids, &a.labels, a.valid), (&b.ids, &b.labels, b.valid));
            // What a JPEG of noise at quality 95 with halved colours keeps of it.
            let difference: f64 = a.pixels.iter().zip(&b.pixels).map(|(&a, &b)| f64::from(a.abs_diff(b))).sum::<f64>()
                / a.pixels.len() as f64;
            assert!(difference < 24.0, "{difference}");
        }
    }
    assert_ne!(folder.info().fingerprint, packed.info().fingerprint);
    let mut tar = tar::Archive::new(fs::File::open(target.join("val-00000.tar")).unwrap());
    let names: Vec<String> =
        tar.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect();
    let expected: Vec<String> =
        [0, 1, 2, 4, 5].iter().flat_map(|id| ["jpg", "cls"].map(|end| format!("{id:09}.{end}"))).collect();
    let skipped: Vec<usize> = (0..6).filter(|id| !names.contains(&format!("{id:09}.jpg"))).collect();
    assert_eq!(skipped.len(), 1);
    assert_eq!(names.len(), expected.len());
    let statistics = packed.statistics();
    assert_eq!(statistics.mean.len(), SIZE * SIZE * 3);
    // From the JPEGs themselves: measured again it is the same.
    let options = DatasetOptions { limit: Some(1000), ..DatasetOptions::new(target.to_str().unwrap(), SIZE) };
    assert_eq!(open(&options).unwrap().statistics(), statistics);
}

#[test]
fn an_interrupted_pack_is_finished_with_the_same_bytes() {
    let dir = source();
    let photos = dir.path().join("photos");
    for format in [PackFormat::Npy, PackFormat::Tar] {
        let [whole, parts] = ["whole", "parts"].map(|name| dir.path().join(format!("{name}-{format:?}")));
        let one = PackOptions {
            data: DatasetOptions { threads: Some(1), ..options(&photos, &whole, format).data },
            ..options(&photos, &whole, format)
        };
        write_all(&one);
        let broken = options(&photos, &parts, format);
        let plain = Packer::open(&broken, &NEVER).unwrap();
        assert_eq!((plain.packing().done, plain.packing().images), (0, 28));
        drop(plain);
        write_all(&broken);
        // As after a kill inside the third shard, and before the sums.
        for name in ["pack.json", "SHA256SUMS", "mean.npy"] {
            fs::remove_file(parts.join(name)).unwrap();
        }
        let end = if format == PackFormat::Npy { "npy" } else { "tar" };
        let notes = parts.join("progress");
        fs::create_dir(&notes).unwrap();
        let plan = fs::read(whole.join("pack.json")).unwrap();
        fs::write(notes.join("plan.json"), &plan).unwrap();
        let shard = format!("train-00002.{end}");
        fs::rename(parts.join(&shard), parts.join(format!("{shard}.part"))).unwrap();
        let packer = Packer::open(&broken, &NEVER).unwrap();
        assert_eq!(packer.packing().done, 0);
        drop(packer);
        write_all(&broken);
        let (mut a, mut b) = (files(&whole), files(&parts));
        b.remove(&format!("{shard}.part"));
        assert_eq!(a.remove("pack.json"), b.remove("pack.json"));
        assert_eq!(a, b, "{format:?}");
        let packer = Packer::open(&broken, &NEVER).unwrap();
        assert!(packer.packing().complete && packer.packing().left == 0);
    }
}

#[test]
fn what_is_no_place_for_a_pack_is_refused() {
    let dir = source();
    let photos = dir.path().join("photos");
    let refused = |options: &PackOptions| {
        let error = Packer::open(options, &NEVER).map(|_| ()).unwrap_err();
        assert_eq!(error.code(), ErrorCode::Usage, "{error}");
        error.message().to_string()
    };
    assert!(refused(&options(&photos, &photos.join("deep/pack"), PackFormat::Npy)).contains("lies in the source"));
    let full = dir.path().join("full");
    write(&full, "letter.txt", b"dear");
    assert!(refused(&options(&photos, &full, PackFormat::Npy)).contains("not empty"));
    let target = dir.path().join("pack");
    write_all(&options(&photos, &target, PackFormat::Npy));
    assert!(refused(&options(&photos, &target, PackFormat::Tar)).ends_with("other options: kept"));
    write(&photos, "train/cat/new.png", &fs::read(photos.join("train/cat/0.jpg")).unwrap());
    let message = refused(&options(&photos, &target, PackFormat::Npy));
    assert!(message.contains("source") && message.contains("train"), "{message}");
    let limited = PackOptions {
        data: DatasetOptions { limit: Some(3), ..options(&photos, &target, PackFormat::Npy).data },
        ..options(&photos, &target, PackFormat::Npy)
    };
    assert!(refused(&limited).contains("limit"));
}

#[test]
fn damage_is_found_and_named() {
    let dir = source();
    let target = dir.path().join("pack");
    write_all(&options(&dir.path().join("photos"), &target, PackFormat::Npy));
    let verify = || {
        let mut verifier = Verifier::open(&target, Some(2)).unwrap();
        let mut last = None;
        while let Some(checked) = verifier.step(&NEVER).unwrap() {
            last = Some(checked);
        }
        last.unwrap()
    };
    let checked = verify();
    assert_eq!((checked.files, checked.of, checked.damaged.len()), (11, 11, 0));
    for name in ["train-00001.npy", "val-labels.npy", "pack.json"] {
        let path = target.join(name);
        let mut bytes = fs::read(&path).unwrap();
        let last = bytes.len() - 2;
        bytes[last] ^= 4;
        fs::write(&path, &bytes).unwrap();
        let damaged = verify().damaged;
        assert_eq!(damaged.iter().map(|d| d.file.as_str()).collect::<Vec<_>>(), [name]);
        bytes[last] ^= 4;
        fs::write(&path, &bytes).unwrap();
    }
    let shard = target.join("train-00000.npy");
    let bytes = fs::read(&shard).unwrap();
    fs::write(&shard, &bytes[..300]).unwrap();
    let error = open(&DatasetOptions::new(target.to_str().unwrap(), SIZE)).map(|_| ()).unwrap_err();
    assert!(error.message().contains("train-00000.npy") && error.remedy().unwrap().contains("data verify"), "{error}");
    fs::remove_file(&shard).unwrap();
    assert_eq!(verify().damaged[0].file, "train-00000.npy");
    let error = Verifier::open(dir.path(), None).map(|_| ()).unwrap_err();
    assert!(error.code() == ErrorCode::Data && error.message().contains("no pack"), "{error}");
}

#[test]
fn cifar_and_archives_are_packed_as_they_are_read() {
    let dir = source();
    let photos = dir.path().join("photos");
    fs::remove_file(photos.join("train/cat/3.jpg")).unwrap();
    fs::remove_file(photos.join("val/dog/12.jpg")).unwrap();
    let tar = dir.path().join("photos.tar");
    archive(&photos, "photos", &tar);
    let batches = dir.path().join("cifar");
    for (name, records) in [("data_batch_1.bin", 40), ("test_batch.bin", 20)] {
        let bytes: Vec<u8> = (0..records)
            .flat_map(|i: usize| std::iter::once((i % 10) as u8).chain((0..3072).map(move |j| (i * 7 + j * 13) as u8)))
            .collect();
        write(&batches, name, &bytes);
    }
    for (source, size) in [(&tar, SIZE), (&batches, 32)] {
        let target = dir.path().join(format!("pack-{size}"));
        let mut all = options(source, &target, PackFormat::Npy);
        all.data.image_size = size;
        write_all(&all);
        let [a, b] = [source, &target].map(|path| opened(path, size));
        assert_eq!(drain(&a, &loader(Split::Train, 9)), drain(&b, &loader(Split::Train, 9)));
        assert_eq!(a.statistics(), b.statistics());
        assert_eq!(a.info().fingerprint, b.info().fingerprint);
    }
}
