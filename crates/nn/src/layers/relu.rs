//! Rectified linear unit, y = max(0, x) (paper section 3.1). In place, both ways.

use super::{
    Layer, Needs,
    pointwise::{Params, backward, forward, stages},
};
use crate::{lower::Lower, tile::relu};
use alexnode_core::{
    Result, Shape, Stage, Target,
    host::Host,
    kernel::{Access, Args, Kernel},
};
use serde::{Deserialize, Serialize};

/// y = max(0, x). The gradient passes only where y > 0, so it is 0 at x = 0 (2012 code, neuron.cuh). A NaN stays a NaN, so
/// that the loss shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Relu {
    /// The layer's name.
    pub name: String,
}

/// y = max(0, y). Arguments: y.
struct ReluForward;
/// dy = y > 0 ? dy : 0. Arguments: y, dy.
struct ReluBackward;

impl Kernel for ReluForward {
    type Params = Params;
    const NAME: &'static str = "relu_forward";
    const SOURCE: &'static str = "relu.cu";
    const ACCESS: &'static [Access] = &[Access::ReadWrite];
    fn run(p: &Params, args: &Args<'_>, host: &dyn Host) {
        forward(p, args, host, |y| {
            for v in y {
                *v = relu(*v);
            }
        });
    }
    fn stages(p: &Params, _: &Target) -> Vec<Stage> {
        stages(p, Self::NAME)
    }
}

impl Kernel for ReluBackward {
    type Params = Params;
    const NAME: &'static str = "relu_backward";
    const SOURCE: &'static str = "relu.cu";
    const ACCESS: &'static [Access] = &[Access::Read, Access::ReadWrite];
    fn run(p: &Params, args: &Args<'_>, host: &dyn Host) {
        backward(p, args, host, |dy, y| *dy = if y > 0.0 { *dy } else { 0.0 });
    }
    fn stages(p: &Params, _: &Target) -> Vec<Stage> {
        stages(p, Self::NAME)
    }
}

impl Layer for Relu {
    fn kind(&self) -> &'static str {
        "Relu"
    }
    fn name(&self) -> &str {
        &self.name
    }
    fn output(&self, input: Shape) -> Result<Shape> {
        Ok(input)
    }
    fn needs(&self) -> Needs {
        Needs { input: false, output: true }
    }
    fn elementwise(&self) -> bool {
        true
    }
    fn forward(&self, cx: &mut Lower<'_>) {
        let y = cx.y;
        cx.launch::<ReluForward>(Params::forward(&y), &[y.arg()]);
    }
    fn backward(&self, cx: &mut Lower<'_>) {
        let (y, dy) = (cx.y, cx.dy());
        cx.launch::<ReluBackward>(Params::backward(&y, &dy), &[y.arg(), dy.arg()]);
    }
}
