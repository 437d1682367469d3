//! Local response normalisation across channels (paper section 3.3; 2012 code: `cmrnorm`).

use super::{
    Layer, Needs, Reads, check_groups, one,
    pool::block,
    reads_by_groups,
    response_norm::{Curve, check},
    rows::share,
    yes,
};
use crate::lower::Lower;
use alexnode_core::{
    Error, Result, Shape, Stage, Target,
    host::{Host, Shared},
    kernel::{Access, Args, Kernel},
};
use bytemuck::{Pod, Zeroable};
use multiversion::multiversion;
use serde::{Deserialize, Serialize};

/// y_i = x_i s_i^-beta, s_i = k + a * sum of x_j^2 over j in W(i).
///
/// W(i) holds the `size` channels from i - floor(size / 2) on, clipped to the group of i (with `groups` 2, to the tower). `a` is
/// `alpha / size` (2012 code, layer.py; Caffe, PyTorch) or, with `alphaDividedBySize` false, `alpha` (the paper's formula).
/// The paper uses size 5, k 2, alpha 1e-4, beta 0.75.
///
/// Gradient: dx_i = dy_i s_i^-beta - 2 a beta x_i * sum of dy_j x_j s_j^(-beta - 1) over the j with i in W(j).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LocalResponseNorm {
    /// The layer's name.
    pub name: String,
    /// Channels in a window.
    pub size: usize,
    /// The constant in s; more than 0.
    pub k: f32,
    /// The weight of the squares.
    pub alpha: f32,
    /// The exponent; 0.75 is the fast one.
    pub beta: f32,
    /// Whether `alpha` is divided by `size`.
    #[serde(default = "yes")]
    pub alpha_divided_by_size: bool,
    /// Groups of channels which do not see each other.
    #[serde(default = "one")]
    pub groups: usize,
}

/// Channels that a group may have: a task keeps a pixel's group on its stack, a block of a CUDA kernel in shared memory.
const MAX_GROUP: usize = 2048;

/// `rows` pixels. x (and dx) has `c` channels in groups of `group`; y (and dy) are those from `first` to `first + count`, so that a
/// tower which has gathered all channels computes its own; backward then gives those outputs' share of the whole dx.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Params {
    pub rows: i32,
    pub c: i32,
    group: i32,
    first: i32,
    pub count: i32,
    size: i32,
    pub x_ld: i32,
    /// Of y forward, of dy backward.
    pub y_ld: i32,
    /// Backward only.
    pub dx_ld: i32,
    /// Backward only: whether x comes from a ReLU and the gradient is to pass that as well: 0 where x is not positive.
    relu: i32,
    k: f32,
    alpha: f32,
    beta: f32,
}

impl Params {
    fn curve(&self) -> Curve {
        Curve { k: self.k, alpha: self.alpha, beta: self.beta }
    }
    /// How many channels before and after its own a window holds.
    fn reach(&self) -> (usize, usize) {
        let before = self.size as usize / 2;
        (before, self.size as usize - 1 - before)
    }
    /// First and last + 1 channel of each group.
    fn groups(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let group = self.group as usize;
        (0..self.c as usize / group).map(move |g| (g * group, (g + 1) * group))
    }
    /// The channels of `lo..hi` that y has.
    fn outputs(&self, lo: usize, hi: usize) -> (usize, usize) {
        let (first, end) = (self.first as usize, (self.first + self.count) as usize);
        let from = lo.max(first);
        (from, hi.min(end).max(from))
    }
    /// A CUDA kernel whose blocks hold [`MAX_GROUP`] elements: whole groups of some pixels.
    pub fn stages(&self, entry: &'static str) -> Vec<Stage> {
        let (c, group) = (self.c as usize, self.group as usize);
        let channels = c.min(MAX_GROUP / group * group);
        let blocks = [(self.rows as usize).div_ceil(MAX_GROUP / channels), c.div_ceil(channels), 1];
        vec![Stage { constant: true, grid: blocks.map(|n| n as u32), ..Stage::each(entry, 0) }]
    }
}

/// Arguments: x, y.
struct LocalResponseNormForward;
/// Recomputes s rather than keeping it. Arguments: x, dy, dx.
struct LocalResponseNormBackward;

/// Channels that are summed at once, in registers.
const LANES: usize = 16;

/// What a task needs for one group of one pixel.
pub(super) struct Scratch {
    /// The summands, between zeros.
    padded: [f32; 3 * MAX_GROUP + LANES],
    sums: [f32; MAX_GROUP + LANES],
    /// s^-beta.
    powers: [f32; MAX_GROUP + LANES],
    /// s^(-beta - 1).
    slopes: [f32; MAX_GROUP + LANES],
}

