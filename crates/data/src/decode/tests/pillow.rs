//! Pixels as Pillow gives them. `tests/fixtures/make_pictures.py` says how its files were made.

use super::*;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// How far a decoded picture may be from Pillow's: the mean over all values, and any one of them. Lossless formats are equal.
/// JPEGs differ in the rounding of the inverse transform and, where chroma is subsampled, in how it is spread over the pixels.
const LOSSLESS: (f64, u8) = (0.0, 0);
const LOSSY: (f64, u8) = (0.6, 6);
/// After scaling: the filters work with coefficients of different precision.
const SCALED: (f64, u8) = (0.7, 6);

fn pictures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pictures")
}

/// The files of a folder of fixtures, and their names.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|item| item.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

/// Pixels of an RGB PNG.
fn expected(png: &[u8]) -> (usize, usize, Vec<u8>) {
    let image = image::load_from_memory(png).unwrap().into_rgb8();
    (image.width() as usize, image.height() as usize, image.into_raw())
}

fn assert_near(name: &str, ours: &[u8], theirs: &[u8], (mean, most): (f64, u8)) {
    let worst = ours.iter().zip(theirs).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    let average = difference(ours, theirs);
    assert!(average <= mean && worst <= most, "{name}: {average} on average, at most {worst}");
}

#[test]
fn every_kind_of_file_has_the_pixels_that_pillow_gives() {
    let mut seen = 0;
    for (name, png) in files(&pictures().join("expected")) {
        let name = name.strip_suffix(".png").unwrap();
        let (width, height, theirs) = expected(&png);
        let (picture, ours) =
            decoded(&fs::read(pictures().join(name)).unwrap()).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!((picture.width, picture.height), (width, height), "{name}");
        let lossy = name.ends_with("jpg") || name.starts_with("lossy");
        assert_near(name, &ours, &theirs, if lossy { LOSSY } else { LOSSLESS });
        seen += 1;
    }
    assert_eq!(seen, 67);
}

#[test]
fn every_orientation_in_every_place_stands_as_pillow_turns_it() {
    let mut seen = 0;
    for (name, png) in files(&pictures().join("upright")) {
        let name = name.strip_suffix(".png").unwrap();
        let bytes = fs::read(pictures().join(name)).unwrap();
        assert_near(name, &prepared(&bytes, 16), &expected(&png).2, SCALED);
        seen += 1;
    }
    assert_eq!(seen, 24);
}

#[test]
fn scaling_agrees_with_pillow() {
    let mut seen = 0;
    for (name, png) in files(&pictures().join("scaled")) {
        let name = name.strip_suffix(".png").unwrap();
        let (size, _, theirs) = expected(&png);
        let ours = prepared(&fs::read(pictures().join(name)).unwrap(), size);
        assert_near(name, &ours, &theirs, SCALED);
        seen += 1;
    }
    assert_eq!(seen, 6);
}

/// Sums of all values with random signs, as `tests/fixtures/make_sketches.py` explains them.
fn sketch(pixels: &[u8], count: usize) -> Vec<f64> {
    let mut sums = vec![0i64; count];
    for (i, &value) in (1u64..).zip(pixels) {
        let mut z = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        for (k, sum) in sums.iter_mut().enumerate() {
            *sum += i64::from(value) * (1 - 2 * (z >> k & 1) as i64);
        }
    }
    sums.into_iter().map(|sum| sum as f64 / (pixels.len() as f64).sqrt()).collect()
}

/// Every file of the shared data that Pillow reads, but for one whose pixels are noise from damaged numbers. The root of the mean square
/// of the differences is estimated: from 16 sums of a file to within a third, from 2 hardly, from all of them to a hundredth.
#[test]
fn files_of_the_shared_data_have_the_pixels_that_pillow_gives() {
    let Some(root) = shared_data("jpeg-oddities").and_then(|path| path.parent().map(Path::to_owned)) else { return };
    let tar = fs::read(root.join("imagenette224-subset/imagenette224-subset.tar")).unwrap();
    let mut photos: Vec<_> = tar::Archive::new(&tar[..])
        .entries()
        .unwrap()
        .map(Result::unwrap)
        .map(|entry| (entry.path().unwrap().into_owned(), entry.raw_file_position() as usize, entry.size() as usize))
        .filter(|(path, ..)| path.extension().is_some_and(|e| e == "JPEG"))
        .collect();
    photos.sort();
    let (mut files, mut sums, mut squares) = (0, 0, 0.0);
    for line in include_str!("../../../tests/fixtures/sketches.tsv").lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let name = fields[0];
        let bytes = match name.parse::<usize>() {
            Ok(index) => tar[photos[index].1..][..photos[index].2].to_vec(),
            Err(_) => fs::read(root.join(name)).unwrap(),
        };
        let (picture, pixels) = decoded(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!([picture.width.to_string(), picture.height.to_string()], fields[1..3], "{name}");
        let theirs: Vec<f64> = fields[3..].iter().map(|field| field.parse().unwrap()).collect();
        let ours = sketch(&pixels, theirs.len());
        let square: f64 = ours.iter().zip(&theirs).map(|(a, b)| (a - b).powi(2)).sum();
        let root = (square / theirs.len() as f64).sqrt();
        assert!(root < 2.5, "{name}: {root}");
        (files, sums, squares) = (files + 1, sums + theirs.len(), squares + square);
    }
    assert_eq!((files, photos.len()), (43 + 150 + 2500, 2500));
    let root = (squares / sums as f64).sqrt();
    assert!(root < 0.5, "{root}");
    eprintln!("root of the mean square: {root:.3}");
}
