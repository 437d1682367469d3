//! What both poolings share: the geometry of their windows.

use super::rows::share;
use crate::lower::Tensor;
use alexnode_core::{
    Result, Shape, Stage, Window,
    host::{Host, Shared},
};
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
}

/// Calls `body(row, elements)` for every row of all pooled images (y), on the workers. Elements between pixels are among them, but
/// not to be touched.
pub fn output_rows(p: &PoolParams, host: &dyn Host, y: &mut [f32], body: impl Fn(usize, &mut [f32]) + Sync) {
    // What a window sees of the image is the work for an element.
    let window = (p.size.min(p.h) as usize) * (p.size.min(p.w) as usize);
    every_row(host, p.batch as usize * p.p as usize, [p.q, p.c, p.y_ld], window, y, body);
}

/// The same for every row of all images (dx).
pub fn input_rows(p: &PoolParams, host: &dyn Host, dx: &mut [f32], body: impl Fn(usize, &mut [f32]) + Sync) {
    // With the usual overlap (3 x 3, stride 2) an element lies in up to four windows.
    every_row(host, p.batch as usize * p.h as usize, [p.w, p.c, p.x_ld], 4, dx, body);
}

/// `count` rows of pixels, channels and elements from pixel to pixel; `work` per element.
fn every_row(
    host: &dyn Host,
    count: usize,
    row: [i32; 3],
    work: usize,
    data: &mut [f32],
    body: impl Fn(usize, &mut [f32]) + Sync,
) {
    let [pixels, c, ld] = row.map(|v| v as usize);
    let data = Shared::new(data);
    share(host, count, pixels * c * work, |rows| {
        for row in rows {
            // SAFETY: every row is visited once.
            body(row, unsafe { data.range(row * pixels * ld, (pixels - 1) * ld + c) });
        }
    });
}

/// A CUDA kernel with one thread per element of y.
pub fn output_stages(p: &PoolParams, entry: &'static str) -> Vec<Stage> {
    row_stages(entry, p.batch as usize * p.p as usize, p.q as usize * p.c as usize)
}

/// A CUDA kernel with one thread per element of dx.
pub fn input_stages(p: &PoolParams, entry: &'static str) -> Vec<Stage> {
    row_stages(entry, p.batch as usize * p.h as usize, p.w as usize * p.c as usize)
}

/// Blocks in x: rows; in y: pieces of a row of `elements`.
fn row_stages(entry: &'static str, rows: usize, elements: usize) -> Vec<Stage> {
    // Pieces of equal length, in whole warps. Beyond the most blocks that y takes, a thread has several elements.
    let pieces = elements.div_ceil(Stage::THREADS as usize).clamp(1, 65_535);
    let threads = (elements.div_ceil(pieces).next_multiple_of(32) as u32).clamp(32, Stage::THREADS);
    let rows = u32::try_from(rows).expect("a grid of fewer than 2^31 rows");
    vec![Stage { constant: true, grid: [rows, pieces as u32, 1], threads, ..Stage::each(entry, 0) }]
}

/// The pooled shape.
pub fn output(window: Window, input: Shape) -> Result<Shape> {
    Ok(Shape::new(window.output(input.h)?, window.output(input.w)?, input.c))
}

/// `channel_blocks!(N in [16, 1], at in c => body::<N>(at))` splits `0..c` into blocks of so many channels, the largest first, and calls the body for each with what it begins with.
macro_rules! channel_blocks {
    ($n:ident in [$($size:literal),+], $at:ident in $c:expr => $body:expr) => {{
        let mut $at = 0;
        $({
            const $n: usize = $size;
            while $at + $n <= $c {
                $body;
                $at += $n;
            }
        })+
    }};
}
pub(super) use channel_blocks;

/// The `N` elements of `data` from `start` on.
#[inline(always)]
pub fn block<const N: usize, T>(data: &[T], start: usize) -> &[T; N] {
    let Some(block) = data[start..].first_chunk() else { unreachable!("a pixel has at least {N} more channels") };
    block
}
