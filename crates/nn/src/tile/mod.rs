//! The inner loop of convolutions and linear layers: a small block of a matrix product, kept in registers.
//!
//! `acc[i][j] += sum over l of a(i, l) b(l, j)` for the rows and columns of a [`Tile`]. Both operands are read where they lie, as long as
//! the `j` of `b` are neighbours: [`Sweep`] tells how to walk along `l`. So an image need not be unrolled (im2col) first.
//!
//! Every element is one sum in the order of its sweep, by fused multiply-adds where the processor has them: its bits depend neither on the tile
//! nor on the width of a vector.
//!
//! | module | about |
//! |---|---|
//! | `ahead` | asking for memory that a later block reads |
//! | `block` | the loop, for any vector |
//! | `pack` | operands in the order in which the loop reads them |
//! | `x86` | the vectors of AVX2 and AVX-512 |

mod ahead;
mod block;
mod pack;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use ahead::{Ahead, prefetch};
pub use block::{MAX_LANES, Step, Vector, Work, each_vector, load, relu, store};
pub use pack::{copy, pack, pack_columns};
use std::sync::atomic::{AtomicU8, Ordering};

/// The most rows and elements that any tile has.
pub const MAX_ROWS: usize = 12;
/// See [`MAX_ROWS`].
pub const MAX_COLUMNS: usize = 64;
/// See [`MAX_ROWS`].
pub const MAX_BLOCK: usize = 432;

/// What sums begin with.
pub const ZEROS: [f32; MAX_COLUMNS] = [0.0; MAX_COLUMNS];

/// How a product walks along its inner dimension: `segments` runs of `len` steps.
#[derive(Clone, Copy, Debug)]
pub struct Sweep {
    /// Number of runs.
    pub segments: usize,
    /// Steps of a run.
    pub len: usize,
    /// Elements from one step to the next in `a`.
    pub a_step: usize,
    /// Elements from one run to the next in `a`.
    pub a_segment: usize,
    /// Elements from one step to the next in `b`.
    pub b_step: usize,
    /// Elements from one run to the next in `b`.
    pub b_segment: usize,
}

impl Sweep {
    /// `len` steps, in runs that are short enough for an [`Ahead`] where they can be.
    pub fn even(len: usize, a_step: usize, b_step: usize) -> Self {
        const RUN: usize = 16;
        let run = if len.is_multiple_of(RUN) { RUN } else { len };
        let segments = len.checked_div(run).unwrap_or(0);
        Self { segments, len: run, a_step, a_segment: run * a_step, b_step, b_segment: run * b_step }
    }

    /// The offset of the last step in a, in b.
    fn last(&self) -> (usize, usize) {
        let (segment, step) = (self.segments - 1, self.len - 1);
        (segment * self.a_segment + step * self.a_step, segment * self.b_segment + step * self.b_step)
    }
}

/// What happens to a block of sums before and after a sweep.
struct Ends {
    /// The row that every row begins with; null: what is there.
    start: *const f32,
    /// Whether sums of at most 0 become 0.
    relu: bool,
}

/// Sweep, rows of a, b, rows of sums.
type Body = unsafe fn(&Sweep, &[*const f32; MAX_ROWS], *const f32, &[*mut f32; MAX_ROWS], &Ends, &mut [Ahead]);

/// A shape that a block of sums can have on this processor, `[row][column]` without gaps.
#[derive(Clone, Copy, Debug)]
pub struct Tile {
    /// Rows: the side that is read number by number.
    pub(crate) rows: usize,
    /// Columns: the side that is read as vectors; a multiple of [`Tile::UNIT`].
    pub(crate) columns: usize,
    /// Numbers of a vector.
    lanes: usize,
    body: Body,
}

/// Without AVX2: whatever the target always has (SSE2, NEON).
const PORTABLE: &[Tile] = &[Tile { rows: 6, columns: 16, lanes: 8, body: block::accumulate::<block::Portable, 6, 2> }];

impl Tile {
    /// All tiles have a multiple of so many columns.
    pub const UNIT: usize = 16;

    /// So many rows that a last, incomplete tile does not matter.
    pub const MANY: usize = 1 << 20;

    /// The best of this processor's tiles for a result of `rows` x `columns` elements.
    pub fn new(rows: usize, columns: usize) -> Self {
        *available().iter().min_by_key(|tile| tile.cost(rows, columns)).expect("a processor has a tile")
    }

