//! Response normalisation within a map (2012 code: `rnorm`; in net 145 but not in the paper).

use super::{
    Layer, Needs,
    response_norm::{Curve, check, sum_blocks, sum_shifted},
    yes,
};
use crate::lower::{Lower, Tensor};
use crate::tile::for_vectors;
use alexnode_core::{
    Engine, Result, Shape, Stage, Target,
    host::{Host, Shared},
    kernel::{Access, Args, Kernel},
};
use bytemuck::{Pod, Zeroable};
use serde::{Deserialize, Serialize};

/// y = x s^-beta, s = k + a * sum of x^2 over the `size` x `size` pixels of the same channel from floor(size / 2) above and left
/// of the pixel on, clipped to the image.
///
/// `a` is `alpha / size^2` (2012 code, layer.py) or, with `alphaDividedBySize` false, `alpha`. Net 145 uses size 5, k 1,
/// alpha 1e-3, beta 0.75. The gradient has the form of [`LocalResponseNorm`](super::local_response_norm::LocalResponseNorm)'s.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MapResponseNorm {
    /// The layer's name.
    pub name: String,
    /// Width and height of the window in pixels.
    pub size: usize,
    /// The constant in s; more than 0.
    pub k: f32,
    /// The weight of the squares.
    pub alpha: f32,
    /// The exponent; 0.75 is the fast one.
    pub beta: f32,
    /// Whether `alpha` is divided by `size` squared.
    #[serde(default = "yes")]
    pub alpha_divided_by_size: bool,
}

/// Channels that a task handles: those of a cache line.
const CHANNELS: usize = 16;

/// `batch` images of `h x w x c`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Params {
    batch: i32,
    h: i32,
    w: i32,
    c: i32,
    size: i32,
    x_ld: i32,
    /// Of y forward, of dy backward.
    y_ld: i32,
    /// Backward only.
    dx_ld: i32,
    k: f32,
    alpha: f32,
    beta: f32,
}

impl Params {
    fn curve(&self) -> Curve {
        Curve { k: self.k, alpha: self.alpha, beta: self.beta }
    }
    fn elements(&self) -> usize {
        [self.batch, self.h, self.w, self.c].iter().map(|n| *n as usize).product()
    }
    /// A CUDA kernel with one thread per element.
    fn stage(&self, entry: &'static str) -> Stage {
        Stage { constant: true, ..Stage::each(entry, self.elements()) }
    }
}

/// Arguments: x, y, scratch (on the host [`scratch_bytes`]).
struct MapResponseNormForward;
/// Recomputes s rather than keeping it. Arguments: x, dy, dx, scratch (on the host [`scratch_bytes`], on a CUDA device a term per
/// element).
struct MapResponseNormBackward;

/// Two planes of [`CHANNELS`] channels per worker.
fn scratch_bytes(pixels: usize, workers: usize) -> usize {
    workers * 2 * pixels * CHANNELS * 4
}

/// Calls `body(image, first channel, channels, two planes of scratch)` for each block of channels of each image.
fn blocks(
    p: &Params,
    scratch: &mut [f32],
    host: &dyn Host,
    body: impl Fn(usize, usize, usize, &mut [f32], &mut [f32]) + Sync,
) {
    let (c, plane) = (p.c as usize, (p.h * p.w) as usize * CHANNELS);
    let per_image = c.div_ceil(CHANNELS);
    let scratch = Shared::new(scratch);
    host.parallel(p.batch as usize * per_image, &|task, worker| {
        let (image, first) = (task / per_image, task % per_image * CHANNELS);
        let channels = CHANNELS.min(c - first);
        // SAFETY: no two tasks run at the same time with the same worker.
        let (a, b) = unsafe { scratch.range(worker * 2 * plane, 2 * plane) }.split_at_mut(plane);
        let used = plane / CHANNELS * channels;
        body(image, first, channels, &mut a[..used], &mut b[..used]);
    });
}

/// Some channels of one image: pixel i begins at `start + i * ld`.
struct Plane<'a> {
    data: &'a [f32],
    start: usize,
    ld: usize,
    channels: usize,
}

