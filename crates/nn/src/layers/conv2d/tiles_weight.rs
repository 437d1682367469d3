//! Weight gradient of 3 x 3 and 5 x 5 kernels by minimal filtering: the transposed of `tiles`. Inputs and y's gradient are transformed, some rows of tiles at a time; for each of the
//! 36 or 64 points their product, summed over tiles in order, is the gradient by a transformed weight.
//!
//! Where there are few weights, fixed chunks of the minibatch are summed apart, then the chunks in order. Else tasks share the weights, not the tiles, and no sums are added up
//! afterwards. Neither depends on the number of workers.

use super::{
    geometry::Params,
    tiles::{Grid, Strip, TransformInputs, apart, pixel},
    weight::CHUNKS,
    winograd::{Along, Channels, FilterGradient, Input, LANES, OUTPUTS, OutputGradient, Wide, both},
};
use crate::tile::{MAX_ROWS, Sweep, Tile, Vector, Work, with_vectors};
use alexnode_core::host::{Host, Shared};
use std::ops::Range;

/// Sums of a group of so few elements, 1 MiB, stay in the second-level cache: every chunk has its own. Changing it changes the bits.
/// A slot that has half of the outputs of such a layer decides for its half: between this and twice this, one slot and two differ by rounding.
const FEW: usize = 1 << 18;
/// Elements of the transformed inputs and gradients that a task multiplies at a time, 2 MiB: with fewer the sums of all points are visited too often.
const TRANSFORMED: usize = 1 << 19;
/// Likewise where sums are few: 512 KiB, so that both stay in the second-level cache.
const TRANSFORMED_OF_FEW: usize = 1 << 17;

/// Input channels whose sums a task adds up and transforms back.
const PIECE: usize = 8;

/// Sizes that all parts of the computation share.
pub struct WeightTiles {
    p: Params,
    grid: Grid,
    tile: Tile,
    /// Chunks, and rows of tiles of one; of these, how many are transformed at a time.
    chunks: usize,
    chunk: usize,
    rows: usize,
    /// Parts of a group's output channels, in panels of the tile's columns, and of its input channels.
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

/// Some weights of a group.
struct Part {
    group: usize,
    panels: Range<usize>,
    channels: Range<usize>,
}

impl WeightTiles {
    /// `None` where the direct way is better.
    pub fn new(p: &Params, workers: usize) -> Option<Self> {
        let (x, y, batch) = (p.x(), p.y(), p.batch as usize);
        let corner = -(p.padding as isize);
        let grid = Grid::new(p, x.c, (y.h, y.w), (corner, corner))?;
        let tile = Tile::new(x.c, y.c);
        let mut outputs = Split { units: y.c.div_ceil(tile.columns), parts: 1 };
        let mut inputs = Split { units: x.c.div_ceil(LANES), parts: 1 };
        let few = grid.points() * x.c * y.c <= FEW;
        let images = if few { batch.div_ceil(CHUNKS) } else { batch };
        // What is split is transformed by every task of the other's parts.
        while !few && p.groups() * outputs.parts * inputs.parts < workers {
            match (outputs, inputs) {
                (Split { units, parts }, _) if parts < units => outputs.parts += 1,
                (_, Split { units, parts }) if parts < units => inputs.parts += 1,
                _ => break,
            }
        }
        let (chunks, chunk) = (batch.div_ceil(images), images * grid.tiles.0);
        let each = grid.points() * (inputs.largest() * LANES + outputs.largest() * tile.columns);
        let transformed = if few { TRANSFORMED_OF_FEW } else { TRANSFORMED };
        let rows = (transformed / (grid.tiles.1 * each)).clamp(1, chunk);
        Some(Self { p: *p, grid, tile, chunks, chunk, rows, outputs, inputs })
    }
    /// Parts of all weights, the groups' one after the other.
    fn parts(&self) -> usize {
        self.p.groups() * self.outputs.parts * self.inputs.parts
    }
    fn part(&self, i: usize) -> Part {
        let (part, parts) = (i / self.outputs.parts, self.inputs.parts);
        let channels = self.inputs.part(part % parts);
        Part {
            group: part / parts,
            panels: self.outputs.part(i % self.outputs.parts),
            channels: channels.start * LANES..self.p.x().c.min(channels.end * LANES),
        }
    }
    /// The most input channels of a part.
    fn channels(&self) -> usize {
        self.inputs.largest() * LANES
    }
    /// Tiles at a time.
    fn tiles(&self) -> usize {
        self.rows * self.grid.tiles.1
    }
    /// Elements of a worker's transformed inputs, `[point][tile][input]`.
    fn transformed(&self) -> usize {
        self.grid.points() * apart(self.tiles() * self.channels())
    }
    /// Elements of a panel of transformed gradients, `[point][tile][output]`.
    fn panel(&self) -> usize {
        self.grid.points() * apart(self.tiles() * self.tile.columns)
    }
    fn worker(&self) -> usize {
        self.transformed() + self.outputs.largest() * self.panel()
    }
    /// Elements of the sums of a panel, `[point][input][output]` with inputs that fill the last block, and from one point to the next.
    fn sums(&self) -> (usize, usize) {
        let point = apart(self.channels().next_multiple_of(self.tile.rows) * self.tile.columns);
        (self.grid.points() * point, point)
    }
    /// Elements of the sums of a part of the weights in a chunk: first of the biases, then those of every panel.
    fn task(&self) -> usize {
        self.outputs.largest() * (self.tile.columns + self.sums().0)
    }
    /// Elements of scratch.
    pub fn scratch(&self, workers: usize) -> usize {
        self.chunks * self.parts() * self.task() + workers * self.worker()
    }

