//! Weight gradient of 3 x 3 kernels by minimal filtering: the transposed of `tiles`. Inputs and y's gradient are transformed, some rows of tiles at a time; for each of the
//! 36 points their product, summed over all tiles in order, is the gradient by a transformed weight. Tasks share the weights, not the tiles, so the order does not
//! depend on the number of workers, and no sums are added up afterwards.

use super::{
    geometry::Params,
    minimal::{INPUTS, LANES, OUTPUTS, POINTS, Wide, both, filter_gradient, output_gradient},
    tiles::{Grid, apart, pixel, suits, transform_inputs},
};
use crate::tile::{MAX_ROWS, Sweep, Tile};
use alexnode_core::host::{Host, Shared};
use multiversion::multiversion;
use std::ops::Range;

/// Elements of the transformed inputs and gradients that a task multiplies at a time: 2 MiB. With fewer the sums of all points are visited too often, more would leave the second-level cache.
const TRANSFORMED: usize = 1 << 19;

/// Sizes that all parts of the computation share.
pub struct WeightTiles {
    p: Params,
    grid: Grid,
    tile: Tile,
    /// Rows of tiles of all images, and how many of them are transformed at a time.
    all: usize,
    rows: usize,
    /// Parts of a group's output channels, in panels of the tile's columns, and of its input channels: one task for each pair.
    outputs: Split,
    inputs: Split,
}

/// `units` units of a tensor's channels in `parts` parts.
#[derive(Clone, Copy)]
struct Split {
    units: usize,
    parts: usize,
}

impl Split {
    fn part(&self, i: usize) -> Range<usize> {
        i * self.units / self.parts..(i + 1) * self.units / self.parts
    }
    fn largest(&self) -> usize {
        self.units.div_ceil(self.parts)
    }
}

/// What a task computes of a group.
struct Part {
    group: usize,
    panels: Range<usize>,
    channels: Range<usize>,
}

impl WeightTiles {
    /// `None` where the direct way is better.
    pub fn new(p: &Params, workers: usize) -> Option<Self> {
        let (x, y) = (p.x(), p.y());
        if !suits(p, (y.h, y.w), x.c) {
            return None;
        }
        let corner = -(p.padding as isize);
        let (grid, tile) = (Grid::new((y.h, y.w), (corner, corner)), Tile::new(x.c, y.c));
        let mut outputs = Split { units: y.c.div_ceil(tile.columns), parts: 1 };
        let mut inputs = Split { units: x.c.div_ceil(LANES), parts: 1 };
        // What is split is transformed by every task of the other's parts.
        while p.groups() * outputs.parts * inputs.parts < workers {
            match (outputs, inputs) {
                (Split { units, parts }, _) if parts < units => outputs.parts += 1,
                (_, Split { units, parts }) if parts < units => inputs.parts += 1,
                _ => break,
            }
        }
        let all = p.batch as usize * grid.tiles.0;
        let each = POINTS * (inputs.largest() * LANES + outputs.largest() * tile.columns);
        let rows = (TRANSFORMED / (grid.tiles.1 * each)).clamp(1, all);
        Some(Self { p: *p, grid, tile, all, rows, outputs, inputs })
    }
    /// Tiles at a time.
    fn tiles(&self) -> usize {
        self.rows * self.grid.tiles.1
    }
    /// Elements of a worker's transformed inputs, `[point][tile][input]`.
    fn transformed(&self) -> usize {
        POINTS * apart(self.tiles() * self.inputs.largest() * LANES)
    }
    /// Elements of a panel of transformed gradients, `[point][tile][output]`.
    fn panel(&self) -> usize {
        POINTS * apart(self.tiles() * self.tile.columns)
    }
    /// Elements of the sums of a panel, `[point][input][output]`, and from one point to the next.
    fn sums(&self) -> (usize, usize) {
        let point = apart(self.inputs.largest() * LANES * self.tile.columns);
        (POINTS * point, point)
    }
    fn worker(&self) -> usize {
        self.transformed() + self.outputs.largest() * (self.panel() + self.sums().0 + self.tile.columns)
    }
    /// Elements of scratch.
    pub fn scratch(&self, workers: usize) -> usize {
        workers * self.worker()
    }

