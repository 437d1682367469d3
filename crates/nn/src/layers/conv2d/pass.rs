//! Forward and data gradient. Both are the same: windows slide over patches of a source, every window's pixels times packed weights
//! give a pixel of the destination. The data gradient slides over y's gradient with the kernel turned round; with a
//! stride, every phase of the destination has its own subset of the kernel, so nothing is multiplied by inserted zeros.

use super::{
    device,
    geometry::{Params, Plane, cut_patch, fit},
    tiles::Tiles,
};
use crate::tile::{MAX_BLOCK, MAX_ROWS, Sweep, Tile, ZEROS, copy, pack, pack_columns};
use alexnode_core::{
    Engine, Stage, Target,
    host::{Host, Shared},
    kernel::{Access, Args, Kernel},
};

/// Elements of a patch that a task works on at a time: 256 KiB, half of the second-level cache of a small core.
const PATCH: usize = 64 * 1024;
/// Packed weights between two visits of a block: 96 KiB. Fewer would stay in the first-level cache, but the visits cost more.
const PANEL: usize = 24 * 1024;

/// Windows over a source, and where their results go. All of one group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pass {
    pub(super) batch: usize,
    pub(super) groups: usize,
    pub(super) source: Plane,
    pub(super) target: Plane,
    /// Rows and columns of a window.
    pub(super) window: (usize, usize),
    /// Source pixels from one window to the next.
    step: usize,
    /// The source pixel of the first window's corner.
    pub(super) corner: (isize, isize),
    /// Windows along each axis.
    pub(super) count: (usize, usize),
    /// The target pixel of the first window.
    first: (usize, usize),
    /// Target pixels from one window to the next.
    every: usize,
    pub(super) tile: Tile,
}

/// What is done to the sums at the end.
#[derive(Clone, Copy)]
pub(super) struct Finish<'a> {
    /// One per output channel of all groups.
    pub(super) bias: Option<&'a [f32]>,
    pub(super) relu: bool,
}

impl Pass {
    fn forward(p: &Params) -> Self {
        let corner = -(p.padding as isize);
        Self {
            batch: p.batch as usize,
            groups: p.groups(),
            source: p.x(),
            target: p.y(),
            window: (p.kernel as usize, p.kernel as usize),
            step: p.stride as usize,
            corner: (corner, corner),
            count: (p.out_h as usize, p.out_w as usize),
            first: (0, 0),
            every: 1,
            tile: Tile::new(Tile::MANY, p.y().c),
        }
    }

    /// The pass for the pixels of dx at (`phase.0`, `phase.1`) modulo the stride.
    fn data_gradient(p: &Params, phase: (usize, usize)) -> Self {
        let [stride, padding, kernel] = [p.stride, p.padding, p.kernel].map(|v| v as usize);
        let count = |extent: usize, phase: usize| (extent.saturating_sub(phase)).div_ceil(stride);
        let window = |phase: usize| kernel.saturating_sub((phase + padding) % stride).div_ceil(stride);
        // Row i = stride u + phase of dx meets row (i + padding - r) / stride of dy, for those r where this is whole.
        let corner = |phase: usize| ((phase + padding) / stride) as isize - (window(phase) as isize - 1);
        let x = p.x();
        Self {
            batch: p.batch as usize,
            groups: p.groups(),
            source: p.y(),
            target: x,
            window: (window(phase.0), window(phase.1)),
            step: 1,
            corner: (corner(phase.0), corner(phase.1)),
            count: (count(x.h, phase.0), count(x.w, phase.1)),
            first: phase,
            every: stride,
            tile: Tile::new(Tile::MANY, x.c),
        }
    }

