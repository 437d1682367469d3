//! Forward and data gradient of 3 x 3 and 5 x 5 kernels by minimal filtering (`winograd`): a task transforms some rows of tiles, multiplies them with the transformed weights, one
//! product of matrices for each of the 36 or 64 points, and transforms the results back, one panel of output channels after the other.

use super::{
    geometry::{Params, Plane},
    pass::{Finish, Pass},
    winograd::{Along, Channels, Filter, Input, LANES, MOST_POINTS, OUTPUTS, Output, Wide, both, inputs},
};
use crate::tile::{Vector, Work, with_vectors};
use alexnode_core::host::{Host, Shared};

/// Elements of a task's transformed inputs and products: 1 MiB, half of the second-level cache of a large core.
const TRANSFORMED: usize = 1 << 18;

/// Tiles of all images, row after row of them.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    /// Rows and columns of tiles of an image.
    pub tiles: (usize, usize),
    /// Inputs of a tile along an axis.
    pub inputs: usize,
    /// Rows and columns of outputs.
    count: (usize, usize),
    /// The first input of the first tile.
    corner: (isize, isize),
}

/// Where a pixel of a tile that lies outside of the image begins.
const OUTSIDE: usize = usize::MAX;

impl Grid {
    /// `None` where minimal filtering would not save half of the products, or sums are short. The same on one slot as on two, where only the number of outputs differs.
    pub fn new(p: &Params, inner: usize, count: (usize, usize), corner: (isize, isize)) -> Option<Self> {
        let kernel = p.kernel as usize;
        if !matches!(kernel, 3 | 5) || p.stride != 1 || inner < LANES {
            return None;
        }
        let inputs = inputs(kernel);
        let tiles = (count.0.div_ceil(OUTPUTS), count.1.div_ceil(OUTPUTS));
        let saves = kernel * kernel * count.0 * count.1 >= 2 * inputs * inputs * tiles.0 * tiles.1;
        saves.then_some(Self { tiles, inputs, count, corner })
    }
    /// Products of a tile and channel.
    pub fn points(&self) -> usize {
        self.inputs * self.inputs
    }
    /// Where the inputs of tile `column` in row `row` of all rows of tiles begin.
    pub fn inputs(&self, plane: &Plane, row: usize, column: usize) -> [usize; MOST_POINTS] {
        let top = (row % self.tiles.0 * OUTPUTS) as isize + self.corner.0;
        let left = (column * OUTPUTS) as isize + self.corner.1;
        let image = row / self.tiles.0 * plane.h;
        let mut places = [OUTSIDE; MOST_POINTS];
        for (places, y) in places[..self.points()].chunks_exact_mut(self.inputs).zip(top..) {
            if !(0..plane.h as isize).contains(&y) {
                continue;
            }
            let row = (image + y as usize) * plane.w;
            for (place, x) in places.iter_mut().zip(left..) {
                if (0..plane.w as isize).contains(&x) {
                    *place = (row + x as usize) * plane.ld;
                }
            }
        }
        places
    }
    /// Likewise its outputs, row after row.
    pub fn outputs(&self, plane: &Plane, row: usize, column: usize) -> [usize; OUTPUTS * OUTPUTS] {
        let (top, left) = (row % self.tiles.0 * OUTPUTS, column * OUTPUTS);
        let image = row / self.tiles.0 * plane.h;
        let mut places = [OUTSIDE; OUTPUTS * OUTPUTS];
        for (places, y) in places.chunks_exact_mut(OUTPUTS).zip(top..self.count.0) {
            for (place, x) in places.iter_mut().zip(left..self.count.1) {
                *place = ((image + y) * plane.w + x) * plane.ld;
            }
        }
        places
    }
}

/// Elements from one point to the next where a point has `elements`. Were it a multiple of 4 KiB, all points of a tile would share a few lines of the first-level cache.
pub fn apart(elements: usize) -> usize {
    elements.next_multiple_of(1024) + LANES
}

