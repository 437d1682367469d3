//! Max pooling (paper section 3.4).

use super::{
    Layer, Needs,
    pool::{self, PoolParams, block, channel_blocks},
    yes,
};
use crate::lower::Lower;
use crate::tile::for_vectors;
use alexnode_core::{
    Error, Result, Shape, Stage, Target, Window,
    host::{Host, Shared},
    kernel::{Access, Args, Kernel},
};
use serde::{Deserialize, Serialize};

/// The largest element of each window, per channel; windows are clipped to the image.
///
/// The gradient goes to that element, on ties to the first in scan order (the 2012 code gives it to all of them). A NaN in a
/// window wins, so that the loss shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MaxPool2d {
    /// The layer's name.
    pub name: String,
    /// Width and height of the window, at most 16.
    pub kernel_size: usize,
    /// Step between windows; smaller than `kernelSize`: overlapping pooling.
    pub stride: usize,
    /// Pixels before the first row and column; never the maximum.
    #[serde(default)]
    pub padding: usize,
    /// Whether a last, incomplete window counts (2012 code), or is dropped.
    #[serde(default = "yes")]
    pub ceil_mode: bool,
}

/// What a byte can tell apart: 16 x 16 places in a window.
pub(super) const MAX_SIZE: usize = 16;

/// Also keeps, for each element of y, its place in its window (row * size + column). Arguments: x, y, places (u8, compact).
struct MaxPool2dForward;
/// Without places, for evaluation. Arguments: x, y.
struct MaxPool2dInference;
/// Each element of dx collects from the windows that chose it. Arguments: places, dy, dx.
struct MaxPool2dBackward;

impl Kernel for MaxPool2dForward {
    type Params = PoolParams;
    const NAME: &'static str = "max_pool2d_forward";
    const SOURCE: &'static str = "max_pool2d.cu";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Write, Access::Write];
    fn run(p: &PoolParams, args: &Args<'_>, host: &dyn Host) {
        let x = args.read::<f32>(0);
        let places = Shared::new(args.write::<u8>(2));
        let len = p.q as usize * p.c as usize;
        pool::output_rows(p, host, args.write(1), |row, y| {
            // SAFETY: every row is visited once.
            forward(p, x, &image_rows(p, row), y, Some(unsafe { places.range(row * len, len) }), row);
        });
    }
    fn stages(p: &PoolParams, _: &Target) -> Vec<Stage> {
        pool::output_stages(p, Self::NAME)
    }
}

impl Kernel for MaxPool2dInference {
    type Params = PoolParams;
    const NAME: &'static str = "max_pool2d_inference";
    const SOURCE: &'static str = "max_pool2d.cu";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Write];
    fn run(p: &PoolParams, args: &Args<'_>, host: &dyn Host) {
        let x = args.read::<f32>(0);
        pool::output_rows(p, host, args.write(1), |row, y| forward(p, x, &image_rows(p, row), y, None, row));
    }
    fn stages(p: &PoolParams, _: &Target) -> Vec<Stage> {
        pool::output_stages(p, Self::NAME)
    }
}

impl Kernel for MaxPool2dBackward {
    type Params = PoolParams;
    const NAME: &'static str = "max_pool2d_backward";
    const SOURCE: &'static str = "max_pool2d.cu";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Read, Access::Write];
    fn run(p: &PoolParams, args: &Args<'_>, host: &dyn Host) {
        let (places, dy) = (args.read::<u8>(0), args.read::<f32>(1));
        pool::input_rows(p, host, args.write(2), |row, dx| backward(p, places, dy, dx, row));
    }
    fn stages(p: &PoolParams, _: &Target) -> Vec<Stage> {
        pool::input_stages(p, Self::NAME)
    }
}

/// Where the rows of x begin that row `row` of all images' rows of y sees.
fn image_rows(p: &PoolParams, row: usize) -> [usize; MAX_SIZE] {
    let (image, p_row) = (row / p.p as usize, row % p.p as usize);
    let first = image * p.h as usize + p.vertical().pixels(p_row).start;
    std::array::from_fn(|i| (first + i) * p.w as usize * p.x_ld as usize)
}

for_vectors!(pub(super) forward, forward_any, (p: &PoolParams, x: &[f32], rows: &[usize; MAX_SIZE], y: &mut [f32], places: Option<&mut [u8]>, row: usize));

/// Row `row` of all images' rows of y. The rows of the images that its windows see begin at `rows` in x.
#[inline(always)]
fn forward_any(
    p: &PoolParams,
    x: &[f32],
    rows: &[usize; MAX_SIZE],
    y: &mut [f32],
    mut places: Option<&mut [u8]>,
    row: usize,
) {
    let (p_row, c) = (row % p.p as usize, p.c as usize);
    for q in 0..p.q as usize {
        let y = &mut y[q * p.y_ld as usize..][..c];
        let mut places = places.as_mut().map(|places| &mut places[q * c..][..c]);
        channel_blocks!(N in [16, 1], at in c => forward_block::<N>(p, x, rows, y, &mut places, p_row, q, at));
    }
}

