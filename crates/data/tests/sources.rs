//! What users have: archives as ILSVRC2012 was handed out, WebDatasets, lists, images handed over one by one.

mod support;

use alexnode_core::ErrorCode;
use alexnode_data::{
    Balance, Dataset, DatasetKind, DatasetOptions, Split, SplitOrigin, Spool,
    pack::{PackFormat, PackOptions, Packer},
};
use std::{
    fs,
    path::Path,
    sync::{Arc, atomic::AtomicBool},
};
use support::{drain, ids, loader, open, photos, write};

const WNIDS: [&str; 2] = ["n00000002", "n00000010"];

fn dataset(path: &Path) -> Arc<Dataset> {
    open(&DatasetOptions { threads: Some(2), ..DatasetOptions::new(path.to_str().unwrap(), 16) }).unwrap()
}

fn refused(path: &Path) -> String {
    let error = open(&DatasetOptions::new(path.to_str().unwrap(), 16)).map(|_| ()).unwrap_err();
    assert!(error.code() == ErrorCode::Data && error.remedy().is_some(), "{error}");
    error.message().to_string()
}

/// A .tar in memory.
fn tar(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    archive.into_inner().unwrap()
}

/// An element of a MATLAB file: a short one in the place of its length.
fn element(kind: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    if (1..=4).contains(&data.len()) {
        bytes.extend((kind | (data.len() as u32) << 16).to_le_bytes());
    } else {
        bytes.extend(kind.to_le_bytes());
        bytes.extend((data.len() as u32).to_le_bytes());
    }
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

fn matrix(class: u8, count: i32, rest: &[Vec<u8>]) -> Vec<u8> {
    let sides: Vec<u8> = [1, count].into_iter().flat_map(i32::to_le_bytes).collect();
    let parts = [element(6, &[class, 0, 0, 0, 0, 0, 0, 0]), element(5, &sides), element(1, b""), rest.concat()];
    element(14, &parts.concat())
}

/// `meta.mat` with classes whose numbers are not in the order of their names: 1 is the second.
fn meta() -> Vec<u8> {
    let text = |text: &str| {
        matrix(4, text.len() as i32, &[element(4, &text.bytes().flat_map(|b| [b, 0]).collect::<Vec<_>>())])
    };
    let number = |n: u8| matrix(6, 1, &[element(2, &[n])]);
    let fields: Vec<u8> = ["ILSVRC2012_ID", "WNID", "words"]
        .iter()
        .flat_map(|name| {
            let mut bytes = name.as_bytes().to_vec();
            bytes.resize(16, 0);
            bytes
        })
        .collect();
    let mut parts = vec![element(5, &16i32.to_le_bytes()), element(1, &fields)];
    for (n, wnid) in [(1, WNIDS[1]), (2, WNIDS[0]), (3, "n00000099")] {
        parts.extend([number(n), text(wnid), text("a thing")]);
    }
    let mut file = b"MATLAB 5.0 MAT-file".to_vec();
    file.resize(124, b' ');
    file.extend(b"\x00\x01IM");
    file.extend(matrix(2, 3, &parts));
    file
}

/// The same images as folders and as the archives of ILSVRC2012.
fn ilsvrc(root: &Path) {
    photos(&root.join("photos"));
    let truth = [2, 1, 1, 2, 2, 1];
    let mut classes = Vec::new();
    for (name, wnid) in ["cat", "dog"].iter().zip(WNIDS) {
        let mut members = Vec::new();
        for i in 0..12 {
            let bytes = fs::read(root.join(format!("photos/train/{name}/{i}.jpg"))).unwrap();
            write(root, &format!("folders/train/{wnid}/{wnid}_{i}.JPEG"), &bytes);
            members.push((format!("{wnid}_{i}.JPEG"), bytes));
        }
        classes.push((format!("{wnid}.tar"), tar(&members)));
    }
    let mut left = [[12, 13, 14].iter(), [12, 13, 14].iter()];
    let mut val = Vec::new();
    for (number, id) in (1..).zip(truth) {
        let class = 2 - id;
        let file = left[class].next().unwrap();
        let bytes = fs::read(root.join(format!("photos/val/{}/{file}.jpg", ["cat", "dog"][class]))).unwrap();
        let name = format!("ILSVRC2012_val_{number:08}.JPEG");
        write(root, &format!("folders/val/{}/{name}", WNIDS[class]), &bytes);
        val.push((name, bytes));
    }
    classes.reverse();
    write(root, "archives/ILSVRC2012_img_train.tar", &tar(&classes));
    write(root, "archives/ILSVRC2012_img_val.tar", &tar(&val));
    write(root, "archives/meta.mat", &meta());
    let lines: String = truth.iter().map(|id| format!("{id}\n")).collect();
    write(root, "archives/ILSVRC2012_validation_ground_truth.txt", lines.as_bytes());
}

#[test]
fn the_archives_of_ilsvrc2012_are_the_folders_that_people_make_of_them() {
    let dir = tempfile::tempdir().unwrap();
    ilsvrc(dir.path());
    let archives = dir.path().join("archives");
    let [a, b] = [dataset(&dir.path().join("folders")), dataset(&archives)];
    assert_eq!(b.info().kind, DatasetKind::Ilsvrc2012);
    assert_eq!(b.info().classes, WNIDS);
    assert_eq!(a.info().fingerprint, b.info().fingerprint);
    for split in Split::ALL {
        assert_eq!(drain(&a, &loader(split, 5)), drain(&b, &loader(split, 5)));
    }
    assert!(
        b.name(Split::Val, 0).contains("img_val.tar:val/n00000002/ILSVRC2012_val_0000000"),
        "{}",
        b.name(Split::Val, 0)
    );
    // And so is a pack of them.
    let target = dir.path().join("pack");
    let data = DatasetOptions {
        cache_dir: Some(dir.path().join("cache")),
        ..DatasetOptions::new(archives.to_str().unwrap(), 16)
    };
    let options = PackOptions { data, target: target.clone(), format: PackFormat::Npy, shard_images: None };
    let never = AtomicBool::new(false);
    let mut packer = Packer::open(&options, &never).unwrap();
    while packer.step(&never).unwrap().is_some() {}
    assert_eq!(drain(&a, &loader(Split::Train, 5)), drain(&dataset(&target), &loader(Split::Train, 5)));

    // The kit as it is handed out will do.
    let kit = [
        ("ILSVRC2012_devkit_t12/data/meta.mat", "meta.mat"),
        ("ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt", "ILSVRC2012_validation_ground_truth.txt"),
    ];
    let members: Vec<_> =
        kit.iter().map(|(to, from)| (to.to_string(), fs::read(archives.join(from)).unwrap())).collect();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, &tar(&members)).unwrap();
    write(&archives, "ILSVRC2012_devkit_t12.tar.gz", &packed.finish().unwrap());
    kit.iter().for_each(|(_, from)| fs::remove_file(archives.join(from)).unwrap());
    assert_eq!(dataset(&archives).info().fingerprint, a.info().fingerprint);
    fs::remove_file(archives.join("ILSVRC2012_devkit_t12.tar.gz")).unwrap();
    assert!(refused(&archives).contains("meta.mat is missing"));
    write(&archives, "meta.mat", &meta());
    write(&archives, "ILSVRC2012_validation_ground_truth.txt", b"1\n2\n");
    assert!(refused(&archives).contains("image 3 is not in"));
    fs::remove_file(archives.join("ILSVRC2012_img_val.tar")).unwrap();
    assert_eq!(dataset(&archives).info().split, SplitOrigin::ByContentHash);
}

