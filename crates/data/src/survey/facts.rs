//! One look at one file: whether it can be decoded, and what is worth knowing about it.

use crate::{
    decode::{self, Colours, Format, Picture},
    files::{Entry, Files, has_picture_name},
    prepare::{KEEP, turn},
};
use fast_image_resize::{
    FilterType, ResizeAlg, ResizeOptions, Resizer,
    images::{TypedImage, TypedImageRef},
    pixels::U8x3,
};
use image::metadata::Orientation;
use sha2::{Digest, Sha256};
use std::path::Path;

/// A perceptual hash: whether it gets brighter from each of 8 x 8 places to the next, rightwards and downwards. Copies in another size,
/// format or quality differ in few bits.
pub type Print = [u64; 2];

/// Side of the grid that a [`Print`] compares neighbours on.
const GRID: usize = 9;
/// A picture whose grid is darker and brighter by less than this shows nothing to be recognised by.
const FLAT: u32 = 12;

/// What a usable picture is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Facts {
    /// The beginning of the SHA-256 of the file.
    pub content: [u8; 16],
    /// `None` for one without contrast.
    pub print: Option<Print>,
    /// As stored.
    pub width: u32,
    /// As stored.
    pub height: u32,
    pub format: Format,
    pub colours: Colours,
    pub orientation: Orientation,
}

impl Facts {
    /// Pixels of the shorter side.
    pub fn short_side(&self) -> u32 {
        self.width.min(self.height)
    }

    /// Whether the name of the file promises another format.
    pub fn misnamed(&self, path: &Path) -> bool {
        let Some(extension) = path.extension().map(|e| e.to_string_lossy().to_lowercase()) else { return false };
        let promised = Format::ALL.into_iter().find(|format| format.extensions().contains(&extension.as_str()));
        promised.map_or_else(|| has_picture_name(path), |format| format != self.format)
    }
}

/// What came of a look.
#[derive(Clone, Debug, PartialEq)]
pub enum Look {
    Usable(Facts),
    /// Its bytes are no picture: why.
    Bad(String),
    /// Its bytes could not be read: why. That may change without a trace at the file.
    Unread(String),
}

/// Looks at one file after the other with the same working memory. One per thread.
pub struct Looker {
    resizer: Resizer,
    bytes: Vec<u8>,
    pixels: Vec<u8>,
}

impl Looker {
    pub fn new() -> Self {
        Self { resizer: Resizer::new(), bytes: Vec::new(), pixels: Vec::new() }
    }

    pub fn look(&mut self, files: &Files, entry: &Entry) -> Look {
        if let Err(reason) = files.read(entry, u64::MAX, &mut self.bytes) {
            return Look::Unread(reason);
        }
        let look = match decode::decode(&self.bytes, &mut self.pixels) {
            Err(reason) => Look::Bad(reason),
            Ok(picture) => self.facts(&picture).map_or_else(Look::Bad, Look::Usable),
        };
        for memory in [&mut self.bytes, &mut self.pixels] {
            if memory.capacity() > KEEP {
                *memory = Vec::new();
            }
        }
        if self.resizer.size_of_internal_buffers() > KEEP {
            self.resizer.reset_internal_buffers();
        }
        look
    }

    fn facts(&mut self, picture: &Picture) -> Result<Facts, String> {
        let Picture { width, height, orientation, format, colours } = *picture;
        let mut content = [0; 16];
        content.copy_from_slice(&Sha256::digest(&self.bytes)[..16]);
        let (width, height) = (width as u32, height as u32);
        let print = self.print(width, height, orientation)?;
        Ok(Facts { content, print, width, height, format, colours, orientation })
    }

    fn print(&mut self, width: u32, height: u32, orientation: Orientation) -> Result<Option<Print>, String> {
        let failed = |e: &dyn std::fmt::Display| format!("cannot be resized: {e}");
        let (mut small, mut upright) = ([0; GRID * GRID * 3], [0; GRID * GRID * 3]);
        let source = TypedImageRef::<U8x3>::from_buffer(width, height, &self.pixels).map_err(|e| failed(&e))?;
        let side = GRID as u32;
        let mut target = TypedImage::<U8x3>::from_buffer(side, side, &mut small).map_err(|e| failed(&e))?;
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
        self.resizer.resize_typed(&source, &mut target, &options).map_err(|e| failed(&e))?;
        turn(&small, GRID, orientation, &mut upright);
        Ok(compare_neighbours(&upright))
    }
}

fn compare_neighbours(rgb: &[u8; GRID * GRID * 3]) -> Option<Print> {
    // ITU-R BT.601.
    let light: Vec<u32> = rgb
        .chunks_exact(3)
        .map(|p| (299 * u32::from(p[0]) + 587 * u32::from(p[1]) + 114 * u32::from(p[2])) / 1000)
        .collect();
    let (darkest, brightest) = (light.iter().min()?, light.iter().max()?);
    if brightest - darkest < FLAT {
        return None;
    }
    let mut print = [0; 2];
    for y in 0..GRID - 1 {
        for x in 0..GRID - 1 {
            let (at, bit) = (y * GRID + x, y * (GRID - 1) + x);
            print[0] |= u64::from(light[at] < light[at + 1]) << bit;
            print[1] |= u64::from(light[at] < light[at + GRID]) << bit;
        }
    }
    Some(print)
}
