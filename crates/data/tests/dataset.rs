//! Opening: folders, archives and binaries made on the spot, what is found in them and what is refused.

mod support;

use alexnode_core::ErrorCode;
use alexnode_data::{Dataset, DatasetKind, DatasetOptions, OnBadImage, Split, SplitOrigin};
use std::{fs, path::Path, sync::atomic::AtomicBool};
use support::{
    drain, ids,
    images::{jpeg, pixels, png},
    loader, open, open_cached, pack, photos, write,
};

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    photos(dir.path());
    dir
}

fn options(path: &Path) -> DatasetOptions {
    DatasetOptions::new(path.to_str().unwrap(), 16)
}

fn small_png(seed: usize) -> Vec<u8> {
    png(20, 20, &pixels(20, 20, seed), image::ExtendedColorType::Rgb8)
}

/// Fails with `ERR_DATA`, naming `culprit`, with a remedy.
fn refused(options: &DatasetOptions, culprit: &str) {
    let error = open(options).err().expect(culprit);
    assert_eq!(error.code(), ErrorCode::Data, "{error}");
    assert!(error.message().contains(culprit), "{error}");
    assert!(error.remedy().is_some(), "{error}: no remedy");
}

#[test]
fn a_folder_with_train_and_val() {
    let dir = folder();
    write(dir.path(), "train/cat/.DS_Store", b"junk");
    write(dir.path(), "train/.cache/x.jpg", b"junk");
    write(dir.path(), "train/cat/notes.txt", b"not an image, and not called one");
    write(dir.path(), "train/cat/no-extension", &small_png(900));
    fs::create_dir_all(dir.path().join("train/empty")).unwrap();
    let dataset = open(&options(dir.path())).unwrap();
    let info = dataset.info();
    assert_eq!((info.kind, info.split), (DatasetKind::Folder, SplitOrigin::Given));
    assert_eq!(info.classes, ["cat", "dog"]);
    assert_eq!((info.train, info.val), (25, 6));
    assert_eq!((&info.per_class.train[..], &info.per_class.val[..]), (&[13, 12][..], &[3, 3][..]));
    assert!(info.skipped.is_empty());
    let json = serde_json::to_value(info).unwrap();
    assert_eq!((json["kind"].as_str(), json["split"].as_str()), (Some("folder"), Some("given")));
    assert_eq!((json["imageSize"].as_u64(), json["perClass"]["val"][0].as_u64()), (Some(16), Some(3)));
    assert_eq!(json["fingerprint"].as_str().map(str::len), Some(64));
}

#[test]
fn an_archive_gives_what_its_folder_gives() {
    let dir = folder();
    let out = tempfile::tempdir().unwrap();
    let tar = out.path().join("photos.tar");
    pack(dir.path(), "photos", &tar);
    let [a, b] = [dir.path(), &tar].map(|path| open(&options(path)).unwrap());
    assert_eq!(b.info().kind, DatasetKind::Tar);
    assert_eq!((&a.info().classes, &a.info().per_class), (&b.info().classes, &b.info().per_class));
    assert_eq!(a.statistics(), b.statistics());
    assert_eq!(drain(&a, &loader(Split::Train, 7)), drain(&b, &loader(Split::Train, 7)));
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 1, "something was unpacked");

    let bytes = fs::read(&tar).unwrap();
    let cut = out.path().join("cut.tar");
    fs::write(&cut, &bytes[..bytes.len() * 2 / 3]).unwrap();
    refused(&options(&cut), "cut.tar");
    let zipped = out.path().join("photos.tar.gz");
    fs::write(&zipped, [b"\x1f\x8b".as_slice(), &bytes].concat()).unwrap();
    refused(&options(&zipped), "compressed (gzip)");
    let text = out.path().join("text");
    fs::write(&text, "no archive at all. ".repeat(100)).unwrap();
    refused(&options(&text), "cannot be read as a .tar");
}

