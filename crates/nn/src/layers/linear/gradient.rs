//! The gradients. Both are cut into tiles of their result; every element is one sum in order, so no partial sums are needed.

use super::{Params, device};
use crate::tile::{Block, MR, NR, Sweep, accumulate, copy, pack, prefetch};
use alexnode_core::{
    Engine, Stage, Target,
    host::{Host, Shared},
    kernel::{Access, Args, Kernel},
};

/// Data gradient: inputs that a task computes. With [`DEPTH`] the packed weights take 256 KiB, half of the second-level cache of
/// a small core.
const INPUTS: usize = 16 * NR;
/// Data gradient: outputs of the layer between two visits of a block: a panel of packed weights (16 KiB) stays in the first-level
/// cache.
const DEPTH: usize = 256;
/// Weight gradient: inputs and outputs of the tile that a task computes. With 128 samples its inputs take 256 KiB; each is packed
/// once for this many outputs.
const TILE: (usize, usize) = (32 * NR, 64 * MR);

/// dx from dy. Arguments: dy, w, dx, scratch.
pub(crate) struct LinearDataGradient;
/// dw and dbias from x and dy. Arguments: x, dy, dw, dbias, scratch.
pub(crate) struct LinearWeightGradient;

/// Elements that a worker needs for the data gradient: packed weights, then sums.
fn data_worker(p: &Params) -> (usize, usize) {
    (INPUTS * DEPTH, INPUTS * p.batch().next_multiple_of(MR))
}

/// Bytes of scratch for the data gradient.
fn data_scratch(p: &Params, workers: usize) -> usize {
    let (packed, sums) = data_worker(p);
    workers * (packed + sums) * 4
}

impl Kernel for LinearDataGradient {
    type Params = Params;
    const NAME: &'static str = "linear_data_gradient";
    const SOURCE: &'static str = "linear.cu";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Read, Access::Write, Access::Scratch];
    fn scratch(p: &Params, engine: Engine) -> usize {
        match engine {
            Engine::Host { workers } => data_scratch(p, workers),
            Engine::Cuda(_) => 0,
        }
    }
    fn run(p: &Params, args: &Args<'_>, host: &dyn Host) {
        let (dy, weights) = (args.read::<f32>(0), args.read::<f32>(1));
        let (dx, space) = (Shared::new(args.write::<f32>(2)), Shared::new(args.write::<f32>(3)));
        let (packed, sums) = data_worker(p);
        let (inputs, ld) = (p.inputs(), p.y_ld as usize);
        let tiles = p.batch().div_ceil(MR);
        host.parallel(inputs.div_ceil(INPUTS), &|task, worker| {
            let first = task * INPUTS;
            let width = INPUTS.min(inputs - first);
            let panels = width.div_ceil(NR);
            // SAFETY: every worker has its own space, and runs one task at a time.
            let space = unsafe { space.range(worker * (packed + sums), packed + sums) };
            let (packed, sums) = space.split_at_mut(packed);
            let blocks: &mut [Block] = &mut bytemuck::cast_slice_mut(sums)[..tiles * panels];
            blocks.fill([[0.0; NR]; MR]);
            for start in (0..p.outputs()).step_by(DEPTH) {
                let len = DEPTH.min(p.outputs() - start);
                for step in 0..len {
                    let row = &weights[(start + step) * inputs + first..][..width];
                    for (panel, from) in row.chunks(NR).enumerate() {
                        pack(&mut packed[(panel * len + step) * NR..][..NR], from);
                    }
                }
                let sweep = Sweep { segments: 1, len, a_step: 1, a_segment: 0, b_step: NR, b_segment: 0 };
                // Meanwhile the next weights come from memory: packing alone would wait for each of their lines.
                let mut lines = (0..len).flat_map(|step| {
                    let row = (start + DEPTH + step) * inputs + first;
                    (row..row + width).step_by(NR)
                });
                let share = (len * panels).div_ceil(tiles * panels);
                for (panel, blocks) in packed.chunks_exact(len * NR).zip(blocks.chunks_exact_mut(tiles)) {
                    for (tile, block) in blocks.iter_mut().enumerate() {
                        lines.by_ref().take(share).for_each(|at| prefetch(weights, at));
                        // Rows beyond the last sample compute that again.
                        let row = |i: usize| (tile * MR + i).min(p.batch() - 1) * ld + start;
                        accumulate(&sweep, dy, &std::array::from_fn(row), panel, block);
                    }
                }
            }
            for sample in 0..p.batch() {
                for (panel, blocks) in blocks.chunks_exact(tiles).enumerate() {
                    let sums = &blocks[sample / MR][sample % MR];
                    let first = first + panel * NR;
                    let width = NR.min(inputs - first);
                    for_runs(p, first, width, |at, position, len| {
                        // SAFETY: these inputs belong to this task.
                        let dx = unsafe { dx.range(sample * p.x_row() + position, len) };
                        copy(dx, &sums[at..at + len]);
                    });
                }
            }
        });
    }
    fn stages(p: &Params, target: &Target) -> Vec<Stage> {
        device::data_gradient(p, Self::NAME, target)
    }
}

