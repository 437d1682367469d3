//! What both poolings share: the geometry of their windows.

use crate::lower::Tensor;
use alexnode_core::{Result, Shape, Window};
use bytemuck::{Pod, Zeroable};
use std::ops::Range;

/// `batch` images of `h x w x c`, pooled to `p x q x c`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct PoolParams {
    pub batch: i32,
    pub h: i32,
    pub w: i32,
    pub c: i32,
    pub p: i32,
    pub q: i32,
    pub size: i32,
    pub stride: i32,
    pub padding: i32,
    /// Of x forward, of dx backward.
    pub x_ld: i32,
    /// Of y forward, of dy backward.
    pub y_ld: i32,
}

/// One axis of a pooling: windows over pixels.
#[derive(Clone, Copy, Debug)]
pub struct Axis {
    pixels: usize,
    windows: usize,
    size: usize,
    stride: usize,
    padding: usize,
}

impl Axis {
    /// The pixels of window `i`: the window clipped to the image, never empty.
    #[inline(always)]
    pub fn pixels(&self, i: usize) -> Range<usize> {
        let end = i * self.stride + self.size - self.padding;
        (i * self.stride).saturating_sub(self.padding)..end.min(self.pixels)
    }
    /// The windows that hold pixel `i`.
    #[inline(always)]
    pub fn windows(&self, i: usize) -> Range<usize> {
        let i = i + self.padding;
        let first = if i < self.size { 0 } else { (i - self.size) / self.stride + 1 };
        first..(i / self.stride + 1).min(self.windows)
    }
    /// Where pixel `i` lies in window `window`, from 0.
    #[inline(always)]
    pub fn place(&self, window: usize, i: usize) -> usize {
        i + self.padding - window * self.stride
    }
}

impl PoolParams {
    /// The pooling of `x` (or dx) to `y` (or dy).
    pub fn new(window: Window, x: &Tensor, y: &Tensor) -> Self {
        Self {
            batch: x.batch as i32,
            h: x.shape.h as i32,
            w: x.shape.w as i32,
            c: x.shape.c as i32,
            p: y.shape.h as i32,
            q: y.shape.w as i32,
            size: window.size as i32,
            stride: window.stride as i32,
            padding: window.padding as i32,
            x_ld: x.ld as i32,
            y_ld: y.ld as i32,
        }
    }
    fn axis(&self, pixels: i32, windows: i32) -> Axis {
        Axis {
            pixels: pixels as usize,
            windows: windows as usize,
            size: self.size as usize,
            stride: self.stride as usize,
            padding: self.padding as usize,
        }
    }
    /// Rows of pixels against rows of windows.
    #[inline(always)]
    pub fn vertical(&self) -> Axis {
        self.axis(self.h, self.p)
    }
    /// Columns of pixels against columns of windows.
    #[inline(always)]
    pub fn horizontal(&self) -> Axis {
        self.axis(self.w, self.q)
    }
    /// Elements that the pooled images have per row of windows, times the window: the work of a row.
    pub fn work(&self) -> usize {
        (self.q * self.c * self.size * self.size) as usize
    }
}

/// The pooled shape.
pub fn output(window: Window, input: Shape) -> Result<Shape> {
    Ok(Shape::new(window.output(input.h)?, window.output(input.w)?, input.c))
}

/// Splits `0..c` into blocks of [`BLOCK`] channels and single ones, and calls the matching body for each.
macro_rules! channel_blocks {
    ($c:expr, $body:ident ( $($arg:expr),* )) => {{
        let mut c = 0;
        while c + crate::layers::pool::BLOCK <= $c {
            $body::<{ crate::layers::pool::BLOCK }>($($arg,)* c);
            c += crate::layers::pool::BLOCK;
        }
        while c < $c {
            $body::<1>($($arg,)* c);
            c += 1;
        }
    }};
}
pub(super) use channel_blocks;

/// Channels that are pooled at once, in registers.
pub const BLOCK: usize = 16;

/// The `N` elements of `data` from `start` on.
#[inline(always)]
pub fn block<const N: usize, T>(data: &[T], start: usize) -> &[T; N] {
    let Some(block) = data[start..].first_chunk() else { unreachable!("a pixel has at least {N} more channels") };
    block
}
