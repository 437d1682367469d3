//! Response normalisation within a map (2012 code: `rnorm`; in net 145 but not in the paper).

mod rows;

use super::{
    Layer, Needs,
    response_norm::{Curve, check},
    rows::FEW,
    yes,
};
use crate::lower::{Lower, Tensor};
use alexnode_core::{
    Engine, Result, Shape, Stage, Target,
    host::{Host, Shared},
    kernel::{Access, Args, Kernel},
};
use bytemuck::{Pod, Zeroable};
use rows::{Plane, backward, forward};
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

/// Channels that a task of the processor handles at most: the more, the fewer pieces memory is read in.
const CHANNELS: usize = 256;
/// As many where there are fewer images than [`FEW`].
const FEWER_CHANNELS: usize = 32;

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
    /// Channels of a block.
    fn channels(&self) -> usize {
        let most = if (self.batch as usize) < FEW { FEWER_CHANNELS } else { CHANNELS };
        most.min(self.c as usize)
    }
    /// Elements of scratch of a worker of the processor: `rows` rows of a block of channels.
    fn space(&self, rows: usize) -> usize {
        rows * self.w as usize * self.channels()
    }
    /// Bytes of scratch on the processor.
    fn scratch(&self, rows: usize, workers: usize) -> usize {
        workers * self.space(rows) * 4
    }
    /// Calls `body(image, first channel, channels, scratch of so many rows)` for each block of channels of each image.
    fn blocks(
        &self,
        rows: usize,
        scratch: &mut [f32],
        host: &dyn Host,
        body: impl Fn(usize, usize, usize, &mut [f32]) + Sync,
    ) {
        let (c, most, space) = (self.c as usize, self.channels(), self.space(rows));
        let per_image = c.div_ceil(most);
        let scratch = Shared::new(scratch);
        host.parallel(self.batch as usize * per_image, &|task, worker| {
            let (image, first) = (task / per_image, task % per_image * most);
            let channels = most.min(c - first);
            // SAFETY: no two tasks run at the same time with the same worker.
            let space = unsafe { scratch.range(worker * space, space) };
            body(image, first, channels, &mut space[..rows * self.w as usize * channels]);
        });
    }
    /// A CUDA kernel with one thread per element.
    fn stage(&self, entry: &'static str) -> Stage {
        Stage { constant: true, ..Stage::each(entry, self.elements()) }
    }
}

/// Arguments: x, y, scratch (see [`Params::scratch`]).
struct MapResponseNormForward;
/// Recomputes s rather than keeping it. Arguments: x, dy, dx, scratch (see [`Params::scratch`]; on a CUDA device a term per element).
struct MapResponseNormBackward;

impl Kernel for MapResponseNormForward {
    type Params = Params;
    const NAME: &'static str = "map_response_norm_forward";
    const SOURCE: &'static str = "map_response_norm.cu";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Write, Access::Scratch];
    fn scratch(p: &Params, engine: Engine) -> usize {
        match engine {
            Engine::Host { workers } => p.scratch(rows::rows(p)[0], workers),
            Engine::Cuda(_) => 0,
        }
    }
    fn run(p: &Params, args: &Args<'_>, host: &dyn Host) {
        let x = args.read::<f32>(0);
        let y = Shared::new(args.write::<f32>(1));
        let pixels = (p.h * p.w) as usize;
        p.blocks(rows::rows(p)[0], args.write::<f32>(2), host, |image, first, channels, space| {
            let x = Plane::new(x, p.x_ld, pixels, image, first, channels);
            let start = image * pixels * p.y_ld as usize + first;
            // SAFETY: a task visits only its own channels of its own image.
            unsafe { forward(p, x, &y, start, space) };
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
            Engine::Host { workers } => p.scratch(rows::rows(p)[1], workers),
            Engine::Cuda(_) => p.elements() * 4,
        }
    }
    fn run(p: &Params, args: &Args<'_>, host: &dyn Host) {
        let (x, dy) = (args.read::<f32>(0), args.read::<f32>(1));
        let dx = Shared::new(args.write::<f32>(2));
        let pixels = (p.h * p.w) as usize;
        p.blocks(rows::rows(p)[1], args.write::<f32>(3), host, |image, first, channels, space| {
            let x = Plane::new(x, p.x_ld, pixels, image, first, channels);
            let dy = Plane::new(dy, p.y_ld, pixels, image, first, channels);
            let start = image * pixels * p.dx_ld as usize + first;
            // SAFETY: a task visits only its own channels of its own image.
            unsafe { backward(p, [x, dy], &dx, start, space) };
        });
    }
    fn stages(p: &Params, _: &Target) -> Vec<Stage> {
        vec![p.stage("map_response_norm_terms"), p.stage(Self::NAME)]
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
