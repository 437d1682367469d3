//! Convolution with groups, stride, zero padding and bias (paper section 3.5; 2012 code: ConvLayer in layer.py).
//!
//! `y[n, p, q, o] = bias[o] + sum over r, s, i of x[n, p stride + r - padding, q stride + s - padding, i] w[o, r, s, i]`,
//! where x is 0 outside of the image and i runs over the input channels of o's group. The output size is
//! 1 + ceil((extent + 2 padding - kernel) / stride) per axis, so that the last window may hang over the image.
//!
//! | module | about |
//! |---|---|
//! | `device` | the CUDA kernels of all passes |
//! | `geometry` | the constants of a launch; patches: a piece of an image with its zero border |
//! | `winograd` | the transforms of minimal filtering (Winograd), F(4 x 4, 3 x 3) and F(4 x 4, 5 x 5) |
//! | `pass` | forward and data gradient: one sweep over patches, without unrolling images |
//! | `tiles` | forward and data gradient of 3 x 3 and 5 x 5 kernels by minimal filtering |
//! | `tiles_weight` | their weight gradient |
//! | `weight` | weight and bias gradient: ordered sums over fixed chunks of the minibatch |

mod device;
mod geometry;
mod pass;
mod tiles;
mod tiles_weight;
mod weight;
mod winograd;

use super::{
    Init, Layer, Needs, ParameterInit, ParameterSpec, Reads, bias_spec, check_elements, check_groups, check_parameters,
    one, reads_by_groups, yes,
};
use crate::lower::{Lower, Tensor};
use alexnode_core::{Error, Result, Shape, Window};
pub(crate) use geometry::{Params, Plane, cut_patch};
use pass::{Conv2dDataGradient, Conv2dForward};
use serde::{Deserialize, Serialize};
use weight::Conv2dWeightGradient;

/// A convolution: `outChannels` square kernels that move over the image.
///
/// Input `h x w x c`, output `p x q x outChannels`, weights `[outChannels, kernelSize, kernelSize, c / groups]` (OIHW in files),
/// one bias per output channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Conv2d {
    /// The layer's name.
    pub name: String,
    /// Number of kernels.
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

impl Conv2d {
    fn window(&self) -> Window {
        Window { size: self.kernel_size, stride: self.stride, padding: self.padding, ceil: self.ceil_mode }
    }

    /// Inputs of one output number.
    fn fan_in(&self, input: Shape) -> usize {
        self.kernel_size * self.kernel_size * input.c / self.groups
    }

    /// How the weights begin.
    pub(crate) fn init(&self, input: Shape) -> ParameterInit {
        let fan_out = self.kernel_size * self.kernel_size * self.out_channels / self.groups;
        self.weight_init.resolve(self.fan_in(input), fan_out)
    }

    /// The constants for `x` (or its gradient) and `y` (or its gradient) on one slot.
    pub(crate) fn params(&self, cx: &Lower<'_>, x: Tensor, y: Tensor, relu: bool) -> Params {
        let groups = cx.local_groups(self.groups);
        Params::new(x, y, [self.kernel_size, self.stride, self.padding, groups], relu)
    }
}

impl Layer for Conv2d {
    fn kind(&self) -> &'static str {
        "Conv2d"
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
        check_parameters(self.weight_init, self.bias_init, self.weight_decay)?;
        check_elements("weights", &[self.out_channels, self.kernel_size, self.kernel_size, input.c / self.groups])?;
        Ok(Shape::new(self.window().output(input.h)?, self.window().output(input.w)?, self.out_channels))
    }
    fn parameters(&self, input: Shape) -> Vec<ParameterSpec> {
        let (out, size, depth) = (self.out_channels, self.kernel_size, input.c / self.groups);
        let weight = ParameterSpec {
            name: "weight",
            dims: vec![out, size, size, depth],
            output_axis: 0,
            border_order: vec![0, 3, 1, 2],
            border_shape: vec![out, depth, size, size],
            init: self.init(input),
            decay: self.weight_decay,
            frozen: self.frozen,
        };
        vec![weight, bias_spec(vec![out], self.bias_init, self.frozen)]
    }
    fn macs(&self, input: Shape) -> u64 {
        self.output(input).map_or(0, |output| (output.len() * self.fan_in(input)) as u64)
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
        let scratch = cx.scratch::<Conv2dForward>(&params);
        cx.launch::<Conv2dForward>(params, &[x.arg(), cx.weight(0), cx.weight(1), y.arg(), scratch]);
    }
    fn backward(&self, cx: &mut Lower<'_>) {
        let (x, dy) = (cx.x, cx.dy());
        if let (Some(dw), Some(db)) = (cx.gradient(0), cx.gradient(1)) {
            let params = self.params(cx, x, dy, false);
            let scratch = cx.scratch::<Conv2dWeightGradient>(&params);
            cx.launch::<Conv2dWeightGradient>(params, &[x.arg(), dy.arg(), dw, db, scratch]);
        }
        if let Some(dx) = cx.dx() {
            cx.by_column(dx, |cx, dy, weight, dx| {
                let params = self.params(cx, dx, dy, false);
                let scratch = cx.scratch::<Conv2dDataGradient>(&params);
                cx.launch::<Conv2dDataGradient>(params, &[dy.arg(), weight, dx.arg(), scratch]);
            });
        }
    }
}
