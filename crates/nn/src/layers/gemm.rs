//! How a product of matrices is shared out over a CUDA device: the tiles of `cuda/gemm.cuh`.

use alexnode_core::{Precision, Stage, Target};

/// `times` products of `m x k` and `n x k` numbers, each a sum over k.
pub(crate) struct Product {
    /// Rows of the result.
    pub m: usize,
    /// Columns of the result.
    pub n: usize,
    /// How many such products: groups, positions, parts.
    pub times: usize,
    /// Whether four elements that follow each other can be loaded at once, from both matrices.
    pub vectors: bool,
}

/// What a block computes at once: `m x n` sums, `k` terms at a time, of which `stages` sets lie in shared memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Tile {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub stages: usize,
}

const fn tile(m: usize, n: usize, k: usize, stages: usize) -> Tile {
    Tile { m, n, k, stages }
}

/// Of multiply-adds in fp32.
const FP32: &[Tile] =
    &[tile(128, 128, 16, 2), tile(128, 96, 16, 2), tile(96, 128, 16, 2), tile(64, 64, 16, 2), tile(32, 32, 16, 2)];
/// On tensor cores, with factors that lie in shared memory as fp32.
const TF32: &[Tile] = &[
    tile(128, 128, 16, 3),
    tile(128, 96, 16, 3),
    tile(96, 128, 16, 3),
    tile(128, 64, 16, 4),
    tile(64, 128, 16, 4),
    tile(64, 64, 32, 3),
    tile(64, 32, 32, 4),
    tile(32, 64, 32, 4),
];
/// On tensor cores, with factors that lie in shared memory as bf16; the set after those two waits in registers.
const BF16: &[Tile] = &[
    tile(128, 128, 32, 2),
    tile(128, 96, 32, 2),
    tile(96, 128, 32, 2),
    tile(128, 64, 32, 2),
    tile(64, 128, 32, 2),
    tile(64, 64, 64, 2),
    tile(64, 32, 64, 2),
    tile(32, 64, 64, 2),
];

/// The tiles for `target`. They fit into static shared memory, 48 KiB, so that every architecture can have them and two or more blocks run on a
/// multiprocessor at once.
pub(crate) fn tiles(target: &Target) -> &'static [Tile] {
    match target.precision {
        Precision::Fp32 => FP32,
        Precision::Tf32 => TF32,
        Precision::Bf16 => BF16,
    }
}

/// Multiprocessors of a large device. Blocks beyond a multiple of them cost a round more.
const MULTIPROCESSORS: usize = 132;

impl Tile {
    /// Bytes of shared memory: the size of `Tiles` in the `.cu`.
    pub fn shared(&self, precision: Precision) -> usize {
        let (rows, bytes) = match precision {
            // Each of the k rows of either operand has four elements of padding.
            Precision::Fp32 => (self.m + self.n + 8, 4),
            Precision::Tf32 => (self.m + self.n, 4),
            Precision::Bf16 => (self.m + self.n, 2),
        };
        self.stages * rows * self.k * bytes
    }

    /// The macros that `gemm.cuh` is compiled with.
    pub fn defines(&self, precision: Precision, vectors: bool) -> Vec<(&'static str, i32)> {
        let number = match precision {
            Precision::Fp32 => 0,
            Precision::Tf32 => 1,
            Precision::Bf16 => 2,
        };
        vec![
            ("PRECISION", number),
            ("TILE_M", self.m as i32),
            ("TILE_N", self.n as i32),
            ("TILE_K", self.k as i32),
            ("STAGES", self.stages as i32),
            ("SHARED_BYTES", self.shared(precision) as i32),
            ("WIDTH", if vectors { 4 } else { 1 }),
        ]
    }

    fn blocks(&self, product: &Product) -> usize {
        product.m.div_ceil(self.m) * product.n.div_ceil(self.n) * product.times
    }