    /// dw and dbias from x and dy.
    pub fn run(&self, host: &dyn Host, x: &[f32], dy: &[f32], dw: &mut [f32], db: &mut [f32], scratch: &mut [f32]) {
        match self.grid.inputs {
            6 => self.run_sized::<3, 6>(host, (x, dy), (dw, db), scratch),
            _ => self.run_sized::<5, 8>(host, (x, dy), (dw, db), scratch),
        }
    }

    /// A kernel of K on N inputs.
    fn run_sized<const K: usize, const N: usize>(
        &self,
        host: &dyn Host,
        (x, dy): (&[f32], &[f32]),
        (dw, db): (&mut [f32], &mut [f32]),
        scratch: &mut [f32],
    ) where
        Input: Along<N, N>,
        OutputGradient: Along<OUTPUTS, N>,
        FilterGradient: Along<N, K>,
    {
        let (size, task_size, outputs) = (self.worker(), self.task(), self.outputs.largest());
        let biases = outputs * self.tile.columns;
        let (all_sums, space) = scratch.split_at_mut(self.chunks * self.parts() * task_size);
        {
            let (all_sums, space) = (Shared::new(all_sums), Shared::new(space));
            host.parallel(self.chunks * self.parts(), &|task, worker| {
                let part = self.part(task % self.parts());
                // SAFETY: every task has its own sums; every worker its own space, and runs one task at a time.
                let (sums, space) =
                    unsafe { (all_sums.range(task * task_size, task_size), space.range(worker * size, size)) };
                sums.fill(0.0);
                let (biases, sums) = sums.split_at_mut(biases);
                let (inputs, gradients) = space.split_at_mut(self.transformed());
                let first = task / self.parts() * self.chunk;
                let end = (first + self.chunk).min(self.p.batch as usize * self.grid.tiles.0);
                for first in (first..end).step_by(self.rows) {
                    let rows = first..end.min(first + self.rows);
                    let tiles = rows.len() * self.grid.tiles.1;
                    self.transform::<N>(&part, (x, dy), rows, inputs, gradients, biases);
                    self.multiply(&part, inputs, gradients, sums, tiles);
                }
            });
        }
        let (all_sums, dw, db) = (&*all_sums, Shared::new(dw), Shared::new(db));
        let pieces = self.channels().div_ceil(PIECE);
        host.parallel(self.parts() * pieces, &|task, _| {
            let (i, piece) = (task / pieces, task % pieces);
            let (part, all_sums) = (self.part(i), &all_sums[i * task_size..]);
            self.finish::<K, N>(&part, piece, &all_sums[biases..], &dw);
            if piece == 0 && part.channels.start == 0 {
                let from = part.panels.start * self.tile.columns;
                let count = (self.p.y().c - from).min(part.panels.len() * self.tile.columns);
                // SAFETY: these outputs belong to this task.
                let db = unsafe { db.range(part.group * self.p.y().c + from, count) };
                db.fill(0.0);
                for sums in all_sums.chunks(self.parts() * task_size) {
                    db.iter_mut().zip(sums).for_each(|(db, sum)| *db += sum);
                }
            }
        });
    }

