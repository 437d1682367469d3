//! Forward and data gradient of 3 x 3 kernels by minimal filtering (`minimal`): a task transforms some rows of tiles, multiplies them with the transformed weights, one
//! product of matrices for each of the 36 points, and transforms the results back, one panel of output channels after the other.

use super::{
    geometry::{Params, Plane},
    minimal::{INPUTS, LANES, OUTPUTS, POINTS, Wide, both, filter, input, output},
    pass::{Finish, Pass, ZEROS},
};
use crate::tile::{MAX_ROWS, Sweep};
use alexnode_core::host::{Host, Shared};
use multiversion::multiversion;

/// Elements of a task's transformed inputs: 4 MiB. Fewer would stay in the second-level cache, but then all weights come from beyond it too often.
const TRANSFORMED: usize = 1 << 20;

/// Tiles of all images, row after row of them.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    /// Rows and columns of tiles of an image.
    pub tiles: (usize, usize),
    /// Rows and columns of what they are made of: outputs.
    count: (usize, usize),
    /// The first input of the first tile.
    corner: (isize, isize),
}

/// Where a pixel of a tile that lies outside of the image begins.
const OUTSIDE: usize = usize::MAX;

impl Grid {
    pub fn new(count: (usize, usize), corner: (isize, isize)) -> Self {
        Self { tiles: (count.0.div_ceil(OUTPUTS), count.1.div_ceil(OUTPUTS)), count, corner }
    }
    /// Where the inputs of tile `column` in row `row` of all rows of tiles begin.
    pub fn inputs(&self, plane: &Plane, row: usize, column: usize) -> [usize; POINTS] {
        let (image, top) = (row / self.tiles.0, row % self.tiles.0 * OUTPUTS);
        std::array::from_fn(|i| {
            let y = (top + i / INPUTS) as isize + self.corner.0;
            let x = (column * OUTPUTS + i % INPUTS) as isize + self.corner.1;
            let inside = (0..plane.h as isize).contains(&y) && (0..plane.w as isize).contains(&x);
            if inside { ((image * plane.h + y as usize) * plane.w + x as usize) * plane.ld } else { OUTSIDE }
        })
    }
    /// Likewise its outputs.
    pub fn outputs(&self, plane: &Plane, row: usize, column: usize) -> [usize; OUTPUTS * OUTPUTS] {
        let (image, top) = (row / self.tiles.0, row % self.tiles.0 * OUTPUTS);
        std::array::from_fn(|i| {
            let (y, x) = (top + i / OUTPUTS, column * OUTPUTS + i % OUTPUTS);
            let inside = y < self.count.0 && x < self.count.1;
            if inside { ((image * plane.h + y) * plane.w + x) * plane.ld } else { OUTSIDE }
        })
    }
    /// Rows of tiles that a task takes, where each tile has `elements`: so many that they reach `most`, but at least two tasks for every worker.
    pub fn rows(&self, batch: usize, groups: usize, elements: usize, most: usize, workers: usize) -> usize {
        let all = batch * self.tiles.0;
        let fit = most / (self.tiles.1 * elements).max(1);
        fit.min((all * groups).div_ceil(2 * workers)).clamp(1, all)
    }
}

/// Elements from one point to the next where a point has `elements`. Were it a multiple of 4 KiB, all points of a tile would share a few lines of the first-level cache.
pub fn apart(elements: usize) -> usize {
    elements.next_multiple_of(1024) + LANES
}

/// Whether minimal filtering pays: at least two thirds of what tiles compute is asked for, and sums are long. The same on one slot as on two, where only the number of
/// outputs differs.
pub fn suits(p: &Params, count: (usize, usize), inner: usize) -> bool {
    let tiles = count.0.div_ceil(OUTPUTS) * count.1.div_ceil(OUTPUTS);
    p.kernel == 3 && p.stride == 1 && inner >= LANES && count.0 * count.1 >= 8 * tiles
}

/// `count` channels of a pixel, at most [`LANES`].
#[inline(always)]
pub fn pixel(image: &[f32], at: usize, channel: usize, count: usize) -> Wide {
    if at == OUTSIDE {
        return Wide::ZERO;
    }
    Wide::load(&image[at + channel..][..count])
}