    /// What a product costs with this tile, in no unit: rounds of the device, each as long as a block takes for its sums and for the loads of its factors.
    /// A load from the L2 cache costs as much as some 20 multiply-adds in fp32 and 50 on tensor cores, going by what large devices are said to do.
    fn cost(&self, product: &Product, precision: Precision) -> usize {
        let load = if precision == Precision::Fp32 { 20 } else { 50 };
        self.blocks(product).div_ceil(MULTIPROCESSORS) * (self.m * self.n + load * (self.m + self.n))
    }
}

impl Product {
    /// The stage that runs it with `entry`.
    ///
    /// # Panics
    /// Where there are more products than a grid is deep.
    pub fn stage(&self, entry: &'static str, target: &Target) -> Stage {
        let cost = |tile: &&Tile| (tile.cost(self, target.precision), tile.blocks(self));
        let tile = tiles(target).iter().min_by_key(cost).expect("a table of tiles");
        self.stage_with(entry, tile, target.precision)
    }

    /// The same with `tile`.
    ///
    /// # Panics
    /// As [`Product::stage`].
    pub fn stage_with(&self, entry: &'static str, tile: &Tile, precision: Precision) -> Stage {
        let extent = |name: &str, blocks: usize, most: usize| {
            assert!(blocks <= most, "{entry}: {blocks} blocks along {name}, at most {most} are possible");
            blocks as u32
        };
        let tiles = extent("x", self.m.div_ceil(tile.m) * self.n.div_ceil(tile.n), i32::MAX as usize);
        let grid = [tiles, 1, extent("z", self.times, 65_535)];
        Stage { entry, defines: tile.defines(precision, self.vectors), constant: true, grid, threads: 256 }
    }
}

/// Whether all of `counts` are multiples of a vector.
pub(crate) fn vectors(counts: &[i32]) -> bool {
    counts.iter().all(|count| count % 4 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compute capability, the most shared memory that a block can have there, and how much of it all blocks of a multiprocessor share.
    const ARCHITECTURES: &[(u32, usize, usize)] =
        &[(75, 64, 64), (80, 163, 164), (86, 99, 100), (89, 99, 100), (90, 227, 228), (100, 227, 228), (120, 99, 100)];

    #[test]
    fn every_tile_fits_into_the_shared_memory_of_every_architecture() {
        for (compute, block, multiprocessor) in ARCHITECTURES {
            for precision in [Precision::Fp32, Precision::Tf32, Precision::Bf16] {
                let target = Target { compute: *compute, precision };
                for tile in tiles(&target).iter().filter(|_| precision == Precision::Fp32 || *compute >= 80) {
                    let bytes = tile.shared(precision);
                    assert!(bytes <= 48 * 1024 && bytes <= block * 1024, "sm_{compute}, {precision}: {tile:?}");
                    // A block takes 1 KiB more from sm_80 on. Turing has room for one block of the largest tiles only.
                    assert!(2 * (bytes + 1024) <= multiprocessor * 1024 || *compute == 75, "sm_{compute}: {tile:?}");
                }
            }
        }
    }

    #[test]
    fn tiles_suit_the_product() {
        let tile = |m, n, times, precision| {
            let stage = Product { m, n, times, vectors: true }.stage("entry", &Target { compute: 80, precision });
            (stage.defines[1].1, stage.defines[2].1, stage.grid)
        };
        for precision in [Precision::Fp32, Precision::Tf32, Precision::Bf16] {
            // Layers of the paper at batch 128: conv1, conv3, conv4.
            assert_eq!(tile(387_200, 96, 1, precision), (128, 96, [3025, 1, 1]), "{precision}");
            assert_eq!(tile(21_632, 384, 1, precision), (128, 128, [507, 1, 1]), "{precision}");
            assert_eq!(tile(21_632, 192, 2, precision), (128, 96, [338, 1, 2]), "{precision}");
        }
        assert_eq!(tile(128, 4096, 1, Precision::Tf32), (64, 64, [128, 1, 1]));
        assert_eq!(tile(93_312, 48, 2, Precision::Bf16), (128, 64, [729, 1, 2]));
        assert_eq!(tile(3, 5, 1, Precision::Fp32), (32, 32, [1, 1, 1]));
    }
}
