//! Every output position is a small fully connected layer on its own window. Forward and weight gradient are tasks per position and
//! group; the data gradient, where windows overlap, is tasks per block of images, which go through the positions in order.

use super::device;
use crate::{
    layers::conv2d::{Params, Plane, cut_patch},
    tile::{MAX_BLOCK, Sweep, Tile, copy, pack, pack_columns, relu},
};
use alexnode_core::{
    Engine, Stage, Target,
    host::{Host, Shared},
    kernel::{Access, Args, Kernel},
};

/// Images of a task of the data gradient: every task packs all weights anew, so not too few.
const IMAGES: usize = 24;

/// y from x. Arguments: x, w, bias, y, scratch.
pub(crate) struct Local2dForward;
/// dx from dy. Arguments: dy, w, dx, scratch.
pub(crate) struct Local2dDataGradient;
/// dw and dbias from x and dy. Arguments: x, dy, dw, dbias, scratch.
pub(crate) struct Local2dWeightGradient;

/// A position of y within one group.
#[derive(Clone, Copy)]
struct Place {
    /// Row and column of y.
    at: (usize, usize),
    /// First input channel, first output channel.
    input: usize,
    output: usize,
    /// The group's share of the position's weights begins at this output number.
    weights: usize,
}

impl Place {
    /// Number `index` of all positions and groups.
    fn new(p: &Params, index: usize) -> Self {
        let (group, position) = (index % p.groups(), index / p.groups());
        let at = (position / p.y().w, position % p.y().w);
        let output = group * p.y().c;
        Self { at, input: group * p.x().c, output, weights: position * p.groups() * p.y().c + output }
    }
    fn count(p: &Params) -> usize {
        p.y().h * p.y().w * p.groups()
    }
    /// The input pixel of the window's corner; may lie outside.
    fn corner(&self, p: &Params) -> (isize, isize) {
        let corner = |at: usize| (at * p.stride as usize) as isize - p.padding as isize;
        (corner(self.at.0), corner(self.at.1))
    }
    /// Where the outputs of the first image begin.
    fn y(&self, p: &Params) -> usize {
        (self.at.0 * p.y().w + self.at.1) * p.y().ld + self.output
    }
}

/// The tile of products whose columns are the output channels.
fn channels_tile(p: &Params) -> Tile {
    Tile::new(Tile::MANY, p.y().c)
}

/// The tile of products whose columns are the elements of a window.
fn window_tile(p: &Params) -> Tile {
    Tile::new(Tile::MANY, p.weights())
}

/// Elements from one window to the next where they are packed: the last vector of a row may read beyond it.
fn row(p: &Params) -> usize {
    p.weights().next_multiple_of(window_tile(p).columns)
}

fn windows(p: &Params) -> usize {
    p.batch as usize * row(p)
}

/// Bytes of scratch for forward: windows, packed weights.
fn forward_scratch(p: &Params, workers: usize) -> usize {
    workers * (windows(p) + p.weights() * channels_tile(p).columns) * 4
}

/// Bytes of scratch for the weight gradient: windows.
fn weight_scratch(p: &Params, workers: usize) -> usize {
    workers * windows(p) * 4
}

/// Bytes of scratch for the data gradient: gradients of windows, packed weights.
fn data_scratch(p: &Params, workers: usize) -> usize {
    workers * (IMAGES * row(p) + p.y().c * window_tile(p).columns) * 4
}

/// Packs the window of every image at `place`.
fn cut_windows(p: &Params, x: &[f32], place: &Place, windows: &mut [f32]) {
    let (plane, kernel) = (p.x(), p.kernel as usize);
    for (image, window) in windows.chunks_exact_mut(row(p)).enumerate() {
        let channels = &x[image * plane.image() + place.input..];
        cut_patch(window, channels, &plane, place.corner(p), kernel, kernel);
        window[p.weights()..].fill(0.0);
    }
}

