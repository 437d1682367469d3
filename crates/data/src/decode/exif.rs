//! How a picture has to be turned, from its EXIF data, wherever its format keeps that.

use super::{Format, jpeg::segments::Segments};
use image::metadata::Orientation;

/// The orientation that the file asks for; none where it says nothing, or nothing that makes sense.
pub fn orientation(format: Format, bytes: &[u8]) -> Orientation {
    let exif = match format {
        Format::Jpeg => of_jpeg(bytes),
        Format::Png => of_png(bytes),
        Format::WebP => of_webp(bytes),
        Format::Gif | Format::Bmp => None,
    };
    exif.and_then(Orientation::from_exif_chunk).unwrap_or(Orientation::NoTransforms)
}

const PREFIX: &[u8] = b"Exif\0\0";

/// The first APP1 segment that holds EXIF: a second one only continues it.
fn of_jpeg(bytes: &[u8]) -> Option<&[u8]> {
    Segments::of(bytes).find_map(|(mark, body)| if mark == 0xe1 { body.strip_prefix(PREFIX) } else { None })
}

/// The eXIf chunk, which may stand before or after the pixels.
fn of_png(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes.get(8..)?;
    loop {
        let (length, after) = rest.split_first_chunk()?;
        let (name, after) = after.split_first_chunk::<4>()?;
        let length = u32::from_be_bytes(*length) as usize;
        let body = after.get(..length)?;
        if name == b"eXIf" {
            return Some(body.strip_prefix(PREFIX).unwrap_or(body));
        }
        rest = after.get(length.checked_add(4)?..)?;
    }
}

/// The EXIF chunk. Some programs put the prefix of JPEG before its content.
fn of_webp(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes.get(12..)?;
    loop {
        let (name, after) = rest.split_first_chunk::<4>()?;
        let (length, after) = after.split_first_chunk()?;
        let length = u32::from_le_bytes(*length) as usize;
        let body = after.get(..length)?;
        if name == b"EXIF" {
            return Some(body.strip_prefix(PREFIX).unwrap_or(body));
        }
        rest = after.get(length.checked_add(length % 2)?..)?;
    }
}