impl Scratch {
    pub fn new() -> Self {
        let row = [0.0; MAX_GROUP + LANES];
        Self { padded: [0.0; 3 * MAX_GROUP + LANES], sums: row, powers: row, slopes: row }
    }
    /// The powers of the `n` s that belong to the sums, and with `SLOPES` the slopes.
    #[inline(always)]
    fn powers<const PAPER: bool, const SLOPES: bool>(&mut self, n: usize, curve: Curve) {
        // Beyond the n-th stand zeros or old sums: every s is a positive number.
        for i in (0..n).step_by(LANES) {
            let s = block::<LANES, _>(&self.sums, i).map(|sum| curve.s(sum));
            let powers = s.map(|s| curve.power::<PAPER>(s));
            self.powers[i..i + LANES].copy_from_slice(&powers);
            if SLOPES {
                let slopes: [f32; LANES] = std::array::from_fn(|lane| powers[lane] / s[lane]);
                self.slopes[i..i + LANES].copy_from_slice(&slopes);
            }
        }
    }
}

/// `sums[i]` = sum of `values[i - before ..= i + after]`, clipped, from left to right. `padded` takes the values between zeros.
#[inline(always)]
fn sum(padded: &mut [f32], sums: &mut [f32], values: impl ExactSizeIterator<Item = f32>, before: usize, after: usize) {
    let n = values.len();
    let (before, after) = (before.min(n - 1), after.min(n - 1));
    let end = n.next_multiple_of(LANES);
    padded[..before].fill(0.0);
    for (summand, value) in padded[before..][..n].iter_mut().zip(values) {
        *summand = value;
    }
    padded[before + n..before + end + after].fill(0.0);
    for (i, sum) in sums[..end].chunks_exact_mut(LANES).enumerate() {
        let mut lanes = [0.0; LANES];
        for shifted in 0..=before + after {
            let values = block::<LANES, _>(padded, i * LANES + shifted);
            for lane in 0..LANES {
                lanes[lane] += values[lane];
            }
        }
        sum.copy_from_slice(&lanes);
    }
}

impl Kernel for LocalResponseNormForward {
    type Params = Params;
    const NAME: &'static str = "local_response_norm_forward";
    const SOURCE: &'static str = "local_response_norm.cu";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Write];
    fn run(p: &Params, args: &Args<'_>, host: &dyn Host) {
        let x = args.read::<f32>(0);
        let y = Shared::new(args.write::<f32>(1));
        let (x_ld, y_ld) = (p.x_ld as usize, p.y_ld as usize);
        share(host, p.rows as usize, p.c as usize / 4, |rows| {
            let mut scratch = Scratch::new();
            for row in rows {
                // SAFETY: every row is visited once.
                let y = unsafe { y.range(row * y_ld, p.count as usize) };
                forward(p, &x[row * x_ld..][..p.c as usize], y, &mut scratch);
            }
        });
    }
    fn stages(p: &Params, _: &Target) -> Vec<Stage> {
        p.stages(Self::NAME)
    }
}

impl Kernel for LocalResponseNormBackward {
    type Params = Params;
    const NAME: &'static str = "local_response_norm_backward";
    const SOURCE: &'static str = "local_response_norm.cu";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Read, Access::Write];
    fn run(p: &Params, args: &Args<'_>, host: &dyn Host) {
        let (x, dy) = (args.read::<f32>(0), args.read::<f32>(1));
        let dx = Shared::new(args.write::<f32>(2));
        let (x_ld, dy_ld, dx_ld) = (p.x_ld as usize, p.y_ld as usize, p.dx_ld as usize);
        let c = p.c as usize;
        share(host, p.rows as usize, c / 4, |rows| {
            let mut scratch = Scratch::new();
            for row in rows {
                // SAFETY: every row is visited once.
                let dx = unsafe { dx.range(row * dx_ld, c) };
                backward(p, &x[row * x_ld..][..c], &dy[row * dy_ld..][..p.count as usize], dx, &mut scratch);
            }
        });
    }
    fn stages(p: &Params, _: &Target) -> Vec<Stage> {
        p.stages(Self::NAME)
    }
}

/// One pixel forward.
#[multiversion(targets("x86_64+avx2"))]
pub(super) fn forward(p: &Params, x: &[f32], y: &mut [f32], scratch: &mut Scratch) {
    if p.beta == Curve::PAPER_BETA {
        forward_as::<true>(p, x, y, scratch)
    } else {
        forward_as::<false>(p, x, y, scratch)
    }
}

