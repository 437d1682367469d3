//! Weight and bias gradient. The minibatch is cut into fixed chunks; each is summed in order, then the chunks are, so the result
//! does not depend on the number of workers.
//!
//! A block is neighbouring weights of a kernel x output channels; its inner dimension is the pixels of y.

use super::{
    device,
    geometry::{Params, cut_patch, fit},
    tiles_weight::WeightTiles,
};
use crate::tile::{MAX_COLUMNS, MAX_ROWS, Sweep, Tile, Vector, Work, pack, with_vectors};
use alexnode_core::{
    Engine, Stage, Target,
    host::{Host, Shared},
    kernel::{Access, Args, Kernel},
};

/// Parts of a minibatch that are summed apart, and so at the same time: with more workers than this, times the groups, some have
/// nothing to do. Each needs its own sums. Changing it changes the bits.
pub(super) const CHUNKS: usize = 8;
/// Elements of the pixels of y that a block sums at a time: 16 KiB, which stay in the first-level cache.
const PANEL: usize = 4 * 1024;

/// Sums of pixels that are added up side by side.
const AT_ONCE: usize = 4;

/// Sizes that all parts of the computation share.
struct Plan {
    /// Images of a chunk, and chunks.
    images: usize,
    chunks: usize,
    /// Rows of y that are handled at a time.
    rows: usize,
    /// Columns and elements of a patch.
    cols: usize,
    patch: usize,
    tile: Tile,
    /// Blocks of a tile's output channels of a group.
    panels: usize,
    /// Elements of the sums of one panel: weights, then biases.
    sums: usize,
}

impl Plan {
    fn new(p: &Params) -> Self {
        let (x, y, batch) = (p.x(), p.y(), p.batch as usize);
        let (kernel, stride) = (p.kernel as usize, p.stride as usize);
        let images = batch.div_ceil(CHUNKS);
        let tile = Tile::new(p.weights(), y.c);
        let rows = fit(y.h, y.w, 0, PANEL / tile.columns);
        let cols = (y.w - 1) * stride + kernel;
        Self {
            images,
            chunks: batch.div_ceil(images),
            rows,
            cols,
            patch: ((rows - 1) * stride + kernel) * cols * x.c,
            tile,
            panels: y.c.div_ceil(tile.columns),
            sums: (p.weights() + 1) * tile.columns,
        }
    }
    /// Elements that a worker needs: a patch, and the packed pixels of y where the last panel is not full.
    fn worker(&self, p: &Params) -> usize {
        let packed =
            if p.y().c.is_multiple_of(self.tile.columns) { 0 } else { self.rows * p.y().w * self.tile.columns };
        self.patch.next_multiple_of(Tile::UNIT) + packed
    }
    /// Elements of the sums of a chunk.
    fn partial(&self, p: &Params) -> usize {
        p.groups() * self.panels * self.sums
    }
}

/// Bytes of scratch.
fn scratch(p: &Params, workers: usize) -> usize {
    if let Some(tiles) = WeightTiles::new(p, workers) {
        return tiles.scratch(workers) * 4;
    }
    let plan = Plan::new(p);
    (plan.chunks * plan.partial(p) + workers * plan.worker(p)) * 4
}

/// dw and dbias from x and dy. Arguments: x, dy, dw, dbias, scratch.
pub(crate) struct Conv2dWeightGradient;

