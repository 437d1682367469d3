//! Bytes of a file to RGB pixels. The format is told from the first bytes, never from the name.

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, metadata::Orientation};
use std::{io::Cursor, panic::AssertUnwindSafe};
use zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions};
use zune_jpeg::{JpegDecoder, errors::DecodeErrors};

/// The most pixels that a picture may have: beyond every camera, and at most 384 MiB of decoded RGB.
pub const MAX_PIXELS: u64 = 128 << 20;

/// Why a file is no usable picture, without its name: "a GIF of 3 bytes", "the picture is cut off".
pub(crate) type Reason = String;

/// A picture's size as stored and how it has to be turned to stand upright.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Picture {
    pub width: usize,
    pub height: usize,
    pub orientation: Orientation,
}

/// What the first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Jpeg,
    Other(ImageFormat),
    /// A picture format that is recognised but not read.
    Unsupported(&'static str),
    /// No picture at all.
    Unknown,
}

/// Tells the format from the first bytes (12 are enough).
pub(crate) fn sniff(bytes: &[u8]) -> Kind {
    let at = |offset: usize, magic: &[u8]| bytes.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    match () {
        _ if at(0, b"\xff\xd8") => Kind::Jpeg,
        _ if at(0, b"\x89PNG\r\n\x1a\n") => Kind::Other(ImageFormat::Png),
        _ if at(0, b"GIF87a") || at(0, b"GIF89a") => Kind::Other(ImageFormat::Gif),
        _ if at(0, b"RIFF") && at(8, b"WEBP") => Kind::Other(ImageFormat::WebP),
        _ if at(0, b"BM") => Kind::Other(ImageFormat::Bmp),
        _ if at(0, b"II*\0") || at(0, b"MM\0*") => Kind::Unsupported("TIFF"),
        _ if at(4, b"ftypavif") || at(4, b"ftypavis") => Kind::Unsupported("AVIF"),
        _ if at(4, b"ftyphei") || at(4, b"ftypmif1") || at(4, b"ftypmsf1") => Kind::Unsupported("HEIC"),
        _ if at(4, b"jP  ") => Kind::Unsupported("JPEG 2000"),
        _ if at(0, b"\xff\x0a") || at(4, b"JXL ") => Kind::Unsupported("JPEG XL"),
        _ if at(0, b"8BPS") => Kind::Unsupported("Photoshop"),
        _ => Kind::Unknown,
    }
}

/// Reads the size only. `bytes` may be the beginning of a file; an error then only says that more are needed.
pub(crate) fn header(bytes: &[u8]) -> Result<Picture, Reason> {
    guarded(|| match sniff(bytes) {
        Kind::Jpeg => jpeg_header(bytes, true).or_else(|_| jpeg_header(bytes, false)).map(|(_, picture)| picture),
        Kind::Other(format) => other_header(bytes, format).map(|(_, picture)| picture),
        kind => Err(refusal(kind, bytes)),
    })
}

/// Decodes a whole picture to RGB, 8 bits a channel, row by row, into `pixels`, whose memory is reused.
/// The result lies as stored: `orientation` is yet to be applied.
pub(crate) fn decode(bytes: &[u8], pixels: &mut Vec<u8>) -> Result<Picture, Reason> {
    guarded(|| match sniff(bytes) {
        Kind::Jpeg => match jpeg(bytes, pixels, true) {
            // Not by the book, but all there: read it as browsers and libjpeg do.
            Err(_) if has_end(bytes) => jpeg(bytes, pixels, false),
            result => result,
        },
        Kind::Other(format) => other(bytes, format, pixels),
        kind => Err(refusal(kind, bytes)),
    })
}

/// A decoder that panics on a damaged file must not take the process down.
fn guarded<T>(decode: impl FnOnce() -> Result<T, Reason>) -> Result<T, Reason> {
    std::panic::catch_unwind(AssertUnwindSafe(decode))
        .unwrap_or_else(|_| Err("the picture is damaged in a way that its decoder does not survive".into()))
}

fn refusal(kind: Kind, bytes: &[u8]) -> Reason {
    match kind {
        Kind::Unsupported(name) => format!("{name} pictures are not supported, only JPEG, PNG, WebP, GIF and BMP"),
        _ if bytes.is_empty() => "the file is empty".into(),
        _ => "not a picture: its first bytes are those of no known format".into(),
    }
}

fn check_size(width: usize, height: usize) -> Result<(), Reason> {
    if width == 0 || height == 0 {
        return Err(format!("the picture has no pixels ({width}x{height})"));
    }
    if width as u64 * height as u64 > MAX_PIXELS {
        return Err(format!("the picture claims {width}x{height} pixels, more than the {MAX_PIXELS} allowed"));
    }
    Ok(())
}

type Jpeg<'a> = JpegDecoder<ZCursor<&'a [u8]>>;

