//! JPEG: baseline and progressive, one, three or four components, in any sampling.
//!
//! Two libraries share the work. zune-jpeg is the faster one, but garbles what is rare (`Frame::is_plain`); jpeg-decoder reads that, too.

mod careful;
mod quick;
mod segments;

use super::{Picture, Reason};
pub use segments::Segments;
use segments::{Frame, has_end};

/// Reads what stands before the pixels of a file of `size` bytes.
pub fn header(bytes: &[u8], size: u64) -> Result<Picture, Reason> {
    quick::header(bytes, size, true).or_else(|_| quick::header(bytes, size, false))
}

/// As `libjpeg` and what is built on it: harmless oddities and damage inside are read, a picture without its end mark is cut off.
pub fn decode(bytes: &[u8], pixels: &mut Vec<u8>) -> Result<Picture, Reason> {
    let complete = has_end(bytes);
    let frame = Frame::of(bytes);
    let mut result = match &frame {
        Some(frame) if !(frame.is_plain() && frame.is_large()) => careful::decode(bytes, pixels),
        _ => quick::decode(bytes, pixels, true),
    };
    if result.is_err() && complete && frame.as_ref().is_none_or(Frame::is_plain) {
        // Not by the book, but all there.
        result = quick::decode(bytes, pixels, false);
    }
    if result.is_ok() && !complete {
        return Err("the picture is cut off: its end mark is missing".into());
    }
    result
}

/// Inks to light: `light` has what red, green and blue leave through, `key` what black does.
fn through(light: u8, key: u8) -> u8 {
    ((u32::from(light) * u32::from(key) + 127) / 255) as u8
}
