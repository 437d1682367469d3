//! What a CUDA device runs for a convolution without shared weights: `cuda/local2d.cu`.

use crate::layers::{
    conv2d::Params,
    gemm::{Product, vectors},
};
use alexnode_core::{Stage, Target};

/// A product for every position of y, or of x, and every group.
fn places(p: &Params, (h, w): (i32, i32)) -> usize {
    (h * w) as usize * p.groups()
}

pub(super) fn forward(p: &Params, entry: &'static str, target: &Target) -> Vec<Stage> {
    let vectors = p.vectors_of_x() && vectors(&[p.weights() as i32]);
    let times = places(p, (p.out_h, p.out_w));
    vec![Product { m: p.batch as usize, n: p.y().c, times, vectors }.stage(entry, target)]
}

pub(super) fn data_gradient(p: &Params, entry: &'static str, target: &Target) -> Vec<Stage> {
    let vectors = p.vectors_of_y() && vectors(&[p.in_c / p.groups]);
    let times = places(p, (p.in_h, p.in_w));
    vec![Product { m: p.batch as usize, n: p.x().c, times, vectors }.stage(entry, target)]
}

pub(super) fn weight_gradient(p: &Params, entry: &'static str, target: &Target) -> Vec<Stage> {
    let vectors = p.vectors_of_x() && p.vectors_of_y();
    let times = places(p, (p.out_h, p.out_w));
    let product = Product { m: p.y().c, n: p.weights(), times, vectors }.stage(entry, target);
    let biases = Stage {
        entry: "local2d_bias_gradient",
        grid: [p.out_c.unsigned_abs().div_ceil(32), (p.out_h * p.out_w).unsigned_abs(), 1],
        ..product.clone()
    };
    vec![product, biases]
}
