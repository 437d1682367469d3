//! Forward. The weights are by far the largest operand, so they are read once and as they lie; the samples are packed instead.

use super::{Linear, Params, device};
use crate::{
    lower::{Tensor, Value},
    tile::{Ahead, Sweep, Tile, relu},
};
use alexnode_core::{
    Engine, Shape, Stage, StepState, Target,
    host::{Host, Shared},
    kernel::{Access, Args, Kernel},
};

/// Outputs that a task computes at most: the more, the less often the samples are read, which are too many for the second-level cache; with 128 samples their
/// sums take 96 KiB.
const OUTPUTS: usize = 192;
/// Tasks of a worker at least, where there are as many outputs.
const TASKS: usize = 4;
/// Inputs between two visits of a block. The weights of a task for them take 192 KiB, the samples 128 KiB.
const DEPTH: usize = 256;

/// Inputs that a task packs.
const PIECE: usize = 256;

/// y from x. Arguments: x, w, bias, y, scratch, state, ids; the last two for dropout.
pub(crate) struct LinearForward;

fn tile(p: &Params) -> Tile {
    Tile::new(p.outputs().min(OUTPUTS), p.batch())
}

/// Outputs of a task: whole blocks.
fn task_outputs(p: &Params, workers: usize) -> usize {
    let rows = tile(p).rows;
    p.outputs().div_ceil(TASKS * workers).min(OUTPUTS).next_multiple_of(rows)
}

/// Elements of the packed samples.
fn packed(p: &Params) -> usize {
    p.batch().next_multiple_of(tile(p).columns) * p.inputs()
}

/// Elements of the sums of a task.
fn sums(p: &Params, workers: usize) -> usize {
    p.batch().next_multiple_of(tile(p).columns) * task_outputs(p, workers)
}

/// Bytes of scratch.
fn scratch(p: &Params, workers: usize) -> usize {
    (packed(p) + workers * sums(p, workers)) * 4
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
        let (inputs, size, each) = (p.inputs(), sums(p, host.workers()), task_outputs(p, host.workers()));
        let tile = tile(p);
        let Tile { rows, columns, .. } = tile;
        let panels = p.batch().div_ceil(columns);
        host.parallel(p.outputs().div_ceil(each), &|task, worker| {
            let first = task * each;
            let outputs = each.min(p.outputs() - first);
            let tiles = outputs.div_ceil(rows);
            // SAFETY: every worker has its own sums, and runs one task at a time.
            let sums = unsafe { space.range(worker * size, size) };
            let sums = &mut sums[..tiles * panels * tile.elements()];
            sums.fill(0.0);
            for start in (0..inputs).step_by(DEPTH) {
                let len = DEPTH.min(inputs - start);
                let sweep = Sweep::even(len, 1, columns);
                // Meanwhile the next weights come from memory.
                let next = start + len;
                let width = DEPTH.min(inputs - next);
                let address = weights.as_ptr().wrapping_add(first * inputs + next);
                let mut ahead = [Ahead::new(address, outputs, width, inputs, tiles * panels, &sweep)];
                for (panel, sums) in sums.chunks_exact_mut(tiles * tile.elements()).enumerate() {
                    let samples = &samples[(panel * inputs + start) * columns..][..len * columns];
                    for (i, block) in sums.chunks_exact_mut(tile.elements()).enumerate() {
                        // Rows beyond the last output compute that again.
                        let row = |row: usize| (first + (i * rows + row).min(outputs - 1)) * inputs + start;
                        tile.accumulate_ahead(&sweep, weights, &std::array::from_fn(row), samples, block, &mut ahead);
                    }
                }
            }
            for (panel, sums) in sums.chunks_exact(tiles * tile.elements()).enumerate() {
                for sample in panel * columns..p.batch().min((panel + 1) * columns) {
                    // SAFETY: these outputs belong to this task.
                    let y = unsafe { y.range(sample * p.y_ld as usize + first, outputs) };
                    for (o, y) in y.iter_mut().enumerate() {
                        let sum = sums[o * columns + sample % columns] + bias[first + o];
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

/// Packs samples: a panel holds, for each input, that input of as many samples as a tile has columns (0 beyond the last).
fn pack(p: &Params, host: &dyn Host, x: &[f32], packed: &mut [f32]) {
    let (inputs, columns) = (p.inputs(), tile(p).columns);
    let pieces = inputs.div_ceil(PIECE);
    let packed = Shared::new(packed);
    host.parallel(p.batch().div_ceil(columns) * pieces, &|task, _| {
        let (panel, start) = (task / pieces, task % pieces * PIECE);
        let len = PIECE.min(inputs - start);
        let width = columns.min(p.batch() - panel * columns);
        let rows = &x[panel * columns * p.x_row()..];
        // SAFETY: this piece of this panel belongs to this task.
        let to = unsafe { packed.range((panel * inputs + start) * columns, len * columns) };
        for (i, to) in to.chunks_exact_mut(columns).enumerate() {
            let position = p.position(start + i);
            for (j, to) in to.iter_mut().enumerate() {
                *to = if j < width { rows[j * p.x_row() + position] } else { 0.0 };
            }
        }
    });
}
