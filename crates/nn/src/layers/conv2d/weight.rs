//! Weight and bias gradient. The minibatch is cut into fixed chunks; each is summed in order, then the chunks are, so the result
//! does not depend on the number of workers.
//!
//! A block is neighbouring weights of a kernel x output channels; its inner dimension is the pixels of y.

use super::{
    device,
    geometry::{Params, cut_patch, fit},
    tiles_weight::WeightTiles,
};
use crate::tile::{MAX_BLOCK, MAX_COLUMNS, Sweep, Tile, copy, pack};
use alexnode_core::{
    Engine, Stage, Target,
    host::{Host, Shared},
    kernel::{Access, Args, Kernel},
};

/// Parts of a minibatch that are summed apart, and so at the same time: with more workers than this, times the groups, some have
/// nothing to do. Each needs its own sums. Changing it changes the bits.
const CHUNKS: usize = 8;
/// Elements of the pixels of y that a block sums at a time: 16 KiB, which stay in the first-level cache.
const PANEL: usize = 4 * 1024;

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
        let tile = Tile::new(kernel * x.c, y.c);
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
    /// Elements that a worker needs: a patch, and the packed pixels of y.
    fn worker(&self, p: &Params) -> usize {
        self.patch.next_multiple_of(Tile::UNIT) + self.panels * self.rows * p.y().w * self.tile.columns
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
    let [kernel, stride, padding] = [p.kernel, p.stride, p.padding].map(|v| v as usize);
    let x = &x[image * x_plane.image() + group * x_plane.c..];
    let dy = &dy[image * y_plane.image() + group * y_plane.c..];
    let (patch, packed) = space.split_at_mut(plan.patch.next_multiple_of(Tile::UNIT));
    let Tile { rows: many, columns, .. } = plan.tile;
    let (pitch, row) = (plan.cols * x_plane.c, kernel * x_plane.c);
    for top in (0..y_plane.h).step_by(plan.rows) {
        let rows = plan.rows.min(y_plane.h - top);
        let pixels = rows * y_plane.w;
        let height = (rows - 1) * stride + kernel;
        let corner = ((top * stride) as isize - padding as isize, -(padding as isize));
        cut_patch(patch, x, &x_plane, corner, height, plan.cols);
        let dy = &dy[top * y_plane.w * y_plane.ld..];
        for (panel, packed) in packed.chunks_exact_mut(pixels * columns).take(plan.panels).enumerate() {
            let width = columns.min(y_plane.c - panel * columns);
            for (to, from) in packed.chunks_exact_mut(columns).zip(dy[panel * columns..].chunks(y_plane.ld)) {
                pack(to, &from[..width]);
            }
        }
        let sweep = Sweep {
            segments: rows,
            len: y_plane.w,
            a_step: stride * x_plane.c,
            a_segment: stride * pitch,
            b_step: columns,
            b_segment: y_plane.w * columns,
        };
        for (panel, sums) in packed.chunks_exact(pixels * columns).zip(sums.chunks_exact_mut(plan.sums)) {
            let (weights, bias) = sums.split_at_mut(p.weights() * columns);
            for pixel in panel.chunks_exact(columns) {
                bias.iter_mut().zip(pixel).for_each(|(sum, d)| *sum += d);
            }
            for (r, weights) in weights.chunks_exact_mut(row * columns).enumerate() {
                for (step, weights) in weights.chunks_mut(many * columns).enumerate() {
                    // Rows beyond the kernel's compute the last one again.
                    let offsets = std::array::from_fn(|i| r * pitch + (step * many + i).min(row - 1));
                    if weights.len() == many * columns {
                        plan.tile.accumulate(&sweep, patch, &offsets, panel, weights);
                    } else {
                        let mut block = [0.0; MAX_BLOCK];
                        copy(&mut block[..weights.len()], weights);
                        plan.tile.accumulate(&sweep, patch, &offsets, panel, &mut block);
                        copy(weights, &block[..weights.len()]);
                    }
                }
            }
        }
    }
}
