//! What ReLU and tanh share: functions of one number, in place both ways, whose gradient is a function of their result.

use super::rows::rows;
use crate::lower::Tensor;
use alexnode_core::{
    Stage,
    host::{Host, Shared},
    kernel::Args,
};
use bytemuck::{Pod, Zeroable};

/// `rows` rows of `c` elements. `dy_ld` is 0 in the forward pass.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Params {
    pub rows: i32,
    pub c: i32,
    pub y_ld: i32,
    pub dy_ld: i32,
}

impl Params {
    /// Forward.
    pub fn forward(y: &Tensor) -> Self {
        Self { rows: y.rows() as i32, c: y.shape.c as i32, y_ld: y.ld as i32, dy_ld: 0 }
    }
    /// Backward.
    pub fn backward(y: &Tensor, dy: &Tensor) -> Self {
        Self { dy_ld: dy.ld as i32, ..Self::forward(y) }
    }
}

/// A CUDA kernel with one thread per element.
pub fn stages(p: &Params, entry: &'static str) -> Vec<Stage> {
    vec![Stage::each(entry, p.rows as usize * p.c as usize)]
}

/// Calls `body(y)` for the pieces of y, argument 0.
pub fn forward(p: &Params, args: &Args<'_>, host: &dyn Host, body: impl Fn(&mut [f32]) + Sync) {
    let y = Shared::new(args.write::<f32>(0));
    rows(host, p.rows as usize, p.c as usize, p.y_ld == p.c, |row, len| {
        // SAFETY: every row is visited once.
        body(unsafe { y.range(row * p.y_ld as usize, len) });
    });
}

/// Calls `body(dy, y)` for every element of y, argument 0, and dy, argument 1.
pub fn backward(p: &Params, args: &Args<'_>, host: &dyn Host, body: impl Fn(&mut f32, f32) + Sync) {
    let y = args.read::<f32>(0);
    let dy = Shared::new(args.write::<f32>(1));
    let contiguous = p.y_ld == p.c && p.dy_ld == p.c;
    rows(host, p.rows as usize, p.c as usize, contiguous, |row, len| {
        let y = &y[row * p.y_ld as usize..][..len];
        // SAFETY: every row is visited once.
        let dy = unsafe { dy.range(row * p.dy_ld as usize, len) };
        for (dy, y) in dy.iter_mut().zip(y) {
            body(dy, *y);
        }
    });
}
