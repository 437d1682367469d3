//! Weight gradient of 3 x 3 and 5 x 5 kernels by minimal filtering: the transposed of `tiles`. Inputs and y's gradient are transformed, some rows of tiles at a time; for each of the
//! 36 points their product, summed over all tiles in order, is the gradient by a transformed weight. Tasks share the weights, not the tiles, so the order does not
//! depend on the number of workers, and no sums are added up afterwards.

use super::{
    geometry::Params,
    minimal::{
        Channels, Filter3Gradient, Filter5Gradient, INPUTS, LANES, Output2Gradient, Output4Gradient, POINTS, Wide, both,
    },
    tiles::{Grid, Strip, TransformInputs, apart, pixel},
};
use crate::tile::{MAX_ROWS, Sweep, Tile, Vector, Work, with_vectors};
use alexnode_core::host::{Host, Shared};
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
        let corner = -(p.padding as isize);
        let grid = Grid::new(p, x.c, (y.h, y.w), (corner, corner))?;
        let tile = Tile::new(x.c, y.c);
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
            let (to, step) = (&mut inputs[tile * channels..], apart(tiles * channels));
            with_vectors(TransformInputs { image: x, places: &places, channels, to, step });
            let places = self.grid.outputs(&self.p.y(), row, column);
            let panels = gradients.chunks_exact_mut(self.panel()).zip(biases.chunks_exact_mut(columns));
            for (panel, (to, bias)) in part.panels.clone().zip(panels) {
                let from = panel * columns;
                let bias = &mut bias[..columns.min(self.p.y().c - from)];
                let to = &mut to[tile * columns..];
                let step = apart(tiles * columns);
                let (dy, places, edge) = (&dy[from..], &places[..self.grid.edge * self.grid.edge], self.grid.edge);
                with_vectors(TransformGradients { dy, places, edge, columns, bias, to, step });
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
        let (all, outputs, many) = (self.p.x().c, self.p.y().c, (self.p.kernel * self.p.kernel) as usize);
        for (i, sums) in part.panels.clone().zip(sums.chunks_exact(panel)) {
            for lanes in (i * columns..outputs.min((i + 1) * columns)).step_by(LANES) {
                let count = LANES.min(outputs - lanes);
                for (step, channel) in part.channels.clone().enumerate() {
                    let mut taps = [[0.0; LANES]; 25];
                    let taps = &mut taps[..many];
                    let sums = &sums[step * columns + lanes - i * columns..];
                    with_vectors(TransformSums { sums, step: point, taps });
                    for output in 0..count {
                        for (tap, values) in taps.iter().enumerate() {
                            let at = ((part.group * outputs + lanes + output) * many + tap) * all + channel;
                            // SAFETY: the weights between these outputs and inputs belong to this task.
                            let weight = unsafe { dw.range(at, 1) };
                            weight[0] = values[output];
                        }
                    }
                }
            }
        }
    }
}

/// Transforms a tile's gradients of as many channels as `bias` has, which adds them up, to `columns` elements of `to`, zeros beyond; each point is `step` elements after the last.
struct TransformGradients<'a> {
    dy: &'a [f32],
    places: &'a [usize],
    edge: usize,
    columns: usize,
    bias: &'a mut [f32],
    to: &'a mut [f32],
    step: usize,
}

impl Work for TransformGradients<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let (edge, columns, outputs) = (self.edge, self.columns, self.bias.len());
        let mut part = Strip { work: self, channel: 0, count: 0 };
        for channel in (0..columns).step_by(V::LANES) {
            (part.channel, part.count) = (channel, V::LANES.min(outputs.saturating_sub(channel)));
            // SAFETY: the caller's promise.
            unsafe {
                if part.count > 0 {
                    let mut sum = Wide::<V>::zero();
                    for place in part.work.places {
                        sum = sum + pixel(part.work.dy, *place, channel, part.count);
                    }
                    let bias = &mut part.work.bias[channel..channel + part.count];
                    (Wide::load(bias) + sum).store(bias);
                }
                match edge {
                    4 => both::<Output4Gradient, V, _, _>(&mut part),
                    _ => both::<Output2Gradient, V, _, _>(&mut part),
                }
            }
        }
    }
}

impl<V: Vector> Channels<V> for Strip<TransformGradients<'_>> {
    #[inline(always)]
    unsafe fn load(&self, row: usize, column: usize) -> Wide<V> {
        // SAFETY: the caller's promise.
        unsafe { pixel(self.work.dy, self.work.places[row * self.work.edge + column], self.channel, self.count) }
    }
    #[inline(always)]
    fn store(&mut self, row: usize, column: usize, value: Wide<V>) {
        let at = (row * INPUTS + column) * self.work.step + self.channel;
        value.store(&mut self.work.to[at..][..V::LANES]);
    }
}

/// Transforms [`LANES`] channels of sums, where each point is `step` elements after the last, to the gradients by a kernel of 3 x 3 or 5 x 5.
struct TransformSums<'a> {
    sums: &'a [f32],
    step: usize,
    taps: &'a mut [[f32; LANES]],
}

impl Work for TransformSums<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let edge = if self.taps.len() == 9 { 3 } else { 5 };
        let mut part = Strip { work: self, channel: 0, count: edge };
        for lane in (0..LANES).step_by(V::LANES) {
            part.channel = lane;
            // SAFETY: the caller's promise.
            unsafe {
                match edge {
                    3 => both::<Filter3Gradient, V, _, _>(&mut part),
                    _ => both::<Filter5Gradient, V, _, _>(&mut part),
                }
            }
        }
    }
}

/// `count` is the edge of a kernel.
impl<V: Vector> Channels<V> for Strip<TransformSums<'_>> {
    #[inline(always)]
    unsafe fn load(&self, row: usize, column: usize) -> Wide<V> {
        let at = (row * INPUTS + column) * self.work.step + self.channel;
        // SAFETY: the caller's promise.
        unsafe { Wide::load(&self.work.sums[at..][..V::LANES]) }
    }
    #[inline(always)]
    fn store(&mut self, row: usize, column: usize, value: Wide<V>) {
        value.store(&mut self.work.taps[row * self.count + column][self.channel..]);
    }
}