#[inline(always)]
fn forward_block<const N: usize>(
    p: &PoolParams,
    x: &[f32],
    rows: &[usize; MAX_SIZE],
    y: &mut [f32],
    places: &mut Option<&mut [u8]>,
    p_row: usize,
    q: usize,
    c: usize,
) {
    let (vertical, horizontal) = (p.vertical(), p.horizontal());
    let (hs, ws) = (vertical.pixels(p_row), horizontal.pixels(q));
    let place = |h, w| (vertical.place(p_row, h) * p.size as usize + horizontal.place(q, w)) as u32;
    let (mut best, mut at) = ([f32::NEG_INFINITY; N], [place(hs.start, ws.start); N]);
    for (h, row) in hs.zip(rows) {
        for w in ws.clone() {
            let x = block::<N, _>(x, row + w * p.x_ld as usize + c);
            let here = place(h, w);
            for i in 0..N {
                let take = x[i] > best[i] || x[i].is_nan();
                best[i] = if take { x[i] } else { best[i] };
                at[i] = if take { here } else { at[i] };
            }
        }
    }
    y[c..c + N].copy_from_slice(&best);
    if let Some(places) = places {
        for (place, at) in places[c..c + N].iter_mut().zip(at) {
            *place = at as u8;
        }
    }
}

for_vectors!(pub(super) backward, backward_any, (p: &PoolParams, places: &[u8], dy: &[f32], dx: &mut [f32], row: usize));

/// Row `row` of all images' rows of dx.
#[inline(always)]
fn backward_any(p: &PoolParams, places: &[u8], dy: &[f32], dx: &mut [f32], row: usize) {
    let (image, h, c) = (row / p.h as usize, row % p.h as usize, p.c as usize);
    let (vertical, horizontal) = (p.vertical(), p.horizontal());
    let rows = vertical.windows(h);
    for w in 0..p.w as usize {
        let dx = &mut dx[w * p.x_ld as usize..][..c];
        let columns = horizontal.windows(w);
        let pixel = (image * p.p as usize + rows.start) * p.q as usize + columns.start;
        let place = vertical.place(rows.start, h) * p.size as usize + horizontal.place(columns.start, w);
        let windows = [rows.len(), columns.len()];
        // Wide ones, as a visit of a window costs more than what is added there.
        channel_blocks!(N in [64, 32, 16, 1], at in c => backward_block::<N>(p, places, dy, dx, pixel, place, windows, at));
    }
}

/// Of one pixel; `windows` windows down and across hold it, the first of which is that of pixel `pixel` of y and has it at `place`.
#[inline(always)]
fn backward_block<const N: usize>(
    p: &PoolParams,
    places: &[u8],
    dy: &[f32],
    dx: &mut [f32],
    pixel: usize,
    place: usize,
    [down, across]: [usize; 2],
    c: usize,
) {
    let mut sum = [0.0; N];
    let stride = p.stride as usize;
    for i in 0..down {
        for j in 0..across {
            let pixel = pixel + i * p.q as usize + j;
            let here = (place - i * stride * p.size as usize - j * stride) as u8;
            let places = block::<N, _>(places, pixel * p.c as usize + c);
            let dy = block::<N, _>(dy, pixel * p.y_ld as usize + c);
            for i in 0..N {
                // As bits: what the compiler can do for all of them at once.
                let mask = if places[i] == here { u32::MAX } else { 0 };
                sum[i] += f32::from_bits(dy[i].to_bits() & mask);
            }
        }
    }
    dx[c..c + N].copy_from_slice(&sum);
}

impl MaxPool2d {
    pub(super) fn window(&self) -> Window {
        Window { size: self.kernel_size, stride: self.stride, padding: self.padding, ceil: self.ceil_mode }
    }
}

impl Layer for MaxPool2d {
    fn kind(&self) -> &'static str {
        "MaxPool2d"
    }
    fn name(&self) -> &str {
        &self.name
    }
    fn output(&self, input: Shape) -> Result<Shape> {
        if self.kernel_size > MAX_SIZE {
            return Err(Error::usage(format!("kernelSize {} is larger than {MAX_SIZE}", self.kernel_size))
                .hint("Pool twice with smaller windows."));
        }
        pool::output(self.window(), input)
    }
    fn needs(&self) -> Needs {
        Needs { input: false, output: false }
    }
    fn forward(&self, cx: &mut Lower<'_>) {
        let (x, y) = (cx.x, cx.y);
        let params = PoolParams::new(self.window(), &x, &y);
        if cx.train {
            let places = cx.saved(y.rows() * y.shape.c);
            cx.launch::<MaxPool2dForward>(params, &[x.arg(), y.arg(), places]);
        } else {
            cx.launch::<MaxPool2dInference>(params, &[x.arg(), y.arg()]);
        }
    }
    fn backward(&self, cx: &mut Lower<'_>) {
        let dy = cx.dy();
        let places = cx.saved(dy.rows() * dy.shape.c);
        let Some(dx) = cx.dx() else { return };
        let params = PoolParams::new(self.window(), &dx, &dy);
        cx.launch::<MaxPool2dBackward>(params, &[places, dy.arg(), dx.arg()]);
    }
}
