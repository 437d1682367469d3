//! What both response normalisations share: sums over clipped windows, and y = x s^-beta with s = k + alpha * sum.

use alexnode_core::{Error, Result};

/// s = k + alpha * sum, and its powers. `alpha` is the factor in front of the sum, after any division by the window's size.
#[derive(Clone, Copy, Debug)]
pub struct Curve {
    pub k: f32,
    pub alpha: f32,
    pub beta: f32,
}

impl Curve {
    /// The beta of the paper, whose power needs only square roots.
    pub const PAPER_BETA: f32 = 0.75;

    #[inline(always)]
    pub fn s(self, sum: f32) -> f32 {
        self.k + self.alpha * sum
    }
    /// s^-beta; `PAPER` promises that beta is 3/4.
    #[inline(always)]
    pub fn power<const PAPER: bool>(self, s: f32) -> f32 {
        if PAPER {
            let root = s.sqrt();
            1.0 / (root * root.sqrt())
        } else {
            s.powf(-self.beta)
        }
    }
    /// The factor of the second term of the gradient.
    pub fn slope(self) -> f32 {
        2.0 * self.alpha * self.beta
    }
}

/// Checks the numbers of a response normalisation.
pub fn check(size: usize, k: f32, alpha: f32, beta: f32) -> Result<()> {
    if size == 0 || i32::try_from(size).is_err() {
        return Err(Error::usage(format!("size must lie between 1 and {}, got {size}", i32::MAX)));
    }
    if !(k.is_finite() && k > 0.0) {
        return Err(Error::usage(format!("k must be a positive number, got {k}")).hint("the paper uses k = 2, Caffe 1"));
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
