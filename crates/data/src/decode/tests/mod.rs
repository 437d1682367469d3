//! Decoding, on files made here and on the odd ones of the shared data.

mod allocations;
pub(super) mod fuzz;
#[path = "../../../tests/support/images.rs"]
pub(super) mod images;
pub(super) mod mutate;
mod pillow;

use super::{Colours, Decoder, Picture, Reason, header};
use crate::prepare::Preparer;
use image::{ExtendedColorType, metadata::Orientation};
use images::*;
use jpeg_encoder::ColorType;

fn decoded(bytes: &[u8]) -> Result<(Picture, Vec<u8>), Reason> {
    let mut decoder = Decoder::default();
    decoder.decode(bytes).map(|picture| (picture, decoder.pixels().to_vec()))
}

fn prepared(bytes: &[u8], size: usize) -> Vec<u8> {
    let mut out = vec![0; size * size * 3];
    Preparer::new(size).prepare(bytes, &mut out).unwrap();
    out
}

#[test]
fn colour_spaces_of_jpeg_come_out_as_rgb() {
    let (w, h) = (37, 26);
    let rgb = pixels(w, h, 1);
    // Inks: 0 is none. All black goes into K where it can.
    let inks: Vec<u8> = rgb
        .chunks_exact(3)
        .flat_map(|p| {
            let light = u32::from(*p.iter().max().unwrap()).max(1);
            let ink = |v: u8| 255 - (u32::from(v) * 255 / light) as u8;
            [ink(p[0]), ink(p[1]), ink(p[2]), 255 - light as u8]
        })
        .collect();
    for (pixels, kind) in [(&rgb, ColorType::Rgb), (&inks, ColorType::Cmyk), (&inks, ColorType::CmykAsYcck)] {
        let (picture, out) = decoded(&jpeg(w, h, pixels, kind, 0)).unwrap();
        assert_eq!((picture.width, picture.height), (w, h));
        assert!(difference(&out, &rgb) < 3.0, "{kind:?}: {}", difference(&out, &rgb));
    }
    let grey: Vec<u8> = rgb.chunks_exact(3).map(|p| p[0]).collect();
    let (_, out) = decoded(&jpeg(w, h, &grey, ColorType::Luma, 0)).unwrap();
    assert!(out.chunks_exact(3).zip(&grey).all(|(p, g)| p[0] == p[1] && p[1] == p[2] && p[0].abs_diff(*g) < 12));
}

#[test]
fn kinds_of_png_come_out_as_rgb() {
    let (w, h) = (9, 5);
    let rgb = pixels(w, h, 2);
    assert_eq!(decoded(&png(w, h, &rgb, ExtendedColorType::Rgb8)).unwrap().1, rgb);
    let deep: Vec<u8> = rgb.iter().flat_map(|&v| [v, v]).collect();
    assert_eq!(decoded(&png(w, h, &deep, ExtendedColorType::Rgb16)).unwrap().1, rgb);
    let (_, out) = decoded(&png(w, h, &vec![77; w * h], ExtendedColorType::L8)).unwrap();
    assert_eq!(out, vec![77; w * h * 3]);
    // Over white: half transparent black is grey, wholly transparent anything is white.
    let (_, out) = decoded(&png(2, 1, &[0, 0, 0, 128, 9, 9, 9, 0], ExtendedColorType::Rgba8)).unwrap();
    assert_eq!(out, [127, 127, 127, 255, 255, 255]);
}

#[test]
fn every_exif_orientation_stands_upright() {
    let (w, h) = (48, 36);
    let upright = image::DynamicImage::from(image::RgbImage::from_raw(w, h, pixels(48, 36, 3)).unwrap());
    let expected = prepared(&jpeg(48, 36, upright.as_bytes(), ColorType::Rgb, 0), 24);
    for exif in 1..=8 {
        let orientation = Orientation::from_exif(exif).unwrap();
        let inverse = match orientation {
            Orientation::Rotate90 => Orientation::Rotate270,
            Orientation::Rotate270 => Orientation::Rotate90,
            other => other,
        };
        let mut stored = upright.clone();
        stored.apply_orientation(inverse);
        let bytes = jpeg(stored.width() as usize, stored.height() as usize, stored.as_bytes(), ColorType::Rgb, exif);
        assert_eq!(header(&bytes, bytes.len() as u64).unwrap().orientation, orientation);
        let out = prepared(&bytes, 24);
        assert!(difference(&out, &expected) < 2.0, "{exif}: {}", difference(&out, &expected));
    }
}

