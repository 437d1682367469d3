//! The inner loop of convolutions and linear layers: a small block of a matrix product, kept in registers.
//!
//! `acc[i][j] += sum over l of a(i, l) b(l, j)` for [`MR`] x [`NR`] elements. Both operands are read where they lie, as long as
//! the `j` of `b` are neighbours: [`Sweep`] tells how to walk along `l`. So an image need not be unrolled (im2col) first.

/// Rows of a block: the side that is read number by number.
pub const MR: usize = 6;
/// Columns of a block: the side that is read as vectors. Of the 16 registers of AVX2, [`MR`] x [`NR`] sums take 12, a row of b 2,
/// an element of a 1.
pub const NR: usize = 16;

/// A block of sums.
pub type Block = [[f32; NR]; MR];

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
    /// The offset of the last step in a, in b.
    fn last(&self) -> (usize, usize) {
        let (segment, step) = (self.segments - 1, self.len - 1);
        (segment * self.a_segment + step * self.a_step, segment * self.b_segment + step * self.b_step)
    }
}

/// Adds a product to `block`; row `i` of a begins at `a[offsets[i]]`, b at `b[0]`. Every element's sum is in the order of the
/// sweep, whatever block it belongs to.
///
/// # Panics
/// Where the sweep leaves `a` or `b`.
pub fn accumulate(sweep: &Sweep, a: &[f32], offsets: &[usize; MR], b: &[f32], block: &mut Block) {
    if sweep.segments == 0 || sweep.len == 0 {
        return;
    }
    let (last_a, last_b) = sweep.last();
    assert!(offsets.iter().all(|o| o + last_a < a.len()) && last_b + NR <= b.len(), "{sweep:?} leaves its operands");
    let a = offsets.map(|o| a[o..].as_ptr());
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
        // SAFETY: the processor has the features, and all elements lie inside their slices (checked above).
        return unsafe { x86::accumulate(sweep, a, b.as_ptr(), block) };
    }
    // SAFETY: all elements lie inside their slices (checked above).
    unsafe { generic::<Portable>(sweep, a, b.as_ptr(), block) };
}

/// `to = from`, up to [`NR`] elements; a full row goes without a call.
#[inline(always)]
pub fn copy(to: &mut [f32], from: &[f32]) {
    match (<&mut [f32; NR]>::try_from(&mut *to), <&[f32; NR]>::try_from(from)) {
        (Ok(to), Ok(from)) => *to = *from,
        _ => to.copy_from_slice(from),
    }
}

/// A packed row of [`NR`] elements: `from`, then zeros.
#[inline(always)]
pub fn pack(to: &mut [f32], from: &[f32]) {
    copy(&mut to[..from.len()], from);
    to[from.len()..].fill(0.0);
}

/// Packs columns: row `l` of `to` holds element `l` of each of the rows of `inner` elements in `from`, at most [`NR`], then zeros.
#[inline(always)]
pub fn pack_columns(to: &mut [f32], from: &[f32], inner: usize) {
    let width = from.len() / inner;
    for (step, to) in to.chunks_exact_mut(NR).enumerate() {
        for (j, to) in to.iter_mut().enumerate() {
            *to = if j < width { from[j * inner + step] } else { 0.0 };
        }
    }
}