    pub(super) fn panels(&self) -> usize {
        self.target.c.div_ceil(self.tile.columns)
    }
    /// Inner steps of one row of a window.
    fn row(&self) -> usize {
        self.window.1 * self.source.c
    }
    /// Elements of one panel of packed weights: a row of weights for every inner step.
    fn panel(&self) -> usize {
        self.window.0 * self.row() * self.tile.columns
    }
    /// Elements of all packed weights.
    fn packed(&self) -> usize {
        self.groups * self.panels() * self.panel()
    }
    /// Columns of a patch.
    fn cols(&self) -> usize {
        (self.count.1 - 1) * self.step + self.window.1
    }
    /// Elements of a patch for `rows` rows of windows.
    fn patch(&self, rows: usize) -> usize {
        ((rows - 1) * self.step + self.window.0) * self.cols() * self.source.c
    }
    /// Rows of windows that a task takes, before it is known how many tasks there must be.
    fn rows(&self) -> usize {
        let row = self.cols() * self.source.c;
        let overlap = self.window.0.saturating_sub(self.step) * row;
        fit(self.count.0, self.step * row, overlap, PATCH)
    }
    /// Elements of scratch.
    fn scratch(&self, p: &Params, workers: usize) -> usize {
        let direct = || self.packed() + workers * self.patch(self.rows());
        Tiles::new(p, *self, workers).map_or_else(direct, |tiles| tiles.scratch(workers))
    }
    /// Runs the pass. `packed` are the weights; `patches` has room for one patch per worker.
    fn run(
        &self,
        host: &dyn Host,
        source: &[f32],
        packed: &[f32],
        finish: Finish<'_>,
        target: &Shared<'_, f32>,
        patches: &Shared<'_, f32>,
    ) {
        // A small minibatch is cut finer, so that all workers have work, two tasks each to balance them. No sum changes by it.
        let wanted = (2 * host.workers()).div_ceil(self.batch * self.groups);
        let rows = self.rows().min(self.count.0.div_ceil(wanted));
        let blocks = self.count.0.div_ceil(rows);
        let size = self.patch(self.rows());
        host.parallel(self.batch * self.groups * blocks, &|task, worker| {
            let (image, group, block) = (task / blocks / self.groups, task / blocks % self.groups, task % blocks);
            let top = block * rows;
            let rows = rows.min(self.count.0 - top);
            // SAFETY: every worker has its own patch, and runs one task at a time.
            let patch = unsafe { patches.range(worker * size, self.patch(rows)) };
            let corner = (self.corner.0 + (top * self.step) as isize, self.corner.1);
            let height = (rows - 1) * self.step + self.window.0;
            let channels = &source[image * self.source.image() + group * self.source.c..];
            cut_patch(patch, channels, &self.source, corner, height, self.cols());
            let weights = &packed[group * self.panels() * self.panel()..];
            self.slide(patch, weights, finish, target, &Rows { image, group, top, rows });
        });
    }

    /// The windows of `part`, all output channels of its group: blocks of some pixels and channels.
    fn slide(&self, patch: &[f32], weights: &[f32], finish: Finish<'_>, target: &Shared<'_, f32>, part: &Rows) {
        let (row, pitch) = (self.row(), self.cols() * self.source.c);
        let (columns, depth) = (self.tile.columns, PANEL / self.tile.columns);
        let pixels = part.rows * self.count.1;
        // Either some whole rows of the window at a time, or a piece of one row.
        let equal = |all: usize, most: usize| all.div_ceil(all.div_ceil(most));
        let (high, long) = (equal(self.window.0, (depth / row).max(1)), equal(row, depth));
        for top in (0..self.window.0).step_by(high) {
            for left in (0..row).step_by(long) {
                let (segments, len) = (high.min(self.window.0 - top), long.min(row - left));
                let sweep =
                    Sweep { segments, len, a_step: 1, a_segment: pitch, b_step: columns, b_segment: row * columns };
                let (first, last) = (top == 0 && left == 0, top + segments == self.window.0 && left + len == row);
                for panel in 0..self.panels() {
                    let weights = &weights[panel * self.panel() + (top * row + left) * columns..];
                    let channel = part.group * self.target.c + panel * columns;
                    let width = columns.min(self.target.c - panel * columns);
                    let whole = width == columns;
                    let start = match finish.bias {
                        _ if !first => None,
                        Some(bias) if whole => Some(&bias[channel..channel + width]),
                        _ => Some(&ZEROS[..]),
                    };
                    let relu = last && finish.relu;
                    let (mut u, mut v) = (0, 0);
                    for i in (0..pixels).step_by(self.tile.rows) {
                        let valid = self.tile.rows.min(pixels - i);
                        let (mut offsets, mut rows) =
                            ([0; MAX_ROWS], std::array::from_fn::<&mut [f32], MAX_ROWS, _>(|_| &mut []));
                        for (offset, sums) in offsets.iter_mut().zip(&mut rows).take(valid) {
                            *offset = (u * self.step + top) * pitch + v * self.step * self.source.c + left;
                            // SAFETY: these pixels of this group's channels belong to this task.
                            *sums = unsafe { target.range(self.place(part, u, v) + channel, width) };
                            v += 1;
                            if v == self.count.1 {
                                (u, v) = (u + 1, 0);
                            }
                        }
                        let rows = &mut rows[..valid];
                        if whole {
                            self.tile.accumulate_rows(&sweep, patch, &mut offsets, weights, rows, start, relu);
                            continue;
                        }
                        let mut block = [0.0; MAX_BLOCK];
                        let mut blocks = std::array::from_fn::<&mut [f32], MAX_ROWS, _>(|_| &mut []);
                        for ((sums, block), row) in blocks.iter_mut().zip(block.chunks_exact_mut(columns)).zip(&*rows) {
                            if !first {
                                copy(&mut block[..width], row);
                            } else if let Some(bias) = finish.bias {
                                copy(&mut block[..width], &bias[channel..channel + width]);
                            }
                            *sums = block;
                        }
                        let blocks = &mut blocks[..valid];
                        self.tile.accumulate_rows(&sweep, patch, &mut offsets, weights, blocks, None, relu);
                        for (block, row) in blocks.iter().zip(rows) {
                            copy(row, &block[..width]);
                        }
                    }
                }
            }
        }
    }

