//! Forward. The weights are by far the largest operand, so they are read once and as they lie; the samples are packed instead.

use super::{Linear, Params, device};
use crate::{
    layers::relu::relu,
    lower::{Tensor, Value},
    tile::{Block, MR, NR, Sweep, accumulate},
};
use alexnode_core::{
    Engine, Shape, Stage, StepState, Target,
    host::{Host, Shared},
    kernel::{Access, Args, Kernel},
};

/// Outputs that a task computes: the more, the less often the samples are read; with 128 samples their sums take 24 KiB.
const OUTPUTS: usize = 8 * MR;
/// Inner steps between two visits of a block: this many rows of packed samples (16 KiB) stay in the first-level cache.
const DEPTH: usize = 256;

/// y from x. Arguments: x, w, bias, y, scratch, state, ids; the last two for dropout.
pub(crate) struct LinearForward;

/// Elements of the packed samples.
fn packed(p: &Params) -> usize {
    p.batch().next_multiple_of(NR) * p.inputs()
}

/// Elements of the sums of a task.
fn sums(p: &Params) -> usize {
    p.batch().next_multiple_of(NR) * OUTPUTS
}

/// Bytes of scratch.
fn scratch(p: &Params, workers: usize) -> usize {
    (packed(p) + workers * sums(p)) * 4
}

impl LinearForward {
    /// `batch` samples of `inputs` numbers times as many rows of weights as there are `outputs`; the constants, and the bytes of its arguments on
    /// `workers` workers.
    pub fn plain(batch: usize, inputs: usize, outputs: usize, workers: usize) -> (Params, [usize; 7]) {
        let x = Tensor { value: Value(0), offset: 0, batch, shape: Shape::vector(inputs), ld: inputs };
        let y = Tensor { shape: Shape::vector(outputs), ld: outputs, ..x };
        let params = Linear::params(x, y);
        let sizes = [batch * inputs, inputs * outputs, outputs, batch * outputs].map(|elements| elements * 4);
        let [x, weights, bias, y] = sizes;
        (params, [x, weights, bias, y, scratch(&params, workers), size_of::<StepState>(), batch * 4])
    }
}

impl Kernel for LinearForward {
    type Params = Params;
    const NAME: &'static str = "linear_forward";
    const SOURCE: &'static str = "linear.cu";
    const ACCESS: &'static [Access] =
        &[Access::Read, Access::Read, Access::Read, Access::Write, Access::Scratch, Access::Read, Access::Read];
    fn scratch(p: &Params, engine: Engine) -> usize {
        match engine {
            Engine::Host { workers } => scratch(p, workers),
            Engine::Cuda(_) => 0,
        }
    }
    fn run(p: &Params, args: &Args<'_>, host: &dyn Host) {
        let (x, weights, bias) = (args.read::<f32>(0), args.read::<f32>(1), args.read::<f32>(2));
        let (state, ids) = (StepState::of(args.read(5)), args.read::<u32>(6));
        let y = Shared::new(args.write::<f32>(3));
        let (samples, space) = args.write::<f32>(4).split_at_mut(packed(p));
        pack(p, host, x, samples);
        let (samples, space) = (&*samples, Shared::new(space));
        let (inputs, size) = (p.inputs(), sums(p));
        let panels = p.batch().div_ceil(NR);
        host.parallel(p.outputs().div_ceil(OUTPUTS), &|task, worker| {
            let first = task * OUTPUTS;
            let outputs = OUTPUTS.min(p.outputs() - first);
            let tiles = outputs.div_ceil(MR);
            // SAFETY: every worker has its own sums, and runs one task at a time.
            let sums = unsafe { space.range(worker * size, size) };
            let blocks: &mut [Block] = &mut bytemuck::cast_slice_mut(sums)[..tiles * panels];
            blocks.fill([[0.0; NR]; MR]);
            for start in (0..inputs).step_by(DEPTH) {
                let len = DEPTH.min(inputs - start);
                let sweep = Sweep { segments: 1, len, a_step: 1, a_segment: 0, b_step: NR, b_segment: 0 };
                for (panel, blocks) in blocks.chunks_exact_mut(tiles).enumerate() {
                    let samples = &samples[(panel * inputs + start) * NR..][..len * NR];
                    for (tile, block) in blocks.iter_mut().enumerate() {
                        // Rows beyond the last output compute that again.
                        let row = |i: usize| (first + (tile * MR + i).min(outputs - 1)) * inputs + start;
                        accumulate(&sweep, weights, &std::array::from_fn(row), samples, block);
                    }
                }
            }
            for (panel, blocks) in blocks.chunks_exact(tiles).enumerate() {
                for sample in panel * NR..p.batch().min((panel + 1) * NR) {
                    // SAFETY: these outputs belong to this task.
                    let y = unsafe { y.range(sample * p.y_ld as usize + first, outputs) };
                    for (o, y) in y.iter_mut().enumerate() {
                        let sum = blocks[o / MR][o % MR][sample % NR] + bias[first + o];
                        *y = if p.relu != 0 { relu(sum) } else { sum };
                    }
                    p.dropout.apply(&state, ids[sample], first, y);
                }
            }
        });
    }
    fn stages(p: &Params, target: &Target) -> Vec<Stage> {
        device::forward(p, Self::NAME, target)
    }
}

/// Packs samples: panel j holds, for each input, that input of the samples j NR.. (0 beyond the last).
fn pack(p: &Params, host: &dyn Host, x: &[f32], packed: &mut [f32]) {
    let (inputs, pieces) = (p.inputs(), p.inputs().div_ceil(DEPTH));
    let packed = Shared::new(packed);
    host.parallel(p.batch().div_ceil(NR) * pieces, &|task, _| {
        let (panel, start) = (task / pieces, task % pieces * DEPTH);
        let len = DEPTH.min(inputs - start);
        let width = NR.min(p.batch() - panel * NR);
        let rows = &x[panel * NR * p.x_row()..];
        // SAFETY: this piece of this panel belongs to this task.
        let to = unsafe { packed.range((panel * inputs + start) * NR, len * NR) };
        for (i, to) in to.chunks_exact_mut(NR).enumerate() {
            let position = p.position(start + i);
            for (j, to) in to.iter_mut().enumerate() {
                *to = if j < width { rows[j * p.x_row() + position] } else { 0.0 };
            }
        }
    });
}