impl Kernel for Conv2dWeightGradient {
    type Params = Params;
    const NAME: &'static str = "conv2d_weight_gradient";
    const SOURCE: &'static str = "conv2d.cu";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Read, Access::Write, Access::Write, Access::Scratch];
    fn scratch(p: &Params, engine: Engine) -> usize {
        match engine {
            Engine::Host { workers } => scratch(p, workers),
            Engine::Cuda(_) => device::weight_gradient_scratch(p),
        }
    }
    fn run(p: &Params, args: &Args<'_>, host: &dyn Host) {
        let (x, dy) = (args.read::<f32>(0), args.read::<f32>(1));
        let (dw, db) = (args.write::<f32>(2), args.write::<f32>(3));
        if let Some(tiles) = WeightTiles::new(p, host.workers()) {
            return tiles.run(host, x, dy, dw, db, args.write(4));
        }
        let (dw, db) = (Shared::new(dw), Shared::new(db));
        let plan = Plan::new(p);
        let (partials, space) = args.write::<f32>(4).split_at_mut(plan.chunks * plan.partial(p));
        let (size, space) = (plan.worker(p), Shared::new(space));
        {
            let partials = Shared::new(partials);
            host.parallel(plan.chunks * p.groups(), &|task, worker| {
                let (chunk, group) = (task / p.groups(), task % p.groups());
                let group_sums = plan.panels * plan.sums;
                // SAFETY: every chunk and group has its own sums; every worker its own space.
                let (sums, space) =
                    unsafe { (partials.range(task * group_sums, group_sums), space.range(worker * size, size)) };
                sums.fill(0.0);
                for image in chunk * plan.images..(p.batch as usize).min((chunk + 1) * plan.images) {
                    add_image(p, &plan, x, dy, image, group, sums, space);
                }
            });
        }
        // Sums over the chunks, in order, and back to the order of the weights.
        let outputs = p.y().c;
        let (weights, partial, columns) = (p.weights(), plan.partial(p), plan.tile.columns);
        let partials = &*partials;
        host.parallel(p.groups() * plan.panels, &|task, _| {
            let (group, channel) = (task / plan.panels, task % plan.panels * columns);
            let width = columns.min(outputs - channel);
            let first = group * outputs + channel;
            // SAFETY: these output channels belong to this task.
            let (dw, db) = unsafe { (dw.range(first * weights, width * weights), db.range(first, width)) };
            for step in 0..=weights {
                let mut total = [0.0; MAX_COLUMNS];
                for chunk in 0..plan.chunks {
                    let sums = &partials[chunk * partial + task * plan.sums + step * columns..][..columns];
                    total.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
                }
                for (j, total) in total[..width].iter().enumerate() {
                    if step < weights {
                        dw[j * weights + step] = *total;
                    } else {
                        db[j] = *total;
                    }
                }
            }
        });
    }
    fn stages(p: &Params, target: &Target) -> Vec<Stage> {
        device::weight_gradient(p, Self::NAME, target)
    }
}

/// Adds the gradient of one image and group to `sums`.
fn add_image(
    p: &Params,
    plan: &Plan,
    x: &[f32],
    dy: &[f32],
    image: usize,
    group: usize,
    sums: &mut [f32],
    space: &mut [f32],
) {
    let (x_plane, y_plane) = (p.x(), p.y());
    let [stride, padding] = [p.stride, p.padding].map(|v| v as usize);
    let x = &x[image * x_plane.image() + group * x_plane.c..];
    let dy = &dy[image * y_plane.image() + group * y_plane.c..];
    let (patch, packed) = space.split_at_mut(plan.patch.next_multiple_of(Tile::UNIT));
    let columns = plan.tile.columns;
    let pitch = plan.cols * x_plane.c;
    for top in (0..y_plane.h).step_by(plan.rows) {
        let rows = plan.rows.min(y_plane.h - top);
        let height = (rows - 1) * stride + p.kernel as usize;
        let corner = ((top * stride) as isize - padding as isize, -(padding as isize));
        cut_patch(patch, x, &x_plane, corner, height, plan.cols);
        let sweep = Sweep {
            segments: rows,
            len: y_plane.w,
            a_step: stride * x_plane.c,
            a_segment: stride * pitch,
            b_step: y_plane.ld,
            b_segment: y_plane.w * y_plane.ld,
        };
        let dy = &dy[top * y_plane.w * y_plane.ld..];
        for (panel, sums) in sums.chunks_exact_mut(plan.sums).enumerate() {
            let (weights, bias) = sums.split_at_mut(p.weights() * columns);
            let dy = &dy[panel * columns..];
            let width = columns.min(y_plane.c - panel * columns);
            if width == columns {
                add_taps(p, plan, &sweep, patch, dy, weights);
                with_vectors(AddPixels { pixels: dy, step: y_plane.ld, rows, count: y_plane.w, sums: bias });
                continue;
            }
            // The last panel's outputs, then zeros.
            let packed = &mut packed[..rows * y_plane.w * columns];
            for (to, from) in packed.chunks_exact_mut(columns).zip(dy.chunks(y_plane.ld)) {
                pack(to, &from[..width]);
            }
            let sweep = Sweep { b_step: columns, b_segment: y_plane.w * columns, ..sweep };
            add_taps(p, plan, &sweep, patch, packed, weights);
            with_vectors(AddPixels { pixels: packed, step: columns, rows, count: y_plane.w, sums: bias });
        }
    }
}