    /// dw and dbias from x and dy.
    pub fn run(&self, host: &dyn Host, x: &[f32], dy: &[f32], dw: &mut [f32], db: &mut [f32], scratch: &mut [f32]) {
        let [dw, db, scratch] = [dw, db, scratch].map(Shared::new);
        let (parts, size) = (self.outputs.parts * self.inputs.parts, self.worker());
        host.parallel(self.p.groups() * parts, &|task, worker| {
            let (group, part) = (task / parts, task % parts);
            let channels = self.inputs.part(part / self.outputs.parts);
            let part = Part {
                group,
                panels: self.outputs.part(part % self.outputs.parts),
                channels: channels.start * LANES..self.p.x().c.min(channels.end * LANES),
            };
            // SAFETY: every worker has its own space, and runs one task at a time.
            let space = unsafe { scratch.range(worker * size, size) };
            let (inputs, rest) = space.split_at_mut(self.transformed());
            let (gradients, rest) = rest.split_at_mut(self.outputs.largest() * self.panel());
            let (sums, biases) = rest.split_at_mut(self.outputs.largest() * self.sums().0);
            sums.fill(0.0);
            biases.fill(0.0);
            for first in (0..self.all).step_by(self.rows) {
                let rows = first..self.all.min(first + self.rows);
                let tiles = rows.len() * self.grid.tiles.1;
                self.transform(&part, (x, dy), rows, inputs, gradients, biases);
                self.multiply(&part, inputs, gradients, sums, tiles);
            }
            self.finish(&part, sums, &dw);
            if part.channels.start == 0 {
                let from = part.panels.start * self.tile.columns;
                let count = (self.p.y().c - from).min(part.panels.len() * self.tile.columns);
                // SAFETY: these outputs belong to this task.
                unsafe { db.range(group * self.p.y().c + from, count) }.copy_from_slice(&biases[..count]);
            }
        });
    }

    /// Transforms `rows` rows of tiles, and adds their gradients up for the biases.
    fn transform(
        &self,
        part: &Part,
        (x, dy): (&[f32], &[f32]),
        rows: Range<usize>,
        inputs: &mut [f32],
        gradients: &mut [f32],
        biases: &mut [f32],
    ) {
        let (across, channels, columns) = (self.grid.tiles.1, part.channels.len(), self.tile.columns);
        let tiles = rows.len() * across;
        let x = &x[part.group * self.p.x().c + part.channels.start..];
        let dy = &dy[part.group * self.p.y().c..];
        for tile in 0..tiles {
            let (row, column) = (rows.start + tile / across, tile % across);
            let places = self.grid.inputs(&self.p.x(), row, column);
            transform_inputs(x, &places, channels, &mut inputs[tile * channels..], apart(tiles * channels));
            let places = self.grid.outputs(&self.p.y(), row, column);
            let panels = gradients.chunks_exact_mut(self.panel()).zip(biases.chunks_exact_mut(columns));
            for (panel, (to, bias)) in part.panels.clone().zip(panels) {
                let from = panel * columns;
                let bias = &mut bias[..columns.min(self.p.y().c - from)];
                let to = &mut to[tile * columns..];
                transform_gradients(&dy[from..], &places, columns, bias, to, apart(tiles * columns));
            }
        }
    }

