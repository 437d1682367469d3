//! PNG, GIF, WebP and BMP.

use super::{
    Colours, Format, Picture, Reason, exif, frames,
    limits::{MAX_BYTES, check_size},
};
use image::{DynamicImage, ExtendedColorType, ImageDecoder, ImageReader, Limits};
use std::io::Cursor;

pub fn header(bytes: &[u8], size: u64, format: Format) -> Result<Picture, Reason> {
    open(bytes, size, format).map(|(_, picture)| picture)
}

pub fn decode(bytes: &[u8], format: Format, pixels: &mut Vec<u8>) -> Result<Picture, Reason> {
    let (decoder, picture) = open(bytes, bytes.len() as u64, format)?;
    let decoded = DynamicImage::from_decoder(decoder).map_err(|e| damaged(format, &e))?;
    pixels.clear();
    if decoded.color().has_alpha() {
        // Transparent pixels have any colour; over white they look as they do on a page.
        pixels.extend(decoded.into_rgba8().pixels().flat_map(|p| {
            let alpha = u32::from(p.0[3]);
            [0, 1, 2].map(|i| ((u32::from(p.0[i]) * alpha + 255 * (255 - alpha) + 127) / 255) as u8)
        }));
    } else {
        *pixels = decoded.into_rgb8().into_raw();
    }
    Ok(picture)
}

fn open(bytes: &[u8], size: u64, format: Format) -> Result<(impl ImageDecoder + '_, Picture), Reason> {
    frames::check(format, bytes, size)?;
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format.into());
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_BYTES);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(|e| damaged(format, &e))?;
    let (width, height) = decoder.dimensions();
    let (width, height) = (width as usize, height as usize);
    check_size(width, height, size)?;
    if decoder.total_bytes() > MAX_BYTES {
        let bytes = decoder.total_bytes();
        return Err(format!(
            "the picture claims {width}x{height} pixels in {bytes} bytes, more than the {MAX_BYTES} allowed"
        ));
    }
    let colours = match decoder.original_color_type() {
        ExtendedColorType::L1
        | ExtendedColorType::L2
        | ExtendedColorType::L4
        | ExtendedColorType::L8
        | ExtendedColorType::L16
        | ExtendedColorType::La1
        | ExtendedColorType::La2
        | ExtendedColorType::La4
        | ExtendedColorType::La8
        | ExtendedColorType::La16 => Colours::Grey,
        _ => Colours::Rgb,
    };
    let orientation = exif::orientation(format, bytes);
    Ok((decoder, Picture { width, height, orientation, format, colours }))
}

fn damaged(format: Format, error: &image::ImageError) -> Reason {
    format!("damaged {} picture: {error}", format.name())
}