/// `count` channels of a pixel.
///
/// # Safety
/// The processor has the instructions of `V`.
#[inline(always)]
pub unsafe fn pixel<V: Vector>(image: &[f32], at: usize, channel: usize, count: usize) -> Wide<V> {
    // SAFETY: the caller's promise.
    unsafe { if at == OUTSIDE || count == 0 { Wide::zero() } else { Wide::load(&image[at + channel..][..count]) } }
}

/// Transforms `channels` channels of a tile's inputs to `to`, where each point is `step` elements after the last.
pub struct TransformInputs<'a, const N: usize> {
    pub image: &'a [f32],
    /// The first N x N of them.
    pub places: &'a [usize; MOST_POINTS],
    pub channels: usize,
    pub to: &'a mut [f32],
    pub step: usize,
}

impl<const N: usize> Work for TransformInputs<'_, N>
where
    Input: Along<N, N>,
{
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let all = self.channels;
        let mut part = Strip { work: self, channel: 0, count: 0 };
        for channel in (0..all).step_by(V::LANES) {
            (part.channel, part.count) = (channel, V::LANES.min(all - channel));
            // SAFETY: the caller's promise.
            unsafe { both::<Input, V, N, N>(&mut part) };
        }
    }
}

/// `count` channels from `channel` on of all that are to be transformed.
pub struct Strip<W> {
    pub work: W,
    pub channel: usize,
    pub count: usize,
}

impl<V: Vector, const N: usize> Channels<V> for Strip<TransformInputs<'_, N>> {
    #[inline(always)]
    unsafe fn load(&self, row: usize, column: usize) -> Wide<V> {
        // SAFETY: the caller's promise.
        unsafe { pixel(self.work.image, self.work.places[row * N + column], self.channel, self.count) }
    }
    #[inline(always)]
    fn store(&mut self, row: usize, column: usize, value: Wide<V>) {
        let at = (row * N + column) * self.work.step + self.channel;
        value.store(&mut self.work.to[at..][..self.count]);
    }
}

/// A pass by tiles.
pub struct Tiles {
    pass: Pass,
    grid: Grid,
    /// Rows of tiles of a task.
    rows: usize,
}

impl Tiles {
    /// `None` where the direct way is better.
    pub fn new(p: &Params, pass: Pass, workers: usize) -> Option<Self> {
        let grid = Grid::new(p, pass.source.c, pass.count, pass.corner)?;
        // Many weights are to be read for many tiles at a time. At least two tasks for every worker; no sum changes by it.
        let weights = grid.points() * pass.source.c * pass.panels() * pass.tile.columns;
        let each = grid.tiles.1 * grid.points() * (pass.source.c + pass.tile.columns);
        let all = pass.batch * grid.tiles.0;
        let rows = (TRANSFORMED.max(weights / 4) / each).min((all * pass.groups).div_ceil(2 * workers)).clamp(1, all);
        Some(Self { pass, grid, rows })
    }
    /// Elements of all transformed weights: `[group][panel][point][input][output]`.
    fn weights(&self) -> usize {
        self.pass.groups * self.pass.panels() * self.panel()
    }
    fn panel(&self) -> usize {
        self.grid.points() * apart(self.pass.source.c * self.pass.tile.columns)
    }
    /// Tiles of a task that has `rows` rows of them, with those that fill the last block.
    fn tiles(&self, rows: usize) -> usize {
        (rows * self.grid.tiles.1).next_multiple_of(self.pass.tile.rows)
    }
    /// Elements that a worker needs: transformed inputs `[point][tile][input]`, products `[point][tile][output]` of a panel.
    fn worker(&self) -> (usize, usize) {
        let each = |channels: usize| self.grid.points() * apart(self.tiles(self.rows) * channels);
        (each(self.pass.source.c), each(self.pass.tile.columns))
    }
    /// Elements of scratch.
    pub fn scratch(&self, workers: usize) -> usize {
        let (inputs, products) = self.worker();
        self.weights() + workers * (inputs + products)
    }

    /// Runs the pass; `weight` is the index of the weight of a group, an output and an input at a row and a column of the kernel.
    pub fn run(
        &self,
        host: &dyn Host,
        source: &[f32],
        weights: &[f32],
        weight: impl Fn(usize, usize, usize, usize) -> usize + Sync,
        finish: Finish<'_>,
        target: &Shared<'_, f32>,
        scratch: &mut [f32],
    ) {
        match self.grid.inputs {
            6 => self.run_sized::<3, 6>(host, source, weights, weight, finish, target, scratch),
            _ => self.run_sized::<5, 8>(host, source, weights, weight, finish, target, scratch),
        }
    }