#[test]
fn the_automatic_split_follows_content() {
    let dir = tempfile::tempdir().unwrap();
    for class in ["a", "b"] {
        for i in 0..40 {
            write(dir.path(), &format!("{class}/{i}.png"), &small_png(i + usize::from(class == "b") * 100));
        }
        // A copy under another name.
        write(dir.path(), &format!("{class}/copy.png"), &small_png(3 + usize::from(class == "b") * 100));
    }
    let mut options = DatasetOptions { val_fraction: 0.3, ..options(dir.path()) };
    let first = open(&options).unwrap();
    let info = first.info();
    assert_eq!((info.split, info.train + info.val), (SplitOrigin::ByContentHash, 82));
    assert!((10..40).contains(&info.val), "{}", info.val);
    // No picture of one side is on the other: pictures differ where their files do.
    let images = |split| -> Vec<Vec<u8>> {
        let batches = drain(&first, &loader(split, 1));
        batches.into_iter().map(|b| b.pixels).collect()
    };
    let (train, val) = (images(Split::Train), images(Split::Val));
    assert!(train.iter().all(|image| !val.contains(image)));
    // Neither the seed nor the name of the folder matters.
    let moved = tempfile::tempdir().unwrap();
    let target = moved.path().join("elsewhere");
    fs::rename(dir.path(), &target).unwrap();
    options.source = target.to_str().unwrap().into();
    options.seed = 99;
    let second = open(&options).unwrap();
    assert_eq!(second.info().fingerprint, first.info().fingerprint);
    assert_eq!(drain(&second, &loader(Split::Val, 8)), drain(&first, &loader(Split::Val, 8)));
    // Another picture is another data set.
    write(&target, "a/0.png", &small_png(200));
    assert_ne!(open(&options).unwrap().info().fingerprint, first.info().fingerprint);
}

#[test]
fn what_cannot_be_trained_on_is_refused_with_a_remedy() {
    let dir = tempfile::tempdir().unwrap();
    refused(&options(&dir.path().join("missing")), "missing: cannot be opened");
    refused(&options(dir.path()), "no images");
    write(dir.path(), "1.png", &small_png(1));
    refused(&options(dir.path()), "not in folders of classes");
    write(dir.path(), "cat/1.png", &small_png(1));
    write(dir.path(), "cat/2.png", &small_png(2));
    refused(&options(dir.path()), "only one class, 'cat'");
    write(dir.path(), "dog/1.png", &small_png(3));
    refused(&options(dir.path()), "too few different images to split off a validation set in: dog");
    let split = folder();
    fs::remove_dir_all(split.path().join("val/dog")).unwrap();
    write(split.path(), "val/bird/1.png", &small_png(1));
    refused(&options(split.path()), "only in train: dog; only in val: bird");
    let usage = open(&DatasetOptions { image_size: 0, ..options(split.path()) }).err().unwrap();
    assert_eq!(usage.code(), ErrorCode::Usage);
    let stopped = Dataset::open(&options(folder().path()), &AtomicBool::new(true)).err().unwrap();
    assert_eq!(stopped.code(), ErrorCode::Aborted);
}

#[test]
fn a_bad_file_is_named_and_left_alone() {
    let dir = folder();
    let good = jpeg(30, 30, &pixels(30, 30, 5), jpeg_encoder::ColorType::Rgb, 0);
    for (path, bytes) in [
        ("train/cat/page.jpg", &b"<html>"[..]),
        ("train/dog/cut.jpg", &good[..good.len() / 2]),
        ("val/dog/cut.jpg", &good[..good.len() / 2]),
    ] {
        write(dir.path(), path, bytes);
        refused(&options(dir.path()), path);
        assert_eq!(fs::read(dir.path().join(path)).unwrap(), bytes);
        fs::remove_file(dir.path().join(path)).unwrap();
    }
    open(&options(dir.path())).unwrap();
}

