//! The layers. Each file holds one layer: its specification (serde), shapes, parameters, kernels with their Rust bodies, and
//! how it lowers to them. A new layer is one such file, one `.cu`, one TypeScript builder and one line in [`LayerSpec`].

pub mod avg_pool2d;
pub mod conv2d;
pub mod dropout;
pub(crate) mod gemm;
pub mod linear;
pub mod local2d;
pub mod local_response_norm;
pub mod map_response_norm;
pub mod max_pool2d;
pub mod norm_pool;
mod pointwise;
mod pool;
pub mod relu;
mod response_norm;
pub(crate) mod rows;
pub mod tanh;

use crate::lower::Lower;
use alexnode_core::{Error, Result, Shape};
use serde::{Deserialize, Serialize};

/// How the elements of a weight tensor are drawn at the start.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", deny_unknown_fields)]
pub enum Init {
    /// N(0, std^2): the paper, section 5.
    Normal {
        /// Standard deviation.
        std: f32,
    },
    /// N(0, 2 / fan-in): He et al. 2015.
    He,
    /// N(0, 2 / (fan-in + fan-out)): Glorot and Bengio 2010.
    Xavier,
}

/// One parameter tensor of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct ParameterSpec {
    /// `weight` or `bias`.
    pub name: &'static str,
    /// Extents as the kernels see them, e.g. `[out, r, s, in / groups]` of a convolution.
    pub dims: Vec<usize>,
    /// The axis of `dims` that runs over the layer's output channels: what two towers share out between them.
    pub output_axis: usize,
    /// The order of `dims` in files (`[0, 3, 1, 2]`: OIHW).
    pub border_order: Vec<usize>,
    /// The extents in files; may merge neighbours of the reordered `dims`.
    pub border_shape: Vec<usize>,
    /// How it is drawn.
    pub init: ParameterInit,
    /// Weight decay; 0 for biases.
    pub decay: f32,
    /// Whether it never changes.
    pub frozen: bool,
}

/// The initial value of a parameter tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ParameterInit {
    /// Every element the same.
    Constant(f32),
    /// Normal with this standard deviation.
    Normal(f32),
}

impl Init {
    /// The distribution for `fan_in` inputs and `fan_out` outputs of a unit.
    pub fn resolve(self, fan_in: usize, fan_out: usize) -> ParameterInit {
        match self {
            Self::Normal { std } => ParameterInit::Normal(std),
            Self::He => ParameterInit::Normal((2.0 / fan_in as f64).sqrt() as f32),
            Self::Xavier => ParameterInit::Normal((2.0 / (fan_in + fan_out) as f64).sqrt() as f32),
        }
    }
}

/// Which channels of its input a tower's share of a layer reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// Only the channels of the same tower.
    Own,
    /// Those of both towers: the plan gathers them first.
    All,
}

/// What the backward pass of a layer reads of its forward pass, apart from what it saved itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Its input.
    pub input: bool,
    /// Its output.
    pub output: bool,
}

