//! The gradients. Both are cut into tiles of their result; every element is one sum in order, so no partial sums are needed.

use super::{Params, device};
use crate::tile::{Ahead, MAX_BLOCK, MAX_ROWS, Sweep, Tile, copy, pack};
use alexnode_core::{
    Engine, Stage, Target,
    host::{Host, Shared},
    kernel::{Access, Args, Kernel},
};

/// Data gradient: inputs that a task computes, about.
const INPUTS: usize = 256;
/// Data gradient: outputs of the layer between two visits of a block. The weights of a panel for them take 32 KiB at most, and stay in the first-level cache.
const DEPTH: usize = 128;
/// Weight gradient: inputs of the tile that a task computes. With 128 samples they take 256 KiB.
const WIDTH: usize = 512;
/// Weight gradient: tasks of a worker at least. The inputs of a task are packed for its outputs: the more outputs, the less often.
const TASKS: usize = 4;

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

/// Elements that a worker needs for the data gradient: a panel of weights, then sums.
fn data_worker(p: &Params) -> (usize, usize) {
    (data_tile(p).columns * DEPTH, task_inputs(p) * p.batch().next_multiple_of(data_tile(p).rows))
}

/// Elements of dy packed for the data gradient.
fn packed_samples(p: &Params) -> usize {
    p.batch().next_multiple_of(data_tile(p).rows) * p.outputs()
}

/// Bytes of scratch for the data gradient.
fn data_scratch(p: &Params, workers: usize) -> usize {
    let (packed, sums) = data_worker(p);
    (packed_samples(p) + workers * (packed + sums)) * 4
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
        let (dys, space) = args.write::<f32>(3).split_at_mut(packed_samples(p));
        pack_samples(p, host, dy, dys);
        let (dx, dys, space) = (Shared::new(args.write::<f32>(2)), &*dys, Shared::new(space));
        let (packed, sums) = data_worker(p);
        let inputs = p.inputs();
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
                let sweep = Sweep::even(len, rows, columns);
                // Meanwhile the next weights come from memory: packing alone would wait for each of their lines.
                let next = start + len;
                let address = weights.as_ptr().wrapping_add(next * inputs + first);
                let rows_ahead = DEPTH.min(p.outputs() - next);
                let mut ahead = [Ahead::new(address, rows_ahead, width, inputs, tiles * panels, &sweep)];
                for (panel, sums) in sums.chunks_exact_mut(tiles * tile.elements()).enumerate() {
                    let left = first + panel * columns;
                    let count = columns.min(first + width - left);
                    for (step, to) in packed.chunks_exact_mut(columns).take(len).enumerate() {
                        pack(to, &weights[(start + step) * inputs + left..][..count]);
                    }
                    for (i, block) in sums.chunks_exact_mut(tile.elements()).enumerate() {
                        let dys = &dys[(i * p.outputs() + start) * rows..][..len * rows];
                        tile.accumulate_ahead(&sweep, dys, &std::array::from_fn(|i| i), packed, block, &mut ahead);
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

/// Packs dy: for every row of tiles, that output of each of its samples (0 beyond the last), output after output. Every task reads all of it; as it lies, the samples of a tile are
/// too far apart for the processor to see where they go on.
fn pack_samples(p: &Params, host: &dyn Host, dy: &[f32], packed: &mut [f32]) {
    let (rows, ld) = (data_tile(p).rows, p.y_ld as usize);
    alexnode_core::host::parallel_chunks(host, packed, rows * p.outputs(), |tile, packed| {
        let samples = &dy[tile * rows * ld..];
        for (o, to) in packed.chunks_exact_mut(rows).enumerate() {
            for (sample, to) in to.iter_mut().enumerate() {
                *to = if tile * rows + sample < p.batch() { samples[sample * ld + o] } else { 0.0 };
            }
        }
    });
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
    WIDTH.next_multiple_of(weight_tile(p).columns) * p.batch()
}

fn weight_tile(p: &Params) -> Tile {
    Tile::new(p.outputs(), p.inputs().min(WIDTH))
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
        weight_gradient(p, host, x, dys, space, [&dw], &|block| {
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
}

/// The gradient of the weights in blocks, each element of which comes once, complete: `done(block)`. Meanwhile the places of the next block in all of `used` come from memory.
pub(super) fn weight_gradient<const N: usize>(
    p: &Params,
    host: &dyn Host,
    x: &[f32],
    dys: &[f32],
    space: &mut [f32],
    used: [&Shared<'_, f32>; N],
    done: &(impl Fn(&Block<'_>) + Sync),
) {
    let space = Shared::new(space);
    let tile = weight_tile(p);
    let Tile { rows, columns, .. } = tile;
    let (inputs, outputs, batch) = (p.inputs(), p.outputs(), p.batch());
    let (across, blocks) = (inputs.div_ceil(WIDTH), outputs.div_ceil(rows));
    let height = blocks.div_ceil((TASKS * host.workers()).div_ceil(across)) * rows;
    let down = outputs.div_ceil(height);
    host.parallel(across * down, &|task, worker| {
        let (left, top) = (task / down * WIDTH, task % down * height);
        let width = WIDTH.min(inputs - left);
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
        let sweep = Sweep::even(batch, rows, columns);
        for first in (top..outputs.min(top + height)).step_by(rows) {
            let column = &dys[first * batch..][..rows * batch];
            for (panel, packed) in packed.chunks_exact(batch * columns).take(width.div_ceil(columns)).enumerate() {
                let mut sums = [0.0; MAX_BLOCK];
                let sums = &mut sums[..tile.elements()];
                let at = first * inputs + left + panel * columns;
                let rest = width - panel * columns;
                let next = if rest > columns { at + columns } else { (first + rows) * inputs + left };
                let mut ahead = used.map(|used| Ahead::new(used.address(next), rows, columns, inputs, 1, &sweep));
                tile.accumulate_ahead(&sweep, column, &std::array::from_fn(|i| i), packed, sums, &mut ahead);
                let (rows, columns) = (rows.min(outputs - first), columns.min(rest));
                done(&Block { at, inputs, rows, columns, sums, tile });
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
