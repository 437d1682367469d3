//! Fully connected layer: `y[n, o] = bias[o] + sum over i of x[n, i] w[o, i]`, where i runs over rows, columns and
//! channels of the input.

mod device;
mod gradient;
mod product;
mod update;

use super::{Init, Layer, Needs, ParameterSpec, Reads, bias_spec, check_elements, check_parameters, dropout::Epilogue};
use crate::lower::{Lower, Tensor};
use alexnode_core::{Error, Result, Shape};
use bytemuck::{Pod, Zeroable};
use gradient::{LinearDataGradient, LinearWeightGradient};
pub(crate) use product::LinearForward;
use serde::{Deserialize, Serialize};
use update::{LinearUpdate, UpdateParams};

/// A fully connected layer.
///
/// Input of any shape, output a vector of `outFeatures`, weights `[outFeatures, h w c]`. In files the inputs of a layer that follows
/// an image are in the order (c, h, w), as other tools have it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Linear {
    /// The layer's name.
    pub name: String,
    /// Number of outputs.
    pub out_features: usize,
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

/// A fully connected layer on one slot. The same for all kernels; `x_ld` and `y_ld` are those of the gradients where these
/// are read or written.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Params {
    pub batch: i32,
    /// Pixels of an input image.
    pub pixels: i32,
    pub in_c: i32,
    pub x_ld: i32,
    pub out: i32,
    pub y_ld: i32,
    /// Forward: whether negative outputs become 0.
    pub relu: i32,
    /// Forward: the dropout after that.
    pub dropout: Epilogue,
}

impl Params {
    fn batch(&self) -> usize {
        self.batch as usize
    }
    fn inputs(&self) -> usize {
        (self.pixels * self.in_c) as usize
    }
    fn outputs(&self) -> usize {
        self.out as usize
    }
    /// Elements of x from one sample to the next.
    fn x_row(&self) -> usize {
        (self.pixels * self.x_ld) as usize
    }
    /// Where input `i` of a sample lies within the sample.
    fn position(&self, i: usize) -> usize {
        let c = self.in_c as usize;
        if self.x_ld == self.in_c { i } else { i / c * self.x_ld as usize + i % c }
    }
}

impl Linear {
    fn params(x: Tensor, y: Tensor) -> Params {
        Params {
            batch: x.batch as i32,
            pixels: x.shape.pixels() as i32,
            in_c: x.shape.c as i32,
            x_ld: x.ld as i32,
            out: y.shape.c as i32,
            y_ld: y.ld as i32,
            relu: 0,
            dropout: Epilogue::NONE,
        }
    }
    fn data_gradient(cx: &mut Lower<'_>) {
        let Some(dx) = cx.dx() else { return };
        cx.by_column(dx, |cx, dy, weight, dx| {
            let params = Self::params(dx, dy);
            let scratch = cx.scratch::<LinearDataGradient>(&params);
            cx.launch::<LinearDataGradient>(params, &[dy.arg(), weight, dx.arg(), scratch]);
        });
    }
}

impl Layer for Linear {
    fn kind(&self) -> &'static str {
        "Linear"
    }
    fn name(&self) -> &str {
        &self.name
    }
    fn output(&self, input: Shape) -> Result<Shape> {
        if self.out_features == 0 {
            return Err(Error::usage("outFeatures must be at least 1"));
        }
        check_parameters(self.weight_init, self.bias_init, self.weight_decay)?;
        check_elements("weights", &[self.out_features, input.h, input.w, input.c])?;
        Ok(Shape::vector(self.out_features))
    }
    fn parameters(&self, input: Shape) -> Vec<ParameterSpec> {
        let (out, inputs) = (self.out_features, input.len());
        let weight = ParameterSpec {
            name: "weight",
            dims: vec![out, input.h, input.w, input.c],
            output_axis: 0,
            border_order: vec![0, 3, 1, 2],
            border_shape: vec![out, inputs],
            init: self.weight_init.resolve(inputs, out),
            decay: self.weight_decay,
            frozen: self.frozen,
        };
        vec![weight, bias_spec(vec![out], self.bias_init, self.frozen)]
    }
    fn macs(&self, input: Shape) -> u64 {
        (self.out_features * input.len()) as u64
    }
    fn reads(&self, _towers: usize) -> Result<Reads> {
        Ok(Reads::All)
    }
    fn needs(&self) -> Needs {
        Needs { input: true, output: false }
    }
    fn fuses_relu(&self) -> bool {
        true
    }
    fn fuses_dropout(&self) -> bool {
        true
    }
    fn fuses_updates(&self) -> bool {
        true
    }
    fn forward(&self, cx: &mut Lower<'_>) {
        let (x, y) = (cx.x, cx.y);
        let params = Params { relu: i32::from(cx.fused_relu), dropout: cx.fused_dropout, ..Self::params(x, y) };
        let scratch = cx.scratch::<LinearForward>(&params);
        let args = [x.arg(), cx.weight(0), cx.weight(1), y.arg(), scratch, cx.state(), cx.ids()];
        cx.launch::<LinearForward>(params, &args);
    }
    fn backward(&self, cx: &mut Lower<'_>) {
        let (x, dy) = (cx.x, cx.dy());
        if let [Some((weight, v)), Some((bias, bias_v))] = [0, 1].map(|i| cx.update(i)) {
            // By the old weights.
            Self::data_gradient(cx);
            let params = UpdateParams { layer: Self::params(x, dy), weight, bias };
            let scratch = cx.scratch::<LinearUpdate>(&params);
            let args = [x.arg(), dy.arg(), cx.weight(0), v, cx.weight(1), bias_v, scratch, cx.state()];
            return cx.launch::<LinearUpdate>(params, &args);
        }
        if let (Some(dw), Some(db)) = (cx.gradient(0), cx.gradient(1)) {
            let params = Self::params(x, dy);
            let scratch = cx.scratch::<LinearWeightGradient>(&params);
            cx.launch::<LinearWeightGradient>(params, &[x.arg(), dy.arg(), dw, db, scratch]);
        }
        Self::data_gradient(cx);
    }
}