/// Adds the products of a panel's pixels of y with those that every weight meets in `patch` to `weights`.
fn add_taps(p: &Params, plan: &Plan, sweep: &Sweep, patch: &[f32], pixels: &[f32], weights: &mut [f32]) {
    let (channels, Tile { rows: many, columns, .. }) = (p.x().c, plan.tile);
    let (pitch, row) = (plan.cols * channels, p.kernel as usize * channels);
    // Blocks run on over the rows of the kernel, which alone would leave them half empty.
    let (mut start, mut left) = (0, row);
    for weights in weights.chunks_mut(many * columns) {
        let mut offsets = [0; MAX_ROWS];
        for offset in &mut offsets[..weights.len() / columns] {
            *offset = start;
            (start, left) = (start + 1, left - 1);
            if left == 0 {
                (start, left) = (start + pitch - row, row);
            }
        }
        if weights.len() == many * columns {
            plan.tile.accumulate(sweep, patch, &offsets, pixels, weights);
            continue;
        }
        let mut rows: [&mut [f32]; MAX_ROWS] = std::array::from_fn(|_| &mut [][..]);
        let mut valid = 0;
        for (row, weights) in rows.iter_mut().zip(weights.chunks_exact_mut(columns)) {
            *row = weights;
            valid += 1;
        }
        plan.tile.accumulate_rows(sweep, patch, &mut offsets, pixels, &mut rows[..valid], None, false);
    }
}

/// Adds `rows` of `count` pixels, each `step` elements after the last, to `sums`, row by row: how many rows are handled at a time depends on the outputs, of
/// which a slot may have half.
struct AddPixels<'a> {
    pixels: &'a [f32],
    step: usize,
    rows: usize,
    count: usize,
    sums: &'a mut [f32],
}

impl Work for AddPixels<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Self { pixels, step, rows, count, sums } = self;
        assert!(
            (rows * count - 1) * step + sums.len() <= pixels.len() && sums.len() % Tile::UNIT == 0,
            "a pixel is missing"
        );
        for (i, sums) in sums.chunks_exact_mut(V::LANES).enumerate() {
            // SAFETY: the pixels are there (checked above); the processor has the instructions (the caller's promise).
            unsafe {
                let mut total = V::load(sums.as_ptr());
                for first in (0..rows).map(|row| row * count) {
                    let pixel = |at: usize| V::load(pixels.as_ptr().add((first + at) * step + i * V::LANES));
                    // Several sums, as each addition waits for the one before it.
                    let mut part = [V::splat(&0.0); AT_ONCE];
                    let whole = count - count % AT_ONCE;
                    for at in (0..whole).step_by(AT_ONCE) {
                        for (j, part) in part.iter_mut().enumerate() {
                            *part = part.add(pixel(at + j));
                        }
                    }
                    for at in whole..count {
                        part[0] = part[0].add(pixel(at));
                    }
                    let [a, b, c, d] = part;
                    total = total.add(a.add(b).add(c.add(d)));
                }
                total.store(sums.as_mut_ptr());
            }
        }
    }
}
