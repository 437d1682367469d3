//! Dropout (paper section 4.2). In place, both ways.

use super::{Layer, Needs, rows::share};
use crate::lower::{Lower, Part, Tensor};
use crate::tile::for_vectors;
use alexnode_core::{
    Error, Result, Shape, Stage, StepState, Target,
    host::{Host, Shared},
    kernel::{Access, Args, Kernel},
    rng::{Purpose, Stream, uniform},
};
use bytemuck::{Pod, Zeroable};
use serde::{Deserialize, Serialize};

/// In training each element is kept with probability 1 - p.
///
/// The paper and the 2012 code keep its value and multiply all elements by 1 - p in evaluation; with `inverted` (Caffe, PyTorch) a kept
/// element is divided by 1 - p in training and evaluation changes nothing. Backward draws the same mask again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dropout {
    /// The layer's name.
    pub name: String,
    /// Probability of dropping an element: 0 <= p < 1; the paper: 0.5.
    pub p: f32,
    /// Whether training, not evaluation, makes up for the dropped elements.
    #[serde(default)]
    pub inverted: bool,
}

/// `batch` samples of `pixels x c`, the channels from `first` on of `total`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Params {
    batch: i32,
    pixels: i32,
    c: i32,
    ld: i32,
    first: i32,
    total: i32,
    /// Index of the layer in the network.
    layer: u32,
    p: f32,
    /// Of the elements that stay.
    scale: f32,
}

impl Params {
    fn rows(&self) -> usize {
        self.batch as usize * self.pixels as usize
    }
    /// The most calls of Philox, for four elements each, that the channels of a pixel need.
    fn calls(&self) -> usize {
        let whole = self.first % 4 == 0 && self.total % 4 == 0;
        (self.c as usize + if whole { 3 } else { 6 }) / 4
    }
}

/// x = keep ? x * scale : 0, forward and backward. An element is kept where its uniform number is not below p; that is word
/// e % 4 of (e / 4, sample id, epoch), e = pixel * total channels + channel. Arguments: state, ids, x.
struct DropoutMask;
/// x = x * scale. Arguments: x.
struct DropoutScale;

impl Kernel for DropoutMask {
    type Params = Params;
    const NAME: &'static str = "dropout_mask";
    const SOURCE: &'static str = "dropout.cu";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Read, Access::ReadWrite];
    fn run(p: &Params, args: &Args<'_>, host: &dyn Host) {
        let state = StepState::of(args.read(0));
        let ids = args.read::<u32>(1);
        let x = Shared::new(args.write::<f32>(2));
        let stream = Stream::new(state.seed(), Purpose::Dropout, p.layer);
        let (pixels, c, ld) = (p.pixels as usize, p.c as usize, p.ld as usize);
        share(host, p.rows(), 4 * c, |rows| {
            for row in rows {
                let (id, pixel) = (ids[row / pixels], row % pixels);
                let first = pixel * p.total as usize + p.first as usize;
                // SAFETY: every row is visited once.
                let x = unsafe { x.range(row * ld, c) };
                mask(x, first, p.p, p.scale, &stream, [id, state.epoch]);
            }
        });
    }
    fn stages(p: &Params, _: &Target) -> Vec<Stage> {
        vec![Stage::each(Self::NAME, p.rows() * p.calls())]
    }
}

impl Kernel for DropoutScale {
    type Params = Params;
    const NAME: &'static str = "dropout_scale";
    const SOURCE: &'static str = "dropout.cu";
    const ACCESS: &'static [Access] = &[Access::ReadWrite];
    fn run(p: &Params, args: &Args<'_>, host: &dyn Host) {
        let x = Shared::new(args.write::<f32>(0));
        super::rows::rows(host, p.rows(), p.c as usize, p.ld == p.c, |row, len| {
            // SAFETY: every row is visited once.
            for v in unsafe { x.range(row * p.ld as usize, len) } {
                *v *= p.scale;
            }
        });
    }
    fn stages(p: &Params, _: &Target) -> Vec<Stage> {
        vec![Stage::each(Self::NAME, p.rows() * p.c as usize)]
    }
}

for_vectors!(mask, mask_any, (x: &mut [f32], first: usize, p: f32, scale: f32, stream: &Stream, counter: [u32; 2]));

