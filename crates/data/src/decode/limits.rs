//! What is refused before any memory is taken for it: a few bytes can claim billions of pixels.

use super::Reason;

/// The most pixels that a picture may have: beyond every camera, and at most 384 MiB of decoded RGB.
pub(crate) const MAX_PIXELS: u64 = 128 << 20;
/// The most bytes that a decoder may take for one picture, whatever its channels and their depth: four for each of the most pixels.
pub(crate) const MAX_BYTES: u64 = 4 * MAX_PIXELS;
/// So few pixels are decoded from any file.
const FREE_PIXELS: u64 = 4 << 20;
/// Of more, a byte of the file can stand for so many at most. A JPEG needs a byte for every 512 pixels even if it is blank; the others
/// get here with a blank page, never with a photo.
const PIXELS_PER_BYTE: u64 = 2048;

/// Checks the size that a picture claims to have, in a file of `bytes` bytes.
pub(crate) fn check_size(width: usize, height: usize, bytes: u64) -> Result<(), Reason> {
    if width == 0 || height == 0 {
        return Err(format!("the picture has no pixels ({width}x{height})"));
    }
    let pixels = (width as u64).saturating_mul(height as u64);
    if pixels > MAX_PIXELS {
        return Err(format!("the picture claims {width}x{height} pixels, more than the {MAX_PIXELS} allowed"));
    }
    if pixels > FREE_PIXELS && pixels / PIXELS_PER_BYTE > bytes {
        return Err(format!("the picture claims {width}x{height} pixels, but its file has only {bytes} bytes"));
    }
    Ok(())
}

/// The most bytes that any one piece of memory may have while a file of `bytes` bytes is decoded: what the two checks above add up to.
#[cfg(test)]
pub(super) fn largest_allocation(bytes: u64) -> u64 {
    let pixels = FREE_PIXELS.max(PIXELS_PER_BYTE * bytes).min(MAX_PIXELS);
    // Eight bytes for a pixel of four 16-bit channels.
    (8 * pixels).min(MAX_BYTES).max(bytes) + (1 << 20)
}