    /// Transforms `rows` rows of tiles, and adds their gradients up for the biases.
    fn transform<const N: usize>(
        &self,
        part: &Part,
        (x, dy): (&[f32], &[f32]),
        rows: Range<usize>,
        inputs: &mut [f32],
        gradients: &mut [f32],
        biases: &mut [f32],
    ) where
        Input: Along<N, N>,
        OutputGradient: Along<OUTPUTS, N>,
    {
        let (across, channels, columns) = (self.grid.tiles.1, part.channels.len(), self.tile.columns);
        let tiles = rows.len() * across;
        let x = &x[part.group * self.p.x().c + part.channels.start..];
        let dy = &dy[part.group * self.p.y().c..];
        for tile in 0..tiles {
            let (row, column) = (rows.start + tile / across, tile % across);
            let places = self.grid.inputs(&self.p.x(), row, column);
            let (to, step) = (&mut inputs[tile * channels..], apart(tiles * channels));
            with_vectors(TransformInputs::<N> { image: x, places: &places, channels, to, step });
            let places = self.grid.outputs(&self.p.y(), row, column);
            let panels = gradients.chunks_exact_mut(self.panel()).zip(biases.chunks_exact_mut(columns));
            for (panel, (to, bias)) in part.panels.clone().zip(panels) {
                let from = panel * columns;
                let bias = &mut bias[..columns.min(self.p.y().c - from)];
                let to = &mut to[tile * columns..];
                let (dy, step) = (&dy[from..], apart(tiles * columns));
                with_vectors(TransformGradients::<N> { dy, places: &places, columns, bias, to, step });
            }
        }
    }

    /// Adds the products of the points to their sums.
    fn multiply(&self, part: &Part, inputs: &[f32], gradients: &[f32], sums: &mut [f32], tiles: usize) {
        let (tile, channels) = (self.tile, part.channels.len());
        let b_step = tile.columns;
        let sweep = Sweep { segments: 1, len: tiles, a_step: channels, a_segment: 0, b_step, b_segment: 0 };
        let blocks = channels.div_ceil(tile.rows);
        for (point, inputs) in inputs.chunks_exact(apart(tiles * channels)).take(self.grid.points()).enumerate() {
            let panels = gradients.chunks_exact(self.panel()).zip(sums.chunks_exact_mut(self.sums().0));
            for (gradients, sums) in panels.take(part.panels.len()) {
                let gradients = &gradients[point * apart(tiles * b_step)..][..tiles * b_step];
                let sums = &mut sums[point * self.sums().1..][..blocks * tile.elements()];
                for (block, sums) in sums.chunks_exact_mut(tile.elements()).enumerate() {
                    // Rows beyond the inputs read the next tile's, or what lies between two points; nobody reads their sums.
                    let offsets: [usize; MAX_ROWS] = std::array::from_fn(|i| block * tile.rows + i);
                    tile.accumulate(&sweep, inputs, &offsets, gradients, sums);
                }
            }
        }
    }