/// Asks for the cache line of `data[at]` in the second-level cache, as it will be read soon; does nothing beyond the end.
#[inline(always)]
pub fn prefetch(data: &[f32], at: usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(element) = data.get(at) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: SSE is part of x86-64; a prefetch changes nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(std::ptr::from_ref(element).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (data, at);
}

/// Eight numbers.
trait Vector: Copy {
    /// # Safety
    /// Eight elements are readable; the processor has the instructions.
    unsafe fn load(from: *const f32) -> Self;
    /// # Safety
    /// Eight elements are writable; the processor has the instructions.
    unsafe fn store(self, to: *mut f32);
    /// `a b + self`.
    ///
    /// # Safety
    /// `a` is readable; the processor has the instructions.
    unsafe fn add_product(self, a: *const f32, b: Self) -> Self;
}

const LANES: usize = 8;
/// Vectors of a row.
const VECTORS: usize = NR / LANES;

/// # Safety
/// The processor has the instructions of `V`, and the sweep stays inside the operands.
#[inline(always)]
unsafe fn generic<V: Vector>(sweep: &Sweep, a: [*const f32; MR], b: *const f32, block: &mut Block) {
    // SAFETY: the caller's promises; `block` is MR x NR elements.
    unsafe {
        let mut acc: [[V; VECTORS]; MR] =
            std::array::from_fn(|i| std::array::from_fn(|j| V::load(block[i].as_ptr().add(j * LANES))));
        for segment in 0..sweep.segments {
            let mut offset = segment * sweep.a_segment;
            let mut b = b.add(segment * sweep.b_segment);
            for _ in 0..sweep.len {
                let row: [V; VECTORS] = std::array::from_fn(|j| V::load(b.add(j * LANES)));
                for (acc, a) in acc.iter_mut().zip(a) {
                    for (acc, b) in acc.iter_mut().zip(row) {
                        *acc = acc.add_product(a.add(offset), b);
                    }
                }
                offset += sweep.a_step;
                b = b.add(sweep.b_step);
            }
        }
        for (acc, row) in acc.iter().zip(block) {
            for (j, acc) in acc.iter().enumerate() {
                acc.store(row.as_mut_ptr().add(j * LANES));
            }
        }
    }
}

/// Whatever the target always has (SSE2, NEON).
#[derive(Clone, Copy)]
struct Portable([f32; LANES]);

impl Vector for Portable {
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { from.cast::<[f32; LANES]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[f32; LANES]>().write_unaligned(self.0) };
    }
    #[inline(always)]
    unsafe fn add_product(mut self, a: *const f32, b: Self) -> Self {
        // SAFETY: the caller's promise.
        let a = unsafe { *a };
        for (x, b) in self.0.iter_mut().zip(b.0) {
            *x += a * b;
        }
        self
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Block, MR, Sweep, Vector, generic};
    use std::arch::x86_64::{__m256, _mm256_broadcast_ss, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_storeu_ps};

    #[derive(Clone, Copy)]
    struct Avx(__m256);

    impl Vector for Avx {
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: the caller's promise.
            Self(unsafe { _mm256_loadu_ps(from) })
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: the caller's promise.
            unsafe { _mm256_storeu_ps(to, self.0) };
        }
        #[inline(always)]
        unsafe fn add_product(self, a: *const f32, b: Self) -> Self {
            // SAFETY: the caller's promise.
            Self(unsafe { _mm256_fmadd_ps(_mm256_broadcast_ss(&*a), b.0, self.0) })
        }
    }

    /// # Safety
    /// The processor has AVX2 and FMA, and the sweep stays inside the operands.
    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn accumulate(sweep: &Sweep, a: [*const f32; MR], b: *const f32, block: &mut Block) {
        // SAFETY: the caller's promises.
        unsafe { generic::<Avx>(sweep, a, b, block) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Body = unsafe fn(&Sweep, [*const f32; MR], *const f32, &mut Block);

    #[test]
    fn a_sweep_over_strided_operands() {
        let sweep = Sweep { segments: 3, len: 5, a_step: 2, a_segment: 17, b_step: 19, b_segment: 101 };
        let a: Vec<f32> = (0..100).map(|i| (i % 11) as f32 - 5.0).collect();
        let b: Vec<f32> = (0..400).map(|i| (i % 13) as f32 - 6.0).collect();
        let offsets = [3, 0, 8, 30, 1, 50];
        let mut expected = [[1.0; NR]; MR];
        for (row, offset) in expected.iter_mut().zip(offsets) {
            for (j, sum) in row.iter_mut().enumerate() {
                for segment in 0..3 {
                    for step in 0..5 {
                        *sum += a[offset + segment * 17 + step * 2] * b[segment * 101 + step * 19 + j];
                    }
                }
            }
        }
        let mut block = [[1.0; NR]; MR];
        accumulate(&sweep, &a, &offsets, &b, &mut block);
        assert_eq!(block, expected);
        let mut block = [[1.0; NR]; MR];
        let body: Body = generic::<Portable>;
        // SAFETY: the same operands, which the safe call has checked.
        unsafe { body(&sweep, offsets.map(|o| a[o..].as_ptr()), b.as_ptr(), &mut block) };
        assert_eq!(block, expected);
    }

    #[test]
    #[should_panic(expected = "leaves its operands")]
    fn leaving_an_operand_panics() {
        let sweep = Sweep { segments: 1, len: 5, a_step: 1, a_segment: 0, b_step: NR, b_segment: 0 };
        accumulate(&sweep, &[0.0; 10], &[0, 1, 2, 3, 4, 6], &[0.0; 5 * NR], &mut [[0.0; NR]; MR]);
    }
}