    /// Adds the products of the points to their sums.
    fn multiply(&self, part: &Part, inputs: &[f32], gradients: &[f32], sums: &mut [f32], tiles: usize) {
        let (tile, channels) = (self.tile, part.channels.len());
        let (a_step, b_step) = (channels, tile.columns);
        let sweep = Sweep { segments: 1, len: tiles, a_step, a_segment: 0, b_step, b_segment: 0 };
        for (point, inputs) in inputs.chunks_exact(apart(tiles * channels)).take(POINTS).enumerate() {
            let panels = gradients.chunks_exact(self.panel()).zip(sums.chunks_exact_mut(self.sums().0));
            for (gradients, sums) in panels.take(part.panels.len()) {
                let gradients = &gradients[point * apart(tiles * b_step)..][..tiles * b_step];
                let sums = &mut sums[point * self.sums().1..][..channels * b_step];
                for (block, sums) in sums.chunks_mut(tile.elements()).enumerate() {
                    let mut offsets = [0; MAX_ROWS];
                    let mut rows: [&mut [f32]; MAX_ROWS] = std::array::from_fn(|_| &mut [][..]);
                    let mut valid = 0;
                    for (row, sums) in sums.chunks_exact_mut(b_step).enumerate() {
                        (offsets[row], rows[row]) = (block * tile.rows + row, sums);
                        valid = row + 1;
                    }
                    tile.accumulate_rows(&sweep, inputs, &mut offsets, gradients, &mut rows[..valid], None, false);
                }
            }
        }
    }

    /// Transforms the sums back.
    fn finish(&self, part: &Part, sums: &[f32], dw: &Shared<'_, f32>) {
        let (columns, (panel, point)) = (self.tile.columns, self.sums());
        let (all, outputs) = (self.p.x().c, self.p.y().c);
        for (i, sums) in part.panels.clone().zip(sums.chunks_exact(panel)) {
            for lanes in (i * columns..outputs.min((i + 1) * columns)).step_by(LANES) {
                let count = LANES.min(outputs - lanes);
                for (step, channel) in part.channels.clone().enumerate() {
                    let mut taps = [[Wide::ZERO; 3]; 3];
                    transform_sums(&sums[step * columns + lanes - i * columns..], point, &mut taps);
                    for output in 0..count {
                        for (tap, values) in taps.as_flattened().iter().enumerate() {
                            let at = ((part.group * outputs + lanes + output) * 9 + tap) * all + channel;
                            // SAFETY: the weights between these outputs and inputs belong to this task.
                            let weight = unsafe { dw.range(at, 1) };
                            weight[0] = values.0[output];
                        }
                    }
                }
            }
        }
    }
}

/// Transforms a tile's gradients of as many channels as `bias` has, which adds them up, to `columns` elements of `to`, zeros beyond; each point is `step` elements after the last.
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2"))]
fn transform_gradients(
    dy: &[f32],
    places: &[usize; OUTPUTS * OUTPUTS],
    columns: usize,
    bias: &mut [f32],
    to: &mut [f32],
    step: usize,
) {
    let mut half = [[Wide::ZERO; OUTPUTS]; INPUTS];
    for channel in (0..columns).step_by(LANES) {
        let count = LANES.min(bias.len().saturating_sub(channel));
        let mut sum = Wide::ZERO;
        for place in places {
            sum = sum + pixel(dy, *place, channel, count);
        }
        let bias = &mut bias[channel..channel + count];
        (Wide::load(bias) + sum).store(bias);
        both(
            output_gradient,
            &mut half,
            |i, j| pixel(dy, places[i * OUTPUTS + j], channel, count),
            |i, j, value| value.store(&mut to[(i * INPUTS + j) * step + channel..][..LANES]),
        );
    }
}

/// Transforms sixteen channels of sums, where each point is `step` elements after the last, to the gradients by a kernel.
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2"))]
fn transform_sums(sums: &[f32], step: usize, taps: &mut [[Wide; 3]; 3]) {
    let load = |i, j| Wide::load(&sums[(i * INPUTS + j) * step..][..LANES]);
    both(filter_gradient, &mut [[Wide::ZERO; INPUTS]; 3], load, |i, j, value| taps[i][j] = value);
}
