//! The gradients. Both are cut into tiles of their result; every element is one sum in order, so no partial sums are needed.

use super::{Params, device};
use crate::tile::{MAX_BLOCK, MAX_ROWS, Sweep, Tile, copy, pack, prefetch};
use alexnode_core::{
    Engine, Stage, Target,
    host::{Host, Shared},
    kernel::{Access, Args, Kernel},
};
use std::ops::Range;

/// Data gradient: inputs that a task computes, about. With [`DEPTH`] the packed weights take 256 KiB, half of the second-level cache of
/// a small core.
const INPUTS: usize = 256;
/// Data gradient: outputs of the layer between two visits of a block.
const DEPTH: usize = 256;
/// Elements of a line of the caches.
pub(super) const LINE: usize = 16;
/// Weight gradient: inputs and outputs of the tile that a task computes. With 128 samples its inputs take 256 KiB; each is packed
/// once for this many outputs.
const TILE: (usize, usize) = (512, 384);

/// dx from dy. Arguments: dy, w, dx, scratch.
pub(crate) struct LinearDataGradient;
/// dw and dbias from x and dy. Arguments: x, dy, dw, dbias, scratch.
pub(crate) struct LinearWeightGradient;

fn data_tile(p: &Params) -> Tile {
    Tile::new(p.batch(), p.inputs().min(INPUTS))
}

/// Inputs of a task: whole panels.
fn task_inputs(p: &Params) -> usize {
    let columns = data_tile(p).columns;
    INPUTS / columns * columns
}

