//! The transforms of minimal filtering (Winograd 1980; Lavin and Gray 2016): a tile of 6 x 6 inputs and 36 products make 4 x 4 outputs of a 3 x 3 kernel, in place of 144,
//! or 2 x 2 outputs of a 5 x 5 kernel, in place of 100.
//!
//! Along one axis, with the points 0, a, -a, b, -b and infinity: inputs d become the coefficients of d's polynomial modulo the points' product, filters and outputs
//! are polynomials at the points. With a = 3/4 and b = 3/2 the coefficients of inputs and outputs are exact, and what is lost by rounding is less than half of that with the
//! usual 1 and 2: 1.4e-6 of a sum over 256 channels of 3 x 3 pixels, where adding up the products loses 0.8e-6.
//!
//! Some channels at a time, by the vectors of the processor.

use crate::tile::Vector;
use std::ops::{Add, Mul, Sub};

/// Inputs of a tile along an axis.
pub const INPUTS: usize = 6;
/// Products of a tile and channel.
pub const POINTS: usize = INPUTS * INPUTS;
/// Channels that are transformed at once, at most.
pub const LANES: usize = 16;

const A: f32 = 0.75;
const B: f32 = 1.5;
const A2: f32 = A * A;
const B2: f32 = B * B;
/// Filters at 0 are divided by the product of the distances to the other points; likewise at a and -a, and at b and -b.
const AT_ZERO: f32 = 1.0 / (A2 * B2);
const AT_A: f32 = 1.0 / (2.0 * A2 * (A2 - B2));
const AT_B: f32 = 1.0 / (2.0 * B2 * (B2 - A2));

/// Some channels of a pixel, at most [`LANES`]. Made only where the processor has the instructions of `V`, which its operators rely on.
#[derive(Clone, Copy)]
pub struct Wide<V>(V);

impl<V: Vector> Wide<V> {
    /// # Safety
    /// The processor has the instructions of `V`.
    #[inline(always)]
    pub unsafe fn zero() -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { V::splat(&0.0) })
    }
    /// As many channels as `from` has, then zeros.
    ///
    /// # Safety
    /// The processor has the instructions of `V`.
    #[inline(always)]
    pub unsafe fn load(from: &[f32]) -> Self {
        if from.len() >= V::LANES {
            // SAFETY: there are so many elements.
            return Self(unsafe { V::load(from.as_ptr()) });
        }
        let mut lanes = [0.0; LANES];
        lanes[..from.len()].copy_from_slice(from);
        // SAFETY: no vector is longer.
        Self(unsafe { V::load(lanes.as_ptr()) })
    }
    /// As many channels as there is room for.
    #[inline(always)]
    pub fn store(self, to: &mut [f32]) {
        if to.len() >= V::LANES {
            // SAFETY: there is room for so many elements.
            return unsafe { self.0.store(to.as_mut_ptr()) };
        }
        let mut lanes = [0.0; LANES];
        // SAFETY: no vector is longer.
        unsafe { self.0.store(lanes.as_mut_ptr()) };
        to.copy_from_slice(&lanes[..to.len()]);
    }
    /// 0 for what is at most 0.
    #[inline(always)]
    pub fn relu(self) -> Self {
        // SAFETY: `self` was made where the processor has the instructions.
        Self(unsafe { self.0.relu() })
    }
}

impl<V: Vector> Add for Wide<V> {
    type Output = Self;
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: as for `relu`.
        Self(unsafe { self.0.add(other.0) })
    }
}

impl<V: Vector> Sub for Wide<V> {
    type Output = Self;
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: as for `relu`.
        Self(unsafe { self.0.sub(other.0) })
    }
}

impl<V: Vector> Mul<f32> for Wide<V> {
    type Output = Self;
    #[inline(always)]
    fn mul(self, by: f32) -> Self {
        // SAFETY: as for `relu`.
        Self(unsafe { self.0.mul(V::splat(&by)) })
    }
}

/// A transform along one axis. (A trait, as a function that is passed on is not always inlined.)
pub trait Along<const I: usize, const O: usize> {
    fn apply<V: Vector>(x: [Wide<V>; I]) -> [Wide<V>; O];
}

/// Of inputs.
pub struct Input;

impl Along<INPUTS, INPUTS> for Input {
    #[inline(always)]
    fn apply<V: Vector>([d0, d1, d2, d3, d4, d5]: [Wide<V>; INPUTS]) -> [Wide<V>; INPUTS] {
        let even = |square: f32| d4 - d2 * square;
        let odd = |square: f32, point: f32| (d3 - d1 * square) * point;
        let (ea, oa, eb, ob) = (even(B2), odd(B2, A), even(A2), odd(A2, B));
        let (sum, product) = (A2 + B2, A2 * B2);
        [d0 * product - d2 * sum + d4, ea + oa, ea - oa, eb + ob, eb - ob, d1 * product - d3 * sum + d5]
    }
}

