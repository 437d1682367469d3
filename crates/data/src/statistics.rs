//! The mean image and the principal components of the colours (paper, section 4.1), from the training images themselves.

use crate::parallel::Workers;
use alexnode_core::{
    Result,
    rng::{Purpose, Stream, below},
};

/// The most encoded images that represent a data set: enough for a mean image whose error is below half a grey level.
pub const MAX_SAMPLE: usize = 10_000;

/// What training subtracts and varies. Depends on the training images only: not on seeds, threads or machines.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    /// Mean of every byte of the image: `image_size * image_size * 3` numbers, rows of pixels of R, G, B, from 0 to 255.
    pub mean: Vec<f32>,
    /// Standard deviations of the colours along their principal axes (square roots of the eigenvalues of the covariance of R, G, B
    /// over all pixels), largest first.
    pub stdevs: [f32; 3],
    /// The axes: row `i` is the unit eigenvector of `stdevs[i]`, as R, G, B; its component of largest size is positive.
    pub vectors: [[f32; 3]; 3],
    /// Mean of R, G and B over all pixels.
    pub colour: [f64; 3],
}

/// At most `most` of `members`, in ascending order, the same ones every time.
pub(crate) fn sample(members: &[u32], most: usize) -> Vec<u32> {
    let mut pool = members.to_vec();
    if pool.len() > most {
        // The first `most` steps of a shuffle.
        let stream = Stream::new(0, Purpose::Sample, 0);
        for i in 0..most {
            let left = (pool.len() - i) as u32;
            pool.swap(i, i + below(stream.words(i as u32, 0, 0)[0], left) as usize);
        }
        pool.truncate(most);
        pool.sort_unstable();
    }
    pool
}

/// Statistics of the images `ids` at `size x size` pixels, which `prepare(state, id, image)` writes to `image`, with a state per thread.
///
/// # Errors
/// The error of the first image that fails; `ERR_ABORTED` after a cancel.
pub(crate) fn measure<S: Send>(
    ids: &[u32],
    size: usize,
    workers: Workers<'_>,
    init: impl Fn() -> S + Sync,
    prepare: impl Fn(&mut S, u32, &mut [u8]) -> Result<()> + Sync,
) -> Result<Statistics> {
    let init = || (init(), vec![0; size * size * 3], Sums::new(size));
    let parts = workers.fold(4, ids.len(), init, |(state, image, sums), i| {
        prepare(state, ids[i], image)?;
        sums.add(image);
        Ok(())
    })?;
    let mut sums = Sums::new(size);
    parts.iter().for_each(|(_, _, part)| sums.merge(part));
    Ok(sums.finish())
}

/// Sums over images. All are integers, so they are exact and no order of adding changes them.
#[derive(Clone)]
pub(crate) struct Sums {
    images: u64,
    bytes: Vec<u32>,
    /// Of R, G, B.
    first: [u64; 3],
    /// Of RR, RG, RB, GG, GB, BB.
    second: [u64; 6],
}

impl Sums {
    /// For images of `size x size` pixels. Good for 16 million images.
    pub fn new(size: usize) -> Self {
        Self { images: 0, bytes: vec![0; size * size * 3], first: [0; 3], second: [0; 6] }
    }

    /// Adds one image.
    pub fn add(&mut self, image: &[u8]) {
        self.images += 1;
        for (sum, &byte) in self.bytes.iter_mut().zip(image) {
            *sum += u32::from(byte);
        }
        // Sums of 64 pixels fit 32 bits with room to spare, and vectorise.
        for part in image.chunks(3 * 64) {
            let (mut first, mut second) = ([0u32; 3], [0u32; 6]);
            for pixel in part.chunks_exact(3) {
                let [r, g, b] = [0, 1, 2].map(|i| u32::from(pixel[i]));
                for (sum, value) in first.iter_mut().zip([r, g, b]) {
                    *sum += value;
                }
                for (sum, value) in second.iter_mut().zip([r * r, r * g, r * b, g * g, g * b, b * b]) {
                    *sum += value;
                }
            }
            for (sum, value) in self.first.iter_mut().zip(first) {
                *sum += u64::from(value);
            }
            for (sum, value) in self.second.iter_mut().zip(second) {
                *sum += u64::from(value);
            }
        }
    }