/// Elements that a worker needs for the data gradient: packed weights, then sums.
fn data_worker(p: &Params) -> (usize, usize) {
    let inputs = task_inputs(p);
    (inputs * DEPTH, inputs * p.batch().next_multiple_of(data_tile(p).rows))
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
        let tile = data_tile(p);
        let Tile { rows, columns, .. } = tile;
        let tiles = p.batch().div_ceil(rows);
        let each = task_inputs(p);
        host.parallel(inputs.div_ceil(each), &|task, worker| {
            let first = task * each;
            let width = each.min(inputs - first);
            let panels = width.div_ceil(columns);
            // SAFETY: every worker has its own space, and runs one task at a time.
            let space = unsafe { space.range(worker * (packed + sums), packed + sums) };
            let (packed, sums) = space.split_at_mut(packed);
            let sums = &mut sums[..tiles * panels * tile.elements()];
            sums.fill(0.0);
            for start in (0..p.outputs()).step_by(DEPTH) {
                let len = DEPTH.min(p.outputs() - start);
                for step in 0..len {
                    let row = &weights[(start + step) * inputs + first..][..width];
                    for (panel, from) in row.chunks(columns).enumerate() {
                        pack(&mut packed[(panel * len + step) * columns..][..columns], from);
                    }
                }
                let sweep = Sweep { segments: 1, len, a_step: 1, a_segment: 0, b_step: columns, b_segment: 0 };
                // Meanwhile the next weights come from memory: packing alone would wait for each of their lines.
                let next = start + DEPTH;
                let mut ahead = next..next + len;
                let share = len.div_ceil(tiles * panels);
                for (panel, sums) in
                    packed.chunks_exact(len * columns).zip(sums.chunks_exact_mut(tiles * tile.elements()))
                {
                    for (i, block) in sums.chunks_exact_mut(tile.elements()).enumerate() {
                        for row in ahead.by_ref().take(share) {
                            (0..width).step_by(LINE).for_each(|at| prefetch(weights, row * inputs + first + at));
                        }
                        // Rows beyond the last sample compute that again.
                        let row = |row: usize| (i * rows + row).min(p.batch() - 1) * ld + start;
                        tile.accumulate(&sweep, dy, &std::array::from_fn(row), panel, block);
                    }
                }
            }
            for sample in 0..p.batch() {
                for (panel, sums) in sums.chunks_exact(tiles * tile.elements()).enumerate() {
                    let sums = &sums[sample * columns..][..columns];
                    let first = first + panel * columns;
                    let width = columns.min(inputs - first);
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
pub(super) fn packed_dy(p: &Params) -> usize {
    p.outputs().next_multiple_of(weight_tile(p).rows) * p.batch()
}

/// Elements of x that a task packs.
fn packed_x(p: &Params) -> usize {
    TILE.0.next_multiple_of(weight_tile(p).columns) * p.batch()
}

fn weight_tile(p: &Params) -> Tile {
    Tile::new(p.outputs().min(TILE.1), p.inputs().min(TILE.0))
}

/// Bytes of scratch for the weight gradient.
pub(super) fn weight_scratch(p: &Params, workers: usize) -> usize {
    (packed_dy(p) + workers * packed_x(p)) * 4
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
        let (dys, space) = args.write::<f32>(4).split_at_mut(packed_dy(p));
        // SAFETY: every output comes once.
        pack_and_sum(p, host, dy, dys, &|first, sums| copy(unsafe { db.range(first, sums.len()) }, sums));
        weight_gradient(p, host, x, dys, space, &|block| {
            for (at, sums) in block.rows() {
                // SAFETY: every weight comes once.
                copy(unsafe { dw.range(at, sums.len()) }, sums);
            }
        });
    }
    fn stages(p: &Params, target: &Target) -> Vec<Stage> {
        device::weight_gradient(p, Self::NAME, target)
    }
}

/// A block of the gradient of the weights.
pub(super) struct Block<'a> {
    /// The place of its first element among the weights.
    at: usize,
    /// Likewise of the block that comes next.
    next: usize,
    /// Elements from one row to the next there.
    inputs: usize,
    rows: usize,
    columns: usize,
    /// Its rows, each with room for all columns of `tile`.
    sums: &'a [f32],
    tile: Tile,
}

impl Block<'_> {
    /// The rows, each with its place among the weights.
    #[inline(always)]
    pub fn rows(&self) -> impl Iterator<Item = (usize, &[f32])> {
        let rows = self.sums.chunks_exact(self.tile.columns).take(self.rows).enumerate();
        rows.map(|(row, sums)| (self.at + row * self.inputs, &sums[..self.columns]))
    }
    /// The places of the rows of the next block, of a whole one: it may be smaller.
    #[inline(always)]
    pub fn next_rows(&self) -> impl Iterator<Item = Range<usize>> {
        (0..self.tile.rows).map(|row| self.next + row * self.inputs).map(|at| at..at + self.tile.columns)
    }
}

/// The gradient of the weights in blocks, each element of which comes once, complete: `done(block)`.
pub(super) fn weight_gradient(
    p: &Params,
    host: &dyn Host,
    x: &[f32],
    dys: &[f32],
    space: &mut [f32],
    done: &(impl Fn(&Block<'_>) + Sync),
) {
    let space = Shared::new(space);
    let tile = weight_tile(p);
    let Tile { rows, columns, .. } = tile;
    let (inputs, outputs, batch) = (p.inputs(), p.outputs(), p.batch());
    // Whole blocks.
    let height = TILE.1 / rows * rows;
    let (across, down) = (inputs.div_ceil(TILE.0), outputs.div_ceil(height));
    host.parallel(across * down, &|task, worker| {
        let (left, top) = (task / down * TILE.0, task % down * height);
        let width = TILE.0.min(inputs - left);
        // SAFETY: every worker has its own space, and runs one task at a time.
        let packed = unsafe { space.range(worker * packed_x(p), packed_x(p)) };
        for (sample, row) in x.chunks(p.x_row()).take(batch).enumerate() {
            for panel in 0..width.div_ceil(columns) {
                let to = &mut packed[(panel * batch + sample) * columns..][..columns];
                let count = columns.min(width - panel * columns);
                for_runs(p, left + panel * columns, count, |at, position, len| {
                    copy(&mut to[at..at + len], &row[position..position + len]);
                });
                to[count..].fill(0.0);
            }
        }
        let sweep = Sweep { segments: 1, len: batch, a_step: rows, a_segment: 0, b_step: columns, b_segment: 0 };
        for first in (top..outputs.min(top + height)).step_by(rows) {
            let column = &dys[first * batch..][..rows * batch];
            for (panel, packed) in packed.chunks_exact(batch * columns).take(width.div_ceil(columns)).enumerate() {
                let mut sums = [0.0; MAX_BLOCK];
                let sums = &mut sums[..tile.elements()];
                tile.accumulate(&sweep, column, &std::array::from_fn(|i| i), packed, sums);
                let at = first * inputs + left + panel * columns;
                let rest = width - panel * columns;
                let next = if rest > columns { at + columns } else { (first + rows) * inputs + left };
                let (rows, columns) = (rows.min(outputs - first), columns.min(rest));
                done(&Block { at, next, inputs, rows, columns, sums, tile });
            }
        }
    });
}

/// Packs dy: for every row of tiles, those of each sample (0 beyond the last). The sum over the samples is the gradient of the bias:
/// `done(first, sums)` of some outputs.
pub(super) fn pack_and_sum(
    p: &Params,
    host: &dyn Host,
    dy: &[f32],
    columns: &mut [f32],
    done: &(impl Fn(usize, &[f32]) + Sync),
) {
    let rows = weight_tile(p).rows;
    alexnode_core::host::parallel_chunks(host, columns, rows * p.batch(), |tile, column| {
        let first = tile * rows;
        let width = rows.min(p.outputs() - first);
        let mut total = [0.0; MAX_ROWS];
        for (to, from) in column.chunks_exact_mut(rows).zip(dy.chunks(p.y_ld as usize)) {
            to[..width].copy_from_slice(&from[first..first + width]);
            to[width..].fill(0.0);
            total.iter_mut().zip(to).for_each(|(total, d)| *total += *d);
        }
        done(first, &total[..width]);
    });
}