impl Kernel for Local2dForward {
    type Params = Params;
    const NAME: &'static str = "local2d_forward";
    const SOURCE: &'static str = "local2d.cu";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Read, Access::Read, Access::Write, Access::Scratch];
    fn scratch(p: &Params, engine: Engine) -> usize {
        match engine {
            Engine::Host { workers } => forward_scratch(p, workers),
            Engine::Cuda(_) => 0,
        }
    }
    fn run(p: &Params, args: &Args<'_>, host: &dyn Host) {
        let (x, weights, bias) = (args.read::<f32>(0), args.read::<f32>(1), args.read::<f32>(2));
        let (y, space) = (Shared::new(args.write::<f32>(3)), Shared::new(args.write::<f32>(4)));
        let (inner, outputs, batch) = (p.weights(), p.y().c, p.batch as usize);
        let tile = channels_tile(p);
        let Tile { rows, columns, .. } = tile;
        let size = windows(p) + inner * columns;
        let sweep = Sweep { segments: 1, len: inner, a_step: 1, a_segment: 0, b_step: columns, b_segment: 0 };
        host.parallel(Place::count(p), &|task, worker| {
            let place = Place::new(p, task);
            // SAFETY: every worker has its own space, and runs one task at a time.
            let (windows, packed) = unsafe { space.range(worker * size, size) }.split_at_mut(windows(p));
            cut_windows(p, x, &place, windows);
            for channel in (0..outputs).step_by(columns) {
                let width = columns.min(outputs - channel);
                let first = place.weights + channel;
                pack_columns(packed, columns, &weights[first * inner..][..width * inner], inner);
                for image in (0..batch).step_by(rows) {
                    // Rows beyond the last image compute that again.
                    let offsets = std::array::from_fn(|i| (image + i).min(batch - 1) * row(p));
                    let mut block = [0.0; MAX_BLOCK];
                    block
                        .chunks_exact_mut(columns)
                        .for_each(|sums| sums[..width].copy_from_slice(&bias[first..first + width]));
                    tile.accumulate(&sweep, windows, &offsets, packed, &mut block);
                    for (image, sums) in (image..batch).zip(block[..tile.elements()].chunks_exact(columns)) {
                        // SAFETY: these channels of this position belong to this task.
                        let y = unsafe { y.range(image * p.y().image() + place.y(p) + channel, width) };
                        for (y, sum) in y.iter_mut().zip(sums) {
                            *y = if p.relu != 0 { relu(*sum) } else { *sum };
                        }
                    }
                }
            }
        });
    }
    fn stages(p: &Params, target: &Target) -> Vec<Stage> {
        device::forward(p, Self::NAME, target)
    }
}

impl Kernel for Local2dWeightGradient {
    type Params = Params;
    const NAME: &'static str = "local2d_weight_gradient";
    const SOURCE: &'static str = "local2d.cu";
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
        let space = Shared::new(args.write::<f32>(4));
        let (inner, outputs, batch) = (p.weights(), p.y().c, p.batch as usize);
        let (size, row, image) = (windows(p), row(p), p.y().image());
        let tile = window_tile(p);
        let Tile { rows, columns, .. } = tile;
        let sweep = Sweep { segments: 1, len: batch, a_step: image, a_segment: 0, b_step: row, b_segment: 0 };
        host.parallel(Place::count(p), &|task, worker| {
            let place = Place::new(p, task);
            // SAFETY: every worker has its own space, and runs one task at a time.
            let windows = unsafe { space.range(worker * size, size) };
            cut_windows(p, x, &place, windows);
            let dy = &dy[place.y(p)..];
            // SAFETY: the weights and biases of this position and group belong to this task.
            let (dw, db) =
                unsafe { (dw.range(place.weights * inner, outputs * inner), db.range(place.weights, outputs)) };
            db.fill(0.0);
            for dy in dy.chunks(image).take(batch) {
                db.iter_mut().zip(dy).for_each(|(sum, d)| *sum += d);
            }
            for left in (0..inner).step_by(columns) {
                let width = columns.min(inner - left);
                for output in (0..outputs).step_by(rows) {
                    // Rows beyond the last output compute that again.
                    let offsets = std::array::from_fn(|i| (output + i).min(outputs - 1));
                    let mut block = [0.0; MAX_BLOCK];
                    tile.accumulate(&sweep, dy, &offsets, &windows[left..], &mut block);
                    for (o, sums) in (output..outputs).zip(block[..tile.elements()].chunks_exact(columns)) {
                        copy(&mut dw[o * inner + left..][..width], &sums[..width]);
                    }
                }
            }
        });
    }
    fn stages(p: &Params, target: &Target) -> Vec<Stage> {
        device::weight_gradient(p, Self::NAME, target)
    }
}

