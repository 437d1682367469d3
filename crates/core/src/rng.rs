//! Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): a function from a counter and a
//! key to four random words. No state: every number is addressed by what it is for, so that all backends, any number of threads and
//! any placement draw the same ones, and a resumed run needs no saved generator.

/// What a random number is for. Keeps the streams apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    /// Initial weights; counter: element, parameter index.
    Init = 0,
    /// The order of the samples of an epoch; counter: position, epoch.
    Order = 1,
    /// Crop and flip of a sample; counter: sample, 0, epoch. Words: row, column, flip (the top bit).
    Crop = 2,
    /// Colour noise of a sample; counter: sample, 0, epoch. Normals: one per principal component.
    Colour = 3,
    /// Dropout; counter: element / 4, sample, epoch; plus the layer index.
    Dropout = 4,
    /// The generated data set; counter: free.
    Generate = 5,
    /// Which images represent a data set (mean, principal components).
    Sample = 6,
}

const MULTIPLIER: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Ten rounds of Philox on `counter` with `key`.
#[inline]
pub fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let (mut c, mut k) = (counter, key);
    for round in 0..10 {
        if round > 0 {
            k = [k[0].wrapping_add(WEYL[0]), k[1].wrapping_add(WEYL[1])];
        }
        let p0 = u64::from(MULTIPLIER[0]) * u64::from(c[0]);
        let p1 = u64::from(MULTIPLIER[1]) * u64::from(c[2]);
        c = [(p1 >> 32) as u32 ^ c[1] ^ k[0], p1 as u32, (p0 >> 32) as u32 ^ c[3] ^ k[1], p0 as u32];
    }
    c
}

/// Words of a [`Stream::block`].
pub const BLOCK: usize = 64;

/// A stream of random words: one seed, one purpose. `layer` tells apart streams of one purpose (0 where there is only one).
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    key: [u32; 2],
    tag: u32,
}

impl Stream {
    /// The stream of `seed` for `purpose`.
    pub const fn new(seed: u64, purpose: Purpose, layer: u32) -> Self {
        Self { key: [seed as u32, (seed >> 32) as u32], tag: (purpose as u32) << 16 | layer }
    }
    /// Four words at (`a`, `b`, `c`): see [`Purpose`] for what they mean.
    #[inline]
    pub fn words(&self, a: u32, b: u32, c: u32) -> [u32; 4] {
        philox([a, b, c, self.tag], self.key)
    }
    /// The words at (`a`, `b`, `c`), (`a + 1`, `b`, `c`), ..., one after the other: all at once, for the vectors of the function that it becomes a part of.
    #[inline(always)]
    pub fn block(&self, a: u32, b: u32, c: u32) -> [u32; BLOCK] {
        const N: usize = BLOCK / 4;
        let [mut w, mut x, mut y, mut z]: [[u32; N]; 4] = [[0; N], [b; N], [c; N], [self.tag; N]];
        for (lane, counter) in w.iter_mut().enumerate() {
            *counter = a.wrapping_add(lane as u32);
        }
        let mut k = self.key;
        for round in 0..10 {
            if round > 0 {
                k = [k[0].wrapping_add(WEYL[0]), k[1].wrapping_add(WEYL[1])];
            }
            for ((w, x), (y, z)) in w.iter_mut().zip(&mut x).zip(y.iter_mut().zip(&mut z)) {
                let p0 = u64::from(MULTIPLIER[0]) * u64::from(*w);
                let p1 = u64::from(MULTIPLIER[1]) * u64::from(*y);
                (*w, *x) = ((p1 >> 32) as u32 ^ *x ^ k[0], p1 as u32);
                (*y, *z) = ((p0 >> 32) as u32 ^ *z ^ k[1], p0 as u32);
            }
        }
        let mut words = [0; BLOCK];
        for (i, word) in words.iter_mut().enumerate() {
            *word = [&w, &x, &y, &z][i % 4][i / 4];
        }
        words
    }
    /// Four standard normal numbers at (`a`, `b`, `c`), by Box and Muller.
    pub fn normals(&self, a: u32, b: u32, c: u32) -> [f32; 4] {
        let w = self.words(a, b, c);
        let (x, y) = box_muller(w[0], w[1]);
        let (z, t) = box_muller(w[2], w[3]);
        [x, y, z, t]
    }
}

/// A number in [0, 1): the upper 24 bits of `word`.
#[inline]
pub fn uniform(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// A number in `0..n`, by multiplication (Lemire); the bias is below n / 2^32.
#[inline]
pub fn below(word: u32, n: u32) -> u32 {
    ((u64::from(word) * u64::from(n)) >> 32) as u32
}

/// Two standard normal numbers from two words.
#[inline]
pub fn box_muller(a: u32, b: u32) -> (f32, f32) {
    // (0, 1]: the logarithm stays finite.
    let u = ((a >> 8) + 1) as f32 * (1.0 / 16_777_216.0);
    let radius = (-2.0 * u.ln()).sqrt();
    let (sin, cos) = (std::f32::consts::TAU * uniform(b)).sin_cos();
    (radius * cos, radius * sin)
}

/// The order of `n` samples in `epoch`: a Fisher-Yates shuffle drawn from `seed`. Costs O(n) time and memory.
pub fn sample_order(seed: u64, epoch: u32, n: usize) -> Vec<u32> {
    let stream = Stream::new(seed, Purpose::Order, 0);
    let mut order: Vec<u32> = (0..n as u32).collect();
    for i in (1..n).rev() {
        order.swap(i, below(stream.words(i as u32, 0, epoch)[0], i as u32 + 1) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of the Random123 distribution (tests/kat_vectors, philox4x32 10).
    #[test]
    fn known_answers() {
        let cases = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, expected) in cases {
            assert_eq!(philox(counter, key), expected);
        }
    }

    #[test]
    fn a_block_has_the_words_of_its_calls() {
        let stream = Stream::new(0x1234_5678_9abc_def0, Purpose::Dropout, 3);
        for a in [0, 77, u32::MAX - 2] {
            let expected = (0..BLOCK as u32 / 4).flat_map(|i| stream.words(a.wrapping_add(i), 5, 9));
            assert!(expected.eq(stream.block(a, 5, 9)));
        }
    }

    #[test]
    fn normals_have_mean_zero_and_variance_one() {
        let stream = Stream::new(7, Purpose::Init, 3);
        let x: Vec<f64> = (0..25_000).flat_map(|i| stream.normals(i, 0, 0)).map(f64::from).collect();
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        let variance = x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64;
        assert!(mean.abs() < 0.01 && (variance - 1.0).abs() < 0.02, "{mean} {variance}");
    }

    #[test]
    fn an_order_is_a_permutation_that_depends_on_seed_and_epoch() {
        let order = sample_order(1, 0, 1000);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..1000).collect::<Vec<_>>());
        assert_ne!(order, sample_order(1, 1, 1000));
        assert_ne!(order, sample_order(2, 0, 1000));
        assert_eq!(order, sample_order(1, 0, 1000));
    }
}
