//! Local response normalisation across channels (paper section 3.3; 2012 code: `cmrnorm`).

mod rows;

use super::{
    Layer, Needs, Reads, check_groups, one, reads_by_groups,
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
pub(super) use rows::{Scratch, backward, forward};
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

impl Kernel for LocalResponseNormForward {
    type Params = Params;
    const NAME: &'static str = "local_response_norm_forward";
    const SOURCE: &'static str = "local_response_norm.cu";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Write];
    fn run(p: &Params, args: &Args<'_>, host: &dyn Host) {
        let x = args.read::<f32>(0);
        let y = Shared::new(args.write::<f32>(1));
        let (x_ld, y_ld) = (p.x_ld as usize, p.y_ld as usize);
        share(host, p.rows as usize, p.c as usize / 8, |rows| {
            // SAFETY: every row is visited once.
            let y = unsafe { y.range(rows.start * y_ld, (rows.len() - 1) * y_ld + p.count as usize) };
            forward(p, &x[rows.start * x_ld..], y, y_ld, rows.len(), &mut Scratch::new());
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
        share(host, p.rows as usize, p.c as usize / 8, |rows| {
            // SAFETY: every row is visited once.
            let dx = unsafe { dx.range(rows.start * dx_ld, (rows.len() - 1) * dx_ld + p.c as usize) };
            let (x, dy) = (&x[rows.start * x_ld..], &dy[rows.start * dy_ld..]);
            backward(p, x, dy, dy_ld, dx, rows.len(), &mut Scratch::new());
        });
    }
    fn stages(p: &Params, _: &Target) -> Vec<Stage> {
        p.stages(Self::NAME)
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
            .hint("Use more groups."));
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