impl Kernel for Local2dDataGradient {
    type Params = Params;
    const NAME: &'static str = "local2d_data_gradient";
    const SOURCE: &'static str = "local2d.cu";
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
        let (plane, batch, size) = (p.x(), p.batch as usize, IMAGES * row(p) + p.y().c * window_tile(p).columns);
        host.parallel(batch.div_ceil(IMAGES), &|task, worker| {
            let images = task * IMAGES..batch.min((task + 1) * IMAGES);
            // SAFETY: every worker has its own space, and runs one task at a time.
            let (windows, packed) = unsafe { space.range(worker * size, size) }.split_at_mut(IMAGES * row(p));
            for pixel in images.start * plane.h * plane.w..images.end * plane.h * plane.w {
                // SAFETY: these images belong to this task.
                unsafe { dx.range(pixel * plane.ld, p.in_c as usize) }.fill(0.0);
            }
            for place in (0..Place::count(p)).map(|index| Place::new(p, index)) {
                gradient_of_windows(p, dy, weights, &place, images.clone(), windows, packed);
                for (image, window) in images.clone().zip(windows.chunks_exact(row(p))) {
                    add_window(&dx, image * plane.image() + place.input, &plane, place.corner(p), p, window);
                }
            }
        });
    }
    fn stages(p: &Params, target: &Target) -> Vec<Stage> {
        device::data_gradient(p, Self::NAME, target)
    }
}

/// The gradient by the windows of `images` at `place`.
fn gradient_of_windows(
    p: &Params,
    dy: &[f32],
    weights: &[f32],
    place: &Place,
    images: std::ops::Range<usize>,
    windows: &mut [f32],
    packed: &mut [f32],
) {
    let (inner, outputs, image) = (p.weights(), p.y().c, p.y().image());
    let tile = window_tile(p);
    let Tile { rows, columns, .. } = tile;
    let sweep = Sweep { segments: 1, len: outputs, a_step: 1, a_segment: 0, b_step: columns, b_segment: 0 };
    let weights = &weights[place.weights * inner..][..outputs * inner];
    for left in (0..inner).step_by(columns) {
        let width = columns.min(inner - left);
        for (to, from) in packed.chunks_exact_mut(columns).zip(weights.chunks_exact(inner)) {
            pack(to, &from[left..left + width]);
        }
        for first in images.clone().step_by(rows) {
            // Rows beyond the last image compute that again.
            let offsets = std::array::from_fn(|i| (first + i).min(images.end - 1) * image + place.y(p));
            let mut block = [0.0; MAX_BLOCK];
            tile.accumulate(&sweep, dy, &offsets, packed, &mut block);
            for (image, sums) in (first..images.end).zip(block[..tile.elements()].chunks_exact(columns)) {
                copy(&mut windows[(image - images.start) * row(p) + left..][..columns], sums);
            }
        }
    }
}

/// Adds a window's gradient to those pixels of the image at `start` that it covers.
fn add_window(dx: &Shared<'_, f32>, start: usize, plane: &Plane, corner: (isize, isize), p: &Params, window: &[f32]) {
    let kernel = p.kernel as usize;
    for (tap, from) in window.chunks_exact(plane.c).take(kernel * kernel).enumerate() {
        let (y, x) = (corner.0 + (tap / kernel) as isize, corner.1 + (tap % kernel) as isize);
        if (0..plane.h as isize).contains(&y) && (0..plane.w as isize).contains(&x) {
            let pixel = y as usize * plane.w + x as usize;
            // SAFETY: the image belongs to this task.
            let to = unsafe { dx.range(start + pixel * plane.ld, plane.c) };
            to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
        }
    }
}