/// Transforms `channels` channels of a tile's inputs to `to`, where each point is `step` elements after the last.
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2"))]
pub fn transform_inputs(image: &[f32], places: &[usize; POINTS], channels: usize, to: &mut [f32], step: usize) {
    let mut half = [[Wide::ZERO; INPUTS]; INPUTS];
    for channel in (0..channels).step_by(LANES) {
        let count = LANES.min(channels - channel);
        both(
            input,
            &mut half,
            |i, j| pixel(image, places[i * INPUTS + j], channel, count),
            |i, j, value| value.store(&mut to[(i * INPUTS + j) * step + channel..][..count]),
        );
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
        if !suits(p, pass.count, pass.source.c) {
            return None;
        }
        let grid = Grid::new(pass.count, pass.corner);
        let rows = grid.rows(pass.batch, pass.groups, POINTS * pass.source.c, TRANSFORMED, workers);
        Some(Self { pass, grid, rows })
    }
    /// Elements of all transformed weights: `[group][panel][point][input][output]`.
    fn weights(&self) -> usize {
        self.pass.groups * self.pass.panels() * self.panel()
    }
    fn panel(&self) -> usize {
        POINTS * apart(self.pass.source.c * self.pass.tile.columns)
    }
    /// Tiles of a task.
    fn tiles(&self) -> usize {
        self.rows * self.grid.tiles.1
    }
    /// Elements that a worker needs: transformed inputs `[point][tile][input]`, products `[point][tile][output]` of a panel.
    fn worker(&self) -> (usize, usize) {
        let each = |channels: usize| POINTS * apart(self.tiles() * channels);
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
        let (packed, space) = scratch.split_at_mut(self.weights());
        self.pack(host, weights, weight, packed);
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
            for tile in 0..tiles {
                let places = self.grid.inputs(&pass.source, at(tile).0, at(tile).1);
                let to = &mut inputs[tile * channels..];
                transform_inputs(image, &places, channels, to, apart(tiles * channels));
            }
            for panel in 0..pass.panels() {
                let packed = &packed[(group * pass.panels() + panel) * self.panel()..][..self.panel()];
                self.multiply(inputs, packed, products, tiles);
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
                    let (columns, bias) = (pass.tile.columns, finish.bias.map(|bias| &bias[channel..channel + width]));
                    let products = &products[tile * columns..];
                    transform_outputs(products, apart(tiles * columns), bias, finish.relu, width, &mut outputs);
                }
            }
        });
    }

    /// The products of a panel: for every point, `[tile][input]` times `[input][output]`.
    fn multiply(&self, inputs: &[f32], weights: &[f32], products: &mut [f32], tiles: usize) {
        let (inner, tile) = (self.pass.source.c, self.pass.tile);
        let sweep = Sweep { segments: 1, len: inner, a_step: 1, a_segment: 0, b_step: tile.columns, b_segment: 0 };
        let points = inputs.chunks_exact(apart(tiles * inner)).zip(weights.chunks_exact(apart(inner * tile.columns)));
        for ((inputs, weights), products) in points.zip(products.chunks_exact_mut(apart(tiles * tile.columns))) {
            for (block, products) in products[..tiles * tile.columns].chunks_mut(tile.elements()).enumerate() {
                let mut rows: [&mut [f32]; MAX_ROWS] = std::array::from_fn(|_| &mut [][..]);
                let mut valid = 0;
                for (row, products) in rows.iter_mut().zip(products.chunks_exact_mut(tile.columns)) {
                    *row = products;
                    valid += 1;
                }
                let mut offsets = std::array::from_fn(|i| (block * tile.rows + i) * inner);
                tile.accumulate_rows(&sweep, inputs, &mut offsets, weights, &mut rows[..valid], Some(&ZEROS), false);
            }
        }
    }

    /// Transforms and packs the weights.
    fn pack(
        &self,
        host: &dyn Host,
        weights: &[f32],
        weight: impl Fn(usize, usize, usize, usize) -> usize + Sync,
        packed: &mut [f32],
    ) {
        let (pass, columns) = (&self.pass, self.pass.tile.columns);
        let (inner, outputs) = (pass.source.c, pass.target.c);
        alexnode_core::host::parallel_chunks(host, packed, self.panel(), |i, panel| {
            let (group, from) = (i / pass.panels(), i % pass.panels() * columns);
            for step in 0..inner {
                for lanes in (0..columns).step_by(LANES) {
                    let mut filters = [[Wide::ZERO; 3]; 3];
                    for (tap, filters) in filters.as_flattened_mut().iter_mut().enumerate() {
                        for (output, value) in (from + lanes..outputs).zip(&mut filters.0) {
                            *value = weights[weight(group, output, step, tap)];
                        }
                    }
                    transform_filters(&filters, &mut panel[step * columns + lanes..], apart(inner * columns));
                }
            }
        });
    }
}

#[multiversion(targets("x86_64+avx512f", "x86_64+avx2"))]
fn transform_filters(filters: &[[Wide; 3]; 3], to: &mut [f32], step: usize) {
    let store = |i, j, value: Wide| value.store(&mut to[(i * INPUTS + j) * step..][..LANES]);
    both(filter, &mut [[Wide::ZERO; 3]; INPUTS], |i, j| filters[i][j], store);
}

/// Transforms the products of a tile, where each point is `step` elements after the last, to `width` channels of its outputs.
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2"))]
fn transform_outputs(
    products: &[f32],
    step: usize,
    bias: Option<&[f32]>,
    relu: bool,
    width: usize,
    outputs: &mut [Option<&mut [f32]>; OUTPUTS * OUTPUTS],
) {
    let mut half = [[Wide::ZERO; INPUTS]; OUTPUTS];
    for channel in (0..width).step_by(LANES) {
        let count = LANES.min(width - channel);
        let bias = match bias {
            Some(bias) => Wide::load(&bias[channel..channel + count]),
            None => Wide::ZERO,
        };
        both(
            output,
            &mut half,
            |i, j| Wide::load(&products[(i * INPUTS + j) * step + channel..][..LANES]),
            |i, j, value| {
                if let Some(output) = &mut outputs[i * OUTPUTS + j] {
                    let value = value + bias;
                    let value = if relu { value.relu() } else { value };
                    value.store(&mut output[channel..channel + count]);
                }
            },
        );
    }
}
