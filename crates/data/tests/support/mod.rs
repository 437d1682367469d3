//! What the tests of this crate share: tiny data sets made on the spot, and the way to the large ones.
#![allow(dead_code, reason = "every test file uses its part")]

use alexnode_core::{Batch, BatchSource, Result};
use alexnode_data::{Dataset, DatasetOptions, LoaderOptions, Split};
use std::{
    fs,
    path::Path,
    sync::{Arc, atomic::AtomicBool},
};

pub mod images;

/// Opens without leaving anything behind.
pub fn open(options: &DatasetOptions) -> Result<Arc<Dataset>> {
    let cache = tempfile::tempdir().unwrap();
    open_cached(options, cache.path())
}

/// Opens with a cache folder of the test's own.
pub fn open_cached(options: &DatasetOptions, cache: &Path) -> Result<Arc<Dataset>> {
    let options = DatasetOptions { cache_dir: Some(cache.to_path_buf()), ..options.clone() };
    Dataset::open(&options, &AtomicBool::new(false)).map(Arc::new)
}

/// Writes a file and the folders above it.
pub fn write(root: &Path, path: &str, bytes: &[u8]) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// `train/{cat,dog}` with 12 images each and `val/{cat,dog}` with 3, of different sizes and formats.
pub fn photos(root: &Path) {
    for (class, name) in ["cat", "dog"].iter().enumerate() {
        for i in 0..15 {
            let seed = class * 100 + i;
            let (w, h) = (20 + i, 33 - i);
            let pixels = images::pixels(w, h, seed);
            let bytes = match i % 2 {
                0 => images::png(w, h, &pixels, image::ExtendedColorType::Rgb8),
                _ => images::jpeg(w, h, &pixels, jpeg_encoder::ColorType::Rgb, 0),
            };
            let split = if i < 12 { "train" } else { "val" };
            write(root, &format!("{split}/{name}/{i}.jpg"), &bytes);
        }
    }
}

/// Packs the files below `root` into `target`, under `prefix`.
pub fn pack(root: &Path, prefix: &str, target: &Path) {
    let mut archive = tar::Builder::new(fs::File::create(target).unwrap());
    archive.append_dir_all(prefix, root).unwrap();
    archive.finish().unwrap();
}

/// Shuffled, epoch 3.
pub fn loader(split: Split, batch: usize) -> LoaderOptions {
    LoaderOptions { split, batch, seed: 7, epoch: 3, first_batch: 0, shuffle: true, limit: None }
}

/// Everything that a loader gives, memory recycled as a trainer does.
pub fn drain(dataset: &Arc<Dataset>, options: &LoaderOptions) -> Vec<Batch> {
    let mut loader = dataset.loader(options).unwrap();
    let mut batches = Vec::new();
    while let Some(batch) = loader.next().unwrap() {
        batches.push(batch.clone());
        loader.recycle(batch);
    }
    batches
}

/// The ids of the valid images, in order.
pub fn ids(batches: &[Batch]) -> Vec<u32> {
    batches.iter().flat_map(|b| b.ids[..b.valid].to_vec()).collect()
}