impl<'a> Plane<'a> {
    fn new(data: &'a [f32], ld: i32, pixels: usize, image: usize, first: usize, channels: usize) -> Self {
        let ld = ld as usize;
        Self { data, start: image * pixels * ld + first, ld, channels }
    }
    #[inline(always)]
    fn pixel(&self, i: usize) -> &'a [f32] {
        &self.data[self.start + i * self.ld..][..self.channels]
    }
}

impl Kernel for MapResponseNormForward {
    type Params = Params;
    const NAME: &'static str = "map_response_norm_forward";
    const SOURCE: &'static str = "map_response_norm.cu";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Write, Access::Scratch];
    fn scratch(p: &Params, engine: Engine) -> usize {
        match engine {
            Engine::Host { workers } => scratch_bytes((p.h * p.w) as usize, workers),
            Engine::Cuda(_) => 0,
        }
    }
    fn run(p: &Params, args: &Args<'_>, host: &dyn Host) {
        let x = args.read::<f32>(0);
        let y = Shared::new(args.write::<f32>(1));
        let pixels = (p.h * p.w) as usize;
        blocks(p, args.write::<f32>(2), host, |image, first, channels, a, b| {
            let x = Plane::new(x, p.x_ld, pixels, image, first, channels);
            let start = image * pixels * p.y_ld as usize + first;
            // SAFETY: a task visits only its own channels of its own image.
            unsafe { forward(p, &x, &y, start, a, b) };
        });
    }
    fn stages(p: &Params, _: &Target) -> Vec<Stage> {
        vec![p.stage(Self::NAME)]
    }
}

impl Kernel for MapResponseNormBackward {
    type Params = Params;
    const NAME: &'static str = "map_response_norm_backward";
    const SOURCE: &'static str = "map_response_norm.cu";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Read, Access::Write, Access::Scratch];
    fn scratch(p: &Params, engine: Engine) -> usize {
        match engine {
            Engine::Host { workers } => scratch_bytes((p.h * p.w) as usize, workers),
            Engine::Cuda(_) => p.elements() * 4,
        }
    }
    fn run(p: &Params, args: &Args<'_>, host: &dyn Host) {
        let (x, dy) = (args.read::<f32>(0), args.read::<f32>(1));
        let dx = Shared::new(args.write::<f32>(2));
        let pixels = (p.h * p.w) as usize;
        blocks(p, args.write::<f32>(3), host, |image, first, channels, a, b| {
            let x = Plane::new(x, p.x_ld, pixels, image, first, channels);
            let dy = Plane::new(dy, p.y_ld, pixels, image, first, channels);
            let start = image * pixels * p.dx_ld as usize + first;
            // SAFETY: a task visits only its own channels of its own image.
            unsafe { backward(p, &x, &dy, &dx, start, a, b) };
        });
    }
    fn stages(p: &Params, _: &Target) -> Vec<Stage> {
        vec![p.stage("map_response_norm_terms"), p.stage(Self::NAME)]
    }
}

/// The sums of the squares in the window of every pixel, into `a`; `b` is used on the way.
#[inline(always)]
fn sums_of_squares(p: &Params, x: &Plane<'_>, a: &mut [f32], b: &mut [f32]) {
    for (i, squares) in a.chunks_exact_mut(x.channels).enumerate() {
        for (square, x) in squares.iter_mut().zip(x.pixel(i)) {
            *square = x * x;
        }
    }
    sum_planes(p, p.size as usize / 2, x.channels, a, b);
}

/// Replaces `a` by its sums over windows that begin `before` pixels above and left: down the columns, then along the rows.
#[inline(always)]
fn sum_planes(p: &Params, before: usize, channels: usize, a: &mut [f32], b: &mut [f32]) {
    let (size, row) = (p.size as usize, p.w as usize * channels);
    sum_blocks(a, size, before, row, b);
    for (a, b) in a.chunks_exact_mut(row).zip(b.chunks_exact(row)) {
        sum_shifted(b, size, before, channels, a);
    }
}

for_vectors!(unsafe forward, forward_any, (p: &Params, x: &Plane<'_>, y: &Shared<'_, f32>, start: usize, a: &mut [f32], b: &mut [f32]));