    /// Where the target's pixel of window (`u`, `v`) of `part` begins.
    fn place(&self, part: &Rows, u: usize, v: usize) -> usize {
        let (y, x) = (self.first.0 + (part.top + u) * self.every, self.first.1 + v * self.every);
        ((part.image * self.target.h + y) * self.target.w + x) * self.target.ld
    }

    /// Zeros for targets that no window reaches: a phase without weights.
    fn clear(&self, host: &dyn Host, target: &Shared<'_, f32>) {
        host.parallel(self.batch, &|image, _| {
            let part = Rows { image, group: 0, top: 0, rows: self.count.0 };
            for (u, v) in (0..self.count.0).flat_map(|u| (0..self.count.1).map(move |v| (u, v))) {
                // SAFETY: every image belongs to one task.
                unsafe { target.range(self.place(&part, u, v), self.groups * self.target.c) }.fill(0.0);
            }
        });
    }
}

/// The rows of windows of one image and group that a task computes.
struct Rows {
    image: usize,
    group: usize,
    top: usize,
    rows: usize,
}

/// Packs weights: a panel of a group holds, for each inner step, the weights of as many output channels as a tile has columns (0 beyond the last).
fn pack_forward(p: &Params, pass: &Pass, host: &dyn Host, weights: &[f32], packed: &mut [f32]) {
    let (inner, outputs, columns) = (p.weights(), pass.target.c, pass.tile.columns);
    alexnode_core::host::parallel_chunks(host, packed, pass.panel(), |i, panel| {
        let (group, channel) = (i / pass.panels(), i % pass.panels() * columns);
        let width = columns.min(outputs - channel);
        pack_columns(panel, columns, &weights[(group * outputs + channel) * inner..][..width * inner], inner);
    });
}

/// Packs the weights of a phase of the data gradient: kernel turned round, panels over the input channels.
fn pack_gradient(p: &Params, pass: &Pass, phase: (usize, usize), host: &dyn Host, weights: &[f32], packed: &mut [f32]) {
    let [stride, padding, kernel] = [p.stride, p.padding, p.kernel].map(|v| v as usize);
    let (inputs, outputs, columns) = (pass.target.c, pass.source.c, pass.tile.columns);
    let tap = |phase: usize, m: usize, window: usize| (phase + padding) % stride + stride * (window - 1 - m);
    alexnode_core::host::parallel_chunks(host, packed, pass.panel(), |i, panel| {
        let (group, channel) = (i / pass.panels(), i % pass.panels() * columns);
        let width = columns.min(inputs - channel);
        for (step, to) in panel.chunks_exact_mut(columns).enumerate() {
            let (output, s, r) = (step % outputs, step / outputs % pass.window.1, step / outputs / pass.window.1);
            let (r, s) = (tap(phase.0, r, pass.window.0), tap(phase.1, s, pass.window.1));
            let from = (((group * outputs + output) * kernel + r) * kernel + s) * inputs + channel;
            pack(to, &weights[from..from + width]);
        }
    });
}

/// Bytes of scratch for forward.
fn forward_scratch(p: &Params, workers: usize) -> usize {
    let pass = Pass::forward(p);
    pass.scratch(p, workers) * 4
}

