//! In which order the threads and blocks of a launch run.

use alexnode_core::rng::sample_order;

/// In which order threads and blocks run. The results of a correct kernel do not depend on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// From the first to the last.
    #[default]
    Forward,
    /// From the last to the first.
    Reverse,
    /// Another one for every block, from a seed.
    Random(u64),
}

impl Order {
    /// The order of `n` things, of which there are many: `which` tells them apart.
    pub(super) fn of(self, n: usize, which: usize) -> Vec<u32> {
        match self {
            Self::Forward => (0..n as u32).collect(),
            Self::Reverse => (0..n as u32).rev().collect(),
            Self::Random(seed) => sample_order(seed, which as u32, n),
        }
    }
    /// Which of `n` blocks runs when `i` others have run.
    pub(super) fn block(self, i: usize, n: usize) -> usize {
        match self {
            Self::Forward => i,
            Self::Reverse => n - 1 - i,
            // A stride that is prime to the count of blocks visits each once.
            Self::Random(seed) => (seed as usize % n + i.wrapping_mul(stride(n))) % n,
        }
    }
}

/// A step that visits all of `n` places: prime to `n`, and far from 1.
fn stride(n: usize) -> usize {
    let gcd = |mut a: usize, mut b: usize| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    (n * 2 / 5 + 1..).find(|s| gcd(*s, n) == 1).unwrap_or(1)
}
