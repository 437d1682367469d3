//! Which pictures are the same, or nearly.

use crate::{parallel::Workers, print::Print};
use alexnode_core::Result;
use std::{
    ops::Range,
    sync::atomic::{
        AtomicBool, AtomicU32,
        Ordering::{AcqRel, Acquire, Relaxed},
    },
};

/// Two pictures are near where so many of the 128 bits of their prints differ at most.
pub const NEAR: u32 = 8;
/// Prints are looked up by so many bands at once at most.
const MOST: u32 = 4;
/// Putting a print in order by a key takes as long as so many comparisons of two.
const ORDERING: f64 = 16.0;
/// So many prints show how much the bits tell.
const SAMPLE: usize = 4096;
/// Prints with equal keys are looked up anew so many times, by what tells them apart; then each is compared with each.
const DEPTH: u32 = 3;

/// Sets of numbers that grow together. Several threads may join at once: what comes out is the same in any order.
pub struct DisjointSets {
    parents: Vec<AtomicU32>,
}

impl DisjointSets {
    /// Each of the numbers below `n` alone.
    pub fn new(n: usize) -> Self {
        Self { parents: (0..n as u32).map(AtomicU32::new).collect() }
    }

    fn root(&self, mut n: u32) -> u32 {
        loop {
            let above = self.parents[n as usize].load(Acquire);
            let next = self.parents[above as usize].load(Acquire);
            if above == next {
                return above;
            }
            // What is above a number stays above it, so that it does no harm where another thread has stored something else.
            self.parents[n as usize].store(next, Relaxed);
            n = next;
        }
    }

    /// Makes one set of those of `a` and `b`. The smallest number stands for it.
    pub fn join(&self, a: u32, b: u32) {
        loop {
            let (a, b) = (self.root(a), self.root(b));
            let (low, high) = (a.min(b), a.max(b));
            if low == high || self.parents[high as usize].compare_exchange(high, low, AcqRel, Relaxed).is_ok() {
                return;
            }
        }
    }

    /// All sets of two numbers at least, in ascending order.
    pub fn groups(self) -> Vec<Vec<u32>> {
        let numbers = 0..self.parents.len() as u32;
        let mut members: Vec<(u32, u32)> = numbers.map(|n| (self.root(n), n)).filter(|(root, n)| root != n).collect();
        members.sort_unstable();
        let group = |rest: &[(u32, u32)]| [rest[0].0].into_iter().chain(rest.iter().map(|(_, n)| *n)).collect();
        members.chunk_by(|a, b| a.0 == b.0).map(group).collect()
    }
}

/// Joins all items with equal keys.
pub fn join_equal<K: Ord>(sets: &DisjointSets, mut items: Vec<(K, u32)>) {
    items.sort_unstable();
    items.windows(2).filter(|pair| pair[0].0 == pair[1].0).for_each(|pair| sets.join(pair[0].1, pair[1].1));
}

/// A print and who has it. A tuple would take 24 bytes, and there may be 1.3 million.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Numbered {
    words: [u32; 4],
    number: u32,
}

impl Numbered {
    fn new([a, b]: Print, number: u32) -> Self {
        Self { words: [a as u32, (a >> 32) as u32, b as u32, (b >> 32) as u32], number }
    }
    fn print(&self) -> Print {
        [0, 2].map(|at| u64::from(self.words[at]) | u64::from(self.words[at + 1]) << 32)
    }
}

/// Joins all items whose prints are near, or connected by others that are.
///
/// # Errors
/// `ERR_ABORTED` after a cancel.
pub fn join_near(
    sets: &DisjointSets,
    items: impl IntoIterator<Item = (Print, u32)>,
    workers: Workers<'_>,
) -> Result<()> {
    let mut items: Vec<Numbered> = items.into_iter().map(|(print, number)| Numbered::new(print, number)).collect();
    items.sort_unstable();
    items.dedup_by(|next, kept| {
        let equal = next.words == kept.words;
        if equal {
            sets.join(next.number, kept.number);
        }
        equal
    });
    let search = Search { sets, items: &items, cancel: workers.cancel };
    let all = 0..items.len() as u32;
    let keys = search.keys(all.len(), |n| n as u32);
    if keys.is_empty() {
        search.compare(&all.clone().collect::<Vec<_>>());
    }
    let look = |ordered: &mut Vec<u64>, key: usize| {
        search.look_up(keys[key], all.clone(), ordered, 0);
        Ok(())
    };
    workers.fold(1, keys.len(), Vec::new, look).map(drop)
}