/// The channels of `x` forward; pixel i of y begins at `start + i * y_ld`.
///
/// # Safety
/// No other task may touch these elements of y.
#[inline(always)]
unsafe fn forward_any(p: &Params, x: &Plane<'_>, y: &Shared<'_, f32>, start: usize, a: &mut [f32], b: &mut [f32]) {
    sums_of_squares(p, x, a, b);
    p.curve().replace(a, None);
    for (i, powers) in a.chunks_exact(x.channels).enumerate() {
        // SAFETY: the caller's promise; one pixel at a time.
        let y = unsafe { y.range(start + i * p.y_ld as usize, x.channels) };
        for ((y, x), power) in y.iter_mut().zip(x.pixel(i)).zip(powers) {
            *y = x * power;
        }
    }
}

for_vectors!(unsafe backward, backward_any, (p: &Params, x: &Plane<'_>, dy: &Plane<'_>, dx: &Shared<'_, f32>, start: usize, a: &mut [f32], b: &mut [f32]));

/// The channels of `x` backward; pixel i of dx begins at `start + i * dx_ld`.
///
/// # Safety
/// No other task may touch these elements of dx.
#[inline(always)]
unsafe fn backward_any(
    p: &Params,
    x: &Plane<'_>,
    dy: &Plane<'_>,
    dx: &Shared<'_, f32>,
    start: usize,
    a: &mut [f32],
    b: &mut [f32],
) {
    let (channels, size) = (x.channels, p.size as usize);
    let pixel = |i: usize| start + i * p.dx_ld as usize;
    sums_of_squares(p, x, a, b);
    let curve = p.curve();
    curve.replace(a, Some(b));
    // dx = dy s^-beta, b = dy x s^(-beta - 1).
    for (i, (powers, terms)) in a.chunks_exact(channels).zip(b.chunks_exact_mut(channels)).enumerate() {
        // SAFETY: the caller's promise; one pixel at a time.
        let dx = unsafe { dx.range(pixel(i), channels) };
        let both = x.pixel(i).iter().zip(dy.pixel(i));
        for (((dx, power), term), (x, dy)) in dx.iter_mut().zip(powers).zip(terms).zip(both) {
            *dx = dy * power;
            *term *= dy * x;
        }
    }
    // A pixel lies in the windows of those in its mirrored window.
    sum_planes(p, size - 1 - size / 2, channels, b, a);
    for (i, sums) in b.chunks_exact(channels).enumerate() {
        // SAFETY: as above.
        let dx = unsafe { dx.range(pixel(i), channels) };
        for ((dx, x), sum) in dx.iter_mut().zip(x.pixel(i)).zip(sums) {
            *dx -= curve.slope() * x * sum;
        }
    }
}

impl MapResponseNorm {
    fn params(&self, x: &Tensor, y_ld: usize, dx_ld: usize) -> Params {
        let area = (self.size * self.size) as f32;
        Params {
            batch: x.batch as i32,
            h: x.shape.h as i32,
            w: x.shape.w as i32,
            c: x.shape.c as i32,
            size: self.size as i32,
            x_ld: x.ld as i32,
            y_ld: y_ld as i32,
            dx_ld: dx_ld as i32,
            k: self.k,
            alpha: if self.alpha_divided_by_size { self.alpha / area } else { self.alpha },
            beta: self.beta,
        }
    }
}

impl Layer for MapResponseNorm {
    fn kind(&self) -> &'static str {
        "MapResponseNorm"
    }
    fn name(&self) -> &str {
        &self.name
    }
    fn output(&self, input: Shape) -> Result<Shape> {
        check(self.size, self.k, self.alpha, self.beta)?;
        Ok(input)
    }
    fn needs(&self) -> Needs {
        Needs { input: true, output: false }
    }
    fn forward(&self, cx: &mut Lower<'_>) {
        let (x, y) = (cx.x, cx.y);
        let params = self.params(&x, y.ld, 0);
        let scratch = cx.scratch::<MapResponseNormForward>(&params);
        cx.launch::<MapResponseNormForward>(params, &[x.arg(), y.arg(), scratch]);
    }
    fn backward(&self, cx: &mut Lower<'_>) {
        let Some(dx) = cx.dx() else { return };
        let (x, dy) = (cx.x, cx.dy());
        let params = self.params(&x, dy.ld, dx.ld);
        let scratch = cx.scratch::<MapResponseNormBackward>(&params);
        cx.launch::<MapResponseNormBackward>(params, &[x.arg(), dy.arg(), dx.arg(), scratch]);
    }
}
