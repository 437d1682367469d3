//! The readers against known facts of real data sets (shared data; skipped, and said so, without it). Published numbers of
//! CIFAR-10: first labels, first pixel, mean and standard deviation of the channels of the official binary version.

mod support;

use alexnode_data::{DatasetKind, DatasetOptions, Split, SplitOrigin};
use std::{collections::BTreeMap, fs, io::Read};
use support::{drain, images::shared_data, loader, open};

#[test]
fn cifar10_is_read_as_published() {
    let Some(folder) = shared_data("cifar10") else { return };
    let dataset = open(&DatasetOptions::new(folder.to_str().unwrap(), 32)).unwrap();
    let info = dataset.info();
    assert_eq!((info.kind, info.split), (DatasetKind::Cifar10, SplitOrigin::Given));
    assert_eq!((info.train, info.val), (50_000, 10_000));
    assert_eq!((info.classes[0].as_str(), info.classes[9].as_str()), ("airplane", "truck"));
    assert_eq!(info.per_class.train, [5000; 10]);
    assert_eq!(info.per_class.val, [1000; 10]);
    for (mean, published) in info.mean.iter().zip([125.306_918_05, 122.950_394_14, 113.865_383_18]) {
        assert!((mean - published).abs() < 1e-8, "{mean} {published}");
    }
    // The variances of the channels are what the components make of them.
    let statistics = dataset.statistics();
    for (channel, published) in [62.993_219_28, 62.088_707_64, 66.704_899_64].into_iter().enumerate() {
        let part = |i: usize| f64::from(statistics.stdevs[i] * statistics.vectors[i][channel]).powi(2);
        let stdev = (part(0) + part(1) + part(2)).sqrt();
        assert!((stdev - published).abs() < 1e-4, "{stdev} {published}");
    }
    let mut options = loader(Split::Train, 10);
    options.shuffle = false;
    for (split, labels) in
        [(Split::Train, [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]), (Split::Val, [3, 8, 8, 0, 6, 6, 1, 6, 3, 1])]
    {
        options.split = split;
        let first = alexnode_core::BatchSource::next(&mut dataset.loader(&options).unwrap()).unwrap().unwrap();
        assert_eq!(first.labels, labels);
        if split == Split::Train {
            assert_eq!(first.pixels[..3], [59, 62, 63]);
        }
    }
}

#[test]
fn imagenette_comes_out_of_its_archive() {
    let Some(tar) = shared_data("imagenette224-subset/imagenette224-subset.tar") else { return };
    let mut options = DatasetOptions::new(tar.to_str().unwrap(), 64);
    options.limit = Some(256);
    let dataset = open(&options).unwrap();
    let info = dataset.info();
    assert_eq!((info.kind, info.split), (DatasetKind::Tar, SplitOrigin::Given));
    assert_eq!((info.train, info.val, info.classes.len()), (256, 500, 10));
    assert_eq!(info.per_class.val, [50; 10]);
    assert_eq!((info.classes[0].as_str(), info.classes[9].as_str()), ("n01440764", "n03888257"));
    assert!(info.skipped.is_empty());
    assert!(info.mean.iter().all(|m| (90.0..150.0).contains(m)), "{:?}", info.mean);
    let batches = drain(&dataset, &loader(Split::Train, 100));
    assert_eq!(batches.iter().map(|b| b.valid).collect::<Vec<_>>(), [100, 100, 56]);
}

/// The archives as ILSVRC2012 has them, made of a part of imagenette, with the true development kit: the folder that an image is in there is
/// the class that the kit must come to.
#[test]
fn the_devkit_of_ilsvrc2012_says_what_validation_images_show() {
    let Some(tar) = shared_data("imagenette224-subset/imagenette224-subset.tar") else { return };
    let Some(labels) = shared_data("labels") else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut train: BTreeMap<String, tar::Builder<Vec<u8>>> = BTreeMap::new();
    let mut val = tar::Builder::new(Vec::new());
    let mut truth = BTreeMap::new();
    let add = |archive: &mut tar::Builder<Vec<u8>>, name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, name, bytes).unwrap();
    };
    let mut source = tar::Archive::new(fs::File::open(tar).unwrap());
    for entry in source.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        let [_, split, wnid, name] = path.split('/').collect::<Vec<_>>()[..] else { continue };
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        if split == "train" {
            add(train.entry(wnid.into()).or_insert_with(|| tar::Builder::new(Vec::new())), name, &bytes);
        } else if name.starts_with("ILSVRC2012_val") {
            add(&mut val, name, &bytes);
            truth.insert(name.to_string(), wnid.to_string());
        }
    }
    let mut outer = tar::Builder::new(Vec::new());
    for (wnid, archive) in train.into_iter().filter(|(wnid, _)| truth.values().any(|other| other == wnid)) {
        add(&mut outer, &format!("{wnid}.tar"), &archive.into_inner().unwrap());
    }
    support::write(dir.path(), "img_train.tar", &outer.into_inner().unwrap());
    support::write(dir.path(), "img_val.tar", &val.into_inner().unwrap());
    for name in ["meta.mat", "ILSVRC2012_validation_ground_truth.txt"] {
        fs::copy(labels.join(name), dir.path().join(name)).unwrap();
    }
    let dataset = open(&DatasetOptions::new(dir.path().to_str().unwrap(), 32)).unwrap();
    assert_eq!((dataset.info().kind, dataset.info().val), (DatasetKind::Ilsvrc2012, truth.len()));
    for id in 0..truth.len() as u32 {
        let name = dataset.name(Split::Val, id);
        let [file, wnid] = name.rsplit('/').take(2).collect::<Vec<_>>()[..] else { panic!("{name}") };
        assert_eq!(truth[file], wnid, "{name}");
    }
}
