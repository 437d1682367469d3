//! The transforms of minimal filtering (Winograd 1980; Lavin and Gray 2016): a tile of 6 x 6 inputs and 36 products make 4 x 4 outputs of a 3 x 3 kernel, in place of 144,
//! and a tile of 8 x 8 inputs and 64 products 4 x 4 outputs of a 5 x 5 kernel, in place of 400.
//!
//! Along one axis, with the points 0, a, -a, b, -b (for five also c and -c) and infinity: inputs d become the coefficients of d's polynomial modulo the points' product,
//! filters and outputs are polynomials at the points. The coefficients of inputs and outputs are exact. For three, a = 3/4 and b = 3/2 lose less than half of what the usual 1 and 2 do: 1.4e-6 of
//! a sum over 256 channels of 3 x 3 pixels, where adding up the products loses 0.8e-6. For five, 1/2, 1 and 2 lose the least of
//! 693 triples of eighths from 1/4 to 5/2 and of 16,404 random sets without symmetry, all simulated: 3.0e-6 over 48 channels, by products 0.55e-6.
//!
//! Some channels at a time, by the vectors of the processor.

use crate::tile::Vector;
use std::ops::{Add, Mul, Sub};

/// Outputs of a tile along an axis.
pub const OUTPUTS: usize = 4;
/// The most products of a tile and channel.
pub const MOST_POINTS: usize = 64;
/// Channels that are transformed at once, at most.
pub const LANES: usize = 16;

/// Inputs of a tile along an axis.
pub fn inputs(kernel: usize) -> usize {
    kernel + OUTPUTS - 1
}

/// For kernels of three.
const A: f32 = 0.75;
const B: f32 = 1.5;
const A2: f32 = A * A;
const B2: f32 = B * B;
/// Filters at 0 are divided by the product of the distances to the other points; likewise at a and -a, and at b and -b.
const AT_ZERO: f32 = 1.0 / (A2 * B2);
const AT_A: f32 = 1.0 / (2.0 * A2 * (A2 - B2));
const AT_B: f32 = 1.0 / (2.0 * B2 * (B2 - A2));

/// The points for kernels of five, their squares, and what filters are divided by there and at 0.
const P: [f32; 3] = [0.5, 1.0, 2.0];
const P2: [f32; 3] = [P[0] * P[0], P[1] * P[1], P[2] * P[2]];
const AT_ZERO_5: f32 = -1.0 / (P2[0] * P2[1] * P2[2]);
const AT_5: [f32; 3] = [at(0, 1, 2), at(1, 0, 2), at(2, 0, 1)];

