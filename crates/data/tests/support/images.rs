//! Small pictures made on the spot, and the way to the large data sets.
#![allow(dead_code, reason = "every test uses its part")]

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use std::path::{Path, PathBuf};

/// A folder or file of the shared data, or `None`, said loudly, where it is not there.
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

/// A smooth RGB picture, different for every `seed` and the same under no turn.
pub fn pixels(width: usize, height: usize, seed: usize) -> Vec<u8> {
    let wave = |v: usize| (v % 256).abs_diff(128) as u8;
    (0..width * height)
        .flat_map(|i| {
            let (x, y) = (i % width, i / width);
            [wave(x * 3 + seed * 29), wave(y * 2 + seed * 53), wave(x + y + seed * 71) + 100]
        })
        .collect()
}

/// As PNG.
pub fn png(width: usize, height: usize, pixels: &[u8], kind: image::ExtendedColorType) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoder = image::codecs::png::PngEncoder::new(&mut bytes);
    image::ImageEncoder::write_image(encoder, pixels, width as u32, height as u32, kind).unwrap();
    bytes
}

/// As JPEG of quality 95 without chroma subsampling; `exif` is the orientation, 0 for no EXIF at all.
pub fn jpeg(width: usize, height: usize, pixels: &[u8], kind: ColorType, exif: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, 95);
    encoder.set_sampling_factor(SamplingFactor::F_1_1);
    if exif > 0 {
        // Big-endian TIFF with one entry: tag 0x0112, type SHORT, one value.
        let tiff = [b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".as_slice(), &[exif, 0, 0, 0, 0, 0, 0]].concat();
        encoder.add_app_segment(1, [b"Exif\0\0".as_slice(), &tiff].concat()).unwrap();
    }
    encoder.encode(pixels, width as u16, height as u16, kind).unwrap();
    bytes
}

/// Mean absolute difference.
pub fn difference(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(x, y)| f64::from(x.abs_diff(*y))).sum::<f64>() / a.len() as f64
}