/// `strict`: a picture that is cut off is an error instead of a half grey one, but so are harmless oddities.
fn jpeg_header(bytes: &[u8], strict: bool) -> Result<(Jpeg<'_>, Picture), Reason> {
    // The size is checked below, by area, so the sides only need the format's own bound.
    let options = DecoderOptions::default().set_max_width(65_535).set_max_height(65_535).set_strict_mode(strict);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(damaged_jpeg)?;
    let (width, height) = decoder.dimensions().ok_or("damaged JPEG: no frame header")?;
    check_size(width, height)?;
    let orientation = decoder.exif().and_then(|chunk| Orientation::from_exif_chunk(chunk));
    let orientation = orientation.unwrap_or(Orientation::NoTransforms);
    Ok((decoder, Picture { width, height, orientation }))
}

fn damaged_jpeg(error: DecodeErrors) -> Reason {
    format!("damaged JPEG: {}", format!("{error:?}").trim().trim_matches('"'))
}

/// Whether the end mark of a JPEG comes after its (last) beginning of a scan: a preview in the header has marks of its own, but
/// what follows it belongs to the picture.
fn has_end(bytes: &[u8]) -> bool {
    let last = |mark: u8| bytes.windows(2).rposition(|w| w == [0xff, mark]);
    matches!((last(0xda), last(0xd9)), (Some(scan), Some(end)) if scan < end)
}

fn jpeg(bytes: &[u8], pixels: &mut Vec<u8>, strict: bool) -> Result<Picture, Reason> {
    let (mut decoder, picture) = jpeg_header(bytes, strict)?;
    let stored = decoder.input_colorspace().unwrap_or(ColorSpace::YCbCr);
    // Four components come out as stored: the conversion of zune-jpeg inverts YCCK (zune-image issue 442).
    let wanted = if stored.num_components() == 4 { stored } else { ColorSpace::RGB };
    decoder.set_options(decoder.options().jpeg_set_out_colorspace(wanted));
    pixels.clear();
    pixels.resize(picture.width * picture.height * wanted.num_components(), 0);
    decoder.decode_into(pixels).map_err(damaged_jpeg)?;
    if wanted.num_components() == 4 {
        flatten_inks(pixels, stored == ColorSpace::YCCK);
    }
    Ok(picture)
}

/// Four ink components to RGB in place, by the conventions that libjpeg and Pillow follow: Adobe's programs store inks
/// inverted (255 = none); YCCK is the YCbCr form of the *uninverted* C, M, Y beside an inverted K.
fn flatten_inks(pixels: &mut Vec<u8>, ycck: bool) {
    let count = pixels.len() / 4;
    for i in 0..count {
        let [mut a, mut b, mut c, k] = [0, 1, 2, 3].map(|j| i32::from(pixels[4 * i + j]));
        if ycck {
            let (y, cb, cr) = (a, b - 128, c - 128);
            // ITU-R BT.601 in 16-bit fixed point, as JFIF has it.
            a = 255 - (y + ((91_881 * cr + 32_768) >> 16)).clamp(0, 255);
            b = 255 - (y - ((22_554 * cb + 46_802 * cr + 32_768) >> 16)).clamp(0, 255);
            c = 255 - (y + ((116_130 * cb + 32_768) >> 16)).clamp(0, 255);
        }
        for (j, ink) in [a, b, c].into_iter().enumerate() {
            pixels[3 * i + j] = ((ink * k + 127) / 255) as u8;
        }
    }
    pixels.truncate(3 * count);
}

fn other_header(bytes: &[u8], format: ImageFormat) -> Result<(impl ImageDecoder + '_, Picture), Reason> {
    let damaged = |e: image::ImageError| format!("damaged {format:?} picture: {e}");
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_PIXELS * 8);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    check_size(width as usize, height as usize)?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    Ok((decoder, Picture { width: width as usize, height: height as usize, orientation }))
}

fn other(bytes: &[u8], format: ImageFormat, pixels: &mut Vec<u8>) -> Result<Picture, Reason> {
    let (decoder, picture) = other_header(bytes, format)?;
    let picture_data = DynamicImage::from_decoder(decoder).map_err(|e| format!("damaged {format:?} picture: {e}"))?;
    pixels.clear();
    if picture_data.color().has_alpha() {
        // Transparent pixels have any colour; over white they look as they do on a page.
        pixels.extend(picture_data.into_rgba8().pixels().flat_map(|p| {
            let alpha = u32::from(p.0[3]);
            [0, 1, 2].map(|i| ((u32::from(p.0[i]) * alpha + 255 * (255 - alpha) + 127) / 255) as u8)
        }));
    } else {
        *pixels = picture_data.into_rgb8().into_raw();
    }
    Ok(picture)
}

#[cfg(test)]
mod tests;