    /// Adds what another thread summed.
    pub fn merge(&mut self, other: &Self) {
        self.images += other.images;
        self.bytes.iter_mut().zip(&other.bytes).for_each(|(a, b)| *a += b);
        self.first.iter_mut().zip(other.first).for_each(|(a, b)| *a += b);
        self.second.iter_mut().zip(other.second).for_each(|(a, b)| *a += b);
    }

    /// Means and principal components of what was added.
    pub fn finish(&self) -> Statistics {
        let images = self.images.max(1);
        let pixels = images as f64 * (self.bytes.len() / 3) as f64;
        let mean = self.bytes.iter().map(|&sum| (f64::from(sum) / images as f64) as f32).collect();
        let colour = self.first.map(|sum| sum as f64 / pixels);
        let mut covariance = [[0.0; 3]; 3];
        for (sum, (i, j)) in self.second.iter().zip([(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]) {
            covariance[i][j] = *sum as f64 / pixels - colour[i] * colour[j];
            covariance[j][i] = covariance[i][j];
        }
        let (values, vectors) = eigen(covariance);
        Statistics {
            mean,
            // Rounding may leave a value of an image without contrast a little below 0.
            stdevs: values.map(|v| v.max(0.0).sqrt() as f32),
            vectors: vectors.map(|v| v.map(|x| x as f32)),
            colour,
        }
    }
}

/// Eigenvalues, largest first, and unit eigenvectors (as rows) of a symmetric matrix, by Jacobi's rotations.
fn eigen(mut a: [[f64; 3]; 3]) -> ([f64; 3], [[f64; 3]; 3]) {
    let mut v = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
    // Convergence is quadratic: a handful of sweeps reaches the last bit.
    for _ in 0..16 {
        for (p, q) in [(0, 1), (0, 2), (1, 2)] {
            if a[p][q] == 0.0 {
                continue;
            }
            let theta = (a[q][q] - a[p][p]) / (2.0 * a[p][q]);
            let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
            let c = 1.0 / (t * t + 1.0).sqrt();
            let s = t * c;
            let (x, y) = (a[p], a[q]);
            a[p] = std::array::from_fn(|k| c * x[k] - s * y[k]);
            a[q] = std::array::from_fn(|k| s * x[k] + c * y[k]);
            for row in a.iter_mut().chain(&mut v) {
                (row[p], row[q]) = (c * row[p] - s * row[q], s * row[p] + c * row[q]);
            }
        }
    }
    let mut order = [0, 1, 2];
    order.sort_by(|&i, &j| a[j][j].total_cmp(&a[i][i]));
    let vectors = order.map(|i| {
        let column = [v[0][i], v[1][i], v[2][i]];
        let largest = column.into_iter().fold(0.0, |m: f64, x| if x.abs() > m.abs() { x } else { m });
        column.map(|x| x * largest.signum())
    });
    (order.map(|i| a[i][i]), vectors)
}

impl Statistics {
    /// Little-endian numbers, for keeping.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let vectors = self.vectors.as_flattened();
        let small = self.colour.iter().flat_map(|x| x.to_le_bytes());
        small.chain([&self.stdevs[..], vectors, &self.mean].concat().into_iter().flat_map(f32::to_le_bytes)).collect()
    }

