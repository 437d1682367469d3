//! Which images of a split take part in training and testing, and in which order.

use alexnode_core::rng::sample_order;
use std::collections::HashMap;

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

    /// As many ids as there are usable ones, equally many of each of the `classes` that has any, shuffled for `epoch`. The `r`-th time that
    /// an image comes in an epoch it has its id plus `r` times the number of all ids: an address of its own for random numbers.
    pub fn balanced(&self, seed: u64, epoch: u32, classes: usize, class: impl Fn(u32) -> usize) -> Vec<u32> {
        let mut of: Vec<Vec<u32>> = vec![Vec::new(); classes];
        self.candidates.iter().filter(|&&id| self.usable[id as usize]).for_each(|&id| of[class(id)].push(id));
        of.retain(|ids| !ids.is_empty());
        let quota = self.count.div_ceil(of.len().max(1));
        let all = self.usable.len() as u32;
        let picks: Vec<Vec<u32>> = (1..)
            .zip(&of)
            .map(|(number, ids)| {
                // Every class goes round and round through its own images, in another order each time, across the epochs.
                let first = epoch as usize * quota;
                let own = seed ^ u64::wrapping_mul(number, 0x9E37_79B9_7F4A_7C15);
                let mut round = usize::MAX;
                let mut order = Vec::new();
                let mut times: HashMap<u32, u32> = HashMap::new();
                let pick = |at: usize| {
                    if at / ids.len() != round {
                        round = at / ids.len();
                        order = sample_order(own, round as u32, ids.len());
                    }
                    let id = ids[order[at % ids.len()] as usize];
                    let repeats = times.entry(id).or_default();
                    *repeats += 1;
                    id.wrapping_add((*repeats - 1).wrapping_mul(all))
                };
                (first..first + quota).map(pick).collect()
            })
            .collect();
        let places = sample_order(seed, epoch, quota * of.len());
        let picked = |place: u32| picks[place as usize % of.len()][place as usize / of.len()];
        places.into_iter().map(picked).take(self.count).collect()
    }

    /// The first `limit` usable ids of the order `sample_order(seed, 0, n)`, in ascending order.
    pub fn first(&self, seed: u64, limit: usize) -> Vec<u32> {
        let order = sample_order(seed, 0, self.candidates.len()).into_iter().map(|i| self.candidates[i as usize]);
        let mut kept: Vec<u32> = order.filter(|&id| self.usable[id as usize]).take(limit).collect();
        kept.sort_unstable();
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_balanced_epoch_has_equally_many_of_each_class_and_leaves_none_out() {
        // 90 of one class, 10 of another, one of which is bad; none of a third.
        let mut usable = vec![true; 100];
        usable[95] = false;
        let members = Members::new((0..100).collect(), usable);
        let class = |id: u32| usize::from(id >= 90);
        let mut seen = vec![0; 100];
        for epoch in 0..4 {
            let order = members.balanced(7, epoch, 3, class);
            assert_eq!(order.len(), 99);
            let rare = order.iter().filter(|&&id| class(id % 100) == 1).count();
            assert!((49..=50).contains(&rare), "{rare}");
            let mut distinct = order.clone();
            distinct.sort_unstable();
            distinct.dedup();
            assert_eq!(distinct.len(), 99, "an address twice");
            order.iter().for_each(|id| seen[*id as usize % 100] += 1);
            assert_eq!(order, members.balanced(7, epoch, 3, class));
            assert_ne!(order, members.balanced(8, epoch, 3, class));
        }
        assert_eq!(seen[95], 0);
        assert!(seen[..90].iter().all(|&n| (1..=3).contains(&n)), "{seen:?}");
        assert!(seen[90..].iter().enumerate().all(|(i, &n)| i == 5 || n >= 20), "{seen:?}");
    }
}
