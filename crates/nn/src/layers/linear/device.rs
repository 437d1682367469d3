//! What a CUDA device runs for a fully connected layer: `cuda/linear.cu`.

use super::Params;
use crate::layers::gemm::{Product, vectors};
use alexnode_core::{Stage, Target};

impl Params {
    /// Whether the inputs of a sample can be loaded four at a time.
    fn vectors_of_x(&self) -> bool {
        vectors(&[self.in_c, self.x_ld])
    }
    fn vectors_of_y(&self) -> bool {
        vectors(&[self.out, self.y_ld])
    }
}

pub(super) fn forward(p: &Params, entry: &'static str, target: &Target) -> Vec<Stage> {
    vec![Product { m: p.batch(), n: p.outputs(), times: 1, vectors: p.vectors_of_x() }.stage(entry, target)]
}

pub(super) fn data_gradient(p: &Params, entry: &'static str, target: &Target) -> Vec<Stage> {
    let vectors = p.vectors_of_y() && vectors(&[p.inputs() as i32]);
    vec![Product { m: p.batch(), n: p.inputs(), times: 1, vectors }.stage(entry, target)]
}

pub(super) fn weight_gradient(p: &Params, entry: &'static str, target: &Target) -> Vec<Stage> {
    let vectors = p.vectors_of_x() && p.vectors_of_y();
    let product = Product { m: p.outputs(), n: p.inputs(), times: 1, vectors }.stage(entry, target);
    let biases =
        Stage { entry: "linear_bias_gradient", grid: [p.out.unsigned_abs().div_ceil(32), 1, 1], ..product.clone() };
    vec![product, biases]
}