    /// The inverse of [`to_bytes`](Self::to_bytes), for images of `size x size` pixels.
    pub(crate) fn from_bytes(bytes: &[u8], size: usize) -> Option<Self> {
        let (colour, rest) = bytes.split_at_checked(24)?;
        let mut numbers = rest.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        let mut three = || Some([numbers.next()?, numbers.next()?, numbers.next()?]);
        let stdevs = three()?;
        let vectors = [three()?, three()?, three()?];
        let mean: Vec<f32> = numbers.collect();
        let number = |i: usize| colour[8 * i..8 * i + 8].try_into().map(f64::from_le_bytes).ok();
        let colour = [number(0)?, number(1)?, number(2)?];
        (mean.len() == size * size * 3).then_some(Self { mean, stdevs, vectors, colour })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eigenvectors_of_a_known_matrix() {
        // 2 along (1, 1, 0)/sqrt2 with 9, (1, -1, 0)/sqrt2 with 1, and (0, 0, 1) with 4.
        let (values, vectors) = eigen([[5.0, 4.0, 0.0], [4.0, 5.0, 0.0], [0.0, 0.0, 4.0]]);
        let h = 0.5f64.sqrt();
        for (value, expected) in values.iter().zip([9.0, 4.0, 1.0]) {
            assert!((value - expected).abs() < 1e-12);
        }
        for (vector, expected) in vectors.iter().zip([[h, h, 0.0], [0.0, 0.0, 1.0], [h, -h, 0.0]]) {
            let same = |sign: f64| vector.iter().zip(expected).all(|(a, b)| (a - sign * b).abs() < 1e-12);
            assert!(same(1.0) || same(-1.0), "{vector:?}");
            assert!(vector.iter().fold(0.0f64, |m, &x| if x.abs() > m.abs() { x } else { m }) > 0.0);
        }
    }

    #[test]
    fn sums_give_means_and_components() {
        let size = 4;
        let mut images = Vec::new();
        for n in 0..10u32 {
            // Grey noise and some blue: the first axis is grey.
            let image: Vec<u8> = (0..size * size)
                .flat_map(|i| {
                    let w = Stream::new(1, Purpose::Generate, 0).words(n, i as u32, 0);
                    let grey = (w[0] >> 25) as u8;
                    [grey, grey, grey + (w[1] >> 28) as u8]
                })
                .collect();
            images.push(image);
        }
        let mut sums = [Sums::new(size), Sums::new(size)];
        for (i, image) in images.iter().enumerate() {
            sums[i % 2].add(image);
        }
        let [mut all, other] = sums;
        all.merge(&other);
        let statistics = all.finish();
        let naive: f64 = images.iter().map(|im| f64::from(im[7])).sum::<f64>() / 10.0;
        assert!((f64::from(statistics.mean[7]) - naive).abs() < 1e-5);
        // The same from f64 deviations, the long way.
        let pixels: Vec<[f64; 3]> =
            images.iter().flat_map(|im| im.chunks(3).map(|p| [0, 1, 2].map(|c| f64::from(p[c])))).collect();
        let n = pixels.len() as f64;
        let mean = [0, 1, 2].map(|c| pixels.iter().map(|p| p[c]).sum::<f64>() / n);
        for (vector, stdev) in statistics.vectors.iter().zip(statistics.stdevs) {
            let along = |p: &[f64; 3]| (0..3).map(|c| (p[c] - mean[c]) * f64::from(vector[c])).sum::<f64>();
            let variance = pixels.iter().map(|p| along(p).powi(2)).sum::<f64>() / n;
            assert!((variance.sqrt() - f64::from(stdev)).abs() < 1e-4);
        }
        assert!(
            statistics.stdevs[0] > statistics.stdevs[1]
                && statistics.vectors[0].iter().all(|v| (v - 0.577).abs() < 0.1)
        );
        assert!((statistics.colour[0] - mean[0]).abs() < 1e-9);
        let kept = Statistics::from_bytes(&statistics.to_bytes(), size).unwrap();
        assert_eq!(kept, statistics);
        assert_eq!(Statistics::from_bytes(&statistics.to_bytes(), 5), None);
    }

    #[test]
    fn flat_images_have_no_components() {
        let mut sums = Sums::new(2);
        sums.add(&[200; 12]);
        let statistics = sums.finish();
        assert_eq!(statistics.stdevs, [0.0; 3]);
        assert!(statistics.vectors.as_flattened().iter().all(|v| v.is_finite()));
    }

    #[test]
    fn a_sample_is_part_of_its_set_and_always_the_same() {
        let members: Vec<u32> = (0..1000).map(|i| 3 * i).collect();
        let chosen = sample(&members, 100);
        assert_eq!((chosen.len(), &chosen), (100, &sample(&members, 100)));
        assert!(chosen.windows(2).all(|w| w[0] < w[1]) && chosen.iter().all(|c| members.contains(c)));
        assert!(chosen[0] < 300 && chosen[99] > 2700);
        assert_eq!(sample(&members, 1000), members);
    }
}
