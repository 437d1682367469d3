//! The transforms of minimal filtering, F(4 x 4, 3 x 3) (Winograd 1980; Lavin and Gray 2016): a tile of 4 x 4 outputs from 6 x 6 inputs by 36 products
//! in place of 144.
//!
//! Along one axis, with the points 0, a, -a, b, -b and infinity: inputs d become the coefficients of d's polynomial modulo the points' product, filters and outputs
//! are polynomials at the points. With a = 3/4 and b = 3/2 the coefficients of inputs and outputs are exact, and what is lost by rounding is less than half of that with the
//! usual 1 and 2: 1.4e-6 of a sum over 256 channels, where adding up the products loses 0.8e-6.
//!
//! Sixteen channels at a time.

use crate::layers::relu::relu;
use std::ops::{Add, Mul, Sub};

/// Outputs of a tile along an axis.
pub const OUTPUTS: usize = 4;
/// Inputs of a tile along an axis.
pub const INPUTS: usize = 6;
/// Products of a tile and channel.
pub const POINTS: usize = INPUTS * INPUTS;
/// Channels that are transformed at once.
pub const LANES: usize = 16;

const A: f32 = 0.75;
const B: f32 = 1.5;
const A2: f32 = A * A;
const B2: f32 = B * B;
/// Filters at 0 are divided by the product of the distances to the other points; likewise at a and -a, and at b and -b.
const AT_ZERO: f32 = 1.0 / (A2 * B2);
const AT_A: f32 = 1.0 / (2.0 * A2 * (A2 - B2));
const AT_B: f32 = 1.0 / (2.0 * B2 * (B2 - A2));

/// Sixteen channels of a pixel.
#[derive(Clone, Copy)]
pub struct Wide(pub [f32; LANES]);

impl Wide {
    pub const ZERO: Self = Self([0.0; LANES]);

    /// Up to sixteen channels, then zeros.
    #[inline(always)]
    pub fn load(from: &[f32]) -> Self {
        if let Some(all) = from.first_chunk() {
            return Self(*all);
        }
        let mut wide = Self::ZERO;
        wide.0[..from.len()].copy_from_slice(from);
        wide
    }
    /// 0 for what is at most 0.
    #[inline(always)]
    pub fn relu(mut self) -> Self {
        for value in &mut self.0 {
            *value = relu(*value);
        }
        self
    }
    /// As many channels as there is room for.
    #[inline(always)]
    pub fn store(self, to: &mut [f32]) {
        if let Some(all) = to.first_chunk_mut() {
            *all = self.0;
        } else {
            to.copy_from_slice(&self.0[..to.len()]);
        }
    }
}

// Loops, not closures: what takes a closure is not always inlined, and then lacks the vectors of its caller.
impl Add for Wide {
    type Output = Self;
    #[inline(always)]
    fn add(mut self, other: Self) -> Self {
        for i in 0..LANES {
            self.0[i] += other.0[i];
        }
        self
    }
}

impl Sub for Wide {
    type Output = Self;
    #[inline(always)]
    fn sub(mut self, other: Self) -> Self {
        for i in 0..LANES {
            self.0[i] -= other.0[i];
        }
        self
    }
}

impl Mul<f32> for Wide {
    type Output = Self;
    #[inline(always)]
    fn mul(mut self, by: f32) -> Self {
        for i in 0..LANES {
            self.0[i] *= by;
        }
        self
    }
}

/// Of inputs.
#[inline(always)]
pub fn input([d0, d1, d2, d3, d4, d5]: [Wide; INPUTS]) -> [Wide; INPUTS] {
    let even = |square: f32| d4 - d2 * square;
    let odd = |square: f32, point: f32| (d3 - d1 * square) * point;
    let (ea, oa, eb, ob) = (even(B2), odd(B2, A), even(A2), odd(A2, B));
    let (sum, product) = (A2 + B2, A2 * B2);
    [d0 * product - d2 * sum + d4, ea + oa, ea - oa, eb + ob, eb - ob, d1 * product - d3 * sum + d5]
}

