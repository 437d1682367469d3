//! Locally connected layer: a convolution whose kernels are not shared between positions (2012 code: LocalUnsharedLayer; the CIFAR-10
//! nets use it after their last pooling). Every output pixel has its own kernels and its own bias.
//!
//! `y[n, p, q, o] = bias[p, q, o] + sum over r, s, i of x[n, p stride + r - padding, q stride + s - padding, i] w[p, q, o, r, s, i]`

mod kernels;
#[cfg(test)]
mod tests;

use super::{
    Init, Layer, Needs, ParameterSpec, Reads, check_groups,
    conv2d::{Params, bias_spec, one, yes},
    reads_by_groups,
};
use crate::lower::{Lower, Tensor};
use alexnode_core::{Error, Result, Shape, Window};
use kernels::{Local2dDataGradient, Local2dForward, Local2dWeightGradient};
use serde::{Deserialize, Serialize};

/// A convolution with own weights for every position.
///
/// Input `h x w x c`, output `p x q x outChannels` (sizes as [`Conv2d`](super::conv2d::Conv2d)), weights
/// `[p, q, outChannels, kernelSize, kernelSize, c / groups]` (in files `[p, q, outChannels, c / groups, kernelSize, kernelSize]`), biases
/// `[p, q, outChannels]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Local2d {
    /// The layer's name.
    pub name: String,
    /// Kernels at each position.
    pub out_channels: usize,
    /// Width and height of a kernel in pixels.
    pub kernel_size: usize,
    /// Step in pixels; default 1.
    #[serde(default = "one")]
    pub stride: usize,
    /// Zero pixels around the image; default 0.
    #[serde(default)]
    pub padding: usize,
    /// Kernels of a group see only that group's share of the input channels; default 1.
    #[serde(default = "one")]
    pub groups: usize,
    /// Whether a last, incomplete window counts (the 2012 code); default true.
    #[serde(default = "yes")]
    pub ceil_mode: bool,
    /// Initial weights.
    pub weight_init: Init,
    /// Initial biases; default 0.
    #[serde(default)]
    pub bias_init: f32,
    /// Weight decay of the weights; default 0.
    #[serde(default)]
    pub weight_decay: f32,
    /// Whether weights and biases never change; default false.
    #[serde(default)]
    pub frozen: bool,
}

impl Local2d {
    fn window(&self) -> Window {
        Window { size: self.kernel_size, stride: self.stride, padding: self.padding, ceil: self.ceil_mode }
    }

    /// The constants for `x` (or its gradient) and `y` (or its gradient) on one slot.
    fn params(&self, cx: &Lower<'_>, x: Tensor, y: Tensor, relu: bool) -> Params {
        let groups = cx.local_groups(self.groups);
        Params::new(x, y, [self.kernel_size, self.stride, self.padding, groups], relu)
    }
}

impl Layer for Local2d {
    fn kind(&self) -> &'static str {
        "Local2d"
    }
    fn name(&self) -> &str {
        &self.name
    }
    fn output(&self, input: Shape) -> Result<Shape> {
        if self.out_channels == 0 {
            return Err(Error::usage("outChannels must be at least 1"));
        }
        check_groups(input.c, self.groups, "input")?;
        check_groups(self.out_channels, self.groups, "output")?;
        Ok(Shape::new(self.window().output(input.h)?, self.window().output(input.w)?, self.out_channels))
    }
    fn parameters(&self, input: Shape) -> Vec<ParameterSpec> {
        let Ok(Shape { h, w, c: out }) = self.output(input) else { return Vec::new() };
        let (size, depth) = (self.kernel_size, input.c / self.groups);
        let weight = ParameterSpec {
            name: "weight",
            dims: vec![h, w, out, size, size, depth],
            output_axis: 2,
            border_order: vec![0, 1, 2, 5, 3, 4],
            border_shape: vec![h, w, out, depth, size, size],
            init: self.weight_init.resolve(size * size * depth, size * size * out / self.groups),
            decay: self.weight_decay,
            frozen: self.frozen,
        };
        vec![weight, bias_spec(vec![h, w, out], self.bias_init, self.frozen)]
    }
    fn macs(&self, input: Shape) -> u64 {
        let inner = self.kernel_size * self.kernel_size * input.c / self.groups;
        self.output(input).map_or(0, |output| (output.len() * inner) as u64)
    }
    fn reads(&self, towers: usize) -> Result<Reads> {
        reads_by_groups(self.groups, towers)
    }
    fn needs(&self) -> Needs {
        Needs { input: true, output: false }
    }
    fn fuses_relu(&self) -> bool {
        true
    }
    fn forward(&self, cx: &mut Lower<'_>) {
        let (x, y) = (cx.x, cx.y);
        let params = self.params(cx, x, y, cx.fused_relu);
        let scratch = cx.scratch(kernels::forward_scratch(&params, cx.workers));
        cx.launch::<Local2dForward>(params, &[x.arg(), cx.weight(0), cx.weight(1), y.arg(), scratch]);
    }
    fn backward(&self, cx: &mut Lower<'_>) {
        let (x, dy) = (cx.x, cx.dy());
        if let (Some(dw), Some(db)) = (cx.gradient(0), cx.gradient(1)) {
            let params = self.params(cx, x, dy, false);
            let scratch = cx.scratch(kernels::weight_scratch(&params, cx.workers));
            cx.launch::<Local2dWeightGradient>(params, &[x.arg(), dy.arg(), dw, db, scratch]);
        }
        if let Some(dx) = cx.dx() {
            let params = self.params(cx, dx, dy, false);
            let scratch = cx.scratch(kernels::data_scratch(&params, cx.workers));
            cx.launch::<Local2dDataGradient>(params, &[dy.arg(), cx.weight(0), dx.arg(), scratch]);
        }
    }
}
