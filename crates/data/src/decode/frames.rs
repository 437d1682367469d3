//! The sizes of frames inside a GIF or a WebP: each may be larger than the picture says it is.

use super::{Format, Reason, limits::check_size};

/// Checks the frames that a decoder may take memory for, in a file of `size` bytes.
pub fn check(format: Format, bytes: &[u8], size: u64) -> Result<(), Reason> {
    match format {
        Format::Gif => {
            let (width, height) = of_gif(bytes).ok_or("damaged GIF picture: it ends before its first frame")?;
            check_size(width, height, size)
        }
        Format::WebP => bytes.get(12..).map_or(Ok(()), |chunks| of_webp(chunks, size, true)),
        Format::Jpeg | Format::Png | Format::Bmp => Ok(()),
    }
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    bytes.get(at..)?.first_chunk().map(|pair| usize::from(u16::from_le_bytes(*pair)))
}

/// Width and height of the first frame.
fn of_gif(bytes: &[u8]) -> Option<(usize, usize)> {
    let palette = |flags: u8| if flags & 0x80 == 0 { 0 } else { 6 << (flags & 7) };
    let mut at = 13 + palette(*bytes.get(10)?);
    loop {
        match bytes.get(at)? {
            0x2c => return Some((word(bytes, at + 5)?, word(bytes, at + 7)?)),
            0x21 => {
                at += 2;
                // Blocks of at most 255 bytes, up to an empty one.
                while *bytes.get(at)? > 0 {
                    at += 1 + usize::from(bytes[at]);
                }
                at += 1;
            }
            _ => return None,
        }
    }
}

/// A frame of an animation (only `outside` of one) has chunks of its own inside.
fn of_webp(mut chunks: &[u8], size: u64, outside: bool) -> Result<(), Reason> {
    while let Some((name, rest)) = chunks.split_first_chunk::<4>()
        && let Some((length, rest)) = rest.split_first_chunk()
    {
        let length = u32::from_le_bytes(*length) as usize;
        let (body, after) = rest.split_at(length.min(rest.len()));
        let sides = match name {
            b"VP8 " => word(body, 6).zip(word(body, 8)).map(|(w, h)| (w & 0x3fff, h & 0x3fff)),
            b"VP8L" => body.get(1..).and_then(<[u8]>::first_chunk).map(|bits| {
                let bits = u32::from_le_bytes(*bits) as usize;
                ((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1)
            }),
            b"ANMF" if outside => {
                of_webp(body.get(16..).unwrap_or_default(), size, false)?;
                None
            }
            _ => None,
        };
        if let Some((width, height)) = sides {
            check_size(width, height, size)?;
        }
        chunks = after.get(length % 2..).unwrap_or_default();
    }
    Ok(())
}