/// Calls `f(i, position, len)` for the runs of neighbours among the inputs `first..first + count`: input `first + i` lies at `position`.
fn for_runs(p: &Params, first: usize, count: usize, mut f: impl FnMut(usize, usize, usize)) {
    let c = if p.x_ld == p.in_c { p.inputs() } else { p.in_c as usize };
    let mut at = 0;
    while at < count {
        let len = (c - (first + at) % c).min(count - at);
        f(at, p.position(first + at), len);
        at += len;
    }
}

/// Elements of dy packed for the weight gradient.
fn packed_dy(p: &Params) -> usize {
    p.outputs().next_multiple_of(MR) * p.batch()
}

/// Bytes of scratch for the weight gradient.
fn weight_scratch(p: &Params, workers: usize) -> usize {
    (packed_dy(p) + workers * TILE.0 * p.batch()) * 4
}

impl Kernel for LinearWeightGradient {
    type Params = Params;
    const NAME: &'static str = "linear_weight_gradient";
    const SOURCE: &'static str = "linear.cu";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Read, Access::Write, Access::Write, Access::Scratch];
    fn scratch(p: &Params, engine: Engine) -> usize {
        match engine {
            Engine::Host { workers } => weight_scratch(p, workers),
            Engine::Cuda(_) => 0,
        }
    }
    fn run(p: &Params, args: &Args<'_>, host: &dyn Host) {
        let (x, dy) = (args.read::<f32>(0), args.read::<f32>(1));
        let (dw, db) = (Shared::new(args.write::<f32>(2)), Shared::new(args.write::<f32>(3)));
        let (columns, space) = args.write::<f32>(4).split_at_mut(packed_dy(p));
        pack_and_sum(p, host, dy, columns, &db);
        let (columns, space) = (&*columns, Shared::new(space));
        let (inputs, outputs, batch) = (p.inputs(), p.outputs(), p.batch());
        let (across, down) = (inputs.div_ceil(TILE.0), outputs.div_ceil(TILE.1));
        host.parallel(across * down, &|task, worker| {
            let (left, top) = (task / down * TILE.0, task % down * TILE.1);
            let width = TILE.0.min(inputs - left);
            // SAFETY: every worker has its own space, and runs one task at a time.
            let packed = unsafe { space.range(worker * TILE.0 * batch, TILE.0 * batch) };
            for (sample, row) in x.chunks(p.x_row()).take(batch).enumerate() {
                for panel in 0..width.div_ceil(NR) {
                    let to = &mut packed[(panel * batch + sample) * NR..][..NR];
                    let count = NR.min(width - panel * NR);
                    for_runs(p, left + panel * NR, count, |at, position, len| {
                        copy(&mut to[at..at + len], &row[position..position + len]);
                    });
                    to[count..].fill(0.0);
                }
            }
            let sweep = Sweep { segments: 1, len: batch, a_step: MR, a_segment: 0, b_step: NR, b_segment: 0 };
            for first in (top..outputs.min(top + TILE.1)).step_by(MR) {
                let column = &columns[first * batch..][..MR * batch];
                for (panel, packed) in packed.chunks_exact(batch * NR).take(width.div_ceil(NR)).enumerate() {
                    let mut block: Block = [[0.0; NR]; MR];
                    accumulate(&sweep, column, &std::array::from_fn(|i| i), packed, &mut block);
                    let count = NR.min(width - panel * NR);
                    for (o, sums) in (first..outputs).zip(&block) {
                        // SAFETY: this piece of this output's weights belongs to this task.
                        let dw = unsafe { dw.range(o * inputs + left + panel * NR, count) };
                        copy(dw, &sums[..count]);
                    }
                }
            }
        });
    }
    fn stages(p: &Params, target: &Target) -> Vec<Stage> {
        device::weight_gradient(p, Self::NAME, target)
    }
}

/// Packs dy: for every MR outputs, those of each sample (0 beyond the last). The sum over the samples is the gradient of the bias.
fn pack_and_sum(p: &Params, host: &dyn Host, dy: &[f32], columns: &mut [f32], db: &Shared<'_, f32>) {
    alexnode_core::host::parallel_chunks(host, columns, MR * p.batch(), |tile, column| {
        let first = tile * MR;
        let width = MR.min(p.outputs() - first);
        let mut total = [0.0; MR];
        for (to, from) in column.chunks_exact_mut(MR).zip(dy.chunks(p.y_ld as usize)) {
            to[..width].copy_from_slice(&from[first..first + width]);
            to[width..].fill(0.0);
            total.iter_mut().zip(to).for_each(|(total, d)| *total += *d);
        }
        // SAFETY: these outputs belong to this task.
        unsafe { db.range(first, width) }.copy_from_slice(&total[..width]);
    });
}
