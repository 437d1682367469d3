//! Locally connected layer: a convolution whose kernels are not shared between positions (2012 code: LocalUnsharedLayer; the CIFAR-10
//! nets use it after their last pooling). Every output pixel has its own kernels and its own bias.
//!
//! `y[n, p, q, o] = bias[p, q, o] + sum over r, s, i of x[n, p stride + r - padding, q stride + s - padding, i] w[p, q, o, r, s, i]`

mod device;
mod kernels;

use super::{Layer, Needs, ParameterSpec, Reads, bias_spec, check_elements, conv2d::Conv2d};
use crate::lower::Lower;
use alexnode_core::{Result, Shape};
use kernels::{Local2dDataGradient, Local2dForward, Local2dWeightGradient};
use serde::{Deserialize, Serialize};

/// A convolution with own weights for every position: written with the numbers of a [`Conv2d`].
///
/// Input `h x w x c`, output `p x q x outChannels` (sizes as [`Conv2d`]), weights
/// `[p, q, outChannels, kernelSize, kernelSize, c / groups]` (in files `[p, q, outChannels, c / groups, kernelSize, kernelSize]`), biases
/// `[p, q, outChannels]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Local2d(pub Conv2d);

impl Layer for Local2d {
    fn kind(&self) -> &'static str {
        "Local2d"
    }
    fn name(&self) -> &str {
        self.0.name()
    }
    fn output(&self, input: Shape) -> Result<Shape> {
        let output = self.0.output(input)?;
        let Conv2d { kernel_size, groups, .. } = self.0;
        check_elements("weights", &[output.h, output.w, output.c, kernel_size, kernel_size, input.c / groups])?;
        Ok(output)
    }
    fn parameters(&self, input: Shape) -> Vec<ParameterSpec> {
        let Ok(Shape { h, w, c: out }) = self.output(input) else { return Vec::new() };
        let (size, depth, frozen) = (self.0.kernel_size, input.c / self.0.groups, self.0.frozen);
        let weight = ParameterSpec {
            name: "weight",
            dims: vec![h, w, out, size, size, depth],
            output_axis: 2,
            border_order: vec![0, 1, 2, 5, 3, 4],
            border_shape: vec![h, w, out, depth, size, size],
            init: self.0.init(input),
            decay: self.0.weight_decay,
            frozen,
        };
        vec![weight, bias_spec(vec![h, w, out], self.0.bias_init, frozen)]
    }
    fn macs(&self, input: Shape) -> u64 {
        self.0.macs(input)
    }
    fn reads(&self, towers: usize) -> Result<Reads> {
        self.0.reads(towers)
    }
    fn needs(&self) -> Needs {
        self.0.needs()
    }
    fn fuses_relu(&self) -> bool {
        self.0.fuses_relu()
    }
    fn forward(&self, cx: &mut Lower<'_>) {
        let (x, y) = (cx.x, cx.y);
        let params = self.0.params(cx, x, y, cx.fused_relu);
        let scratch = cx.scratch::<Local2dForward>(&params);
        cx.launch::<Local2dForward>(params, &[x.arg(), cx.weight(0), cx.weight(1), y.arg(), scratch]);
    }
    fn backward(&self, cx: &mut Lower<'_>) {
        let (x, dy) = (cx.x, cx.dy());
        if let (Some(dw), Some(db)) = (cx.gradient(0), cx.gradient(1)) {
            let params = self.0.params(cx, x, dy, false);
            let scratch = cx.scratch::<Local2dWeightGradient>(&params);
            cx.launch::<Local2dWeightGradient>(params, &[x.arg(), dy.arg(), dw, db, scratch]);
        }
        if let Some(dx) = cx.dx() {
            let params = self.0.params(cx, dx, dy, false);
            let scratch = cx.scratch::<Local2dDataGradient>(&params);
            cx.launch::<Local2dDataGradient>(params, &[dy.arg(), cx.weight(0), dx.arg(), scratch]);
        }
    }
}