#[test]
fn skipping_disturbs_nothing_else() {
    let dir = folder();
    let whole = open(&options(dir.path())).unwrap();
    let path = "train/cat/5.jpg";
    let before = drain(&whole, &loader(Split::Train, 1));
    write(dir.path(), path, b"broken");
    refused(&options(dir.path()), path);
    let skip = DatasetOptions { on_bad_image: OnBadImage::Skip, ..options(dir.path()) };
    let dataset = open(&skip).unwrap();
    let info = dataset.info();
    assert_eq!((info.train, info.per_class.train[0], info.skipped.len()), (23, 11, 1));
    assert!(info.skipped[0].path.ends_with(path) && info.skipped[0].reason.contains("not a picture"));
    assert_eq!(fs::read(dir.path().join(path)).unwrap(), b"broken");
    // The other images have the same ids, the same bytes and the same order as when all were well.
    let after = drain(&dataset, &loader(Split::Train, 1));
    let lost: Vec<_> = before.iter().filter(|b| !after.contains(b)).collect();
    assert_eq!((before.len(), after.len(), lost.len()), (24, 23, 1));
    assert_eq!(after, before.iter().filter(|b| *b != lost[0]).cloned().collect::<Vec<_>>());
    for split in ["train", "val"] {
        for i in 0..15 {
            let path = format!("{split}/cat/{i}.jpg");
            if dir.path().join(&path).exists() {
                write(dir.path(), &path, b"broken");
            }
        }
    }
    refused(&skip, "no usable image is left in train of: cat");
}

#[test]
fn findings_are_kept_until_a_file_changes() {
    let dir = folder();
    let cache = tempfile::tempdir().unwrap();
    let skip = DatasetOptions { on_bad_image: OnBadImage::Skip, ..options(dir.path()) };
    let first = open_cached(&skip, cache.path()).unwrap();
    let kept = || fs::read_dir(cache.path()).unwrap().count();
    let files = kept();
    assert!(files >= 2, "{files}");
    let second = open_cached(&skip, cache.path()).unwrap();
    assert_eq!((second.statistics(), kept()), (first.statistics(), files));
    let third = open_cached(&DatasetOptions { threads: Some(5), ..skip.clone() }, cache.path()).unwrap();
    assert_eq!((third.statistics(), kept()), (first.statistics(), files));
    // Same size, other content: the time of the change tells.
    let path = dir.path().join("train/cat/0.jpg");
    let mut bytes = fs::read(&path).unwrap();
    bytes[..8].fill(0);
    let later = fs::metadata(&path).unwrap().modified().unwrap() + std::time::Duration::from_secs(2);
    fs::write(&path, bytes).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
    let changed = open_cached(&skip, cache.path()).unwrap();
    assert_eq!(changed.info().skipped.len(), 1);
    assert_ne!(changed.statistics(), first.statistics());
}

#[test]
fn statistics_do_not_depend_on_threads() {
    let dir = folder();
    let of = |threads| open(&DatasetOptions { threads: Some(threads), ..options(dir.path()) }).unwrap();
    let one = of(1);
    for threads in [2, 3, 8] {
        assert_eq!(of(threads).statistics(), one.statistics());
    }
    // The mean image is the mean of the images.
    let images = drain(&one, &loader(Split::Train, 1));
    for (i, mean) in one.statistics().mean.iter().enumerate() {
        let expected = images.iter().map(|b| f64::from(b.pixels[i])).sum::<f64>() / images.len() as f64;
        assert!((f64::from(*mean) - expected).abs() < 1e-4);
    }
}

#[test]
fn a_limit_keeps_the_first_images_of_the_seeded_order() {
    let dir = folder();
    let limited = |seed| open(&DatasetOptions { limit: Some(10), seed, ..options(dir.path()) }).unwrap();
    let dataset = limited(1);
    assert_eq!((dataset.len(Split::Train), dataset.info().train, dataset.len(Split::Val)), (10, 10, 6));
    let mut kept = ids(&drain(&dataset, &loader(Split::Train, 4)));
    assert_ne!(kept, ids(&drain(&dataset, &alexnode_data::LoaderOptions { epoch: 4, ..loader(Split::Train, 4) })));
    kept.sort_unstable();
    let mut expected = alexnode_core::rng::sample_order(1, 0, 24)[..10].to_vec();
    expected.sort_unstable();
    assert_eq!(kept, expected);
    let mut other = ids(&drain(&limited(2), &loader(Split::Train, 4)));
    other.sort_unstable();
    assert_ne!(other, expected);
    assert_eq!(dataset.info().fingerprint, limited(2).info().fingerprint);
}

