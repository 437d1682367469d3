//! How a product of matrices is shared out over a CUDA device: the tiles of `cuda/gemm.cuh`.

use alexnode_core::Stage;

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

/// Blocks that keep a large device busy: two for each of 132 multiprocessors. Fewer, larger tiles would leave some idle.
const BUSY: usize = 264;

impl Product {
    /// The stage that runs it with `entry`.
    ///
    /// # Panics
    /// Where there are more products than a grid is deep.
    pub fn stage(&self, entry: &'static str) -> Stage {
        let Self { m, n, times, vectors } = *self;
        let blocks = |tile: usize| m.div_ceil(tile) * n.div_ceil(tile) * times;
        let tile = match () {
            _ if m.min(n) <= 32 => 32,
            _ if m.min(n) >= 96 && blocks(128) >= BUSY => 128,
            _ => 64,
        };
        let defines = vec![
            ("TILE_M", tile as i32),
            ("TILE_N", tile as i32),
            ("TILE_K", 16),
            ("WIDTH", if vectors { 4 } else { 1 }),
        ];
        let extent = |name: &str, blocks: usize, most: usize| {
            assert!(blocks <= most, "{entry}: {blocks} blocks along {name}, at most {most} are possible");
            blocks as u32
        };
        let grid = [
            extent("x", m.div_ceil(tile), i32::MAX as usize),
            extent("y", n.div_ceil(tile), 65_535),
            extent("z", times, 65_535),
        ];
        Stage { entry, defines, constant: true, grid, threads: 256 }
    }
}

/// Whether all of `counts` are multiples of a vector.
pub(crate) fn vectors(counts: &[i32]) -> bool {
    counts.iter().all(|count| count % 4 == 0)
}
