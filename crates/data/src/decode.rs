//! Bytes of a file to RGB pixels. The format is told from the first bytes, never from the name.
//!
//! | module | about |
//! |---|---|
//! | `jpeg`, `others` | the decoders and what they leave to be done |
//! | `exif` | how a picture has to be turned |
//! | `limits`, `frames` | what is refused before any memory is taken |

mod exif;
mod frames;
mod jpeg;
pub(crate) mod limits;
mod others;
#[cfg(test)]
mod tests;

use image::{ImageFormat, metadata::Orientation};
use std::panic::AssertUnwindSafe;

/// Why a file is no usable picture, without its name: "the file is empty", "the picture is cut off".
pub(crate) type Reason = String;

/// A picture's size as stored, what it is made of, and how it has to be turned to stand upright.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Picture {
    pub width: usize,
    pub height: usize,
    pub orientation: Orientation,
    pub format: Format,
    pub colours: Colours,
}

/// The formats that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Format {
    Jpeg,
    Png,
    Gif,
    WebP,
    Bmp,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Jpeg, Self::Png, Self::Gif, Self::WebP, Self::Bmp];

    /// As people write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::Gif => "GIF",
            Self::WebP => "WebP",
            Self::Bmp => "BMP",
        }
    }

    /// Extensions that promise this format, in lower case.
    pub const fn extensions(self) -> &'static [&'static str] {
        match self {
            Self::Jpeg => &["jpg", "jpeg", "jpe", "jfif"],
            Self::Png => &["png"],
            Self::Gif => &["gif"],
            Self::WebP => &["webp"],
            Self::Bmp => &["bmp"],
        }
    }
}

/// What the stored channels mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colours {
    /// One channel of light, perhaps with transparency.
    Grey,
    /// Red, green and blue, or what becomes them: YCbCr, a palette.
    Rgb,
    /// Inks: CMYK or YCCK.
    Cmyk,
}

/// What the first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Known(Format),
    /// A picture format that is recognised but not read.
    Unsupported(&'static str),
    /// No picture at all.
    Unknown,
}

/// Tells the format from the first bytes (12 are enough).
pub(crate) fn sniff(bytes: &[u8]) -> Kind {
    let at = |offset: usize, magic: &[u8]| bytes.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    match () {
        _ if at(0, b"\xff\xd8") => Kind::Known(Format::Jpeg),
        _ if at(0, b"\x89PNG\r\n\x1a\n") => Kind::Known(Format::Png),
        _ if at(0, b"GIF87a") || at(0, b"GIF89a") => Kind::Known(Format::Gif),
        _ if at(0, b"RIFF") && at(8, b"WEBP") => Kind::Known(Format::WebP),
        _ if at(0, b"BM") => Kind::Known(Format::Bmp),
        _ if at(0, b"II*\0") || at(0, b"MM\0*") => Kind::Unsupported("TIFF"),
        _ if at(4, b"ftypavif") || at(4, b"ftypavis") => Kind::Unsupported("AVIF"),
        _ if at(4, b"ftyphei") || at(4, b"ftypmif1") || at(4, b"ftypmsf1") => Kind::Unsupported("HEIC"),
        _ if at(4, b"jP  ") => Kind::Unsupported("JPEG 2000"),
        _ if at(0, b"\xff\x0a") || at(4, b"JXL ") => Kind::Unsupported("JPEG XL"),
        _ if at(0, b"8BPS") => Kind::Unsupported("Photoshop"),
        _ => Kind::Unknown,
    }
}

/// Reads what stands before the pixels. `bytes` may be the beginning of a file of `size` bytes; an error then only says that more are
/// needed.
pub(crate) fn header(bytes: &[u8], size: u64) -> Result<Picture, Reason> {
    guarded(|| match sniff(bytes) {
        Kind::Known(Format::Jpeg) => jpeg::header(bytes, size),
        Kind::Known(format) => others::header(bytes, size, format),
        kind => Err(refusal(kind, bytes)),
    })
}

/// Where the pixels of a picture may go, `width * height * 3` bytes.
pub(crate) struct Place<'a> {
    pub width: usize,
    pub height: usize,
    pub pixels: &'a mut [u8],
}

/// Decodes whole pictures to RGB, 8 bits a channel, row by row, one after the other with the same working memory.
/// The result lies as stored: `orientation` is yet to be applied.
#[derive(Default)]
pub(crate) struct Decoder {
    pixels: Vec<u8>,
    jpeg: jpeg::Memory,
}

impl Decoder {
    /// Decodes `bytes`; [`pixels`](Self::pixels) gives the result.
    pub fn decode(&mut self, bytes: &[u8]) -> Result<Picture, Reason> {
        self.decode_to(bytes, None).map(|(picture, _)| picture)
    }

    /// The same; pixels that can be made in `place` stay there, which it gives, too. After an error there is anything.
    pub fn decode_to(&mut self, bytes: &[u8], place: Option<Place<'_>>) -> Result<(Picture, bool), Reason> {
        let Self { pixels, jpeg } = self;
        guarded(|| match sniff(bytes) {
            Kind::Known(Format::Jpeg) => jpeg::decode(bytes, jpeg, pixels, place),
            Kind::Known(format) => others::decode(bytes, format, pixels).map(|picture| (picture, false)),
            kind => Err(refusal(kind, bytes)),
        })
    }

    /// Those of the picture that was decoded last.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// Gives back memory beyond `most` bytes.
    pub fn spare(&mut self, most: usize) {
        if self.pixels.capacity() > most {
            self.pixels = Vec::new();
        }
        if self.jpeg.bytes() > most {
            self.jpeg = jpeg::Memory::default();
        }
    }
}

/// A decoder that panics on a damaged file must not take the process down.
fn guarded<T>(decode: impl FnOnce() -> Result<T, Reason>) -> Result<T, Reason> {
    std::panic::catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|_| Err(PANICKED.into()))
}

const PANICKED: &str = "the picture is damaged in a way that its decoder does not survive";

fn refusal(kind: Kind, bytes: &[u8]) -> Reason {
    match kind {
        Kind::Unsupported(name) => format!("{name} pictures are not supported, only JPEG, PNG, WebP, GIF and BMP"),
        _ if bytes.is_empty() => "the file is empty".into(),
        _ => "not a picture: its first bytes are those of no known format".into(),
    }
}

/// The image library's name of a format; JPEGs are not its business.
impl From<Format> for ImageFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Jpeg => Self::Jpeg,
            Format::Png => Self::Png,
            Format::Gif => Self::Gif,
            Format::WebP => Self::WebP,
            Format::Bmp => Self::Bmp,
        }
    }
}
