//! Rectified linear unit, y = max(0, x) (paper section 3.1). In place, both ways.

use super::{Layer, Needs};
use crate::lower::{Lower, Tensor};
use alexnode_core::{
    Result, Shape,
    host::{Host, Shared},
    kernel::{Access, Args, Kernel},
};
use bytemuck::{Pod, Zeroable};
use serde::{Deserialize, Serialize};

/// y = max(0, x). The gradient passes only where y > 0, so it is 0 at x = 0 (2012 code, neuron.cuh).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Relu {
    /// The layer's name.
    pub name: String,
}

/// Rows of `c` elements, `ld` elements apart: the pixels of an NHWC tensor or of a tower's half of one.
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

/// Rows that one task handles: enough work to be worth handing out.
const ROWS: usize = 512;

impl Kernel for ReluForward {
    type Params = Params;
    const NAME: &'static str = "relu_forward";
    const SOURCE: &'static str = "relu.cu";
    const ACCESS: &'static [Access] = &[Access::ReadWrite];
    fn run(p: &Params, args: &Args<'_>, host: &dyn Host) {
        let (rows, c, ld) = (p.rows as usize, p.c as usize, p.y_ld as usize);
        let y = Shared::new(args.write::<f32>(0));
        host.parallel(rows.div_ceil(ROWS), &|task, _| {
            for row in task * ROWS..rows.min((task + 1) * ROWS) {
                // SAFETY: each row belongs to one task.
                for v in unsafe { y.range(row * ld, c) } {
                    *v = v.max(0.0);
                }
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
        let (rows, c) = (p.rows as usize, p.c as usize);
        let y = args.read::<f32>(0);
        let dy = Shared::new(args.write::<f32>(1));
        host.parallel(rows.div_ceil(ROWS), &|task, _| {
            for row in task * ROWS..rows.min((task + 1) * ROWS) {
                let y = &y[row * p.y_ld as usize..][..c];
                // SAFETY: each row belongs to one task.
                let dy = unsafe { dy.range(row * p.dy_ld as usize, c) };
                for (d, y) in dy.iter_mut().zip(y) {
                    *d = if *y > 0.0 { *d } else { 0.0 };
                }
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