    /// Rows of a block.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of a block.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Elements of a block.
    pub fn elements(&self) -> usize {
        self.rows * self.columns
    }

    /// How long a product takes, in no unit: every step of a block multiplies all vectors of the columns with every row, and loads both.
    fn cost(&self, rows: usize, columns: usize) -> usize {
        let vectors = self.columns / self.lanes;
        let step = (self.rows * vectors).max(self.rows + vectors);
        rows.div_ceil(self.rows) * columns.div_ceil(self.columns) * step
    }

    /// Adds a product to `block`; row `i` of a begins at `a[offsets[i]]`, b at `b[0]`.
    ///
    /// # Panics
    /// Where the sweep leaves `a` or `b`, or `block` is shorter than the tile.
    #[inline]
    pub fn accumulate(&self, sweep: &Sweep, a: &[f32], offsets: &[usize; MAX_ROWS], b: &[f32], block: &mut [f32]) {
        self.accumulate_ahead(sweep, a, offsets, b, block, &mut []);
    }

    /// The same; meanwhile the lines of all of `ahead` are asked for.
    ///
    /// # Panics
    /// As [`Tile::accumulate`].
    #[inline]
    pub fn accumulate_ahead(
        &self,
        sweep: &Sweep,
        a: &[f32],
        offsets: &[usize; MAX_ROWS],
        b: &[f32],
        block: &mut [f32],
        ahead: &mut [Ahead],
    ) {
        let block = &mut block[..self.elements()];
        let mut sums = [block.as_mut_ptr(); MAX_ROWS];
        for (row, sums) in block.chunks_exact_mut(self.columns).zip(&mut sums) {
            *sums = row.as_mut_ptr();
        }
        // SAFETY: the rows of the block.
        unsafe { self.run(sweep, a, offsets, b, &sums, &Ends { start: std::ptr::null(), relu: false }, ahead) };
    }

    /// The same to `rows` of sums that lie apart, the first [`Tile::columns`] of each. They begin with `start`, if there is one; with `relu`, what is at most 0 at
    /// the end becomes 0. Where there are fewer rows than the tile has, only their offsets matter.
    ///
    /// # Panics
    /// Where the sweep leaves `a` or `b`, or `start` or a row is shorter than the tile.
    #[inline]
    pub fn accumulate_rows(
        &self,
        sweep: &Sweep,
        a: &[f32],
        offsets: &mut [usize; MAX_ROWS],
        b: &[f32],
        rows: &mut [&mut [f32]],
        start: Option<&[f32]>,
        relu: bool,
    ) {
        let mut spare = [0.0; MAX_COLUMNS];
        let mut sums = [spare.as_mut_ptr(); MAX_ROWS];
        for (row, sums) in rows.iter_mut().zip(&mut sums) {
            *sums = row[..self.columns].as_mut_ptr();
        }
        // What is missing is the first row once more, into memory that nobody reads.
        let first = offsets[0];
        offsets[rows.len()..].fill(first);
        let start = start.map_or(std::ptr::null(), |start| start[..self.columns].as_ptr());
        // SAFETY: every row has a tile's columns (checked above), and so have the spare one and `start`.
        unsafe { self.run(sweep, a, offsets, b, &sums, &Ends { start, relu }, &mut []) };
    }

    /// `sums = a b`, row after row of each: a has `inner` columns, b and the sums those of the tile. There are whole blocks of rows.
    ///
    /// # Panics
    /// Where the operands are not so long.
    pub fn multiply(&self, a: &[f32], inner: usize, b: &[f32], sums: &mut [f32]) {
        let rows = sums.len() / self.columns;
        let whole = rows.is_multiple_of(self.rows) && sums.len() == rows * self.columns;
        assert!(whole && inner > 0 && a.len() == rows * inner && b.len() >= inner * self.columns, "not whole blocks");
        let sweep = Sweep { segments: 1, len: inner, a_step: 1, a_segment: 0, b_step: self.columns, b_segment: 0 };
        let ends = Ends { start: ZEROS.as_ptr(), relu: false };
        for (a, sums) in a.chunks_exact(self.rows * inner).zip(sums.chunks_exact_mut(self.elements())) {
            let a = std::array::from_fn(|i| a.as_ptr().wrapping_add(i * inner));
            let sums: [*mut f32; MAX_ROWS] = std::array::from_fn(|i| sums.as_mut_ptr().wrapping_add(i * self.columns));
            // SAFETY: these are as many rows of a and of the sums as the tile has, and b is as long (checked above); `available` gives only tiles whose instructions
            // the processor has.
            unsafe { (self.body)(&sweep, &a, b.as_ptr(), &sums, &ends, &mut []) };
        }
    }