#[test]
fn damaged_files_are_errors() {
    let (w, h) = (64, 64);
    let rgb = pixels(w, h, 4);
    for whole in [jpeg(w, h, &rgb, ColorType::Rgb, 0), png(w, h, &rgb, ExtendedColorType::Rgb8)] {
        assert!(decoded(&whole).is_ok());
        for cut in [0, 1, 2, 20, whole.len() / 4, whole.len() / 2, whole.len() * 9 / 10] {
            assert!(decoded(&whole[..cut]).is_err(), "cut at {cut} of {}", whole.len());
        }
    }
    for (bytes, reason) in [
        (&b""[..], "is empty"),
        (b"<html>404 not found</html>", "not a picture"),
        (b"II*\0........", "TIFF pictures are not supported"),
        (b"\0\0\0\x18ftypheic....", "HEIC pictures are not supported"),
    ] {
        assert!(decoded(bytes).unwrap_err().contains(reason));
        assert!(header(bytes, bytes.len() as u64).unwrap_err().contains(reason));
    }
}

#[test]
fn harmless_oddities_of_jpeg_are_read() {
    let rgb = pixels(40, 30, 6);
    let whole = jpeg(40, 30, &rgb, ColorType::Rgb, 0);
    // Bytes between two segments that belong to neither.
    let table = whole.windows(2).position(|w| w == b"\xff\xdb").unwrap();
    let odd = [&whole[..table], &[0; 9], &whole[table..]].concat();
    assert_eq!(header(&odd, 0).unwrap(), header(&whole, 0).unwrap());
    assert_eq!(decoded(&odd).unwrap(), decoded(&whole).unwrap());
    assert!(decoded(&odd[..odd.len() * 2 / 3]).is_err());
}

#[test]
fn damage_never_panics() {
    let rgb = pixels(24, 24, 5);
    let files = [
        jpeg(24, 24, &rgb, ColorType::Rgb, 6),
        png(24, 24, &rgb, ExtendedColorType::Rgb8),
        jpeg(24, 24, &vec![9; 24 * 24 * 4], ColorType::Cmyk, 0),
    ];
    let mut decoder = Decoder::default();
    for file in &files {
        for at in 0..file.len() {
            let mut bytes = file.clone();
            bytes[at] ^= 0x55;
            // A picture or a reason; either is fine.
            if let Ok(picture) = decoder.decode(&bytes) {
                assert_eq!(decoder.pixels().len(), picture.width * picture.height * 3);
            }
        }
    }
}

#[test]
fn bombs_are_refused_before_memory_is_taken() {
    let mut bytes = jpeg(8, 8, &[0; 192], ColorType::Rgb, 0);
    let frame = bytes.windows(2).position(|w| w == b"\xff\xc0").unwrap();
    bytes[frame + 5..frame + 9].fill(0xff);
    assert!(decoded(&bytes).unwrap_err().contains("65535x65535"));
    let mut bytes = png(8, 8, &[0; 192], ExtendedColorType::Rgb8);
    bytes[16..24].copy_from_slice(b"\0\x01\0\0\0\x01\0\0");
    // The checksum of the header no longer holds; either refusal is in time.
    assert!(decoded(&bytes).is_err());
}