    /// A kernel of K on N inputs.
    fn run_sized<const K: usize, const N: usize>(
        &self,
        host: &dyn Host,
        source: &[f32],
        weights: &[f32],
        weight: impl Fn(usize, usize, usize, usize) -> usize + Sync,
        finish: Finish<'_>,
        target: &Shared<'_, f32>,
        scratch: &mut [f32],
    ) where
        Input: Along<N, N>,
        Filter: Along<K, N>,
        Output: Along<N, OUTPUTS>,
    {
        let (packed, space) = scratch.split_at_mut(self.weights());
        self.pack::<K, N>(host, weights, weight, packed);
        let (packed, space, pass) = (&*packed, Shared::new(space), &self.pass);
        let (all, (inputs, products)) = (pass.batch * self.grid.tiles.0, self.worker());
        let tasks = all.div_ceil(self.rows);
        host.parallel(tasks * pass.groups, &|task, worker| {
            let (first, group) = (task / pass.groups * self.rows, task % pass.groups);
            let rows = first..all.min(first + self.rows);
            // SAFETY: every worker has its own space, and runs one task at a time.
            let space = unsafe { space.range(worker * (inputs + products), inputs + products) };
            let (inputs, products) = space.split_at_mut(inputs);
            let (channels, across) = (pass.source.c, self.grid.tiles.1);
            let tiles = rows.len() * across;
            let at = |tile: usize| (rows.start + tile / across, tile % across);
            let image = &source[group * channels..];
            // Those beyond `tiles` hold whatever lies there, and nobody reads their products.
            let filled = self.tiles(rows.len());
            let step = apart(filled * channels);
            for tile in 0..tiles {
                let places = self.grid.inputs(&pass.source, at(tile).0, at(tile).1);
                let to = &mut inputs[tile * channels..];
                with_vectors(TransformInputs::<N> { image, places: &places, channels, to, step });
            }
            for panel in 0..pass.panels() {
                let packed = &packed[(group * pass.panels() + panel) * self.panel()..][..self.panel()];
                self.multiply(inputs, packed, products, filled);
                let from = panel * pass.tile.columns;
                let width = pass.tile.columns.min(pass.target.c - from);
                let channel = group * pass.target.c + from;
                for tile in 0..tiles {
                    let places = self.grid.outputs(&pass.target, at(tile).0, at(tile).1);
                    let mut outputs = places.map(|place| match place {
                        OUTSIDE => None,
                        // SAFETY: these outputs of this group's panel belong to this task.
                        place => Some(unsafe { target.range(place + channel, width) }),
                    });
                    let columns = pass.tile.columns;
                    with_vectors(TransformOutputs::<N> {
                        products: &products[tile * columns..],
                        step: apart(filled * columns),
                        bias: finish.bias.map(|bias| &bias[channel..channel + width]),
                        relu: finish.relu,
                        width,
                        outputs: &mut outputs,
                    });
                }
            }
        });
    }

    /// The products of a panel: for every point, `[tile][input]` times `[input][output]`.
    fn multiply(&self, inputs: &[f32], weights: &[f32], products: &mut [f32], tiles: usize) {
        let (inner, tile) = (self.pass.source.c, self.pass.tile);
        let points = inputs.chunks_exact(apart(tiles * inner)).zip(weights.chunks_exact(apart(inner * tile.columns)));
        let products = products.chunks_exact_mut(apart(tiles * tile.columns)).take(self.grid.points());
        for ((inputs, weights), products) in points.zip(products) {
            tile.multiply(&inputs[..tiles * inner], inner, weights, &mut products[..tiles * tile.columns]);
        }
    }