const fn at(i: usize, j: usize, k: usize) -> f32 {
    1.0 / (2.0 * P2[i] * (P2[i] - P2[j]) * (P2[i] - P2[k]))
}

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
    /// `self + other by`.
    #[inline(always)]
    fn plus(self, other: Self, by: f32) -> Self {
        // SAFETY: `self` was made where the processor has the instructions.
        Self(unsafe { self.0.add_product(other.0, V::splat(&by)) })
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

impl Along<6, 6> for Input {
    #[inline(always)]
    fn apply<V: Vector>([d0, d1, d2, d3, d4, d5]: [Wide<V>; 6]) -> [Wide<V>; 6] {
        let even = |square: f32| d4.plus(d2, -square);
        let odd = |square: f32, point: f32| d3.plus(d1, -square) * point;
        let (ea, oa, eb, ob) = (even(B2), odd(B2, A), even(A2), odd(A2, B));
        let (sum, product) = (A2 + B2, A2 * B2);
        let (first, last) = (d4.plus(d2, -sum).plus(d0, product), d5.plus(d3, -sum).plus(d1, product));
        [first, ea + oa, ea - oa, eb + ob, eb - ob, last]
    }
}

impl Along<8, 8> for Input {
    #[inline(always)]
    fn apply<V: Vector>([d0, d1, d2, d3, d4, d5, d6, d7]: [Wide<V>; 8]) -> [Wide<V>; 8] {
        // (x^2 - j^2) (x^2 - k^2), the points other than i.
        let even = |j: usize, k: usize| d6.plus(d4, -(P2[j] + P2[k])).plus(d2, P2[j] * P2[k]);
        let odd = |i: usize, j: usize, k: usize| d5.plus(d3, -(P2[j] + P2[k])).plus(d1, P2[j] * P2[k]) * P[i];
        let (ea, oa, eb, ob) = (even(1, 2), odd(0, 1, 2), even(0, 2), odd(1, 0, 2));
        let (ec, oc) = (even(0, 1), odd(2, 0, 1));
        // The squares' product is 1, and so the sum of their inverses is that of their pairs' products.
        let sum = P2[0] + P2[1] + P2[2];
        let (first, last) = ((d6 - d0).plus(d2 - d4, sum), (d7 - d1).plus(d3 - d5, sum));
        [first, ea + oa, ea - oa, eb + ob, eb - ob, ec + oc, ec - oc, last]
    }
}

/// Of filters.
pub struct Filter;

impl Along<3, 6> for Filter {
    #[inline(always)]
    fn apply<V: Vector>([g0, g1, g2]: [Wide<V>; 3]) -> [Wide<V>; 6] {
        let (ea, oa) = (g0.plus(g2, A2) * AT_A, g1 * (A * AT_A));
        let (eb, ob) = (g0.plus(g2, B2) * AT_B, g1 * (B * AT_B));
        [g0 * AT_ZERO, ea + oa, ea - oa, eb + ob, eb - ob, g2]
    }
}

impl Along<5, 8> for Filter {
    #[inline(always)]
    fn apply<V: Vector>([g0, g1, g2, g3, g4]: [Wide<V>; 5]) -> [Wide<V>; 8] {
        let even = |i: usize| g0.plus(g2, P2[i]).plus(g4, P2[i] * P2[i]) * AT_5[i];
        let odd = |i: usize| g1.plus(g3, P2[i]) * (P[i] * AT_5[i]);
        let (ea, oa, eb, ob, ec, oc) = (even(0), odd(0), even(1), odd(1), even(2), odd(2));
        [g0 * AT_ZERO_5, ea + oa, ea - oa, eb + ob, eb - ob, ec + oc, ec - oc, g4]
    }
}

/// Back to outputs.
pub struct Output;

impl Along<6, OUTPUTS> for Output {
    #[inline(always)]
    fn apply<V: Vector>([m0, m1, m2, m3, m4, m5]: [Wide<V>; 6]) -> [Wide<V>; OUTPUTS] {
        let (sa, da, sb, db) = (m1 + m2, m1 - m2, m3 + m4, m3 - m4);
        [m0 + (sa + sb), (da * A).plus(db, B), (sa * A2).plus(sb, B2), m5.plus(da, A2 * A).plus(db, B2 * B)]
    }
}

impl Along<8, OUTPUTS> for Output {
    #[inline(always)]
    fn apply<V: Vector>([m0, m1, m2, m3, m4, m5, m6, m7]: [Wide<V>; 8]) -> [Wide<V>; OUTPUTS] {
        let (sums, differences) = ([m1 + m2, m3 + m4, m5 + m6], [m1 - m2, m3 - m4, m5 - m6]);
        let add = |[a, b, c]: [Wide<V>; 3], by: [f32; 3]| (a * by[0]).plus(b, by[1]).plus(c, by[2]);
        let [da, db, dc] = differences;
        let last = m7.plus(da, P2[0] * P[0]).plus(db, P2[1] * P[1]).plus(dc, P2[2] * P[2]);
        [m0 + (sums[0] + sums[1] + sums[2]), add(differences, P), add(sums, P2), last]
    }
}

/// The transposed of [`Output`]: of gradients by outputs.
pub struct OutputGradient;

impl Along<OUTPUTS, 6> for OutputGradient {
    #[inline(always)]
    fn apply<V: Vector>([y0, y1, y2, y3]: [Wide<V>; OUTPUTS]) -> [Wide<V>; 6] {
        let (ea, oa) = (y0.plus(y2, A2), y1.plus(y3, A2) * A);
        let (eb, ob) = (y0.plus(y2, B2), y1.plus(y3, B2) * B);
        [y0, ea + oa, ea - oa, eb + ob, eb - ob, y3]
    }
}

impl Along<OUTPUTS, 8> for OutputGradient {
    #[inline(always)]
    fn apply<V: Vector>([y0, y1, y2, y3]: [Wide<V>; OUTPUTS]) -> [Wide<V>; 8] {
        let even = |i: usize| y0.plus(y2, P2[i]);
        let odd = |i: usize| y1.plus(y3, P2[i]) * P[i];
        let (ea, oa, eb, ob, ec, oc) = (even(0), odd(0), even(1), odd(1), even(2), odd(2));
        [y0, ea + oa, ea - oa, eb + ob, eb - ob, ec + oc, ec - oc, y3]
    }
}

/// The transposed of [`Filter`]: back to gradients by filters.
pub struct FilterGradient;

impl Along<6, 3> for FilterGradient {
    #[inline(always)]
    fn apply<V: Vector>([u0, u1, u2, u3, u4, u5]: [Wide<V>; 6]) -> [Wide<V>; 3] {
        let (sa, da) = ((u1 + u2) * AT_A, (u1 - u2) * (A * AT_A));
        let (sb, db) = ((u3 + u4) * AT_B, (u3 - u4) * (B * AT_B));
        [(sa + sb).plus(u0, AT_ZERO), da + db, u5.plus(sa, A2).plus(sb, B2)]
    }
}

impl Along<8, 5> for FilterGradient {
    #[inline(always)]
    fn apply<V: Vector>([u0, u1, u2, u3, u4, u5, u6, u7]: [Wide<V>; 8]) -> [Wide<V>; 5] {
        let (sa, da) = ((u1 + u2) * AT_5[0], (u1 - u2) * (P[0] * AT_5[0]));
        let (sb, db) = ((u3 + u4) * AT_5[1], (u3 - u4) * (P[1] * AT_5[1]));
        let (sc, dc) = ((u5 + u6) * AT_5[2], (u5 - u6) * (P[2] * AT_5[2]));
        let add = |a: Wide<V>, b: Wide<V>, c: Wide<V>| (a * P2[0]).plus(b, P2[1]).plus(c, P2[2]);
        let last = u7.plus(sa, P2[0] * P2[0]).plus(sb, P2[1] * P2[1]).plus(sc, P2[2] * P2[2]);
        [(sa + sb + sc).plus(u0, AT_ZERO_5), da + db + dc, add(sa, sb, sc), add(da, db, dc), last]
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
        unsafe fn sub_product(self, a: Self, b: Self) -> Self {
            Self(self.0 - a.0 * b.0)
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

    const D: [f32; 8] = [1.0, -2.0, 3.0, 0.5, -1.5, 4.0, 2.5, -0.75];
    const G: [f32; 5] = [2.0, -1.0, 0.25, 1.5, -0.5];
    const Y: [f32; OUTPUTS] = [0.5, 2.0, -1.0, 3.0];

    fn dot(a: &[f32], b: &[f32]) -> f32 {
        assert_eq!(a.len(), b.len());
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }
    fn first<const N: usize>(values: &[f32]) -> [f32; N] {
        values[..N].try_into().unwrap()
    }

    /// A filter of K on N inputs.
    fn one_product_a_point<const K: usize, const N: usize>()
    where
        Input: Along<N, N>,
        Filter: Along<K, N>,
        Output: Along<N, OUTPUTS>,
    {
        assert_eq!(inputs(K), N);
        let t = numbers(Input::apply(wide(first::<N>(&D))));
        let u = numbers(Filter::apply(wide(first::<K>(&G))));
        let outputs = numbers(Output::apply(wide(std::array::from_fn(|i| t[i] * u[i]))));
        for (i, y) in outputs.into_iter().enumerate() {
            let want = dot(&D[i..i + K], &G[..K]);
            assert!((y - want).abs() < 1e-4, "{K}, output {i}: {y}, want {want}");
        }
    }

    #[test]
    fn one_product_a_point_makes_all_outputs() {
        one_product_a_point::<3, 6>();
        one_product_a_point::<5, 8>();
    }

    /// <f(x), y> = <x, f'(y)>.
    fn transposed<const K: usize, const N: usize>()
    where
        Filter: Along<K, N>,
        Output: Along<N, OUTPUTS>,
        FilterGradient: Along<N, K>,
        OutputGradient: Along<OUTPUTS, N>,
    {
        let (d, g) = (first::<N>(&D), first::<K>(&G));
        let outputs = (dot(&numbers(Output::apply(wide(d))), &Y), dot(&d, &numbers(OutputGradient::apply(wide(Y)))));
        let filters = (dot(&numbers(Filter::apply(wide(g))), &d), dot(&g, &numbers(FilterGradient::apply(wide(d)))));
        for (name, (one, other)) in [("outputs", outputs), ("filters", filters)] {
            assert!((one - other).abs() < 1e-3, "{K}, {name}: {one} and {other}");
        }
    }

    #[test]
    fn gradients_are_transposed() {
        transposed::<3, 6>();
        transposed::<5, 8>();
    }
}
