//! Files that change after they were looked at: what was found earlier is never relied on where it may be wrong.

mod support;

use alexnode_core::{BatchSource, ErrorCode, rng::sample_order};
use alexnode_data::{DatasetOptions, OnBadImage, Split};
use sha2::{Digest, Sha256};
use std::{
    fs,
    path::{Path, PathBuf},
};
use support::{drain, ids, loader, open, open_cached, photos, write};

/// A folder of photos, a cache folder, and options that skip bad files.
fn folder() -> (tempfile::TempDir, tempfile::TempDir, DatasetOptions) {
    let [dir, cache] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    photos(dir.path());
    let options =
        DatasetOptions { on_bad_image: OnBadImage::Skip, ..DatasetOptions::new(dir.path().to_str().unwrap(), 16) };
    (dir, cache, options)
}

/// Other bytes, no picture, with the size and the time of the old ones.
fn damage(path: &Path) {
    let meta = fs::metadata(path).unwrap();
    fs::write(path, vec![0; meta.len() as usize]).unwrap();
    fs::File::options().write(true).open(path).unwrap().set_modified(meta.modified().unwrap()).unwrap();
}

/// The kept findings of scans.
fn scans(cache: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(cache).unwrap().map(|item| item.unwrap().path());
    files.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("scan-")).collect()
}

/// Changes the kept finding about the file with the given index.
fn falsify(cache: &Path, index: usize, bad: Option<&str>, unread: bool) {
    let [path] = &scans(cache)[..] else { panic!("more than one scan") };
    let bytes = fs::read(path).unwrap();
    // These have no hashes, so there is only their count and what is wrong, by index.
    let (count, rest) = bytes.split_at(8);
    let mut findings: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&rest[..rest.len() - 32]).unwrap();
    findings.remove(&index.to_string());
    if bad.is_some() || unread {
        findings.insert(index.to_string(), serde_json::json!([bad, unread]));
    }
    let mut bytes = [count, &serde_json::to_vec(&findings).unwrap()].concat();
    bytes.extend(Sha256::digest(&bytes));
    fs::write(path, bytes).unwrap();
}

/// The path of a training image, by its id in [`photos`].
fn name(id: u32) -> String {
    let mut names: Vec<String> = (0..12).map(|i| format!("{i}.jpg")).collect();
    names.sort();
    format!("train/{}/{}", if id < 12 { "cat" } else { "dog" }, names[id as usize % 12])
}

#[cfg(unix)]
#[test]
fn other_bytes_under_the_same_size_and_time_are_noticed() {
    let (dir, cache, options) = folder();
    let strict = DatasetOptions { on_bad_image: OnBadImage::Error, ..options.clone() };
    let whole = open_cached(&options, cache.path()).unwrap();
    let before = drain(&whole, &loader(Split::Train, 1));
    open_cached(&strict, cache.path()).unwrap();
    let victim = name(7);
    damage(&dir.path().join(&victim));
    for _ in 0..2 {
        let dataset = open_cached(&options, cache.path()).unwrap();
        let info = dataset.info();
        assert_eq!((info.train, &info.per_class.train[..], info.skipped.len()), (23, &[11, 12][..], 1));
        assert!(info.skipped[0].path.ends_with(&victim), "{}", info.skipped[0].path);
        assert!(info.skipped[0].reason.contains("not a picture"), "{}", info.skipped[0].reason);
        assert_ne!(info.fingerprint, whole.info().fingerprint);
        // The others keep their ids and their order.
        let after = drain(&dataset, &loader(Split::Train, 1));
        assert_eq!(after, before.iter().filter(|b| b.ids[0] != 7).cloned().collect::<Vec<_>>());
        let error = open_cached(&strict, cache.path()).err().unwrap();
        assert_eq!(error.code(), ErrorCode::Data);
        assert!(
            error.message().contains(&victim) && error.remedy().unwrap().contains("--on-bad-image skip"),
            "{error}"
        );
    }
}

#[test]
fn a_file_that_nobody_may_read_is_left_out_until_one_may() {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let (dir, cache, options) = folder();
        open_cached(&options, cache.path()).unwrap();
        let path = dir.path().join(name(7));
        let allow = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        allow(0o000);
        if fs::File::open(&path).is_ok() {
            eprintln!("skipped: this user may read every file");
            return;
        }
        let dataset = open_cached(&options, cache.path()).unwrap();
        assert_eq!((dataset.info().train, dataset.info().skipped.len()), (23, 1));
        assert!(dataset.info().skipped[0].reason.contains("cannot be read"));
        allow(0o644);
        assert!(open_cached(&options, cache.path()).unwrap().info().skipped.is_empty());
    }
}

