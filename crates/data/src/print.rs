//! Perceptual hashes: numbers that are nearly the same for pictures that look nearly the same.

use fast_image_resize::{
    FilterType, ResizeAlg, ResizeOptions, Resizer,
    images::{TypedImage, TypedImageRef},
    pixels::U8x3,
};

use crate::{
    decode::{Picture, Reason},
    prepare::{KEEP, turn},
};

/// Whether a picture gets brighter from each of 8 x 8 places to the next, rightwards and downwards. Copies in another size, format or
/// quality differ in few bits.
pub(crate) type Print = [u64; 2];

/// Side of the grid that a [`Print`] compares neighbours on.
const GRID: usize = 9;
/// A picture whose grid is darker and brighter by less than this shows nothing to be recognised by.
const FLAT: u32 = 12;

/// Makes prints of one picture after the other with the same working memory. One per thread.
pub(crate) struct Printer {
    resizer: Resizer,
}

impl Printer {
    pub fn new() -> Self {
        Self { resizer: Resizer::new() }
    }

    /// The print of a decoded picture; `None` for one without contrast.
    pub fn print(&mut self, picture: &Picture, pixels: &[u8]) -> Result<Option<Print>, Reason> {
        let failed = |e: &dyn std::fmt::Display| format!("cannot be resized: {e}");
        let (width, height) = (picture.width as u32, picture.height as u32);
        let (mut small, mut upright) = ([0; GRID * GRID * 3], [0; GRID * GRID * 3]);
        let source = TypedImageRef::<U8x3>::from_buffer(width, height, pixels).map_err(|e| failed(&e))?;
        let side = GRID as u32;
        let mut target = TypedImage::<U8x3>::from_buffer(side, side, &mut small).map_err(|e| failed(&e))?;
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
        self.resizer.resize_typed(&source, &mut target, &options).map_err(|e| failed(&e))?;
        if self.resizer.size_of_internal_buffers() > KEEP {
            self.resizer.reset_internal_buffers();
        }
        turn(&small, GRID, picture.orientation, &mut upright);
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