#[inline(always)]
fn forward_as<const PAPER: bool>(p: &Params, x: &[f32], y: &mut [f32], scratch: &mut Scratch) {
    let (before, after) = p.reach();
    for (lo, hi) in p.groups() {
        let (from, to) = p.outputs(lo, hi);
        if from == to {
            continue;
        }
        // The channels that the windows of from..to see.
        let (left, right) = (from.saturating_sub(before).max(lo), hi.min(to + after));
        sum(&mut scratch.padded, &mut scratch.sums, x[left..right].iter().map(|x| x * x), before, after);
        scratch.powers::<PAPER, false>(right - left, p.curve());
        let y = &mut y[from - p.first as usize..][..to - from];
        for ((y, x), power) in y.iter_mut().zip(&x[from..to]).zip(&scratch.powers[from - left..]) {
            *y = x * power;
        }
    }
}

/// One pixel backward.
#[multiversion(targets("x86_64+avx2"))]
pub(super) fn backward(p: &Params, x: &[f32], dy: &[f32], dx: &mut [f32], scratch: &mut Scratch) {
    if p.beta == Curve::PAPER_BETA {
        backward_as::<true>(p, x, dy, dx, scratch)
    } else {
        backward_as::<false>(p, x, dy, dx, scratch)
    }
}

#[inline(always)]
fn backward_as<const PAPER: bool>(p: &Params, x: &[f32], dy: &[f32], dx: &mut [f32], scratch: &mut Scratch) {
    let (before, after) = p.reach();
    let slope = p.curve().slope();
    for (lo, hi) in p.groups() {
        let (x, dx) = (&x[lo..hi], &mut dx[lo..hi]);
        let (from, to) = p.outputs(lo, hi);
        dx.fill(0.0);
        if from == to {
            continue;
        }
        sum(&mut scratch.padded, &mut scratch.sums, x.iter().map(|x| x * x), before, after);
        scratch.powers::<PAPER, true>(hi - lo, p.curve());
        // dx holds dy for a while; the outputs of the other tower count as 0.
        dx[from - lo..to - lo].copy_from_slice(&dy[from - p.first as usize..][..to - from]);
        // i lies in W(j) for the j from i - after to i + before: the mirrored window.
        let Scratch { padded, sums, slopes, .. } = &mut *scratch;
        let terms = dx.iter().zip(x).zip(&slopes[..hi - lo]).map(|((dy, x), slope)| dy * x * slope);
        sum(padded, sums, terms, after, before);
        for (((dx, x), power), sum) in dx.iter_mut().zip(x).zip(&scratch.powers).zip(&scratch.sums) {
            *dx = *dx * power - slope * x * sum;
        }
    }
    if p.relu != 0 {
        for (dx, x) in dx.iter_mut().zip(x) {
            *dx = if *x > 0.0 { *dx } else { 0.0 };
        }
    }
}

impl LocalResponseNorm {
    pub(super) fn params(&self, cx: &Lower<'_>, y_ld: usize, dx_ld: usize) -> Params {
        let x = cx.x;
        // Either all channels of the layer were gathered, or x and y are the slot's own.
        let first = if x.shape.c == cx.part.total { cx.part.start } else { 0 };
        Params {
            rows: x.rows() as i32,
            c: x.shape.c as i32,
            group: (cx.part.total / self.groups) as i32,
            first: first as i32,
            count: cx.part.channels as i32,
            size: self.size as i32,
            x_ld: x.ld as i32,
            y_ld: y_ld as i32,
            dx_ld: dx_ld as i32,
            relu: i32::from(cx.passes_relu),
            k: self.k,
            alpha: if self.alpha_divided_by_size { self.alpha / self.size as f32 } else { self.alpha },
            beta: self.beta,
        }
    }
}

impl Layer for LocalResponseNorm {
    fn kind(&self) -> &'static str {
        "LocalResponseNorm"
    }
    fn name(&self) -> &str {
        &self.name
    }
    fn output(&self, input: Shape) -> Result<Shape> {
        check(self.size, self.k, self.alpha, self.beta)?;
        check_groups(input.c, self.groups, "input")?;
        if input.c / self.groups > MAX_GROUP {
            return Err(Error::shape(format!(
                "{} channels in a group, at most {MAX_GROUP} are supported",
                input.c / self.groups
            ))
            .hint("use more groups"));
        }
        Ok(input)
    }
    fn reads(&self, towers: usize) -> Result<Reads> {
        reads_by_groups(self.groups, towers)
    }
    fn needs(&self) -> Needs {
        Needs { input: true, output: false }
    }
    fn passes_relu(&self) -> bool {
        true
    }
    fn forward(&self, cx: &mut Lower<'_>) {
        let (x, y) = (cx.x, cx.y);
        cx.launch::<LocalResponseNormForward>(self.params(cx, y.ld, 0), &[x.arg(), y.arg()]);
    }
    fn backward(&self, cx: &mut Lower<'_>) {
        let Some(dx) = cx.dx() else { return };
        let (x, dy) = (cx.x, cx.dy());
        cx.launch::<LocalResponseNormBackward>(self.params(cx, dy.ld, dx.ld), &[x.arg(), dy.arg(), dx.arg()]);
    }
}
