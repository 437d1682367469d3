//! Rectified linear unit, y = max(0, x) (paper section 3.1). In place, both ways.

use super::{Layer, Needs, rows::rows};
use crate::lower::{Lower, Tensor};
use alexnode_core::{
    Result, Shape,
    host::{Host, Shared},
    kernel::{Access, Args, Kernel},
};
use bytemuck::{Pod, Zeroable};
use serde::{Deserialize, Serialize};

/// y = max(0, x). The gradient passes only where y > 0, so it is 0 at x = 0 (2012 code, neuron.cuh). A NaN stays a NaN, so
/// that the loss shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Relu {
    /// The layer's name.
    pub name: String,
}

/// `rows` rows of `c` elements. `dy_ld` is 0 in the forward pass.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Params {
    rows: i32,
    c: i32,
    y_ld: i32,
    dy_ld: i32,
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
        let ld = p.y_ld as usize;
        let y = Shared::new(args.write::<f32>(0));
        rows(host, p.rows as usize, p.c as usize, p.y_ld == p.c, |row, len| {
            // SAFETY: every row is visited once.
            for v in unsafe { y.range(row * ld, len) } {
                *v = if *v <= 0.0 { 0.0 } else { *v };
            }
        });
    }
}

impl Kernel for ReluBackward {
    type Params = Params;
    const NAME: &'static str = "relu_backward";
    const SOURCE: &'static str = "relu.cu";
    const ACCESS: &'static [Access] = &[Access::Read, Access::ReadWrite];
    fn run(p: &Params, args: &Args<'_>, host: &dyn Host) {
        let y = args.read::<f32>(0);
        let dy = Shared::new(args.write::<f32>(1));
        let contiguous = p.y_ld == p.c && p.dy_ld == p.c;
        rows(host, p.rows as usize, p.c as usize, contiguous, |row, len| {
            let y = &y[row * p.y_ld as usize..][..len];
            // SAFETY: every row is visited once.
            let dy = unsafe { dy.range(row * p.dy_ld as usize, len) };
            for (d, y) in dy.iter_mut().zip(y) {
                *d = if *y > 0.0 { *d } else { 0.0 };
            }
        });
    }
}

impl Relu {
    fn params(y: &Tensor, dy_ld: usize) -> Params {
        Params { rows: y.rows() as i32, c: y.shape.c as i32, y_ld: y.ld as i32, dy_ld: dy_ld as i32 }
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
        cx.launch::<ReluForward>(Self::params(&y, 0), &[y.arg()]);
    }
    fn backward(&self, cx: &mut Lower<'_>) {
        let (y, dy) = (cx.y, cx.dy());
        cx.launch::<ReluBackward>(Self::params(&y, dy.ld), &[y.arg(), dy.arg()]);
    }
}