#[test]
fn web_datasets_have_their_labels_beside_the_pictures() {
    let dir = tempfile::tempdir().unwrap();
    photos(&dir.path().join("photos"));
    let members = |split: &str, json: bool| -> Vec<(String, Vec<u8>)> {
        let files = |name: &str| {
            let mut paths: Vec<_> = fs::read_dir(dir.path().join(format!("photos/{split}/{name}")))
                .unwrap()
                .map(|f| f.unwrap().path())
                .collect();
            paths.sort();
            paths
        };
        let mut members = Vec::new();
        for (class, name) in ["cat", "dog"].iter().enumerate() {
            for (i, path) in files(name).iter().enumerate() {
                let key = format!("{class}{i:03}");
                members.push((format!("{key}.jpg"), fs::read(path).unwrap()));
                members.push(if json {
                    (format!("{key}.json"), format!("{{\"label\": {class}}}").into_bytes())
                } else {
                    (format!("{key}.cls"), format!("{class}\n").into_bytes())
                });
            }
        }
        members
    };
    let folder = dataset(&dir.path().join("photos"));
    write(dir.path(), "shards/set-train-0.tar", &tar(&members("train", false)));
    write(dir.path(), "shards/set-val-0.tar", &tar(&members("val", true)));
    let shards = dir.path().join("shards");
    let numbered = dataset(&shards);
    assert_eq!(
        (numbered.info().kind, &numbered.info().classes),
        (DatasetKind::WebDataset, &vec!["0".to_string(), "1".into()])
    );
    write(dir.path(), "shards/classes.txt", b"cat\ndog\n");
    let named = dataset(&shards);
    assert_eq!(named.info().classes, folder.info().classes);
    for split in Split::ALL {
        assert_eq!(drain(&folder, &loader(split, 4)), drain(&named, &loader(split, 4)));
    }
    // One alone is split by content.
    let alone = dir.path().join("alone.tar");
    fs::write(&alone, tar(&members("train", false))).unwrap();
    let info = dataset(&alone).info().clone();
    assert_eq!(
        (info.kind, info.split, info.train + info.val),
        (DatasetKind::WebDataset, SplitOrigin::ByContentHash, 24)
    );
    let mut broken = members("train", false);
    broken.remove(1);
    fs::write(&alone, tar(&broken)).unwrap();
    assert!(refused(&alone).contains("0000.jpg: has no label"));
}

