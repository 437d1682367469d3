//! Plain JPEGs, by zune-jpeg.

use super::{
    super::{Picture, Reason},
    agree, through,
};
use zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions};
use zune_jpeg::{JpegDecoder, errors::DecodeErrors};

type Decoder<'a> = JpegDecoder<ZCursor<&'a [u8]>>;

fn stored(decoder: &Decoder<'_>) -> ColorSpace {
    decoder.input_colorspace().unwrap_or(ColorSpace::YCbCr)
}

fn damaged(error: DecodeErrors) -> Reason {
    format!("damaged JPEG: {}", format!("{error:?}").trim().trim_matches('"'))
}

/// Decodes to RGB.
pub fn decode(bytes: &[u8], picture: &Picture, pixels: &mut Vec<u8>) -> Result<(), Reason> {
    // The size has been checked, by area, so the sides only need the format's own bound. Strict mode would refuse harmless oddities; a
    // picture that is cut off, which it is for, has been refused already.
    let options = DecoderOptions::default().set_max_width(65_535).set_max_height(65_535).set_strict_mode(false);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(damaged)?;
    let (width, height) = decoder.dimensions().ok_or("damaged JPEG: no frame header")?;
    agree(width, height, picture)?;
    let stored = stored(&decoder);
    // Four components come out as stored: the conversion of zune-jpeg inverts YCCK (zune-image issue 442).
    let wanted = if stored.num_components() == 4 { stored } else { ColorSpace::RGB };
    decoder.set_options(decoder.options().jpeg_set_out_colorspace(wanted));
    pixels.clear();
    pixels.resize(picture.width * picture.height * wanted.num_components(), 0);
    decoder.decode_into(pixels).map_err(damaged)?;
    if wanted.num_components() == 4 {
        flatten_inks(pixels, stored == ColorSpace::YCCK);
    }
    Ok(())
}

/// Four ink components to RGB in place, by the conventions that libjpeg and Pillow follow: Adobe's programs store inks
/// inverted (255 = none); YCCK is the YCbCr form of the *uninverted* C, M, Y beside an inverted K.
fn flatten_inks(pixels: &mut Vec<u8>, ycck: bool) {
    let count = pixels.len() / 4;
    for i in 0..count {
        let [mut a, mut b, mut c, k] = [0, 1, 2, 3].map(|j| pixels[4 * i + j]);
        if ycck {
            let [y, cb, cr] = [i32::from(a), i32::from(b) - 128, i32::from(c) - 128];
            // ITU-R BT.601 in 16-bit fixed point, as JFIF has it.
            a = 255 - (y + ((91_881 * cr + 32_768) >> 16)).clamp(0, 255) as u8;
            b = 255 - (y - ((22_554 * cb + 46_802 * cr + 32_768) >> 16)).clamp(0, 255) as u8;
            c = 255 - (y + ((116_130 * cb + 32_768) >> 16)).clamp(0, 255) as u8;
        }
        for (j, light) in [a, b, c].into_iter().enumerate() {
            pixels[3 * i + j] = through(light, k);
        }
    }
    pixels.truncate(3 * count);
}
