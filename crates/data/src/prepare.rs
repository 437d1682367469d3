//! A file's bytes to the stored picture: upright, `size x size`, RGB.

use crate::decode::{Decoder, Place, Reason};
use fast_image_resize::{
    FilterType, ResizeAlg, ResizeOptions, Resizer,
    images::{TypedImage, TypedImageRef},
    pixels::U8x3,
};
use image::metadata::Orientation;

/// Working memory beyond this is given back after a picture, so that one panorama does not stay for the whole run.
pub(crate) const KEEP: usize = 64 << 20;

/// Decodes and resizes one picture after the other with the same working memory. One per thread.
pub(crate) struct Preparer {
    size: usize,
    resizer: Resizer,
    decoder: Decoder,
    turned: Vec<u8>,
}

impl Preparer {
    /// For pictures of `size x size` pixels.
    pub fn new(size: usize) -> Self {
        Self { size, resizer: Resizer::new(), decoder: Decoder::default(), turned: Vec::new() }
    }

    /// Decodes `file` and writes `size * size * 3` bytes to `out`.
    pub fn prepare(&mut self, file: &[u8], out: &mut [u8]) -> Result<(), Reason> {
        let mut decoder = std::mem::take(&mut self.decoder);
        let place = Place { width: self.size, height: self.size, pixels: &mut *out };
        let result = decoder.decode_to(file, Some(place)).and_then(|(picture, placed)| {
            if placed {
                self.turn(picture.orientation, out);
                return Ok(());
            }
            self.fit(decoder.pixels(), picture.width, picture.height, picture.orientation, out)
        });
        decoder.spare(KEEP);
        self.decoder = decoder;
        if self.resizer.size_of_internal_buffers() > KEEP {
            self.resizer.reset_internal_buffers();
        }
        result
    }

    /// Scales the short side of an RGB picture to `size` and cuts out the middle, in one pass: only what lands in `out` is ever
    /// computed, so a 500x1 picture costs no more than any other.
    ///
    /// The filter is the triangle, widened when shrinking (what torchvision and Pillow call bilinear with antialias): no ringing
    /// at edges, a third of the work of Lanczos, and the preprocessing that other tools apply to the same photos.
    pub fn fit(
        &mut self,
        pixels: &[u8],
        width: usize,
        height: usize,
        orientation: Orientation,
        out: &mut [u8],
    ) -> Result<(), Reason> {
        if (width, height) == (self.size, self.size) {
            out.copy_from_slice(pixels);
        } else {
            self.scale(pixels, width, height, out)?;
        }
        self.turn(orientation, out);
        Ok(())
    }

    /// The middle square stays the middle square however it is turned, so the small result is turned, not the photo.
    fn turn(&mut self, orientation: Orientation, out: &mut [u8]) {
        if orientation != Orientation::NoTransforms {
            self.turned.clear();
            self.turned.extend_from_slice(out);
            turn(&self.turned, self.size, orientation, out);
        }
    }

    fn scale(&mut self, pixels: &[u8], width: usize, height: usize, out: &mut [u8]) -> Result<(), Reason> {
        let failed = |e: &dyn std::fmt::Display| format!("cannot be resized: {e}");
        let side = self.size as u32;
        // Typed views: only the code for this pixel type is compiled.
        let source = TypedImageRef::<U8x3>::from_buffer(width as u32, height as u32, pixels).map_err(|e| failed(&e))?;
        let mut target = TypedImage::<U8x3>::from_buffer(side, side, out).map_err(|e| failed(&e))?;
        let options = ResizeOptions::new()
            .resize_alg(ResizeAlg::Convolution(FilterType::Bilinear))
            .fit_into_destination(Some((0.5, 0.5)));
        self.resizer.resize_typed(&source, &mut target, &options).map_err(|e| failed(&e))
    }
}

/// Turns a square RGB picture of `n x n` pixels upright.
pub(crate) fn turn(from: &[u8], n: usize, orientation: Orientation, to: &mut [u8]) {
    use Orientation::*;
    for y in 0..n {
        for x in 0..n {
            let (sy, sx) = match orientation {
                NoTransforms => (y, x),
                FlipHorizontal => (y, n - 1 - x),
                Rotate180 => (n - 1 - y, n - 1 - x),
                FlipVertical => (n - 1 - y, x),
                Rotate90FlipH => (x, y),
                Rotate90 => (n - 1 - x, y),
                Rotate270FlipH => (n - 1 - x, n - 1 - y),
                Rotate270 => (x, n - 1 - y),
            };
            let (s, d) = (3 * (sy * n + sx), 3 * (y * n + x));
            to[d..d + 3].copy_from_slice(&from[s..s + 3]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turning_agrees_with_the_image_crate() {
        use Orientation::*;
        let n = 5;
        let bytes: Vec<u8> = (0..n * n * 3).map(|i| i as u8).collect();
        for orientation in
            [NoTransforms, FlipHorizontal, FlipVertical, Rotate90, Rotate180, Rotate270, Rotate90FlipH, Rotate270FlipH]
        {
            let mut expected =
                image::DynamicImage::from(image::RgbImage::from_raw(n as u32, n as u32, bytes.clone()).unwrap());
            expected.apply_orientation(orientation);
            let mut out = vec![0; bytes.len()];
            turn(&bytes, n, orientation, &mut out);
            assert_eq!(out, expected.into_rgb8().into_raw(), "{orientation:?}");
        }
    }

    #[test]
    fn the_middle_is_cut_out() {
        // 8x4: the middle 4x4 survives unchanged.
        let (w, h) = (8, 4);
        let pixels: Vec<u8> = (0..w * h).flat_map(|i| [(i % w * 10) as u8, (i / w * 10) as u8, 7]).collect();
        let mut out = vec![0; 4 * 4 * 3];
        Preparer::new(4).fit(&pixels, w, h, Orientation::NoTransforms, &mut out).unwrap();
        for y in 0..4 {
            for x in 0..4 {
                assert_eq!(out[3 * (y * 4 + x)..][..3], [(x + 2) as u8 * 10, y as u8 * 10, 7]);
            }
        }
    }

    #[test]
    fn extreme_shapes_cost_little() {
        for (w, h) in [(500, 1), (1, 500), (1, 1), (65_535, 1), (3, 2)] {
            let pixels = vec![200; w * h * 3];
            let mut preparer = Preparer::new(256);
            let mut out = vec![0; 256 * 256 * 3];
            preparer.fit(&pixels, w, h, Orientation::Rotate90, &mut out).unwrap();
            assert!(out.iter().all(|&v| v == 200), "{w}x{h}");
            assert!(preparer.resizer.size_of_internal_buffers() < 1 << 20, "{w}x{h}");
        }
    }

    #[test]
    fn shrinking_averages() {
        // A checkerboard of single pixels turns grey, not into moire.
        let n = 64;
        let pixels: Vec<u8> = (0..n * n).flat_map(|i| [if (i % n + i / n) % 2 == 0 { 255 } else { 0 }; 3]).collect();
        let mut out = vec![0; 8 * 8 * 3];
        Preparer::new(8).fit(&pixels, n, n, Orientation::NoTransforms, &mut out).unwrap();
        assert!(out.iter().all(|&v| (120..=136).contains(&v)), "{out:?}");
    }
}