/// Of filters of three.
pub struct Filter3;

impl Along<3, INPUTS> for Filter3 {
    #[inline(always)]
    fn apply<V: Vector>([g0, g1, g2]: [Wide<V>; 3]) -> [Wide<V>; INPUTS] {
        let (ea, oa) = ((g0 + g2 * A2) * AT_A, g1 * (A * AT_A));
        let (eb, ob) = ((g0 + g2 * B2) * AT_B, g1 * (B * AT_B));
        [g0 * AT_ZERO, ea + oa, ea - oa, eb + ob, eb - ob, g2]
    }
}

/// Of filters of five.
pub struct Filter5;

impl Along<5, INPUTS> for Filter5 {
    #[inline(always)]
    fn apply<V: Vector>([g0, g1, g2, g3, g4]: [Wide<V>; 5]) -> [Wide<V>; INPUTS] {
        let (ea, oa) = ((g0 + g2 * A2 + g4 * (A2 * A2)) * AT_A, (g1 + g3 * A2) * (A * AT_A));
        let (eb, ob) = ((g0 + g2 * B2 + g4 * (B2 * B2)) * AT_B, (g1 + g3 * B2) * (B * AT_B));
        [g0 * AT_ZERO, ea + oa, ea - oa, eb + ob, eb - ob, g4]
    }
}

/// Back to four outputs.
pub struct Output4;

impl Along<INPUTS, 4> for Output4 {
    #[inline(always)]
    fn apply<V: Vector>([m0, m1, m2, m3, m4, m5]: [Wide<V>; INPUTS]) -> [Wide<V>; 4] {
        let (sa, da, sb, db) = (m1 + m2, m1 - m2, m3 + m4, m3 - m4);
        [m0 + (sa + sb), da * A + db * B, sa * A2 + sb * B2, da * (A2 * A) + db * (B2 * B) + m5]
    }
}

/// Back to two outputs.
pub struct Output2;

impl Along<INPUTS, 2> for Output2 {
    #[inline(always)]
    fn apply<V: Vector>([m0, m1, m2, m3, m4, m5]: [Wide<V>; INPUTS]) -> [Wide<V>; 2] {
        [m0 + ((m1 + m2) + (m3 + m4)), (m1 - m2) * A + (m3 - m4) * B + m5]
    }
}

/// The transposed of [`Output4`]: of gradients by outputs.
pub struct Output4Gradient;

impl Along<4, INPUTS> for Output4Gradient {
    #[inline(always)]
    fn apply<V: Vector>([y0, y1, y2, y3]: [Wide<V>; 4]) -> [Wide<V>; INPUTS] {
        let (ea, oa) = (y0 + y2 * A2, (y1 + y3 * A2) * A);
        let (eb, ob) = (y0 + y2 * B2, (y1 + y3 * B2) * B);
        [y0, ea + oa, ea - oa, eb + ob, eb - ob, y3]
    }
}

/// The transposed of [`Output2`].
pub struct Output2Gradient;

impl Along<2, INPUTS> for Output2Gradient {
    #[inline(always)]
    fn apply<V: Vector>([y0, y1]: [Wide<V>; 2]) -> [Wide<V>; INPUTS] {
        let (oa, ob) = (y1 * A, y1 * B);
        [y0, y0 + oa, y0 - oa, y0 + ob, y0 - ob, y1]
    }
}

/// The transposed of [`Filter3`]: back to gradients by filters.
pub struct Filter3Gradient;

impl Along<INPUTS, 3> for Filter3Gradient {
    #[inline(always)]
    fn apply<V: Vector>([u0, u1, u2, u3, u4, u5]: [Wide<V>; INPUTS]) -> [Wide<V>; 3] {
        let (sa, da) = ((u1 + u2) * AT_A, (u1 - u2) * (A * AT_A));
        let (sb, db) = ((u3 + u4) * AT_B, (u3 - u4) * (B * AT_B));
        [u0 * AT_ZERO + sa + sb, da + db, sa * A2 + sb * B2 + u5]
    }
}

/// The transposed of [`Filter5`].
pub struct Filter5Gradient;

impl Along<INPUTS, 5> for Filter5Gradient {
    #[inline(always)]
    fn apply<V: Vector>([u0, u1, u2, u3, u4, u5]: [Wide<V>; INPUTS]) -> [Wide<V>; 5] {
        let (sa, da) = ((u1 + u2) * AT_A, (u1 - u2) * (A * AT_A));
        let (sb, db) = ((u3 + u4) * AT_B, (u3 - u4) * (B * AT_B));
        let (sa2, sb2) = (sa * A2, sb * B2);
        [u0 * AT_ZERO + sa + sb, da + db, sa2 + sb2, da * A2 + db * B2, sa2 * A2 + sb2 * B2 + u5]
    }
}