#[test]
fn lists_name_files_and_classes() {
    let dir = tempfile::tempdir().unwrap();
    photos(&dir.path().join("photos"));
    let folder = dataset(&dir.path().join("photos"));
    let mut csv = "\u{feff}Label, split,path\n".to_string();
    let mut json = String::new();
    for split in ["val", "train"] {
        for name in ["dog", "cat"] {
            for file in fs::read_dir(dir.path().join(format!("photos/{split}/{name}"))).unwrap() {
                let path = format!("photos/{split}/{name}/{}", file.unwrap().file_name().to_str().unwrap());
                csv += &format!("{name},{split},\"{path}\"\n");
                json += &format!("{{\"file\": \"{path}\", \"class\": \"{name}\", \"split\": \"{split}\"}}\n\n");
            }
        }
    }
    for (name, text) in [("list.csv", &csv), ("list.jsonl", &json)] {
        write(dir.path(), name, text.as_bytes());
        let list = dataset(&dir.path().join(name));
        assert_eq!((list.info().kind, list.info().split), (DatasetKind::List, SplitOrigin::Given));
        for split in Split::ALL {
            assert_eq!(drain(&folder, &loader(split, 4)), drain(&list, &loader(split, 4)));
        }
    }
    let wrong = |name: &str, text: &str| {
        write(dir.path(), name, text.as_bytes());
        refused(&dir.path().join(name))
    };
    assert!(wrong("a.csv", "cat,photos/train/cat/0.jpg\n").contains("no columns path and label, but cat, photos"));
    assert!(
        wrong("b.csv", "path,label,split\na.png,cat,train\nb.png,dog,\n").contains("b.csv:3: some rows name a split")
    );
    assert!(
        wrong("c.csv", "path,label\na.png,cat\na.png,dog\n").contains("c.csv:3: 'a.png' is listed with two classes")
    );
    assert!(
        wrong("d.csv", "path,label,split\na.png,cat,middle\n")
            .contains("d.csv:2: the split is train or val, not 'middle'")
    );
    assert!(wrong("e.jsonl", "{\"path\": \"a.png\"}\n").contains("e.jsonl:1: no field label"));
    assert!(
        wrong("f.jsonl", "{\"path\": \"gone.png\", \"label\": \"a\"}\n{\"path\": \"b.png\", \"label\": \"b\"}\n")
            .contains("gone.png")
    );
}