#[test]
fn frames_larger_than_their_picture_and_endless_scans_are_refused() {
    let file = |name: &str| {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pictures");
        std::fs::read(folder.join(name)).unwrap()
    };
    let at = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).position(|w| w == what).unwrap();
    // Width and height of the first frame of a GIF, and those inside of a WebP, whose sides have 14 bits.
    let mut gif = file("palette.gif");
    let frame = at(&gif, b"\x2c\0\0\0\0\x25\0\x1d\0");
    gif[frame + 5..frame + 9].fill(0xff);
    assert!(decoded(&gif).unwrap_err().contains("65535x65535"));
    let mut webp = file("lossy-alpha.webp");
    let frame = at(&webp, b"\x9d\x01\x2a");
    webp[frame + 3..frame + 7].fill(0xff);
    assert!(decoded(&webp).unwrap_err().contains("16383x16383"));
    // The last scan of a progressive picture, over and over.
    let whole = file("progressive-2x2.jpg");
    let scan = whole.windows(2).rposition(|w| w == b"\xff\xda").unwrap();
    let (head, last) = whole[..whole.len() - 2].split_at(scan);
    let odd = [head, &last.repeat(300), b"\xff\xd9"].concat();
    assert!(decoded(&odd).unwrap_err().contains("scans"));
}

/// The manifest says what Pillow makes of each file.
#[test]
fn oddities_decode_as_their_manifest_says() {
    let Some(root) = shared_data("jpeg-oddities") else { return };
    let manifest = std::fs::read_to_string(root.join("MANIFEST.tsv")).unwrap();
    let mut seen = 0;
    let mut upright = Vec::new();
    for line in manifest.lines().skip(2) {
        let fields: Vec<&str> = line.split('\t').collect();
        let (file, size) = (fields[0], fields[5]);
        let whole = fields[6] == "ok";
        let bytes = std::fs::read(root.join(file)).unwrap();
        match decoded(&bytes) {
            Ok((picture, _)) => {
                assert!(whole, "{file} decoded");
                assert_eq!(picture.format.name().to_uppercase(), fields[3], "{file}");
                let colours = match fields[4] {
                    "L" => Colours::Grey,
                    "CMYK" => Colours::Cmyk,
                    _ => Colours::Rgb,
                };
                assert_eq!(picture.colours, colours, "{file}");
                assert_eq!(format!("{}x{}", picture.width, picture.height), size, "{file}");
                let out = prepared(&bytes, 64);
                if file.contains("exif_orientation") {
                    upright.push(out);
                }
            }
            Err(reason) => assert!(!whole, "{file}: {reason}"),
        }
        seen += 1;
    }
    assert_eq!((seen, upright.len()), (55, 8));
    for (i, out) in upright.iter().enumerate() {
        assert!(difference(out, &upright[0]) < 4.0, "orientation {}: {}", i + 1, difference(out, &upright[0]));
    }
}

/// Inverted inks would make a bright photo dark, so means suffice: both files show sunlit scenes.
#[test]
fn inks_of_real_files_are_not_inverted() {
    let Some(root) = shared_data("jpeg-oddities") else { return };
    let mean = |file: &str| {
        let out = prepared(&std::fs::read(root.join(file)).unwrap(), 64);
        out.iter().map(|&v| f64::from(v)).sum::<f64>() / out.len() as f64
    };
    let rgb = mean("third-party/rgb.jpg");
    let ycck = mean("third-party/ycck.jpg");
    assert!((rgb - ycck).abs() < 15.0, "the same photo: {rgb} {ycck}");
    assert!((mean("synthetic/cmyk_adobe.JPEG") - mean("synthetic/exif_orientation_1.JPEG")).abs() < 10.0);
}

#[test]
fn photos_of_imagenet_all_decode() {
    let Some(root) = shared_data("imagenet-samples-dev") else { return };
    let manifest = std::fs::read_to_string(root.join("MANIFEST.tsv")).unwrap();
    let mut seen = 0;
    for line in manifest.lines().skip(1) {
        let fields: Vec<&str> = line.split('\t').collect();
        let bytes = std::fs::read(root.join(fields[0])).unwrap();
        let (picture, _) = decoded(&bytes).unwrap_or_else(|reason| panic!("{}: {reason}", fields[0]));
        assert_eq!([picture.width.to_string(), picture.height.to_string()], fields[4..6], "{}", fields[0]);
        assert_eq!(header(&bytes, bytes.len() as u64).unwrap(), picture);
        seen += 1;
    }
    assert_eq!(seen, 150);
}
