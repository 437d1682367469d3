//! Which images of a split are used, and in which order.

use alexnode_core::rng::sample_order;

/// Which ids of a split are used.
#[derive(Default)]
pub(crate) struct Members {
    /// In ascending order, files that are left out among them: so these do not disturb the order of the others.
    pub candidates: Vec<u32>,
    /// For every id of the split, whether it can be used.
    pub usable: Vec<bool>,
    /// How many candidates can be.
    pub count: usize,
}

impl Members {
    pub fn new(candidates: Vec<u32>, usable: Vec<bool>) -> Self {
        let count = candidates.iter().filter(|&&id| usable[id as usize]).count();
        Self { candidates, usable, count }
    }

    /// The usable ids, or `limit` of them, shuffled for `epoch` or in ascending order.
    pub fn order(&self, seed: u64, epoch: u32, shuffle: bool, limit: Option<usize>) -> Vec<u32> {
        let limited = limit.filter(|&limit| limit < self.count).map(|limit| self.first(seed, limit));
        let candidates = limited.as_deref().unwrap_or(&self.candidates);
        let order: Vec<u32> = if shuffle {
            sample_order(seed, epoch, candidates.len()).into_iter().map(|i| candidates[i as usize]).collect()
        } else {
            candidates.to_vec()
        };
        order.into_iter().filter(|&id| self.usable[id as usize]).collect()
    }

    /// The first `limit` usable ids of the order `sample_order(seed, 0, n)`, in ascending order.
    pub fn first(&self, seed: u64, limit: usize) -> Vec<u32> {
        let order = sample_order(seed, 0, self.candidates.len()).into_iter().map(|i| self.candidates[i as usize]);
        let mut kept: Vec<u32> = order.filter(|&id| self.usable[id as usize]).take(limit).collect();
        kept.sort_unstable();
        kept
    }
}