#[test]
fn images_handed_over_are_a_data_set_like_others() {
    let dir = tempfile::tempdir().unwrap();
    photos(dir.path());
    let folder = dataset(dir.path());
    let mut spool = Spool::new().unwrap();
    for split in Split::ALL {
        for (class, count) in [("cat", 15), ("dog", 15)] {
            let mut files: Vec<_> =
                (0..count).map(|i| dir.path().join(format!("{}/{class}/{i}.jpg", split.name()))).collect();
            files.sort();
            for path in files.iter().filter(|path| path.exists()) {
                spool.add(&fs::read(path).unwrap(), class, Some(split)).unwrap();
            }
        }
    }
    assert!(spool.add(b"", "cat", None).unwrap_err().message().contains("some images name a split"));
    let options = DatasetOptions { cache_dir: Some(dir.path().join("cache")), ..DatasetOptions::new("stream", 16) };
    let never = AtomicBool::new(false);
    let stream = Arc::new(Dataset::of_spool(spool, &options, &never).unwrap());
    assert_eq!(stream.info().kind, DatasetKind::Stream);
    for split in Split::ALL {
        assert_eq!(drain(&folder, &loader(split, 4)), drain(&stream, &loader(split, 4)));
    }
    let empty = Dataset::of_spool(Spool::new().unwrap(), &options, &never).map(|_| ()).unwrap_err();
    assert!(empty.message().contains("no images"));
}

#[test]
fn a_balanced_epoch_shows_small_classes_more_often() {
    let dir = tempfile::tempdir().unwrap();
    photos(dir.path());
    for i in 3..12 {
        fs::remove_file(dir.path().join(format!("train/dog/{i}.jpg"))).unwrap();
    }
    let options = DatasetOptions { balance: Balance::Sample, ..DatasetOptions::new(dir.path().to_str().unwrap(), 16) };
    let [plain, balanced] = [dataset(dir.path()), open(&options).unwrap()];
    let batches = drain(&balanced, &loader(Split::Train, 5));
    let dogs: usize = batches.iter().map(|b| b.labels[..b.valid].iter().filter(|&&label| label == 1).count()).sum();
    assert_eq!((ids(&batches).len(), (7..=8).contains(&dogs)), (15, true), "{dogs}");
    // The same image under another id.
    let whole = drain(&plain, &loader(Split::Train, 15));
    for batch in &batches {
        for (i, id) in batch.ids[..batch.valid].iter().enumerate() {
            let at = whole[0].ids.iter().position(|other| *other == id % 15).unwrap();
            assert_eq!(batch.pixels[i * 768..][..768], whole[0].pixels[at * 768..][..768]);
        }
    }
    assert_eq!(drain(&plain, &loader(Split::Val, 4)), drain(&balanced, &loader(Split::Val, 4)));
}

#[test]
fn a_balanced_loss_weighs_each_class_alike() {
    let dir = tempfile::tempdir().unwrap();
    photos(dir.path());
    for i in 3..12 {
        fs::remove_file(dir.path().join(format!("train/dog/{i}.jpg"))).unwrap();
    }
    let options = DatasetOptions { balance: Balance::Loss, ..DatasetOptions::new(dir.path().to_str().unwrap(), 16) };
    let [plain, balanced] = [dataset(dir.path()), open(&options).unwrap()];
    assert_eq!((&plain.info().per_class.train, &plain.info().class_weights), (&vec![12, 3], &None));
    // 15 / (2 x 12) and 15 / (2 x 3).
    assert_eq!(balanced.info().class_weights, Some(vec![0.625, 2.5]));
    // The images of an epoch are the same.
    assert_eq!(drain(&plain, &loader(Split::Train, 5)), drain(&balanced, &loader(Split::Train, 5)));
    // Of what a limit keeps.
    let limited = open(&DatasetOptions { limit: Some(1), ..options }).unwrap();
    let counts = limited.info().per_class.train.iter().map(|n| *n as f32).collect();
    assert_eq!(limited.info().class_weights, Some(counts));
}