/// Some channels of a tile before and after a transform. (A trait, as closures are not always inlined either.)
pub trait Channels<V: Vector> {
    /// What lies at a row and a column before it.
    ///
    /// # Safety
    /// The processor has the instructions of `V`.
    unsafe fn load(&self, row: usize, column: usize) -> Wide<V>;
    /// Takes what comes to lie at a row and a column.
    fn store(&mut self, row: usize, column: usize, value: Wide<V>);
}

/// A transform along both axes.
///
/// # Safety
/// The processor has the instructions of `V`.
#[inline(always)]
pub unsafe fn both<A: Along<I, O>, V: Vector, const I: usize, const O: usize>(channels: &mut impl Channels<V>) {
    // SAFETY: the caller's promise.
    let zero = unsafe { Wide::zero() };
    let mut half = [[zero; I]; O];
    for j in 0..I {
        let mut column = [zero; I];
        for (i, value) in column.iter_mut().enumerate() {
            // SAFETY: as above.
            *value = unsafe { channels.load(i, j) };
        }
        for (half, value) in half.iter_mut().zip(A::apply(column)) {
            half[j] = value;
        }
    }
    for (i, half) in half.iter().enumerate() {
        for (j, value) in A::apply(*half).into_iter().enumerate() {
            channels.store(i, j, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One number a vector.
    #[derive(Clone, Copy)]
    struct One(f32);

    impl Vector for One {
        const LANES: usize = 1;
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: the caller's promise.
            Self(unsafe { *from })
        }
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: the caller's promise.
            unsafe { *to = self.0 };
        }
        unsafe fn splat(from: *const f32) -> Self {
            // SAFETY: the caller's promise.
            Self(unsafe { *from })
        }
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            Self(a.0 * b.0 + self.0)
        }
        unsafe fn add(self, other: Self) -> Self {
            Self(self.0 + other.0)
        }
        unsafe fn sub(self, other: Self) -> Self {
            Self(self.0 - other.0)
        }
        unsafe fn mul(self, other: Self) -> Self {
            Self(self.0 * other.0)
        }
        unsafe fn relu(self) -> Self {
            Self(self.0.max(0.0))
        }
    }

    fn wide<const N: usize>(values: [f32; N]) -> [Wide<One>; N] {
        values.map(|v| Wide(One(v)))
    }
    fn numbers<const N: usize>(values: [Wide<One>; N]) -> [f32; N] {
        values.map(|v| v.0.0)
    }

    const D: [f32; INPUTS] = [1.0, -2.0, 3.0, 0.5, -1.5, 4.0];
    const G: [f32; 5] = [2.0, -1.0, 0.25, 1.5, -0.5];

    fn dot(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    #[test]
    fn six_products_make_all_outputs() {
        let products = |u: [Wide<One>; INPUTS]| {
            let (t, u) = (numbers(Input::apply(wide(D))), numbers(u));
            wide(std::array::from_fn(|i| t[i] * u[i]))
        };
        let (four, two) = (
            Output4::apply(products(Filter3::apply(wide([2.0, -1.0, 0.25])))),
            Output2::apply(products(Filter5::apply(wide(G)))),
        );
        for (filter, outputs) in [(3, numbers(four).to_vec()), (5, numbers(two).to_vec())] {
            for (i, y) in outputs.into_iter().enumerate() {
                let want = dot(&D[i..], &G[..filter]);
                assert!((y - want).abs() < 1e-4, "{filter}, output {i}: {y}, want {want}");
            }
        }
    }

    /// <f(x), y> = <x, f'(y)>.
    #[test]
    fn gradients_are_transposed() {
        let (y, g) = ([0.5, 2.0, -1.0, 3.0], [2.0, -1.0, 0.25]);
        for (name, one, other) in [
            ("four", dot(&numbers(Output4::apply(wide(D))), &y), dot(&D, &numbers(Output4Gradient::apply(wide(y))))),
            (
                "two",
                dot(&numbers(Output2::apply(wide(D))), &[0.5, 2.0]),
                dot(&D, &numbers(Output2Gradient::apply(wide([0.5, 2.0])))),
            ),
            ("three", dot(&numbers(Filter3::apply(wide(g))), &D), dot(&g, &numbers(Filter3Gradient::apply(wide(D))))),
            ("five", dot(&numbers(Filter5::apply(wide(G))), &D), dot(&G, &numbers(Filter5Gradient::apply(wide(D))))),
        ] {
            assert!((one - other).abs() < 1e-3, "{name}: {one} and {other}");
        }
    }
}