/// One layer, placed nowhere. All shapes are those of one sample of the whole layer, not of a tower.
pub trait Layer: Send + Sync {
    /// For messages: "Conv2d".
    fn kind(&self) -> &'static str;
    /// The layer's own name: "conv2".
    fn name(&self) -> &str;
    /// Shape of the output.
    ///
    /// # Errors
    /// `ERR_SHAPE` where the layer does not fit its input, `ERR_USAGE` where its own numbers make no sense.
    fn output(&self, input: Shape) -> Result<Shape>;
    /// Weight, then bias; nothing for layers without parameters.
    fn parameters(&self, _input: Shape) -> Vec<ParameterSpec> {
        Vec::new()
    }
    /// Multiply-accumulates of the forward pass for one sample.
    fn macs(&self, _input: Shape) -> u64 {
        0
    }
    /// What a tower's share reads when the layer's channels are split over `towers` slots.
    ///
    /// # Errors
    /// `ERR_USAGE` where the layer cannot be split.
    fn reads(&self, _towers: usize) -> Result<Reads> {
        Ok(Reads::Own)
    }
    /// What its backward pass reads.
    fn needs(&self) -> Needs;
    /// Whether output and input have the same elements, computed one by one. Such a layer works in place, both ways:
    /// forward changes `cx.y` (which is `cx.x`, or a copy of it that the plan made where the layer below still needs its output),
    /// backward changes `cx.dy()` (which is `cx.dx()`).
    fn elementwise(&self) -> bool {
        false
    }
    /// Whether a ReLU that follows can be computed in this layer's epilogue (`cx.fused_relu`).
    fn fuses_relu(&self) -> bool {
        false
    }
    /// Whether a dropout that follows, behind such a ReLU or without one, can be computed there, too (`cx.fused_dropout`).
    fn fuses_dropout(&self) -> bool {
        false
    }
    /// Whether the layer can update its parameters by the operation that makes their gradients, which then never exist in memory.
    fn fuses_updates(&self) -> bool {
        false
    }
    /// Whether its backward pass can also pass the gradient of a ReLU that its input comes from (`cx.passes_relu`): `cx.dx()` is 0 where `cx.x` is
    /// not positive.
    fn passes_relu(&self) -> bool {
        false
    }
    /// Issues the forward operations: `cx.y` from `cx.x`.
    fn forward(&self, cx: &mut Lower<'_>);
    /// Issues the backward operations: from `cx.dy()` the gradient of each parameter that has one (`cx.gradient(i)`), and
    /// `cx.dx()` where it is wanted. Both are overwritten.
    fn backward(&self, cx: &mut Lower<'_>);
}

/// A layer as it is written in a network: `{"type": "conv2d", "name": "conv1", ...}`. Unknown fields are errors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum LayerSpec {
    /// Convolution.
    Conv2d(conv2d::Conv2d),
    /// Convolution with own weights for every position.
    Local2d(local2d::Local2d),
    /// Fully connected.
    Linear(linear::Linear),
    /// max(0, x).
    Relu(relu::Relu),
    /// The hyperbolic tangent.
    Tanh(tanh::Tanh),
    /// Response normalisation across channels.
    LocalResponseNorm(local_response_norm::LocalResponseNorm),
    /// Response normalisation within a map.
    MapResponseNorm(map_response_norm::MapResponseNorm),
    /// The largest element of each window.
    MaxPool2d(max_pool2d::MaxPool2d),
    /// The mean of each window.
    AvgPool2d(avg_pool2d::AvgPool2d),
    /// Dropout.
    Dropout(dropout::Dropout),
}

impl LayerSpec {
    /// The layer.
    pub fn layer(&self) -> &dyn Layer {
        match self {
            Self::Conv2d(layer) => layer,
            Self::Local2d(layer) => layer,
            Self::Linear(layer) => layer,
            Self::Relu(layer) => layer,
            Self::Tanh(layer) => layer,
            Self::LocalResponseNorm(layer) => layer,
            Self::MapResponseNorm(layer) => layer,
            Self::MaxPool2d(layer) => layer,
            Self::AvgPool2d(layer) => layer,
            Self::Dropout(layer) => layer,
        }
    }
}

/// What a layer that splits by groups reads: its own channels where every tower holds whole groups, all where there is one group.
///
/// # Errors
/// `ERR_USAGE` for anything between.
pub fn reads_by_groups(groups: usize, towers: usize) -> Result<Reads> {
    if groups == 1 {
        Ok(Reads::All)
    } else if groups.is_multiple_of(towers) {
        Ok(Reads::Own)
    } else {
        Err(Error::usage(format!("{groups} groups cannot be shared by {towers} devices"))
            .hint("Use one device, or a number of groups that is 1 or a multiple of the number of devices."))
    }
}

/// Checks that `channels` can be cut into `groups`.
///
/// # Errors
/// `ERR_SHAPE` naming both.
pub fn check_groups(channels: usize, groups: usize, what: &str) -> Result<()> {
    if groups == 0 || !channels.is_multiple_of(groups) {
        return Err(Error::shape(format!("{channels} {what} channels cannot be cut into {groups} groups")));
    }
    Ok(())
}

/// Checks how a layer's parameters begin and shrink.
///
/// # Errors
/// `ERR_USAGE` for numbers that are not finite, and deviations or decays below 0.
pub fn check_parameters(weight_init: Init, bias_init: f32, weight_decay: f32) -> Result<()> {
    if let Init::Normal { std } = weight_init
        && !(std.is_finite() && std >= 0.0)
    {
        return Err(Error::usage(format!("std of weightInit must be a number that is not negative, got {std}")));
    }
    if !bias_init.is_finite() {
        return Err(Error::usage(format!("biasInit must be a finite number, got {bias_init}")));
    }
    if !(weight_decay.is_finite() && weight_decay >= 0.0) {
        return Err(Error::usage(format!("weightDecay must be a number that is not negative, got {weight_decay}")));
    }
    Ok(())
}

/// Elements that a tensor may have: kernels count in i32.
pub const MAX_ELEMENTS: usize = i32::MAX as usize;

/// Checks that a tensor of these extents has at most [`MAX_ELEMENTS`].
///
/// # Errors
/// `ERR_SHAPE` naming `what`.
pub fn check_elements(what: &str, extents: &[usize]) -> Result<()> {
    let product = extents.iter().try_fold(1usize, |product, extent| product.checked_mul(*extent));
    if product.is_none_or(|elements| elements > MAX_ELEMENTS) {
        let extents = extents.iter().map(usize::to_string).collect::<Vec<_>>().join(" x ");
        return Err(Error::shape(format!(
            "{extents} {what} are more than the {MAX_ELEMENTS} that one tensor may have"
        )));
    }
    Ok(())
}

/// One bias per output, never decayed.
fn bias_spec(dims: Vec<usize>, value: f32, frozen: bool) -> ParameterSpec {
    let axes = dims.len();
    ParameterSpec {
        name: "bias",
        output_axis: axes - 1,
        border_order: (0..axes).collect(),
        border_shape: dims.clone(),
        dims,
        init: ParameterInit::Constant(value),
        decay: 0.0,
        frozen,
    }
}

/// Default of fields of specifications.
const fn one() -> usize {
    1
}

/// Default of fields of specifications.
const fn yes() -> bool {
    true
}