    /// # Safety
    /// Each of the tile's rows of `sums`, and `ends.start` where it is not null, has the tile's columns; nobody else uses them.
    #[inline(always)]
    unsafe fn run(
        &self,
        sweep: &Sweep,
        a: &[f32],
        offsets: &[usize; MAX_ROWS],
        b: &[f32],
        sums: &[*mut f32; MAX_ROWS],
        ends: &Ends,
        ahead: &mut [Ahead],
    ) {
        if sweep.segments == 0 || sweep.len == 0 {
            return;
        }
        let (last_a, last_b) = sweep.last();
        let farthest = offsets[..self.rows].iter().fold(0, |farthest, offset| farthest.max(*offset));
        assert!(farthest + last_a < a.len() && last_b + self.columns <= b.len(), "{sweep:?} leaves its operands");
        let rows = offsets.map(|offset| a.as_ptr().wrapping_add(offset));
        // SAFETY: all elements of a and b lie inside their slices (checked above), the others are the caller's promise; `available` gives only tiles whose
        // instructions the processor has.
        unsafe { (self.body)(sweep, &rows, b.as_ptr(), sums, ends, ahead) };
    }
}

/// `for_vectors!(f, any, (a: A, b: B))` is a function `f` that does what `any(a, b)` does, compiled for each kind of [`Vectors`]; both are unsafe with `unsafe` before it.
/// `any` is to be inlined always: only then the compiler uses their instructions.
macro_rules! for_vectors {
    (unsafe $($rest:tt)+) => { $crate::tile::for_vectors!([unsafe] $($rest)+); };
    ([$($unsafe:tt)?] $visible:vis $name:ident, $any:ident, ($($argument:ident: $type:ty),+)) => {
        $visible $($unsafe)? fn $name($($argument: $type),+) {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
            $($unsafe)? fn avx512($($argument: $type),+) {
                // SAFETY: the caller's promises, if any.
                $($unsafe)? { $any($($argument),+) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            $($unsafe)? fn avx2($($argument: $type),+) {
                // SAFETY: as above.
                $($unsafe)? { $any($($argument),+) }
            }
            #[cfg(target_arch = "x86_64")]
            match $crate::tile::Vectors::used() {
                // SAFETY: the processor has the instructions; the caller's promises, if any.
                $crate::tile::Vectors::Avx512 => return unsafe { avx512($($argument),+) },
                // SAFETY: as above.
                $crate::tile::Vectors::Avx2 => return unsafe { avx2($($argument),+) },
                $crate::tile::Vectors::Portable => {}
            }
            // SAFETY: as above.
            $($unsafe)? { $any($($argument),+) }
        }
    };
    ($($rest:tt)+) => { $crate::tile::for_vectors!([] $($rest)+); };
}
pub(crate) use for_vectors;

/// Does `work` with the vectors of this processor.
#[inline]
pub fn with_vectors(work: impl Work) {
    #[cfg(target_arch = "x86_64")]
    let Some(work) = x86::with_vectors(work, Vectors::used()) else { return };
    // SAFETY: every processor has the instructions.
    unsafe { work.run::<block::Portable>() };
}

/// The tiles of this processor.
fn available() -> &'static [Tile] {
    #[cfg(target_arch = "x86_64")]
    if let Some(tiles) = x86::tiles(Vectors::used()) {
        return tiles;
    }
    PORTABLE
}

/// Instructions for vectors, the widest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Vectors {
    /// Whatever the target always has (SSE2, NEON).
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 with the instructions for bytes, double words and shorter vectors.
    Avx512,
}

/// See [`Vectors::limit`].
static LIMIT: AtomicU8 = AtomicU8::new(Vectors::Avx512 as u8);

impl Vectors {
    /// All of them, the widest last.
    pub const ALL: [Self; 3] = [Self::Portable, Self::Avx2, Self::Avx512];

