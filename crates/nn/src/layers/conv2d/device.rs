//! What a CUDA device runs for a convolution: `cuda/conv2d.cu`.

use super::geometry::Params;
use crate::layers::gemm::{Product, vectors};
use alexnode_core::{Stage, Target};

/// Parts of the pixels that the bias gradient sums apart.
const BIAS_PARTS: usize = 64;

impl Params {
    fn pixels(&self) -> usize {
        (self.batch * self.out_h * self.out_w) as usize
    }
    fn all_weights(&self) -> usize {
        self.out_c as usize * self.weights()
    }
    /// Whether the channels of a group of x, or of y, can be loaded four at a time.
    pub(crate) fn vectors_of_x(&self) -> bool {
        vectors(&[self.in_c / self.groups, self.x_ld])
    }
    pub(crate) fn vectors_of_y(&self) -> bool {
        vectors(&[self.out_c / self.groups, self.y_ld])
    }
}

/// Parts of the pixels whose weight gradients are summed apart: the formula of `pixels_of_part` in `conv2d.cu`.
fn parts(p: &Params) -> usize {
    let blocks = p.y().c.div_ceil(64) * p.weights().div_ceil(64) * p.groups();
    let each = p.pixels().div_ceil((512 / blocks).clamp(1, 32)).next_multiple_of(64);
    p.pixels().div_ceil(each)
}

pub(super) fn forward(p: &Params, entry: &'static str, target: &Target) -> Vec<Stage> {
    let vectors = p.vectors_of_x() && vectors(&[p.weights() as i32]);
    vec![Product { m: p.pixels(), n: p.y().c, times: p.groups(), vectors }.stage(entry, target)]
}

pub(super) fn data_gradient(p: &Params, entry: &'static str, target: &Target) -> Vec<Stage> {
    let m = (p.batch * p.in_h * p.in_w) as usize;
    let vectors = p.vectors_of_y() && vectors(&[p.in_c / p.groups]);
    vec![Product { m, n: p.x().c, times: p.groups(), vectors }.stage(entry, target)]
}

/// Bytes of the sums of all parts.
pub(super) fn weight_gradient_scratch(p: &Params) -> usize {
    (BIAS_PARTS * p.out_c as usize + parts(p) * p.all_weights()) * 4
}

pub(super) fn weight_gradient(p: &Params, entry: &'static str, target: &Target) -> Vec<Stage> {
    let vectors = p.vectors_of_x() && p.vectors_of_y();
    let product = Product { m: p.y().c, n: p.weights(), times: p.groups() * parts(p), vectors }.stage(entry, target);
    // The same macros for all three: one compilation less where kernels are compiled as whole files.
    let defines = product.defines.clone();
    let biases = Stage {
        entry: "conv2d_bias_gradient",
        grid: [p.out_c.unsigned_abs().div_ceil(32), BIAS_PARTS as u32, 1],
        ..product.clone()
    };
    let sums =
        Stage { defines, constant: true, ..Stage::each("conv2d_gradient_sums", p.out_c as usize + p.all_weights()) };
    vec![product, biases, sums]
}
