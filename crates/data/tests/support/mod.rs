//! What the tests of this crate share: tiny data sets made on the spot, and the way to the large ones.
#![allow(dead_code, reason = "every test file uses its part")]

use alexnode_core::{Batch, BatchSource, Result};
use alexnode_data::{Dataset, DatasetOptions, LoaderOptions, Split};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

/// The folder of the large data sets, or `None`, said loudly, where it is not there.
pub fn shared_data(what: &str) -> Option<PathBuf> {
    let root = std::env::var_os("ALEXNODE_TEST_DATA").map(PathBuf::from);
    let root = root.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"));
    let path = root.join(what);
    if path.exists() {
        return Some(path);
    }
    eprintln!("SKIPPED: {} is not there (set ALEXNODE_TEST_DATA)", path.display());
    None
}

/// Opens without leaving anything behind.
pub fn open(options: &DatasetOptions) -> Result<Arc<Dataset>> {
    let cache = tempfile::tempdir().unwrap();
    open_cached(options, cache.path())
}

pub fn open_cached(options: &DatasetOptions, cache: &Path) -> Result<Arc<Dataset>> {
    let options = DatasetOptions { cache_dir: Some(cache.to_path_buf()), ..options.clone() };
    Dataset::open(&options, &AtomicBool::new(false)).map(Arc::new)
}

/// An RGB photo of sorts: smooth, and different for every `seed`.
pub fn pixels(width: usize, height: usize, seed: usize) -> Vec<u8> {
    (0..width * height)
        .flat_map(|i| {
            let (x, y) = (i % width, i / width);
            [x * 3 + seed * 29, y * 2 + seed * 53, (x + y) * 2 + seed * 71].map(|v| (v % 256).abs_diff(128) as u8)
        })
        .collect()
}

pub fn png(width: usize, height: usize, pixels: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoder = image::codecs::png::PngEncoder::new(&mut bytes);
    let (w, h) = (width as u32, height as u32);
    image::ImageEncoder::write_image(encoder, pixels, w, h, image::ExtendedColorType::Rgb8).unwrap();
    bytes
}

pub fn jpeg(width: usize, height: usize, pixels: &[u8]) -> Vec<u8> {
    encode_jpeg(width, height, pixels, jpeg_encoder::ColorType::Rgb)
}

pub fn encode_jpeg(width: usize, height: usize, pixels: &[u8], kind: jpeg_encoder::ColorType) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoder = jpeg_encoder::Encoder::new(&mut bytes, 95);
    encoder.encode(pixels, width as u16, height as u16, kind).unwrap();
    bytes
}

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
            let image = pixels(w, h, seed);
            let bytes = if i % 2 == 0 { png(w, h, &image) } else { jpeg(w, h, &image) };
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