/// Of filters.
#[inline(always)]
pub fn filter([g0, g1, g2]: [Wide; 3]) -> [Wide; INPUTS] {
    let (ea, oa) = ((g0 + g2 * A2) * AT_A, g1 * (A * AT_A));
    let (eb, ob) = ((g0 + g2 * B2) * AT_B, g1 * (B * AT_B));
    [g0 * AT_ZERO, ea + oa, ea - oa, eb + ob, eb - ob, g2]
}

/// Back to outputs.
#[inline(always)]
pub fn output([m0, m1, m2, m3, m4, m5]: [Wide; INPUTS]) -> [Wide; OUTPUTS] {
    let (sa, da, sb, db) = (m1 + m2, m1 - m2, m3 + m4, m3 - m4);
    [m0 + (sa + sb), da * A + db * B, sa * A2 + sb * B2, da * (A2 * A) + db * (B2 * B) + m5]
}

/// The transposed of [`output`]: of gradients by outputs.
#[inline(always)]
pub fn output_gradient([y0, y1, y2, y3]: [Wide; OUTPUTS]) -> [Wide; INPUTS] {
    let (ea, oa) = (y0 + y2 * A2, (y1 + y3 * A2) * A);
    let (eb, ob) = (y0 + y2 * B2, (y1 + y3 * B2) * B);
    [y0, ea + oa, ea - oa, eb + ob, eb - ob, y3]
}

/// The transposed of [`filter`]: back to gradients by filters.
#[inline(always)]
pub fn filter_gradient([u0, u1, u2, u3, u4, u5]: [Wide; INPUTS]) -> [Wide; 3] {
    let (sa, da) = ((u1 + u2) * AT_A, (u1 - u2) * (A * AT_A));
    let (sb, db) = ((u3 + u4) * AT_B, (u3 - u4) * (B * AT_B));
    [u0 * AT_ZERO + sa + sb, da + db, sa * A2 + sb * B2 + u5]
}

/// A transform along both axes, from what `load(row, column)` gives to `store(row, column, value)`; what lies in between takes `half`.
#[inline(always)]
pub fn both<const I: usize, const O: usize>(
    along: impl Fn([Wide; I]) -> [Wide; O],
    half: &mut [[Wide; I]; O],
    load: impl Fn(usize, usize) -> Wide,
    mut store: impl FnMut(usize, usize, Wide),
) {
    for j in 0..I {
        let mut column = [Wide::ZERO; I];
        for (i, value) in column.iter_mut().enumerate() {
            *value = load(i, j);
        }
        for (half, value) in half.iter_mut().zip(along(column)) {
            half[j] = value;
        }
    }
    for (i, half) in half.iter().enumerate() {
        for (j, value) in along(*half).into_iter().enumerate() {
            store(i, j, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wide<const N: usize>(values: [f32; N]) -> [Wide; N] {
        values.map(|v| Wide([v; LANES]))
    }
    fn numbers<const N: usize>(values: [Wide; N]) -> [f32; N] {
        values.map(|v| v.0[3])
    }

    #[test]
    fn six_products_make_four_outputs() {
        let (d, g) = ([1.0, -2.0, 3.0, 0.5, -1.5, 4.0], [2.0, -1.0, 0.25]);
        let (t, u) = (input(wide(d)), filter(wide(g)));
        let products = std::array::from_fn(|i| Wide(std::array::from_fn(|lane| t[i].0[lane] * u[i].0[lane])));
        for (i, y) in numbers(output(products)).into_iter().enumerate() {
            let want: f32 = (0..3).map(|k| d[i + k] * g[k]).sum();
            assert!((y - want).abs() < 1e-5, "output {i}: {y}, want {want}");
        }
    }

    /// <f(x), y> = <x, f'(y)>.
    #[test]
    fn gradients_are_transposed() {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let (long, y, g) = ([1.0, -2.0, 3.0, 0.5, -1.5, 4.0], [0.5, 2.0, -1.0, 3.0], [2.0, -1.0, 0.25]);
        let (one, other) = (dot(&numbers(output(wide(long))), &y), dot(&long, &numbers(output_gradient(wide(y)))));
        assert!((one - other).abs() < 1e-4, "{one} and {other}");
        let (one, other) = (dot(&numbers(filter(wide(g))), &long), dot(&g, &numbers(filter_gradient(wide(long)))));
        assert!((one - other).abs() < 1e-4, "{one} and {other}");
    }
}