#[test]
fn cifar_binaries_plain_and_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let records = |n: usize, first: usize| -> Vec<u8> {
        (first..first + n)
            .flat_map(|i| {
                let plane = |c: usize| (0..1024).map(move |p| (p / 32 + 10 * c + i) as u8);
                [(i % 10) as u8].into_iter().chain(plane(0)).chain(plane(1)).chain(plane(2))
            })
            .collect()
    };
    for (name, n, first) in [("data_batch_1.bin", 12, 0), ("data_batch_2.bin", 13, 12), ("test_batch.bin", 10, 40)] {
        write(dir.path(), &format!("cifar-10-batches-bin/{name}"), &records(n, first));
    }
    let options = DatasetOptions::new(dir.path().to_str().unwrap(), 32);
    let dataset = open(&options).unwrap();
    assert_eq!((dataset.info().kind, dataset.info().train, dataset.info().val), (DatasetKind::Cifar10, 25, 10));
    let batches = drain(&dataset, &alexnode_data::LoaderOptions { shuffle: false, ..loader(Split::Train, 25) });
    assert_eq!(batches[0].labels[..13], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2]);
    // Image 14 (the third of the second file), row 2, column 0: planes become channels.
    assert_eq!(batches[0].pixels[14 * 3072 + 2 * 96..][..3], [16, 26, 36]);
    let larger = open(&DatasetOptions { image_size: 48, ..options.clone() }).unwrap();
    assert_eq!(drain(&larger, &loader(Split::Val, 10))[0].pixels.len(), 10 * 48 * 48 * 3);
    write(dir.path(), "cifar-10-batches-bin/data_batch_2.bin", &records(13, 12)[1..]);
    refused(&options, "data_batch_2.bin: expected a multiple of 3073 bytes");
    fs::remove_file(dir.path().join("cifar-10-batches-bin/test_batch.bin")).unwrap();
    refused(&options, "test_batch.bin (or test_batch.bin.xz) is missing");
}

#[test]
fn the_generated_set_needs_no_files() {
    let of = |seed| open(&DatasetOptions { seed, ..DatasetOptions::new("generated", 16) }).unwrap();
    let dataset = of(1);
    let info = dataset.info();
    assert_eq!((info.kind, info.split, info.classes.len()), (DatasetKind::Generated, SplitOrigin::Generated, 10));
    assert_eq!(info.per_class.train.iter().sum::<usize>(), info.train);
    let batches = drain(&dataset, &loader(Split::Val, 100));
    assert!(batches.iter().all(|b| b.labels.iter().zip(&b.ids).all(|(l, id)| *l as u32 == id % 10)));
    assert_ne!(of(2).info().fingerprint, info.fingerprint);
}

#[cfg(unix)]
#[test]
fn links_are_followed_but_not_in_circles() {
    let dir = folder();
    let outside = tempfile::tempdir().unwrap();
    write(outside.path(), "far.png", &small_png(40));
    std::os::unix::fs::symlink(outside.path(), dir.path().join("train/cat/more")).unwrap();
    std::os::unix::fs::symlink(dir.path(), dir.path().join("train/cat/round")).unwrap();
    assert_eq!(open(&options(dir.path())).unwrap().info().per_class.train, [13, 12]);
    std::os::unix::fs::symlink("nowhere.png", dir.path().join("train/cat/dangling.png")).unwrap();
    refused(&options(dir.path()), "train/cat/dangling.png: cannot be read");
}
