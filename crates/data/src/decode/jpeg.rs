//! JPEG: baseline and progressive, one, three or four components, in any sampling.
//!
//! `usual` reads what nearly all photos are, and two libraries the rest. zune-jpeg is the faster one, but garbles what is rare
//! (`Frame::is_plain`); jpeg-decoder reads that, too. What a picture is comes from none of them, but from its frame header, so that a look at
//! the head and the decoded picture never disagree.

mod careful;
mod quick;
pub(super) mod segments;
mod usual;

use super::{Colours, Format, Picture, Place, Reason, exif, limits::check_size};
use segments::{Frame, has_end, scans};
pub use usual::Memory;

/// Encoders use about ten scans. Each costs a few bytes of a file and as much time as there are pixels, so of more a small file could keep a
/// decoder busy for hours.
const MOST_SCANS: usize = 256;

/// Reads what stands before the pixels of a file of `size` bytes.
pub fn header(bytes: &[u8], size: u64) -> Result<Picture, Reason> {
    picture(&Frame::of(bytes)?, bytes, size)
}

fn picture(frame: &Frame, bytes: &[u8], size: u64) -> Result<Picture, Reason> {
    let (width, height) = (usize::from(frame.width), usize::from(frame.height));
    check_size(width, height, size)?;
    let colours = match frame.components() {
        1 => Colours::Grey,
        3 => Colours::Rgb,
        4 => Colours::Cmyk,
        n => return Err(format!("JPEGs of {n} components are not supported")),
    };
    Ok(Picture { width, height, orientation: exif::orientation(Format::Jpeg, bytes), format: Format::Jpeg, colours })
}

/// As `libjpeg` and what is built on it: harmless oddities and damage inside are read, a picture without its end mark is cut off. Also gives
/// whether the pixels are in `place`, where they may go if they are as many.
pub fn decode(
    bytes: &[u8],
    memory: &mut Memory,
    pixels: &mut Vec<u8>,
    place: Option<Place<'_>>,
) -> Result<(Picture, bool), Reason> {
    let frame = Frame::of(bytes)?;
    let picture = picture(&frame, bytes, bytes.len() as u64)?;
    if !has_end(bytes) {
        return Err("the picture is cut off: its end mark is missing".into());
    }
    if frame.progressive && scans(bytes) > MOST_SCANS {
        return Err(format!("the picture has more than the {MOST_SCANS} scans allowed"));
    }
    if frame.is_plain() && frame.is_large() {
        let (width, height) = (picture.width, picture.height);
        let place = place.filter(|place| (place.width, place.height) == (width, height));
        let placed = place.is_some();
        let target = place.map_or_else(
            || {
                pixels.resize(3 * width * height, 0);
                &mut pixels[..]
            },
            |place| place.pixels,
        );
        if usual::decode(bytes, width, height, memory, target).is_some() {
            return Ok((picture, placed));
        }
        quick::decode(bytes, &picture, pixels)?;
    } else if let Err(reason) = careful::decode(bytes, &picture, pixels) {
        if !frame.is_plain() {
            return Err(reason);
        }
        // It is the stricter of the two.
        quick::decode(bytes, &picture, pixels)?;
    }
    Ok((picture, false))
}

/// Whether a decoder speaks of the same picture as its frame header: another header may hide behind it.
fn agree(width: usize, height: usize, picture: &Picture) -> Result<(), Reason> {
    match (width, height) == (picture.width, picture.height) {
        true => Ok(()),
        false => Err("damaged JPEG: it has two frame headers that differ".into()),
    }
}

/// Inks to light: `light` has what red, green and blue leave through, `key` what black does.
fn through(light: u8, key: u8) -> u8 {
    ((u32::from(light) * u32::from(key) + 127) / 255) as u8
}