    /// Whether this processor has them.
    pub fn present(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                std::is_x86_feature_detected!("avx512f")
                    && std::is_x86_feature_detected!("avx512bw")
                    && std::is_x86_feature_detected!("avx512dq")
                    && std::is_x86_feature_detected!("avx512vl")
            }
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512 => false,
        }
    }

    /// Those that all layers use.
    #[inline]
    pub fn used() -> Self {
        let limit = LIMIT.load(Ordering::Relaxed);
        let used = Self::ALL.into_iter().rev().find(|vectors| *vectors as u8 <= limit && vectors.present());
        used.unwrap_or(Self::Portable)
    }

    /// Uses none that are wider, in the whole process; for tests and comparisons. Not while anything runs or is planned, as memory is planned for certain tiles.
    pub fn limit(self) {
        LIMIT.store(self as u8, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every tile that this processor can run.
    fn all() -> Vec<Tile> {
        let mut all = PORTABLE.to_vec();
        #[cfg(target_arch = "x86_64")]
        all.extend(Vectors::ALL.into_iter().filter(|v| v.present()).filter_map(x86::tiles).flatten());
        all
    }

    #[test]
    fn a_sweep_over_strided_operands() {
        let sweep = Sweep { segments: 3, len: 5, a_step: 2, a_segment: 17, b_step: 67, b_segment: 401 };
        let a: Vec<f32> = (0..140).map(|i| (i % 11) as f32 - 5.0).collect();
        let b: Vec<f32> = (0..1400).map(|i| (i % 13) as f32 - 6.0).collect();
        let offsets = [3, 0, 8, 30, 1, 50, 9, 2, 4, 90, 7, 70];
        for tile in all() {
            assert!(tile.rows <= MAX_ROWS && tile.columns <= MAX_COLUMNS && tile.elements() <= MAX_BLOCK, "{tile:?}");
            assert_eq!(tile.columns % Tile::UNIT, 0, "{tile:?}");
            let mut expected = vec![1.0; tile.elements()];
            for (row, offset) in expected.chunks_exact_mut(tile.columns).zip(offsets) {
                for (j, sum) in row.iter_mut().enumerate() {
                    for segment in 0..3 {
                        for step in 0..5 {
                            *sum += a[offset + segment * 17 + step * 2] * b[segment * 401 + step * 67 + j];
                        }
                    }
                }
            }
            let mut block = vec![1.0; tile.elements()];
            tile.accumulate(&sweep, &a, &offsets, &b, &mut block);
            assert_eq!(block, expected, "{tile:?}");
        }
    }

    #[test]
    fn a_product_of_whole_blocks() {
        let inner = 7;
        let b: Vec<f32> = (0..inner * MAX_COLUMNS).map(|i| (i % 13) as f32 - 6.0).collect();
        for tile in all() {
            let rows = 2 * tile.rows;
            let a: Vec<f32> = (0..rows * inner).map(|i| (i % 11) as f32 - 5.0).collect();
            let mut sums = vec![f32::NAN; rows * tile.columns];
            tile.multiply(&a, inner, &b, &mut sums);
            for (i, sum) in sums.iter().enumerate() {
                let (row, column) = (i / tile.columns, i % tile.columns);
                let want: f32 = (0..inner).map(|l| a[row * inner + l] * b[l * tile.columns + column]).sum();
                assert_eq!(*sum, want, "{tile:?}, {row}, {column}");
            }
        }
    }

    #[test]
    fn a_tile_suits_the_product() {
        for (rows, columns) in [(1, 1), (1000, 10), (1000, 48), (33, 96), (1000, 128), (1000, 1000)] {
            let best = Tile::new(rows, columns);
            assert!(available().iter().all(|tile| tile.cost(rows, columns) >= best.cost(rows, columns)));
        }
    }

    #[test]
    #[should_panic(expected = "leaves its operands")]
    fn leaving_an_operand_panics() {
        let tile = Tile::new(1, 1);
        let sweep = Sweep { segments: 1, len: 5, a_step: 1, a_segment: 0, b_step: tile.columns, b_segment: 0 };
        let mut offsets = [0; MAX_ROWS];
        offsets[tile.rows - 1] = 6;
        tile.accumulate(&sweep, &[0.0; 10], &offsets, &[0.0; 5 * MAX_COLUMNS], &mut [0.0; MAX_BLOCK]);
    }
}
