//! Hyperbolic tangent, y = tanh(x): what the paper compares the ReLU with (section 3.1, figure 1). In place, both ways.

use super::{Layer, Needs, rows::rows};
use crate::lower::{Lower, Tensor};
use alexnode_core::{
    Result, Shape,
    host::{Host, Shared},
    kernel::{Access, Args, Kernel},
};
use bytemuck::{Pod, Zeroable};
use serde::{Deserialize, Serialize};

/// y = tanh(x), `tanh[1,1]` of the 2012 code. The gradient is dy (1 - y^2).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tanh {
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

/// y = tanh(y). Arguments: y.
struct TanhForward;
/// dy = dy (1 - y^2). Arguments: y, dy.
struct TanhBackward;

impl Kernel for TanhForward {
    type Params = Params;
    const NAME: &'static str = "tanh_forward";
    const SOURCE: &'static str = "tanh.cu";
    const ACCESS: &'static [Access] = &[Access::ReadWrite];
    fn run(p: &Params, args: &Args<'_>, host: &dyn Host) {
        let ld = p.y_ld as usize;
        let y = Shared::new(args.write::<f32>(0));
        rows(host, p.rows as usize, p.c as usize, p.y_ld == p.c, |row, len| {
            // SAFETY: every row is visited once.
            for v in unsafe { y.range(row * ld, len) } {
                *v = v.tanh();
            }
        });
    }
}

impl Kernel for TanhBackward {
    type Params = Params;
    const NAME: &'static str = "tanh_backward";
    const SOURCE: &'static str = "tanh.cu";
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
                *d *= 1.0 - y * y;
            }
        });
    }
}

impl Tanh {
    fn params(y: &Tensor, dy_ld: usize) -> Params {
        Params { rows: y.rows() as i32, c: y.shape.c as i32, y_ld: y.ld as i32, dy_ld: dy_ld as i32 }
    }
}

impl Layer for Tanh {
    fn kind(&self) -> &'static str {
        "Tanh"
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
        cx.launch::<TanhForward>(Self::params(&y, 0), &[y.arg()]);
    }
    fn backward(&self, cx: &mut Lower<'_>) {
        let (y, dy) = (cx.y, cx.dy());
        cx.launch::<TanhBackward>(Self::params(&y, dy.ld), &[y.arg(), dy.arg()]);
    }
}
