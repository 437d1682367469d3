//! What both response normalisations share: sums over clipped windows, and y = x s^-beta with s = k + alpha * sum.

use crate::tile::{Tile, Vector};
use alexnode_core::{Error, Result};

/// s = k + alpha * sum, and its powers. `alpha` is the factor in front of the sum, after any division by the window's size.
#[derive(Clone, Copy, Debug)]
pub struct Curve {
    pub k: f32,
    pub alpha: f32,
    pub beta: f32,
}

impl Curve {
    /// Whether beta is that of the paper, 3/4, whose power is quick to find; s is far from the smallest numbers then.
    pub fn is_paper(self) -> bool {
        self.beta == 0.75 && self.k > 1e-30
    }

    #[inline(always)]
    pub fn s(self, sum: f32) -> f32 {
        self.k + self.alpha * sum
    }
    /// s^-beta; `PAPER` promises [`is_paper`](Self::is_paper).
    #[inline(always)]
    pub fn power<const PAPER: bool>(self, s: f32) -> f32 {
        if PAPER { paper_power(s) } else { s.powf(-self.beta) }
    }
    /// [`Curve::power`] and [`Curve::power_below`] of the s that belong to `sums`, with vectors; the same bits.
    ///
    /// # Safety
    /// The processor has the instructions of `V`.
    #[inline(always)]
    pub unsafe fn powers<V: Vector, const PAPER: bool, const BELOW: bool>(self, sums: V) -> (V, V) {
        // SAFETY: the caller's promise; the constants are readable.
        unsafe {
            let (one, two, quarter) = (V::splat(&1.0), V::splat(&2.0), V::splat(&0.25));
            let s = V::splat(&self.k).add(V::splat(&self.alpha).mul(sums));
            if !PAPER {
                let (mut powers, mut below) = ([0.0; Tile::UNIT], [0.0; Tile::UNIT]);
                s.store(powers.as_mut_ptr());
                for (power, below) in powers.iter_mut().zip(&mut below).take(V::LANES) {
                    let s = *power;
                    *power = self.power::<PAPER>(s);
                    if BELOW {
                        *below = Self::power_below::<PAPER>(s, *power);
                    }
                }
                return (V::load(powers.as_ptr()), V::load(below.as_ptr()));
            }
            let s = s.at_most(V::splat(&LARGEST));
            let y = s.bits_below(GUESS);
            let root = s.mul(y);
            let e = one.sub(root.mul(root).mul(root.mul(y)));
            let series = V::splat(&(5.0 / 32.0)).add(e.mul(V::splat(&(15.0 / 128.0))));
            let y = y.add(y.mul(e.mul(quarter.add(e.mul(series)))));
            let root = s.mul(y);
            let e = one.sub(root.mul(root).mul(root.mul(y)));
            let power = y.add(y.mul(e.mul(quarter)));
            if !BELOW {
                return (power, power);
            }
            let root = power.mul(s.mul(power));
            let inverse = root.mul(root);
            (power, power.mul(inverse.mul(two.sub(s.mul(inverse)))))
        }
    }
    /// s^(-beta - 1), given `power`, s^-beta.
    #[inline(always)]
    pub fn power_below<const PAPER: bool>(s: f32, power: f32) -> f32 {
        if PAPER {
            // 1 / s as (s^-3/4 s^1/4)^2, and the error taken out of it. A division costs as much as all of this.
            let s = at_most_largest(s);
            let root = power * (s * power);
            let inverse = root * root;
            power * (inverse * (2.0 - s * inverse))
        } else {
            power / s
        }
    }
    /// The factor of the second term of the gradient.
    pub fn slope(self) -> f32 {
        2.0 * self.alpha * self.beta
    }
}

/// Less 3/4 of the bits of s it is within 4.6 % of s^-3/4. Found by trying which number leaves the least error.
const GUESS: u32 = 0x6f14_5a1c;

/// Numbers beyond it count as it: s^-3/4 is as good as 0 there. A NaN stays one.
const LARGEST: f32 = 1e30;

#[inline(always)]
fn at_most_largest(s: f32) -> f32 {
    if s > LARGEST { LARGEST } else { s }
}