#[test]
fn a_file_that_could_not_be_read_is_tried_again() {
    let (_dir, cache, options) = folder();
    let whole = open_cached(&options, cache.path()).unwrap();
    falsify(cache.path(), 7, Some("cannot be read: Input/output error (os error 5)"), true);
    let dataset = open_cached(&options, cache.path()).unwrap();
    assert_eq!((dataset.info().skipped.len(), dataset.info().train), (0, 24));
    assert_eq!(dataset.info().fingerprint, whole.info().fingerprint);
    // What was found about a picture's bytes is kept: nobody looks again.
    falsify(cache.path(), 7, Some("damaged"), false);
    assert_eq!(open_cached(&options, cache.path()).unwrap().info().skipped[0].reason, "damaged");
}

#[test]
fn what_a_stopped_opening_had_found_is_kept_and_the_rest_is_looked_at() {
    let (dir, cache, options) = folder();
    damage(&dir.path().join(name(12)));
    open_cached(&options, cache.path()).unwrap();
    // As if it had been stopped after twelve files, with something to say about the fourth.
    falsify(cache.path(), 3, Some("damaged"), false);
    falsify(cache.path(), 12, None, false);
    let [path] = &scans(cache.path())[..] else { panic!("more than one scan") };
    let bytes = fs::read(path).unwrap();
    let mut bytes = [&12u64.to_le_bytes(), &bytes[8..bytes.len() - 32]].concat();
    bytes.extend(Sha256::digest(&bytes));
    fs::write(path, bytes).unwrap();
    let info = open_cached(&options, cache.path()).unwrap().info().clone();
    let bad: Vec<bool> = info.skipped.iter().map(|skipped| skipped.reason == "damaged").collect();
    assert_eq!((bad, info.train), (vec![true, false], 22));
}

/// A disk that gives other bytes than it got, for example: nothing about the file says so.
#[test]
fn damage_that_leaves_no_trace_is_found_when_the_images_are_decoded() {
    let (dir, cache, options) = folder();
    damage(&dir.path().join(name(7)));
    let expected = open_cached(&options, cache.path()).unwrap();
    falsify(cache.path(), 7, None, false);
    for _ in 0..2 {
        let dataset = open_cached(&options, cache.path()).unwrap();
        assert_eq!(dataset.info().skipped, expected.info().skipped);
        assert_eq!(dataset.info().fingerprint, expected.info().fingerprint);
    }
}

#[test]
fn a_file_that_goes_bad_during_a_run_is_named_and_left_out_of_the_next_one() {
    for vanishes in [true, false] {
        let (dir, cache, options) = folder();
        drop(open_cached(&options, cache.path()).unwrap());
        // Opened again, everything about the files is known and nothing is decoded.
        let dataset = open_cached(&options, cache.path()).unwrap();
        let id = sample_order(7, 3, 24)[12];
        let path = dir.path().join(name(id));
        if vanishes {
            fs::remove_file(&path).unwrap()
        } else {
            damage(&path)
        }
        let mut source = dataset.loader(&loader(Split::Train, 5)).unwrap();
        for _ in 0..2 {
            assert_eq!(source.next().unwrap().unwrap().valid, 5);
        }
        let error = source.next().unwrap_err();
        assert_eq!(error.code(), ErrorCode::Data);
        assert!(error.message().contains(&name(id)), "{error}");
        assert!(error.remedy().unwrap().contains("--resume"), "{error}");
        assert_eq!(scans(cache.path()), Vec::<PathBuf>::new(), "the findings are not relied on again");

        let next = open_cached(&options, cache.path()).unwrap();
        assert_eq!((next.info().train, next.info().skipped.len()), (23, usize::from(!vanishes)));
        assert_eq!(ids(&drain(&next, &loader(Split::Train, 5))).len(), 23);
    }
}

#[cfg(unix)]
#[test]
fn a_link_to_nowhere_is_left_out_until_it_leads_somewhere() {
    let (dir, cache, options) = folder();
    let target = dir.path().join("elsewhere");
    std::os::unix::fs::symlink(&target, dir.path().join("train/cat/link.png")).unwrap();
    for _ in 0..2 {
        let dataset = open_cached(&options, cache.path()).unwrap();
        assert_eq!((dataset.info().train, dataset.info().skipped.len()), (24, 1));
    }
    fs::copy(dir.path().join(name(0)), &target).unwrap();
    let dataset = open_cached(&options, cache.path()).unwrap();
    assert_eq!((dataset.info().train, dataset.info().skipped.len()), (25, 0));
    assert_eq!(open(&options).unwrap().info().fingerprint, dataset.info().fingerprint);
    write(dir.path(), "elsewhere", b"no picture");
    assert_eq!(open_cached(&options, cache.path()).unwrap().info().skipped.len(), 1);
}