    /// Adds up the sums of all chunks, the first of which are `sums`, and transforms them back: those of the `piece`-th [`PIECE`] of the part's inputs.
    fn finish<const K: usize, const N: usize>(&self, part: &Part, piece: usize, sums: &[f32], dw: &Shared<'_, f32>)
    where
        FilterGradient: Along<N, K>,
    {
        let (columns, (panel, point)) = (self.tile.columns, self.sums());
        let (all, outputs) = (self.p.x().c, self.p.y().c);
        let steps = piece * PIECE..part.channels.len().min((piece + 1) * PIECE);
        for (i, sums) in part.panels.clone().zip((0..).map(|i| &sums[i * panel..])) {
            for lanes in (i * columns..outputs.min((i + 1) * columns)).step_by(LANES) {
                for step in steps.clone() {
                    let mut taps = [[[0.0; LANES]; K]; K];
                    let sums = &sums[step * columns + lanes - i * columns..];
                    let chunk = self.parts() * self.task();
                    with_vectors(TransformSums::<K, N> {
                        sums,
                        step: point,
                        chunk,
                        chunks: self.chunks,
                        taps: &mut taps,
                    });
                    for output in 0..LANES.min(outputs - lanes) {
                        for (tap, values) in taps.as_flattened().iter().enumerate() {
                            let at = ((part.group * outputs + lanes + output) * K * K + tap) * all
                                + part.channels.start
                                + step;
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
struct TransformGradients<'a, const N: usize> {
    dy: &'a [f32],
    places: &'a [usize; OUTPUTS * OUTPUTS],
    columns: usize,
    bias: &'a mut [f32],
    to: &'a mut [f32],
    step: usize,
}

impl<const N: usize> Work for TransformGradients<'_, N>
where
    OutputGradient: Along<OUTPUTS, N>,
{
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let (columns, outputs) = (self.columns, self.bias.len());
        let mut part = Strip { work: self, channel: 0, count: 0 };
        for channel in (0..columns).step_by(V::LANES) {
            (part.channel, part.count) = (channel, V::LANES.min(outputs.saturating_sub(channel)));
            // SAFETY: the caller's promise.
            unsafe {
                if part.count > 0 {
                    // Columns apart, as each addition waits for the one before it.
                    let mut sums = [Wide::<V>::zero(); OUTPUTS];
                    for places in part.work.places.chunks_exact(OUTPUTS) {
                        for (sum, place) in sums.iter_mut().zip(places) {
                            *sum = *sum + pixel(part.work.dy, *place, channel, part.count);
                        }
                    }
                    let [a, b, c, d] = sums;
                    let bias = &mut part.work.bias[channel..channel + part.count];
                    (Wide::load(bias) + (a + b + (c + d))).store(bias);
                }
                both::<OutputGradient, V, OUTPUTS, N>(&mut part);
            }
        }
    }
}

impl<V: Vector, const N: usize> Channels<V> for Strip<TransformGradients<'_, N>> {
    #[inline(always)]
    unsafe fn load(&self, row: usize, column: usize) -> Wide<V> {
        // SAFETY: the caller's promise.
        unsafe { pixel(self.work.dy, self.work.places[row * OUTPUTS + column], self.channel, self.count) }
    }
    #[inline(always)]
    fn store(&mut self, row: usize, column: usize, value: Wide<V>) {
        let at = (row * N + column) * self.work.step + self.channel;
        value.store(&mut self.work.to[at..][..V::LANES]);
    }
}

/// Adds up [`LANES`] channels of the sums of some chunks, `chunk` elements apart, and transforms them to the gradients by a kernel of K x K; each point is `step`
/// elements after the last.
struct TransformSums<'a, const K: usize, const N: usize> {
    sums: &'a [f32],
    step: usize,
    chunk: usize,
    chunks: usize,
    taps: &'a mut [[[f32; LANES]; K]; K],
}

impl<const K: usize, const N: usize> Work for TransformSums<'_, K, N>
where
    FilterGradient: Along<N, K>,
{
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let mut part = Strip { work: self, channel: 0, count: V::LANES };
        for lane in (0..LANES).step_by(V::LANES) {
            part.channel = lane;
            // SAFETY: the caller's promise.
            unsafe { both::<FilterGradient, V, N, K>(&mut part) };
        }
    }
}

impl<V: Vector, const K: usize, const N: usize> Channels<V> for Strip<TransformSums<'_, K, N>> {
    #[inline(always)]
    unsafe fn load(&self, row: usize, column: usize) -> Wide<V> {
        let at = (row * N + column) * self.work.step + self.channel;
        // SAFETY: the caller's promise.
        let load = |i: usize| unsafe { Wide::load(&self.work.sums[at + i * self.work.chunk..][..V::LANES]) };
        (1..self.work.chunks).fold(load(0), |sum, i| sum + load(i))
    }
    #[inline(always)]
    fn store(&mut self, row: usize, column: usize, value: Wide<V>) {
        value.store(&mut self.work.taps[row][column][self.channel..]);
    }
}
