//! Hyperbolic tangent, y = tanh(x): what the paper compares the ReLU with (section 3.1, figure 1). In place, both ways.

use super::{
    Layer, Needs,
    pointwise::{Params, backward, forward, stages},
};
use crate::lower::Lower;
use crate::tile::for_vectors;
use alexnode_core::{
    Result, Shape, Stage, Target,
    host::Host,
    kernel::{Access, Args, Kernel},
};
use serde::{Deserialize, Serialize};

/// y = tanh(x), `tanh[1,1]` of the 2012 code. The gradient is dy (1 - y^2).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tanh {
    /// The layer's name.
    pub name: String,
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
        forward(p, args, host, apply);
    }
    fn stages(p: &Params, _: &Target) -> Vec<Stage> {
        stages(p, Self::NAME)
    }
}

impl Kernel for TanhBackward {
    type Params = Params;
    const NAME: &'static str = "tanh_backward";
    const SOURCE: &'static str = "tanh.cu";
    const ACCESS: &'static [Access] = &[Access::Read, Access::ReadWrite];
    fn run(p: &Params, args: &Args<'_>, host: &dyn Host) {
        backward(p, args, host, |dy, y| *dy *= 1.0 - y * y);
    }
    fn stages(p: &Params, _: &Target) -> Vec<Stage> {
        stages(p, Self::NAME)
    }
}

for_vectors!(apply, apply_any, (y: &mut [f32]));

/// y = tanh(y).
#[inline(always)]
fn apply_any(y: &mut [f32]) {
    for v in y {
        *v = tanh(*v);
    }
}

/// tanh(x) without branches; its relative error is below 2^-22.
///
/// With m = e^(2 |x|) - 1 it is m / (m + 2). 2 |x| = n ln 2 + r with |r| <= ln 2 / 2, so that m = 2^n (e^r - 1) + (2^n - 1):
/// nothing cancels near 0. Beyond 10 the result is 1 in f32.
#[inline(always)]
fn tanh(x: f32) -> f32 {
    // ln 2 in two parts; the first times n is exact.
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    // Adding it rounds to a whole number, which is then in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let y = 2.0 * if x.abs() < 10.0 { x.abs() } else { 10.0 };
    let shifted = y * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = y - n * LN_2[0] - n * LN_2[1];
    // The power series of e^r - 1.
    let mut m = 1.0 / 5040.0;
    for k in [720.0, 120.0, 24.0, 6.0, 2.0, 1.0] {
        m = m * r + 1.0 / k;
    }
    m *= r;
    let power = f32::from_bits(((shifted.to_bits() as i32 - ROUND.to_bits() as i32 + 127) << 23) as u32);
    let m = power * m + (power - 1.0);
    let tanh = (m / (m + 2.0)).copysign(x);
    if x.is_nan() { x } else { tanh }
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
        cx.launch::<TanhForward>(Params::forward(&y), &[y.arg()]);
    }
    fn backward(&self, cx: &mut Lower<'_>) {
        let (y, dy) = (cx.y, cx.dy());
        cx.launch::<TanhBackward>(Params::backward(&y, &dy), &[y.arg(), dy.arg()]);
    }
}

#[cfg(test)]
mod tests {
    use super::tanh;

    #[test]
    fn tanh_is_as_good_as_a_float_can_be() {
        let values = (0..400_000).map(|i| (i as f32 * 1e-4 - 20.0) * if i % 2 == 0 { 1.0 } else { 1e-3 });
        for x in values.chain([0.0, -0.0, 1e-30, f32::MIN_POSITIVE, 88.0, f32::MAX, f32::INFINITY, -f32::INFINITY]) {
            let want = f64::from(x).tanh();
            let error = (f64::from(tanh(x)) - want).abs();
            assert!(error <= 2.0 * f64::from(f32::EPSILON) * want.abs(), "{x}: {} against {want}", tanh(x));
        }
        assert!(tanh(f32::NAN).is_nan());
        assert_eq!(tanh(-0.0).to_bits(), (-0.0f32).to_bits());
    }
}
