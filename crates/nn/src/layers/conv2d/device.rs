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
    fn images(&self) -> usize {
        self.batch as usize * self.x().image()
    }
    /// Whether the channels of a group of x, or of y, can be loaded four at a time.
    pub(crate) fn vectors_of_x(&self) -> bool {
        vectors(&[self.in_c / self.groups, self.x_ld])
    }
    pub(crate) fn vectors_of_y(&self) -> bool {
        vectors(&[self.out_c / self.groups, self.y_ld])
    }

    /// The same convolution with pixels as channels (`cuda/space_to_depth.cuh`), where channels cannot be loaded four at a time. Not where it would more than
    /// double the products, nor where windows leave pixels out.
    fn packed(&self) -> Option<Self> {
        let channels = self.in_c / self.groups;
        if channels % 4 == 0 || self.stride > self.kernel {
            return None;
        }
        let kernel = self.kernel.unsigned_abs().div_ceil(self.stride.unsigned_abs()) as i32;
        let in_c = (self.stride * self.stride * channels).unsigned_abs().next_multiple_of(4) as i32 * self.groups;
        let packed = Self {
            in_h: self.out_h + kernel - 1,
            in_w: self.out_w + kernel - 1,
            in_c,
            x_ld: in_c,
            kernel,
            stride: 1,
            padding: 0,
            ..*self
        };
        (packed.weights() <= 2 * self.weights()).then_some(packed)
    }
}

/// Parts of the pixels whose weight gradients are summed apart: the formula of `pixels_of_part` in `conv2d.cu`.
fn parts(q: &Params) -> usize {
    let blocks = q.y().c.div_ceil(128) * q.weights().div_ceil(128) * q.groups();
    let each = q.pixels().div_ceil((264 / blocks).clamp(1, 64)).next_multiple_of(64).max(256);
    q.pixels().div_ceil(each)
}

/// `stage`, told whether the convolution is packed.
fn told(mut stage: Stage, packed: bool) -> Stage {
    stage.defines.push(("PACKED", i32::from(packed)));
    stage
}

/// The stage that packs `elements` elements, four by each thread; compiled with the macros of the `product` that reads them.
fn pack(entry: &'static str, elements: usize, product: &Stage) -> Stage {
    Stage { defines: product.defines.clone(), constant: true, ..Stage::each(entry, elements / 4) }
}

/// Bytes of the packed images and weights.
pub(super) fn forward_scratch(p: &Params) -> usize {
    p.packed().map_or(0, |q| (q.images() + q.all_weights()) * 4)
}

pub(super) fn forward(p: &Params, entry: &'static str, target: &Target) -> Vec<Stage> {
    let packed = p.packed();
    let q = packed.unwrap_or(*p);
    let vectors = q.vectors_of_x() && vectors(&[q.weights() as i32]);
    let product = Product { m: q.pixels(), n: q.y().c, times: q.groups(), vectors };
    let product = told(product.stage(entry, target), packed.is_some());
    let mut stages = Vec::new();
    if packed.is_some() {
        stages.push(pack("conv2d_pack_images", q.images(), &product));
        stages.push(pack("conv2d_pack_weights", q.all_weights(), &product));
    }
    stages.push(product);
    stages
}

pub(super) fn data_gradient(p: &Params, entry: &'static str, target: &Target) -> Vec<Stage> {
    let m = (p.batch * p.in_h * p.in_w) as usize;
    let vectors = p.vectors_of_y() && vectors(&[p.in_c / p.groups]);
    vec![told(Product { m, n: p.x().c, times: p.groups(), vectors }.stage(entry, target), false)]
}

/// The packed convolution, where the weight gradient gains from it: where dy, too, can be loaded four at a time. Without a look at gaps between the pixels of dy: they
/// are not to change the order of the sums.
fn packed_gradient(p: &Params) -> Option<Params> {
    p.packed().filter(|_| vectors(&[p.out_c / p.groups]))
}

/// Bytes of the packed images and of the sums of all parts.
pub(super) fn weight_gradient_scratch(p: &Params) -> usize {
    let packed = packed_gradient(p);
    let q = packed.unwrap_or(*p);
    let images = packed.map_or(0, |q| q.images());
    (images + BIAS_PARTS * q.out_c as usize + parts(&q) * q.all_weights()) * 4
}

pub(super) fn weight_gradient(p: &Params, entry: &'static str, target: &Target) -> Vec<Stage> {
    let packed = packed_gradient(p);
    let q = packed.unwrap_or(*p);
    let vectors = q.vectors_of_x() && q.vectors_of_y();
    let product = Product { m: q.y().c, n: q.weights(), times: q.groups() * parts(&q), vectors };
    let product = told(product.stage(entry, target), packed.is_some());
    // The same macros for all: one compilation less where kernels are compiled as whole files.
    let defines = product.defines.clone();
    let biases = Stage {
        entry: "conv2d_bias_gradient",
        grid: [p.out_c.unsigned_abs().div_ceil(32), BIAS_PARTS as u32, 1],
        ..product.clone()
    };
    let sums =
        Stage { defines, constant: true, ..Stage::each("conv2d_gradient_sums", p.out_c as usize + p.all_weights()) };
    let mut stages = Vec::new();
    if packed.is_some() {
        stages.push(pack("conv2d_pack_images", q.images(), &product));
    }
    stages.extend([product, biases, sums]);
    stages
}
