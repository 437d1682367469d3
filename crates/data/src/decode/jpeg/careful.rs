//! Any JPEG, by jpeg-decoder.

use super::{
    super::{
        Colours, Format, Picture, Reason, exif,
        limits::{MAX_BYTES, check_size},
    },
    through,
};
use jpeg_decoder::{Decoder, Error, PixelFormat};

fn damaged(error: Error) -> Reason {
    format!("damaged JPEG: {error}")
}

/// Decodes to RGB.
pub fn decode(bytes: &[u8], pixels: &mut Vec<u8>) -> Result<Picture, Reason> {
    let mut decoder = Decoder::new(bytes);
    decoder.set_max_decoding_buffer_size(MAX_BYTES as usize);
    decoder.read_info().map_err(damaged)?;
    let info = decoder.info().ok_or("damaged JPEG: no frame header")?;
    let (width, height) = (usize::from(info.width), usize::from(info.height));
    check_size(width, height, bytes.len() as u64)?;
    let decoded = decoder.decode().map_err(damaged)?;
    pixels.clear();
    let colours = match info.pixel_format {
        PixelFormat::RGB24 => {
            *pixels = decoded;
            Colours::Rgb
        }
        PixelFormat::L8 => {
            pixels.extend(decoded.iter().flat_map(|&v| [v; 3]));
            Colours::Grey
        }
        PixelFormat::CMYK32 => {
            // Inks as printers count them: 255 is all of it.
            pixels.extend(decoded.chunks_exact(4).flat_map(|p| [0, 1, 2].map(|j| through(255 - p[j], 255 - p[3]))));
            Colours::Cmyk
        }
        PixelFormat::L16 => return Err("JPEGs of 16 bits a channel are not supported".into()),
    };
    let orientation = exif::orientation(Format::Jpeg, bytes);
    Ok(Picture { width, height, orientation, format: Format::Jpeg, colours })
}
