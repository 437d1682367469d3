//! What the tests of layers and kernels stand on: references in f64 straight from the formulas, comparison that names what
//! differs, and two ways to run a layer.
//!
//! | module | about |
//! |---|---|
//! | [`alone`] | one layer's kernels, or one kernel, without a plan: gaps between pixels, a tower's share |
//! | [`conv`] | convolution and linear layers, in f64 |
//! | [`instructions`] | what tensor cores do, each instruction alone |
//! | [`probe`] | a chain of layers through the real plan and a real backend |
//! | [`product`] | the product of matrices alone |
//! | [`mod@reference`] | the formulas, in f64 |

pub mod alone;
pub mod conv;
pub mod instructions;
pub mod probe;
pub mod product;
pub mod reference;

use alexnode_core::{
    Precision,
    rng::{Purpose, Stream},
};

/// Mismatches that a failed comparison prints.
const SHOWN: usize = 8;

/// Compares tensor `name` with its reference: |got - want| <= atol + rtol |want| everywhere.
///
/// # Panics
/// With the first mismatches where it is not so.
#[track_caller]
pub fn compare(name: &str, got: &[f32], want: &[f64], rtol: f64, atol: f64) {
    assert_eq!(got.len(), want.len(), "{name}: number of elements");
    // Written so that a NaN is a mismatch, except where the reference is one.
    let differs = |(got, want): (&f32, &f64)| {
        let close = (f64::from(*got) - want).abs() <= atol + rtol * want.abs();
        !(close || f64::from(*got) == *want || (got.is_nan() && want.is_nan()))
    };
    let wrong: Vec<usize> = (0..got.len()).filter(|i| differs((&got[*i], &want[*i]))).collect();
    if wrong.is_empty() {
        return;
    }
    let shown: String = wrong
        .iter()
        .take(SHOWN)
        .map(|i| format!("\n  [{i}] got {}, want {} (off by {:e})", got[*i], want[*i], f64::from(got[*i]) - want[*i]))
        .collect();
    panic!("{name}: {} of {} elements differ (rtol {rtol}, atol {atol}){shown}", wrong.len(), got.len());
}

/// The same numbers in double precision.
pub fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|x| f64::from(*x)).collect()
}

/// The largest magnitude: what the rounding of a long sum is relative to.
pub fn largest(x: &[f64]) -> f64 {
    x.iter().fold(0.0, |largest, x| x.abs().max(largest))
}

/// |got - want| / |want|, as vectors. Infinite for a NaN.
pub fn relative_error(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len(), "number of elements");
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let error = square(&mut got.iter().zip(want).map(|(got, want)| f64::from(*got) - want));
    let ratio = (error / square(&mut want.iter().copied()).max(f64::MIN_POSITIVE)).sqrt();
    if ratio.is_nan() { f64::INFINITY } else { ratio }
}

/// The same numbers as factors of a product in `precision`.
pub fn rounded(x: &[f32], precision: Precision) -> Vec<f32> {
    let round = match precision {
        Precision::Fp32 => |x| x,
        Precision::Tf32 => instructions::tf32,
        Precision::Bf16 => instructions::bf16,
    };
    x.iter().map(|x| round(*x)).collect()
}

/// Numbers for tests: the same for the same seed.
#[derive(Debug)]
pub struct Rng {
    stream: Stream,
    next: u32,
}

impl Rng {
    /// The numbers of `seed`.
    pub fn new(seed: u64) -> Self {
        Self { stream: Stream::new(seed, Purpose::Generate, 0), next: 0 }
    }
    /// A random word.
    pub fn word(&mut self) -> u32 {
        self.next += 1;
        self.stream.words(self.next, 0, 0)[0]
    }
    /// A number of `0..n`.
    pub fn below(&mut self, n: u32) -> u32 {
        alexnode_core::rng::below(self.word(), n)
    }
    /// `n` numbers, normal with standard deviation `std`.
    pub fn normals(&mut self, n: usize, std: f32) -> Vec<f32> {
        self.next += 1;
        let at = self.next;
        (0..n).map(|i| self.stream.normals(at, 1 + i as u32 / 4, 0)[i % 4] * std).collect()
    }
}

/// The gradient of sum(dy * f(x)) by x, by central differences of step 1e-5: checks the references themselves.
pub fn numeric_gradient(f: impl Fn(&[f64]) -> Vec<f64>, x: &[f64], dy: &[f64]) -> Vec<f64> {
    const STEP: f64 = 1e-5;
    let mut moved = x.to_vec();
    (0..x.len())
        .map(|i| {
            let mut at = |value: f64| {
                moved[i] = value;
                f(&moved).iter().zip(dy).map(|(y, dy)| y * dy).sum::<f64>()
            };
            let slope = (at(x[i] + STEP) - at(x[i] - STEP)) / (2.0 * STEP);
            moved[i] = x[i];
            slope
        })
        .collect()
}
