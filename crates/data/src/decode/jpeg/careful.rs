//! Any JPEG, by jpeg-decoder.

use super::{
    super::{Picture, Reason, limits::MAX_BYTES},
    agree, through,
};
use jpeg_decoder::{Decoder, Error, PixelFormat};

fn damaged(error: Error) -> Reason {
    format!("damaged JPEG: {error}")
}

/// Decodes to RGB.
pub fn decode(bytes: &[u8], picture: &Picture, pixels: &mut Vec<u8>) -> Result<(), Reason> {
    let mut decoder = Decoder::new(bytes);
    decoder.set_max_decoding_buffer_size(MAX_BYTES as usize);
    decoder.read_info().map_err(damaged)?;
    let info = decoder.info().ok_or("damaged JPEG: no frame header")?;
    agree(info.width.into(), info.height.into(), picture)?;
    let decoded = decoder.decode().map_err(damaged)?;
    pixels.clear();
    match info.pixel_format {
        PixelFormat::RGB24 => *pixels = decoded,
        PixelFormat::L8 => pixels.extend(decoded.iter().flat_map(|&v| [v; 3])),
        // Inks as printers count them: 255 is all of it.
        PixelFormat::CMYK32 => {
            pixels.extend(decoded.chunks_exact(4).flat_map(|p| [0, 1, 2].map(|j| through(255 - p[j], 255 - p[3]))));
        }
        PixelFormat::L16 => return Err("JPEGs of 16 bits a channel are not supported".into()),
    }
    Ok(())
}
