//! What both response normalisations share: sums over clipped windows, and y = x s^-beta with s = k + alpha * sum.

use crate::tile::{MAX_LANES, Vector, Work, with_vectors};
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

    /// s^-beta and, with `BELOW`, s^(-beta - 1) for the s that belong to `sums`; `PAPER` promises [`is_paper`](Self::is_paper).
    ///
    /// With the paper's beta they are within 1.4e-7 and 3e-7. Two square roots and a division would be off by up to 2.3e-7 and take longer; an instruction that estimates
    /// would give other bits on other processors.
    ///
    /// # Safety
    /// The processor has the instructions of `V`.
    #[inline(always)]
    pub unsafe fn powers<V: Vector, const PAPER: bool, const BELOW: bool>(self, sums: V) -> (V, V) {
        // SAFETY: the caller's promise; the constants are readable.
        unsafe {
            let s = V::splat(&self.k).add_product(V::splat(&self.alpha), sums);
            if !PAPER {
                let (mut powers, mut below) = ([0.0; MAX_LANES], [0.0; MAX_LANES]);
                s.store(powers.as_mut_ptr());
                for (power, below) in powers.iter_mut().zip(&mut below).take(V::LANES) {
                    let s = *power;
                    *power = s.powf(-self.beta);
                    *below = *power / s;
                }
                return (V::load(powers.as_ptr()), V::load(below.as_ptr()));
            }
            let (one, two) = (V::splat(&1.0), V::splat(&2.0));
            let s = s.at_most(V::splat(&LARGEST));
            // 1 - s^3 guess^4, without numbers that are too large on the way.
            let guess = s.bits_below(GUESS);
            let root = s.mul(guess);
            let e = one.sub_product(root.mul(root), root.mul(guess));
            // guess (1 - e)^-1/4.
            let series = SERIES[1..].iter().fold(V::splat(&SERIES[0]), |sum, c| V::splat(c).add_product(e, sum));
            let power = guess.add_product(guess.mul(e), series);
            if !BELOW {
                return (power, power);
            }
            // 1 / s as (s^-3/4 s^1/4)^2, and the error taken out of it.
            let root = power.mul(s.mul(power));
            let inverse = root.mul(root);
            (power, power.mul(inverse).mul(two.sub_product(s, inverse)))
        }
    }
    /// The factor of the second term of the gradient.
    pub fn slope(self) -> f32 {
        2.0 * self.alpha * self.beta
    }
}

/// Less 3/4 of the bits of s it is within 4.6 % of s^-3/4. Found by trying which number leaves the least error.
const GUESS: u32 = 0x6f14_5a1c;

/// ((1 - e)^-1/4 - 1) / e for |e| < 0.1712, the highest power of e first: what leaves the least relative error of (1 - e)^-1/4, 4.6e-9.
const SERIES: [f32; 6] = [0.074_486_51, 0.084_251_91, 0.095_143_95, 0.117_139_01, 0.156_250_4, 0.250_000_17];

/// Numbers beyond it count as it: s^-3/4 is as good as 0 there. A NaN stays one.
const LARGEST: f32 = 1e30;

/// What is done with vectors and [`Curve::powers`].
pub trait Normalisation {
    /// Does it. To be inlined always.
    ///
    /// # Safety
    /// The processor has the instructions of `V`; `PAPER` is what [`Curve::is_paper`] says.
    unsafe fn run<V: Vector, const PAPER: bool>(self);
}

/// Does `work`, which takes the powers of `curve`, with the vectors of this processor.
pub fn with_powers(curve: Curve, work: impl Normalisation) {
    with_vectors(WithPowers { curve, work });
}

struct WithPowers<N> {
    curve: Curve,
    work: N,
}

impl<N: Normalisation> Work for WithPowers<N> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        // SAFETY: the caller's promise.
        unsafe {
            if self.curve.is_paper() {
                self.work.run::<V, true>();
            } else {
                self.work.run::<V, false>();
            }
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// s^-beta and s^(-beta - 1) of a multiple of so many sums as a vector has.
    struct Powers<'a>(Curve, &'a mut [f32], &'a mut [f32]);

    impl Normalisation for Powers<'_> {
        unsafe fn run<V: Vector, const PAPER: bool>(self) {
            let Self(curve, sums, below) = self;
            for (sums, below) in sums.chunks_exact_mut(V::LANES).zip(below.chunks_exact_mut(V::LANES)) {
                // SAFETY: as many as a vector has; the caller's promise.
                unsafe {
                    let both = curve.powers::<V, PAPER, true>(V::load(sums.as_ptr()));
                    both.0.store(sums.as_mut_ptr());
                    both.1.store(below.as_mut_ptr());
                }
            }
        }
    }

    #[test]
    fn the_powers_of_the_paper_are_precise_to_the_last_bit_or_two() {
        let curve = Curve { k: 2e-30, alpha: 1.0, beta: 0.75 };
        assert!(curve.is_paper());
        // From 1e-30 to 1e30, and more closely from 2 on.
        let sum = |i: u32| if i.is_multiple_of(2) { 10f32.powf(i as f32 * 6e-5 - 30.0) } else { 2.0 + i as f32 * 1e-4 };
        let sums: Vec<f32> = (0..1_000_000).map(sum).collect();
        let (mut powers, mut below) = (sums.clone(), vec![f32::NAN; sums.len()]);
        with_powers(curve, Powers(curve, &mut powers, &mut below));
        for (i, sum) in sums.into_iter().enumerate() {
            let s = f64::from(curve.k + sum);
            let (exact, power, below) = (s.powf(-0.75), f64::from(powers[i]), f64::from(below[i]));
            assert!((power - exact).abs() <= 1.4e-7 * exact, "{s:e}: {power:e}, not {exact:e}");
            let exact = exact / s;
            assert!(exact > 1e37 || (below - exact).abs() <= 3e-7 * exact + 1e-44, "{s:e}: {below:e}, not {exact:e}");
        }
    }

    #[test]
    fn what_is_not_finite_and_other_exponents() {
        for beta in [0.75, 0.5] {
            let curve = Curve { k: 1.0, alpha: 2.0, beta };
            let (mut powers, mut below) = ([1.5; 16], [0.0; 16]);
            powers[..2].copy_from_slice(&[f32::NAN, f32::INFINITY]);
            with_powers(curve, Powers(curve, &mut powers, &mut below));
            assert!(powers[0].is_nan() && below[0].is_nan());
            assert!(powers[1] < 1e-20 && below[1] < 1e-20);
            let want = 4f32.powf(-beta);
            assert!((powers[2] - want).abs() < 1e-7 && (below[2] - want / 4.0).abs() < 1e-7);
        }
    }
}
