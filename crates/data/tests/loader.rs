//! Minibatches: the same ones in the same order for any number of threads, from any place of the epoch, errors in their turn.

mod support;

use alexnode_core::{BatchSource, ErrorCode, rng::sample_order};
use alexnode_data::{Dataset, DatasetOptions, LoaderOptions, Split};
use std::{fs, path::Path, sync::Arc};
use support::{drain, ids, loader, open, photos};

fn dataset(path: &Path, threads: usize) -> Arc<Dataset> {
    let options = DatasetOptions { threads: Some(threads), ..DatasetOptions::new(path.to_str().unwrap(), 16) };
    open(&options).unwrap()
}

#[test]
fn batches_do_not_depend_on_threads() {
    let dir = tempfile::tempdir().unwrap();
    photos(dir.path());
    let one = drain(&dataset(dir.path(), 1), &loader(Split::Train, 5));
    assert_eq!(one.iter().map(|b| b.valid).collect::<Vec<_>>(), [5, 5, 5, 5, 4]);
    for threads in [2, 3, 16] {
        let dataset = dataset(dir.path(), threads);
        for _ in 0..5 {
            assert_eq!(drain(&dataset, &loader(Split::Train, 5)), one);
        }
    }
    // Many small images on many threads, taken several at once.
    let generated = |threads| {
        let options = DatasetOptions { threads: Some(threads), ..DatasetOptions::new("generated", 8) };
        drain(&open(&options).unwrap(), &loader(Split::Val, 96))
    };
    assert_eq!(generated(1), generated(6));
}

#[test]
fn the_order_is_the_seeded_one() {
    let dir = tempfile::tempdir().unwrap();
    photos(dir.path());
    let dataset = dataset(dir.path(), 2);
    let options = loader(Split::Train, 5);
    assert_eq!(ids(&drain(&dataset, &options)), sample_order(options.seed, options.epoch, 24));
    let straight = drain(&dataset, &LoaderOptions { shuffle: false, ..options });
    assert_eq!(ids(&straight), (0..24).collect::<Vec<_>>());
    assert_eq!(straight.iter().flat_map(|b| b.labels[..b.valid].to_vec()).filter(|l| *l == 0).count(), 12);
    // Whatever the order, an id is the same image.
    for batch in drain(&dataset, &options) {
        for (i, id) in batch.ids[..batch.valid].iter().enumerate() {
            let other = &straight[*id as usize / 5];
            let j = *id as usize % 5;
            assert_eq!(batch.pixels[i * 768..][..768], other.pixels[j * 768..][..768]);
            assert_eq!(batch.labels[i], other.labels[j]);
        }
    }
}

#[test]
fn a_loader_that_begins_later_gives_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    photos(dir.path());
    let dataset = dataset(dir.path(), 3);
    let whole = drain(&dataset, &loader(Split::Train, 5));
    for first_batch in 0..=6 {
        let options = LoaderOptions { first_batch, ..loader(Split::Train, 5) };
        assert_eq!(dataset.loader(&options).unwrap().remaining(), 5usize.saturating_sub(first_batch));
        assert_eq!(drain(&dataset, &options), whole[first_batch.min(5)..]);
    }
}

#[test]
fn a_short_batch_is_padded_with_black() {
    let dir = tempfile::tempdir().unwrap();
    photos(dir.path());
    let batches = drain(&dataset(dir.path(), 2), &loader(Split::Train, 10));
    let last = &batches[2];
    assert_eq!((last.valid, last.labels.len(), last.ids.len(), last.pixels.len()), (4, 10, 10, 10 * 768));
    assert!(last.pixels[4 * 768..].iter().all(|&p| p == 0) && last.labels[4..].iter().all(|&l| l == 0));
}

#[test]
fn a_limit_takes_a_seeded_part_of_any_split() {
    let dir = tempfile::tempdir().unwrap();
    photos(dir.path());
    let dataset = dataset(dir.path(), 2);
    let options = LoaderOptions { limit: Some(4), shuffle: false, ..loader(Split::Val, 3) };
    let mut expected = sample_order(options.seed, 0, 6)[..4].to_vec();
    expected.sort_unstable();
    assert_eq!(ids(&drain(&dataset, &options)), expected);
    let mut shuffled = ids(&drain(&dataset, &LoaderOptions { shuffle: true, ..options }));
    shuffled.sort_unstable();
    assert_eq!(shuffled, expected);
    assert_eq!(ids(&drain(&dataset, &LoaderOptions { limit: Some(100), ..options })).len(), 6);
}

#[test]
fn dropping_a_loader_early_stops_its_threads() {
    let dir = tempfile::tempdir().unwrap();
    photos(dir.path());
    let dataset = dataset(dir.path(), 4);
    for taken in 0..3 {
        let mut loader = dataset.loader(&loader(Split::Train, 2)).unwrap();
        for _ in 0..taken {
            loader.next().unwrap().unwrap();
        }
        drop(loader);
        assert_eq!(Arc::strong_count(&dataset), 1, "a thread still holds the data set");
    }
}

#[test]
fn an_error_comes_in_its_turn() {
    let dir = tempfile::tempdir().unwrap();
    photos(dir.path());
    let options = DatasetOptions::new(dir.path().to_str().unwrap(), 16);
    let cache = tempfile::tempdir().unwrap();
    drop(support::open_cached(&options, cache.path()).unwrap());
    // Opened again, everything about the files is known and nothing is decoded; then a file goes bad.
    let dataset = support::open_cached(&options, cache.path()).unwrap();
    let order = sample_order(7, 3, 24);
    let victim = order[12];
    let mut names: Vec<String> = (0..12).map(|i| format!("{i}.jpg")).collect();
    names.sort();
    let class = if victim < 12 { "cat" } else { "dog" };
    let name = format!("train/{class}/{}", names[victim as usize % 12]);
    let path = dir.path().join(&name);
    let size = fs::metadata(&path).unwrap().len() as usize;
    fs::write(&path, vec![0; size]).unwrap();
    let mut source = dataset.loader(&loader(Split::Train, 5)).unwrap();
    assert_eq!(source.next().unwrap().unwrap().valid, 5);
    assert_eq!(source.next().unwrap().unwrap().valid, 5);
    let error = source.next().unwrap_err();
    assert_eq!(error.code(), ErrorCode::Data);
    assert!(error.message().contains(&name) && error.remedy().is_some(), "{error}");
    assert!(source.next().is_err(), "a loader that failed does not go on");
}

#[test]
fn impossible_options_are_usage_errors() {
    let dataset = open(&DatasetOptions::new("generated", 8)).unwrap();
    for options in [loader(Split::Val, 0), LoaderOptions { limit: Some(0), ..loader(Split::Val, 4) }] {
        let error = dataset.loader(&options).err().unwrap();
        assert_eq!(error.code(), ErrorCode::Usage);
    }
}