/// Masks `x`, the elements of a sample from `first` on; `counter`: the sample's id and the epoch.
#[inline(always)]
fn mask_any(x: &mut [f32], first: usize, p: f32, scale: f32, stream: &Stream, counter: [u32; 2]) {
    let (mut rest, mut element) = (x, first);
    while !rest.is_empty() {
        let words = stream.block((element / 4) as u32, counter[0], counter[1]);
        let words = &words[element % 4..];
        let (some, others) = rest.split_at_mut(words.len().min(rest.len()));
        for (v, word) in some.iter_mut().zip(words) {
            *v = if uniform(*word) >= p { *v * scale } else { 0.0 };
        }
        element += some.len();
        rest = others;
    }
}

/// What a layer whose output has one pixel does to it where a dropout follows: the same, in its own kernel.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct Epilogue {
    /// Channel of the whole layer that output 0 is.
    first: u32,
    /// Index of the dropout in the network.
    layer: u32,
    /// 0 where nothing is dropped: in evaluation, or without dropout.
    p: f32,
    /// Of the elements that stay.
    scale: f32,
}

impl Epilogue {
    /// No dropout.
    pub const NONE: Self = Self { first: 0, layer: 0, p: 0.0, scale: 1.0 };

    /// Applies it to `y`, the outputs from `first` on of sample `id`.
    pub fn apply(&self, state: &StepState, id: u32, first: usize, y: &mut [f32]) {
        if self.p > 0.0 {
            let stream = Stream::new(state.seed(), Purpose::Dropout, self.layer);
            mask(y, self.first as usize + first, self.p, self.scale, &stream, [id, state.epoch]);
        } else if self.scale != 1.0 {
            y.iter_mut().for_each(|y| *y *= self.scale);
        }
    }
}

impl Dropout {
    /// Of the elements that stay in training.
    fn kept_scale(&self) -> f32 {
        if self.inverted { 1.0 / (1.0 - self.p) } else { 1.0 }
    }
    /// Of all elements in evaluation.
    fn evaluation_scale(&self) -> f32 {
        if self.inverted { 1.0 } else { 1.0 - self.p }
    }
    /// The dropout as layer `layer` of a network, in the epilogue of the layer that computes `part`.
    pub fn epilogue(&self, layer: u32, part: Part, train: bool) -> Epilogue {
        let first = part.start as u32;
        if train {
            Epilogue { first, layer, p: self.p, scale: self.kept_scale() }
        } else {
            Epilogue { first, layer, p: 0.0, scale: self.evaluation_scale() }
        }
    }
    fn mask(&self, cx: &mut Lower<'_>, x: Tensor) {
        if self.p == 0.0 {
            return;
        }
        let params = Params {
            batch: x.batch as i32,
            pixels: x.shape.pixels() as i32,
            c: x.shape.c as i32,
            ld: x.ld as i32,
            first: cx.part.start as i32,
            total: cx.part.total as i32,
            layer: cx.layer,
            p: self.p,
            scale: self.kept_scale(),
        };
        cx.launch::<DropoutMask>(params, &[cx.state(), cx.ids(), x.arg()]);
    }
}

impl Layer for Dropout {
    fn kind(&self) -> &'static str {
        "Dropout"
    }
    fn name(&self) -> &str {
        &self.name
    }
    fn output(&self, input: Shape) -> Result<Shape> {
        if !(0.0..1.0).contains(&self.p) {
            return Err(Error::usage(format!("p must be at least 0 and less than 1, got {}", self.p)));
        }
        Ok(input)
    }
    fn needs(&self) -> Needs {
        Needs { input: false, output: false }
    }
    fn elementwise(&self) -> bool {
        true
    }
    fn forward(&self, cx: &mut Lower<'_>) {
        let y = cx.y;
        if cx.train {
            self.mask(cx, y);
        } else if self.evaluation_scale() != 1.0 {
            let params = Params {
                batch: y.batch as i32,
                pixels: y.shape.pixels() as i32,
                c: y.shape.c as i32,
                ld: y.ld as i32,
                scale: self.evaluation_scale(),
                ..Params::zeroed()
            };
            cx.launch::<DropoutScale>(params, &[y.arg()]);
        }
    }
    fn backward(&self, cx: &mut Lower<'_>) {
        let dy = cx.dy();
        self.mask(cx, dy);
    }
}