/// Bytes of scratch for the data gradient.
fn data_gradient_scratch(p: &Params, workers: usize) -> usize {
    let sizes = phases(p).filter(|(_, pass)| pass.window.0 * pass.window.1 > 0);
    sizes.map(|(_, pass)| pass.scratch(p, workers)).max().unwrap_or(0) * 4
}

/// The data gradient's phases, one for each place of dx modulo the stride.
fn phases(p: &Params) -> impl Iterator<Item = ((usize, usize), Pass)> {
    // A stride may be larger than the image; phases beyond it have no pixels.
    let (p, rows, cols) = (*p, p.stride.min(p.in_h) as usize, p.stride.min(p.in_w) as usize);
    let all = (0..rows * cols).map(move |i| (i / cols, i % cols));
    all.map(move |phase| (phase, Pass::data_gradient(&p, phase)))
}

/// y from x. Arguments: x, w, bias, y, scratch.
pub(crate) struct Conv2dForward;
/// dx from dy. Arguments: dy, w, dx, scratch.
pub(crate) struct Conv2dDataGradient;

impl Kernel for Conv2dForward {
    type Params = Params;
    const NAME: &'static str = "conv2d_forward";
    const SOURCE: &'static str = "conv2d.cu";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Read, Access::Read, Access::Write, Access::Scratch];
    fn scratch(p: &Params, engine: Engine) -> usize {
        match engine {
            Engine::Host { workers } => forward_scratch(p, workers),
            Engine::Cuda(_) => device::forward_scratch(p),
        }
    }
    fn run(p: &Params, args: &Args<'_>, host: &dyn Host) {
        let (x, weights, bias) = (args.read::<f32>(0), args.read::<f32>(1), args.read::<f32>(2));
        let y = Shared::new(args.write::<f32>(3));
        let pass = Pass::forward(p);
        let (finish, scratch) = (Finish { bias: Some(bias), relu: p.relu != 0 }, args.write::<f32>(4));
        if let Some(tiles) = Tiles::new(p, pass, host.workers()) {
            let (inputs, outputs, taps) = (p.x().c, p.y().c, (p.kernel * p.kernel) as usize);
            let weight = |group, output, input, tap| ((group * outputs + output) * taps + tap) * inputs + input;
            return tiles.run(host, x, weights, weight, finish, &y, scratch);
        }
        let (packed, patches) = scratch.split_at_mut(pass.packed());
        pack_forward(p, &pass, host, weights, packed);
        pass.run(host, x, packed, finish, &y, &Shared::new(patches));
    }
    fn stages(p: &Params, target: &Target) -> Vec<Stage> {
        device::forward(p, Self::NAME, target)
    }
}

impl Kernel for Conv2dDataGradient {
    type Params = Params;
    const NAME: &'static str = "conv2d_data_gradient";
    const SOURCE: &'static str = "conv2d.cu";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Read, Access::Write, Access::Scratch];
    fn scratch(p: &Params, engine: Engine) -> usize {
        match engine {
            Engine::Host { workers } => data_gradient_scratch(p, workers),
            Engine::Cuda(_) => 0,
        }
    }
    fn run(p: &Params, args: &Args<'_>, host: &dyn Host) {
        let (dy, weights) = (args.read::<f32>(0), args.read::<f32>(1));
        let dx = Shared::new(args.write::<f32>(2));
        let scratch = args.write::<f32>(3);
        for (phase, pass) in phases(p) {
            if pass.window.0 * pass.window.1 == 0 {
                pass.clear(host, &dx);
                continue;
            }
            let finish = Finish { bias: None, relu: false };
            if let Some(tiles) = Tiles::new(p, pass, host.workers()) {
                let (inputs, outputs, last) = (p.x().c, p.y().c, (p.kernel * p.kernel - 1) as usize);
                // The kernel turned round: inputs of the pass are outputs of the layer.
                let weight =
                    |group, input, output, tap| ((group * outputs + output) * (last + 1) + last - tap) * inputs + input;
                return tiles.run(host, dy, weights, weight, finish, &dx, scratch);
            }
            let (packed, patches) = scratch.split_at_mut(pass.packed());
            pack_gradient(p, &pass, phase, host, weights, packed);
            pass.run(host, dy, packed, finish, &dx, &Shared::new(patches));
        }
    }
    fn stages(p: &Params, target: &Target) -> Vec<Stage> {
        device::data_gradient(p, Self::NAME, target)
    }
}
