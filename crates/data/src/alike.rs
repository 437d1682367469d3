//! Which pictures are the same, or nearly.

use crate::print::Print;

/// Two pictures are near where so many of the 128 bits of their prints differ at most.
pub const NEAR: u32 = 8;
/// One band more than bits may differ: two near prints agree in one of them entirely.
const BANDS: u32 = NEAR + 1;

/// Sets of numbers that grow together.
pub struct Sets {
    parents: Vec<u32>,
}

impl Sets {
    /// Each of the numbers below `n` alone.
    pub fn new(n: usize) -> Self {
        Self { parents: (0..n as u32).collect() }
    }

    fn root(&mut self, mut n: u32) -> u32 {
        while self.parents[n as usize] != n {
            let above = self.parents[self.parents[n as usize] as usize];
            self.parents[n as usize] = above;
            n = above;
        }
        n
    }

    /// Makes one set of those of `a` and `b`. The smallest number stands for it.
    pub fn join(&mut self, a: u32, b: u32) {
        let (a, b) = (self.root(a), self.root(b));
        self.parents[a.max(b) as usize] = a.min(b);
    }

    /// All sets of two numbers at least, in ascending order.
    pub fn groups(mut self) -> Vec<Vec<u32>> {
        let mut members: Vec<(u32, u32)> = (0..self.parents.len() as u32).map(|n| (self.root(n), n)).collect();
        members.sort_unstable();
        members
            .chunk_by(|a, b| a.0 == b.0)
            .filter(|group| group.len() > 1)
            .map(|group| group.iter().map(|(_, n)| *n).collect())
            .collect()
    }
}

/// Joins all items with equal keys.
pub fn join_equal<K: Ord>(sets: &mut Sets, mut items: Vec<(K, u32)>) {
    items.sort_unstable();
    items.windows(2).filter(|pair| pair[0].0 == pair[1].0).for_each(|pair| sets.join(pair[0].1, pair[1].1));
}

/// Joins all items whose prints are near.
pub fn join_near(sets: &mut Sets, items: &[(Print, u32)]) {
    join_equal(sets, items.to_vec());
    // Of many that are equal one is compared with the others.
    let mut items = items.to_vec();
    items.sort_unstable();
    items.dedup_by_key(|(print, _)| *print);
    let mut banded: Vec<(u32, u32)> = Vec::with_capacity(items.len());
    for band in 0..BANDS {
        banded.clear();
        banded.extend(items.iter().enumerate().map(|(at, (print, _))| (bits(*print, band), at as u32)));
        banded.sort_unstable();
        for same in banded.chunk_by(|a, b| a.0 == b.0) {
            for (n, (_, a)) in same.iter().enumerate() {
                for (_, b) in &same[n + 1..] {
                    let ((p, a), (q, b)) = (items[*a as usize], items[*b as usize]);
                    if distance(p, q) <= NEAR {
                        sets.join(a, b);
                    }
                }
            }
        }
    }
}

/// Bits that differ.
fn distance(a: Print, b: Print) -> u32 {
    (a[0] ^ b[0]).count_ones() + (a[1] ^ b[1]).count_ones()
}

/// Those of one band.
fn bits(print: Print, band: u32) -> u32 {
    let whole = u128::from(print[0]) | u128::from(print[1]) << 64;
    let (from, to) = (128 * band / BANDS, 128 * (band + 1) / BANDS);
    (whole >> from) as u32 & ((1 << (to - from)) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alexnode_core::rng::sample_order;

    /// 128 bits, some of which are turned over.
    fn print(seed: u64, turned: &[u32]) -> Print {
        let mut bits = [0u64; 2];
        for (at, n) in sample_order(seed, 0, 128).into_iter().enumerate() {
            bits[at / 64] |= u64::from(n % 2) << (at % 64);
        }
        turned.iter().for_each(|bit| bits[*bit as usize / 64] ^= 1 << (bit % 64));
        bits
    }

    #[test]
    fn near_prints_are_found_wherever_they_differ() {
        for seed in 0..40 {
            let turned = sample_order(seed, 9, 128);
            let near = print(1, &turned[..NEAR as usize]);
            let far = print(1, &turned[..NEAR as usize + 1]);
            let items = [(print(1, &[]), 0), (print(2, &[]), 1), (near, 2)];
            let mut sets = Sets::new(4);
            join_near(&mut sets, &items);
            assert_eq!(sets.groups(), [vec![0, 2]]);
            let mut sets = Sets::new(4);
            join_near(&mut sets, &[(print(1, &[]), 0), (far, 3)]);
            assert!(sets.groups().is_empty());
        }
    }

    #[test]
    fn what_is_equal_is_together() {
        let mut sets = Sets::new(8);
        join_equal(&mut sets, vec![("b", 7), ("a", 1), ("b", 2), ("c", 3), ("b", 5)]);
        sets.join(6, 0);
        assert_eq!(sets.groups(), [vec![0, 6], vec![2, 5, 7]]);
    }
}
