//! Average pooling (the CIFAR nets of the 2012 code).

use super::{
    Layer, Needs,
    pool::{self, PoolParams, block, channel_blocks},
    yes,
};
use crate::lower::Lower;
use crate::tile::for_vectors;
use alexnode_core::{
    Result, Shape, Stage, Target, Window,
    host::Host,
    kernel::{Access, Args, Kernel},
};
use serde::{Deserialize, Serialize};

/// The mean of each window, per channel. A window is clipped to the image and divided by what is left of it (2012 code:
/// conv_util.cuh), so neither padding nor overhang counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AvgPool2d {
    /// The layer's name.
    pub name: String,
    /// Width and height of the window.
    pub kernel_size: usize,
    /// Step between windows.
    pub stride: usize,
    /// Pixels before the first row and column.
    #[serde(default)]
    pub padding: usize,
    /// Whether a last, incomplete window counts (2012 code), or is dropped.
    #[serde(default = "yes")]
    pub ceil_mode: bool,
}

/// Arguments: x, y.
struct AvgPool2dForward;
/// Each element of dx collects from the windows that hold it. Arguments: dy, dx.
struct AvgPool2dBackward;

impl Kernel for AvgPool2dForward {
    type Params = PoolParams;
    const NAME: &'static str = "avg_pool2d_forward";
    const SOURCE: &'static str = "avg_pool2d.cu";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Write];
    fn run(p: &PoolParams, args: &Args<'_>, host: &dyn Host) {
        let x = args.read::<f32>(0);
        pool::output_rows(p, host, args.write(1), |row, y| forward(p, x, y, row));
    }
    fn stages(p: &PoolParams, _: &Target) -> Vec<Stage> {
        pool::output_stages(p, Self::NAME)
    }
}

impl Kernel for AvgPool2dBackward {
    type Params = PoolParams;
    const NAME: &'static str = "avg_pool2d_backward";
    const SOURCE: &'static str = "avg_pool2d.cu";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Write];
    fn run(p: &PoolParams, args: &Args<'_>, host: &dyn Host) {
        let dy = args.read::<f32>(0);
        pool::input_rows(p, host, args.write(1), |row, dx| backward(p, dy, dx, row));
    }
    fn stages(p: &PoolParams, _: &Target) -> Vec<Stage> {
        pool::input_stages(p, Self::NAME)
    }
}

for_vectors!(forward, forward_any, (p: &PoolParams, x: &[f32], y: &mut [f32], row: usize));

/// Row `row` of all images' rows of y.
#[inline(always)]
fn forward_any(p: &PoolParams, x: &[f32], y: &mut [f32], row: usize) {
    let (image, p_row, c) = (row / p.p as usize, row % p.p as usize, p.c as usize);
    for q in 0..p.q as usize {
        let y = &mut y[q * p.y_ld as usize..][..c];
        channel_blocks!(N in [16, 1], at in c => forward_block::<N>(p, x, y, image, p_row, q, at));
    }
}

#[inline(always)]
fn forward_block<const N: usize>(
    p: &PoolParams,
    x: &[f32],
    y: &mut [f32],
    image: usize,
    p_row: usize,
    q: usize,
    c: usize,
) {
    let (hs, ws) = (p.vertical().pixels(p_row), p.horizontal().pixels(q));
    let area = (hs.len() * ws.len()) as f32;
    let mut sum = [0.0; N];
    for h in hs {
        for w in ws.clone() {
            let x = block::<N, _>(x, ((image * p.h as usize + h) * p.w as usize + w) * p.x_ld as usize + c);
            for i in 0..N {
                sum[i] += x[i];
            }
        }
    }
    y[c..c + N].copy_from_slice(&sum.map(|sum| sum / area));
}

for_vectors!(backward, backward_any, (p: &PoolParams, dy: &[f32], dx: &mut [f32], row: usize));

/// Row `row` of all images' rows of dx.
#[inline(always)]
fn backward_any(p: &PoolParams, dy: &[f32], dx: &mut [f32], row: usize) {
    let (image, h, c) = (row / p.h as usize, row % p.h as usize, p.c as usize);
    for w in 0..p.w as usize {
        let dx = &mut dx[w * p.x_ld as usize..][..c];
        channel_blocks!(N in [16, 1], at in c => backward_block::<N>(p, dy, dx, image, h, w, at));
    }
}

#[inline(always)]
fn backward_block<const N: usize>(
    p: &PoolParams,
    dy: &[f32],
    dx: &mut [f32],
    image: usize,
    h: usize,
    w: usize,
    c: usize,
) {
    let (vertical, horizontal) = (p.vertical(), p.horizontal());
    let mut sum = [0.0; N];
    for p_row in vertical.windows(h) {
        for q in horizontal.windows(w) {
            let area = (vertical.pixels(p_row).len() * horizontal.pixels(q).len()) as f32;
            let pixel = (image * p.p as usize + p_row) * p.q as usize + q;
            let dy = block::<N, _>(dy, pixel * p.y_ld as usize + c);
            for i in 0..N {
                sum[i] += dy[i] / area;
            }
        }
    }
    dx[c..c + N].copy_from_slice(&sum);
}

impl AvgPool2d {
    fn window(&self) -> Window {
        Window { size: self.kernel_size, stride: self.stride, padding: self.padding, ceil: self.ceil_mode }
    }
}

impl Layer for AvgPool2d {
    fn kind(&self) -> &'static str {
        "AvgPool2d"
    }
    fn name(&self) -> &str {
        &self.name
    }
    fn output(&self, input: Shape) -> Result<Shape> {
        pool::output(self.window(), input)
    }
    fn needs(&self) -> Needs {
        Needs { input: false, output: false }
    }
    fn forward(&self, cx: &mut Lower<'_>) {
        let (x, y) = (cx.x, cx.y);
        cx.launch::<AvgPool2dForward>(PoolParams::new(self.window(), &x, &y), &[x.arg(), y.arg()]);
    }
    fn backward(&self, cx: &mut Lower<'_>) {
        let Some(dx) = cx.dx() else { return };
        let dy = cx.dy();
        cx.launch::<AvgPool2dBackward>(PoolParams::new(self.window(), &dx, &dy), &[dy.arg(), dx.arg()]);
    }
}