/// For those which are near among different prints.
///
/// The bits are dealt to `NEAR + k` bands. Of two prints that differ in `NEAR` bits at most, `k` bands agree, whatever the bands are: so
/// prints are compared only where some `k` bands of theirs are equal, which is a key for each choice of `k`. Bands that tell equally
/// much leave the fewest to compare. Where still many are equal, as of pictures with the same border, they are dealt anew by the
/// bits that tell these apart.
struct Search<'a> {
    sets: &'a DisjointSets,
    items: &'a [Numbered],
    cancel: &'a AtomicBool,
}

impl Search<'_> {
    /// The bits to look up `n` prints by; none where it is as well to compare each with each.
    fn keys(&self, n: usize, at: impl Fn(usize) -> u32) -> Vec<Print> {
        let pairs = n as f64 * n as f64 / 2.0;
        if pairs <= f64::from(NEAR + 1) * ORDERING * n as f64 {
            return Vec::new();
        }
        let sample = n.min(SAMPLE);
        let mut ones = [0u32; 128];
        for i in 0..sample {
            let print = self.items[at(i * n / sample) as usize].print();
            (0..).zip(&mut ones).for_each(|(bit, ones)| *ones += (print[bit / 64] >> (bit % 64)) as u32 & 1);
        }
        let mut bits: Vec<(f64, usize)> = ones.iter().map(|n| entropy(*n, sample)).zip(0..).collect();
        bits.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let whole: f64 = bits.iter().map(|(entropy, _)| entropy).sum();
        let cost = |k: u32| {
            let told = whole * f64::from(k) / f64::from(NEAR + k);
            choices(k) * (n as f64 * ORDERING + pairs * (-told).exp2())
        };
        let Some(k) = (1..=MOST).min_by(|a, b| cost(*a).total_cmp(&cost(*b))).filter(|k| cost(*k) < pairs) else {
            return Vec::new();
        };
        let mut bands = vec![(0.0f64, Print::default()); (NEAR + k) as usize];
        for (entropy, bit) in bits {
            if let Some((sum, band)) = bands.iter_mut().min_by(|a, b| a.0.total_cmp(&b.0)) {
                *sum += entropy;
                band[bit / 64] |= 1 << (bit % 64);
            }
        }
        let together = |chosen: u32| {
            let chosen = (0..).zip(&bands).filter(|(band, _)| chosen >> band & 1 == 1);
            chosen.fold(Print::default(), |key, (_, (_, band))| [key[0] | band[0], key[1] | band[1]])
        };
        (0..1u32 << bands.len()).filter(|chosen| chosen.count_ones() == k).map(together).collect()
    }

    /// Joins those of `members` that are near and agree in the bits of `key`.
    fn look_up(&self, key: Print, members: impl Iterator<Item = u32>, ordered: &mut Vec<u64>, depth: u32) {
        ordered.clear();
        ordered.extend(members.map(|at| u64::from(hash(self.items[at as usize].print(), key)) << 32 | u64::from(at)));
        ordered.sort_unstable();
        let mut same: Vec<u32> = Vec::new();
        for equal in ordered.chunk_by(|a, b| a >> 32 == b >> 32).filter(|equal| equal.len() > 1) {
            if self.cancel.load(Relaxed) {
                return;
            }
            same.clear();
            same.extend(equal.iter().map(|one| *one as u32));
            let root = |at: u32| self.sets.root(self.items[at as usize].number);
            let first = root(same[0]);
            if same[1..].iter().all(|at| root(*at) == first) {
                continue;
            }
            let keys = if depth < DEPTH { self.keys(same.len(), |n| same[n]) } else { Vec::new() };
            let mut inner = Vec::new();
            keys.iter().for_each(|key| self.look_up(*key, same.iter().copied(), &mut inner, depth + 1));
            if keys.is_empty() {
                self.compare(&same);
            }
        }
    }

    /// Joins those of `members` that are near. Who has been joined is not looked for again, so that many which are all connected take
    /// little more than a comparison each.
    fn compare(&self, members: &[u32]) {
        let number = |at: u32| self.items[at as usize].number;
        let mut known: Vec<(u32, u32)> = members.iter().map(|at| (self.sets.root(number(*at)), *at)).collect();
        known.sort_unstable();
        let prints: Vec<Print> = known.iter().map(|(_, at)| self.items[*at as usize].print()).collect();
        // Those that are together already.
        let mut waiting: Vec<Range<usize>> = Vec::new();
        for group in known.chunk_by(|a, b| a.0 == b.0) {
            let from = waiting.last().map_or(0, |before| before.end);
            waiting.push(from..from + group.len());
        }
        while let Some(group) = waiting.pop() {
            let mut found: Vec<usize> = group.collect();
            while let Some(one) = found.pop() {
                if self.cancel.load(Relaxed) {
                    return;
                }
                waiting.retain(|group| {
                    let near = prints[group.clone()].iter().any(|print| distance(*print, prints[one]) <= NEAR);
                    if near {
                        self.sets.join(known[one].0, known[group.start].0);
                        found.extend(group.clone());
                    }
                    !near
                });
            }
        }
    }
}