    /// Transforms and packs the weights.
    fn pack<const K: usize, const N: usize>(
        &self,
        host: &dyn Host,
        weights: &[f32],
        weight: impl Fn(usize, usize, usize, usize) -> usize + Sync,
        packed: &mut [f32],
    ) where
        Filter: Along<K, N>,
    {
        let (pass, columns) = (&self.pass, self.pass.tile.columns);
        let (inner, outputs) = (pass.source.c, pass.target.c);
        alexnode_core::host::parallel_chunks(host, packed, self.panel(), |i, panel| {
            let (group, from) = (i / pass.panels(), i % pass.panels() * columns);
            for step in 0..inner {
                for lanes in (0..columns).step_by(LANES) {
                    let mut filters = [[[0.0; LANES]; K]; K];
                    for (tap, filters) in filters.as_flattened_mut().iter_mut().enumerate() {
                        for (output, value) in (from + lanes..outputs).zip(filters) {
                            *value = weights[weight(group, output, step, tap)];
                        }
                    }
                    let (to, step) = (&mut panel[step * columns + lanes..], apart(inner * columns));
                    with_vectors(TransformFilters { filters: &filters, to, step });
                }
            }
        });
    }
}

/// Transforms kernels of K x K to `to`, where each point is `step` elements after the last.
struct TransformFilters<'a, const K: usize, const N: usize> {
    filters: &'a [[[f32; LANES]; K]; K],
    to: &'a mut [f32],
    step: usize,
}

impl<const K: usize, const N: usize> Work for TransformFilters<'_, K, N>
where
    Filter: Along<K, N>,
{
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let mut part = Strip { work: self, channel: 0, count: V::LANES };
        for lane in (0..LANES).step_by(V::LANES) {
            part.channel = lane;
            // SAFETY: the caller's promise.
            unsafe { both::<Filter, V, K, N>(&mut part) };
        }
    }
}

impl<V: Vector, const K: usize, const N: usize> Channels<V> for Strip<TransformFilters<'_, K, N>> {
    #[inline(always)]
    unsafe fn load(&self, row: usize, column: usize) -> Wide<V> {
        // SAFETY: the caller's promise.
        unsafe { Wide::load(&self.work.filters[row][column][self.channel..]) }
    }
    #[inline(always)]
    fn store(&mut self, row: usize, column: usize, value: Wide<V>) {
        let at = (row * N + column) * self.work.step + self.channel;
        value.store(&mut self.work.to[at..][..V::LANES]);
    }
}

/// Transforms the products of a tile of N x N, where each point is `step` elements after the last, to `width` channels of its outputs.
struct TransformOutputs<'a, 'b, const N: usize> {
    products: &'a [f32],
    step: usize,
    bias: Option<&'a [f32]>,
    relu: bool,
    width: usize,
    outputs: &'a mut [Option<&'b mut [f32]>; OUTPUTS * OUTPUTS],
}

impl<const N: usize> Work for TransformOutputs<'_, '_, N>
where
    Output: Along<N, OUTPUTS>,
{
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let width = self.width;
        let mut part = Strip { work: self, channel: 0, count: 0 };
        for channel in (0..width).step_by(V::LANES) {
            (part.channel, part.count) = (channel, V::LANES.min(width - channel));
            // SAFETY: the caller's promise.
            unsafe { both::<Output, V, N, OUTPUTS>(&mut part) };
        }
    }
}

impl<V: Vector, const N: usize> Channels<V> for Strip<TransformOutputs<'_, '_, N>> {
    #[inline(always)]
    unsafe fn load(&self, row: usize, column: usize) -> Wide<V> {
        let at = (row * N + column) * self.work.step + self.channel;
        // SAFETY: the caller's promise.
        unsafe { Wide::load(&self.work.products[at..][..V::LANES]) }
    }
    #[inline(always)]
    fn store(&mut self, row: usize, column: usize, mut value: Wide<V>) {
        let channels = self.channel..self.channel + self.count;
        let Some(output) = &mut self.work.outputs[row * OUTPUTS + column] else { return };
        if let Some(bias) = self.work.bias {
            // SAFETY: there is a value, so the processor has the instructions.
            value = value + unsafe { Wide::load(&bias[channels.clone()]) };
        }
        if self.work.relu {
            value = value.relu();
        }
        value.store(&mut output[channels]);
    }
}