/// s^-3/4 for s from 1e-30 on, within 1.3e-7 of it; two square roots and a division would be off by up to 2.3e-7, and take four times as long. The same bits on every
/// processor: nothing here is fused or left to an instruction that estimates.
#[inline(always)]
fn paper_power(s: f32) -> f32 {
    let s = at_most_largest(s);
    let guess = f32::from_bits(GUESS.wrapping_sub(s.to_bits() - (s.to_bits() >> 2)));
    // 1 - s^3 y^4, without numbers that are too large on the way.
    let error = |y: f32| {
        let root = s * y;
        1.0 - (root * root) * (root * y)
    };
    // y (1 - error)^-1/4, as far as the error goes.
    let e = error(guess);
    let y = guess + guess * (e * (0.25 + e * (5.0 / 32.0 + e * (15.0 / 128.0))));
    y + y * (error(y) * 0.25)
}

/// Checks the numbers of a response normalisation.
pub fn check(size: usize, k: f32, alpha: f32, beta: f32) -> Result<()> {
    if size == 0 || i32::try_from(size).is_err() {
        return Err(Error::usage(format!("size must lie between 1 and {}, got {size}", i32::MAX)));
    }
    if !(k.is_finite() && k > 0.0) {
        return Err(
            Error::usage(format!("k must be a positive number, got {k}")).hint("The paper uses k = 2, Caffe 1.")
        );
    }
    if !(alpha.is_finite() && alpha >= 0.0 && beta.is_finite() && beta >= 0.0) {
        return Err(Error::usage(format!(
            "alpha and beta must be numbers that are not negative, got {alpha} and {beta}"
        )));
    }
    Ok(())
}

/// `sums[i]` = sum of the `size` elements from `values[i - before * step]` on that lie `step` apart, clipped to the slice.
#[inline(always)]
pub fn sum_shifted(values: &[f32], size: usize, before: usize, step: usize, sums: &mut [f32]) {
    let n = values.len();
    sums.fill(0.0);
    for d in 0..size {
        let (to, from) = if d < before { ((before - d) * step, 0) } else { (0, (d - before) * step) };
        let len = n.saturating_sub(to + from);
        // An offset beyond the slice contributes nothing.
        if len > 0 {
            for (sum, v) in sums[to..][..len].iter_mut().zip(&values[from..][..len]) {
                *sum += v;
            }
        }
    }
}

/// As [`sum_shifted`], block after block of `step` elements: for long steps.
#[inline(always)]
pub fn sum_blocks(values: &[f32], size: usize, before: usize, step: usize, sums: &mut [f32]) {
    let n = values.len() / step;
    for (i, sum) in sums.chunks_exact_mut(step).enumerate() {
        let (first, end) = (i.saturating_sub(before), n.min(i + size - before));
        sum.copy_from_slice(&values[first * step..][..step]);
        for block in first + 1..end {
            for (s, v) in sum.iter_mut().zip(&values[block * step..][..step]) {
                *s += v;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_power_of_the_paper_is_precise_to_the_last_bit_or_two() {
        let curve = Curve { k: 2.0, alpha: 1.0, beta: 0.75 };
        for i in 0..1_000_000 {
            // From 1e-30 to 1e30, and more closely from 2 on.
            let s = if i % 2 == 0 { 10f32.powf(i as f32 * 6e-5 - 30.0) } else { 2.0 + i as f32 * 1e-4 };
            let (power, exact) = (curve.power::<true>(s), f64::from(s).powf(-0.75));
            assert!((f64::from(power) - exact).abs() <= 1.4e-7 * exact, "{s:e}: {power:e}, not {exact:e}");
            let (below, exact) = (f64::from(Curve::power_below::<true>(s, power)), exact / f64::from(s));
            assert!(exact > 1e37 || (below - exact).abs() <= 3e-7 * exact + 1e-44, "{s:e}: {below:e}, not {exact:e}");
        }
        assert!(curve.power::<true>(f32::NAN).is_nan());
        assert!(curve.power::<true>(f32::INFINITY) < 1e-20);
    }
}