/// Bits that differ.
fn distance(a: Print, b: Print) -> u32 {
    (a[0] ^ b[0]).count_ones() + (a[1] ^ b[1]).count_ones()
}

/// The same for prints that agree in the bits of `key`, and hardly ever for others.
fn hash(print: Print, key: Print) -> u32 {
    let product = |word: usize, odd: u64| (print[word] & key[word]).wrapping_mul(odd);
    (product(0, 0x9E37_79B9_7F4A_7C15).wrapping_add(product(1, 0xD6E8_FEB8_6659_FD93)) >> 32) as u32
}

/// What a bit tells that is set in `ones` of `n` prints, in bits.
fn entropy(ones: u32, n: usize) -> f64 {
    let part = |count: f64| if count == 0.0 { 0.0 } else { -(count / n as f64) * (count / n as f64).log2() };
    part(f64::from(ones)) + part(n as f64 - f64::from(ones))
}

/// Ways to choose `k` of `NEAR + k` bands.
fn choices(k: u32) -> f64 {
    (1..=k).map(|i| f64::from(NEAR + i) / f64::from(i)).product()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alexnode_core::{ErrorCode, rng::sample_order};
    use std::time::Instant;

    /// 128 bits, some of which are turned over.
    fn print(seed: u64, turned: &[u32]) -> Print {
        let mut bits = [0u64; 2];
        for (at, n) in sample_order(seed, 0, 128).into_iter().enumerate() {
            bits[at / 64] |= u64::from(n % 2) << (at % 64);
        }
        turned.iter().for_each(|bit| bits[*bit as usize / 64] ^= 1 << (bit % 64));
        bits
    }

    /// Any bits, each of which is set with the same chance.
    fn random(state: &mut u64) -> Print {
        [0; 2].map(|_: u64| {
            *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            mixed ^ (mixed >> 31)
        })
    }

    fn near(prints: &[Print], threads: usize) -> Vec<Vec<u32>> {
        let sets = DisjointSets::new(prints.len());
        let items = prints.iter().copied().zip(0..);
        join_near(&sets, items, Workers { threads, cancel: &AtomicBool::new(false) }).unwrap();
        sets.groups()
    }

    #[test]
    fn near_prints_are_found_wherever_they_differ() {
        for seed in 0..40 {
            let turned = sample_order(seed, 9, 128);
            let one = print(1, &turned[..NEAR as usize]);
            let far = print(1, &turned[..NEAR as usize + 1]);
            assert_eq!(near(&[print(1, &[]), print(2, &[]), one], 1), [vec![0, 2]]);
            assert!(near(&[print(1, &[]), print(2, &[]), far], 1).is_empty());
        }
    }

    /// Of random prints; of prints that tell little, so that some are near; and of a mixture that must be looked up in more than one way.
    #[test]
    fn many_prints_are_joined_as_if_each_were_compared_with_each() {
        let mut state = 5;
        let only = |mask: Print, state: &mut u64| {
            let [a, b] = random(state);
            [a & mask[0], b & mask[1]]
        };
        let mut kinds: Vec<Vec<Print>> =
            [[u64::MAX; 2], [0x3F_FFFF, 0x3F_FFFF], [0xFFFF_FFFF_FFFF, 0], [0xFFFF, 0xFFFF], [0x3FF, 0]]
                .map(|mask| (0..3000).map(|_| only(mask, &mut state)).collect())
                .into();
        kinds.push((0..6000).map(|i| only([[u64::MAX; 2], [0xFF_FFFF, 0xFF_FFFF]][i % 2], &mut state)).collect());
        for prints in &mut kinds {
            // Copies, and some with other bits.
            for i in 0..200u32 {
                let mut other = prints[i as usize];
                let turned = sample_order(u64::from(i), 1, 128);
                turned[..i as usize % 11].iter().for_each(|bit| other[*bit as usize / 64] ^= 1 << (bit % 64));
                prints.push(other);
            }
            let sets = DisjointSets::new(prints.len());
            for (a, p) in (0..).zip(prints.iter()) {
                (0..a).zip(prints.iter()).filter(|(_, q)| distance(*p, **q) <= NEAR).for_each(|(b, _)| sets.join(a, b));
            }
            let expected = sets.groups();
            assert!(!expected.is_empty());
            for threads in [1, 3] {
                assert_eq!(near(prints, threads), expected);
            }
        }
    }

    #[test]
    fn a_cancel_stops_it() {
        let sets = DisjointSets::new(4000);
        let mut state = 1;
        let items = (0..4000).map(|at| (random(&mut state), at));
        let workers = Workers { threads: 2, cancel: &AtomicBool::new(true) };
        assert_eq!(join_near(&sets, items, workers).unwrap_err().code(), ErrorCode::Aborted);
    }

    #[test]
    fn what_is_equal_is_together() {
        let sets = DisjointSets::new(8);
        join_equal(&sets, vec![("b", 7), ("a", 1), ("b", 2), ("c", 3), ("b", 5)]);
        sets.join(6, 0);
        assert_eq!(sets.groups(), [vec![0, 6], vec![2, 5, 7]]);
    }

    #[test]
    fn many_threads_make_the_same_sets() {
        let pairs: Vec<(u32, u32)> = sample_order(3, 0, 4000).chunks(2).map(|pair| (pair[0], pair[1])).collect();
        let sets = DisjointSets::new(4000);
        std::thread::scope(|scope| {
            for from in 0..4 {
                let (sets, pairs) = (&sets, &pairs);
                scope.spawn(move || (0..pairs.len()).for_each(|i| sets.join(pairs[i].0, pairs[(i + from) % 2000].1)));
            }
        });
        let alone = DisjointSets::new(4000);
        for from in 0..4 {
            (0..pairs.len()).for_each(|i| alone.join(pairs[i].0, pairs[(i + from) % 2000].1));
        }
        assert_eq!(sets.groups(), alone.groups());
    }

    /// `ALEXNODE_TEST_PRINTS=1300000 cargo test -p alexnode-data --lib -- many_prints --nocapture` tells how long it takes; bench/README.md has what came out.
    #[test]
    fn many_prints_make_the_same_groups_on_all_threads() {
        let most: usize = std::env::var("ALEXNODE_TEST_PRINTS").map_or(13_000, |n| n.parse().expect("a number"));
        let mut state = 7;
        let mut prints = |n: usize, bits: u32| -> Vec<Print> {
            let mask = if bits == 128 { u64::MAX } else { (1 << (bits / 2)) - 1 };
            (0..n).map(|_| random(&mut state)).map(|[a, b]| [a & mask, b & mask]).collect()
        };
        for (n, bits) in
            [(most, 128), (most / 13, 128), (most / 22, 24), (most / 22, 32), (most / 22, 40), (most / 22, 48)]
        {
            same_groups(&format!("{n} prints, {bits} bits vary"), &prints(n, bits));
        }
        let mut mixed = prints(most / 10 * 9, 128);
        mixed.extend(prints(most / 10, 48));
        same_groups("one in ten shares all but 48 bits with others", &mixed);
        // Each of the first hundred once more, three bits of it changed.
        let mut twice = prints(most / 13, 128);
        twice.extend_from_within(..100);
        twice[most / 13..].iter_mut().for_each(|[a, b]| (*a, *b) = (*a ^ 5 << 20, *b ^ 1 << 63));
        let pairs: Vec<Vec<u32>> = (0..100).map(|i| vec![i, (most / 13) as u32 + i]).collect();
        assert_eq!(same_groups("a hundred of them twice", &twice), pairs);
    }

    fn same_groups(what: &str, prints: &[Print]) -> Vec<Vec<u32>> {
        let start = Instant::now();
        let groups = near(prints, 2);
        println!("{what}: {:.2?}, {} groups", start.elapsed(), groups.len());
        assert_eq!(groups, near(prints, 1), "{what}");
        groups
    }
}
