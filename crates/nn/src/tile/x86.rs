//! The vectors of AVX2 and AVX-512.

use super::{
    Ahead, Ends, MAX_ROWS, Sweep, Tile, Vectors, block,
    block::{Vector, Work},
};
use std::arch::x86_64::*;

#[derive(Clone, Copy)]
struct Avx2(__m256);

impl Vector for Avx2 {
    const LANES: usize = 8;
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
    unsafe fn splat(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { _mm256_broadcast_ss(&*from) })
    }
    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { _mm256_fmadd_ps(a.0, b.0, self.0) })
    }
    #[inline(always)]
    unsafe fn sub_product(self, a: Self, b: Self) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { _mm256_fnmadd_ps(a.0, b.0, self.0) })
    }
    #[inline(always)]
    unsafe fn relu(self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self(_mm256_andnot_ps(_mm256_cmp_ps::<_CMP_LE_OQ>(self.0, _mm256_setzero_ps()), self.0)) }
    }
    #[inline(always)]
    unsafe fn at_most(self, most: Self) -> Self {
        // SAFETY: the caller's promise. Where one is a NaN, this gives the second.
        Self(unsafe { _mm256_min_ps(most.0, self.0) })
    }
    #[inline(always)]
    unsafe fn where_positive(self, of: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self(_mm256_and_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(of.0, _mm256_setzero_ps()), self.0)) }
    }
    #[inline(always)]
    unsafe fn bits_below(self, from: u32) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            let bits = _mm256_castps_si256(self.0);
            let part = _mm256_sub_epi32(bits, _mm256_srli_epi32::<2>(bits));
            Self(_mm256_castsi256_ps(_mm256_sub_epi32(_mm256_set1_epi32(from.cast_signed()), part)))
        }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { _mm256_add_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { _mm256_sub_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { _mm256_mul_ps(self.0, other.0) })
    }
}

#[derive(Clone, Copy)]
struct Avx512(__m512);

impl Vector for Avx512 {
    const LANES: usize = 16;
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { _mm512_loadu_ps(from) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { _mm512_storeu_ps(to, self.0) };
    }
    #[inline(always)]
    unsafe fn splat(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { _mm512_set1_ps(*from) })
    }
    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { _mm512_fmadd_ps(a.0, b.0, self.0) })
    }
    #[inline(always)]
    unsafe fn sub_product(self, a: Self, b: Self) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { _mm512_fnmadd_ps(a.0, b.0, self.0) })
    }
    #[inline(always)]
    unsafe fn relu(self) -> Self {
        // SAFETY: the caller's promise. What is not "at most 0" keeps its place, a NaN, too.
        unsafe { Self(_mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_NLE_UQ>(self.0, _mm512_setzero_ps()), self.0)) }
    }
    #[inline(always)]
    unsafe fn at_most(self, most: Self) -> Self {
        // SAFETY: the caller's promise. Where one is a NaN, this gives the second.
        Self(unsafe { _mm512_min_ps(most.0, self.0) })
    }
    #[inline(always)]
    unsafe fn where_positive(self, of: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self(_mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(of.0, _mm512_setzero_ps()), self.0)) }
    }
    #[inline(always)]
    unsafe fn bits_below(self, from: u32) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            let bits = _mm512_castps_si512(self.0);
            let part = _mm512_sub_epi32(bits, _mm512_srli_epi32::<2>(bits));
            Self(_mm512_castsi512_ps(_mm512_sub_epi32(_mm512_set1_epi32(from.cast_signed()), part)))
        }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { _mm512_sub_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { _mm512_mul_ps(self.0, other.0) })
    }
}

/// # Safety
/// As [`block::accumulate`]; the processor has AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<const ROWS: usize, const VECTORS: usize>(
    sweep: &Sweep,
    a: &[*const f32; MAX_ROWS],
    b: *const f32,
    c: &[*mut f32; MAX_ROWS],
    ends: &Ends,
    ahead: &mut [Ahead],
) {
    // SAFETY: the caller's promises.
    unsafe { block::accumulate::<Avx2, ROWS, VECTORS>(sweep, a, b, c, ends, ahead) };
}

/// # Safety
/// As [`block::accumulate`]; the processor has AVX-512F.
#[target_feature(enable = "avx512f")]
unsafe fn avx512<const ROWS: usize, const VECTORS: usize>(
    sweep: &Sweep,
    a: &[*const f32; MAX_ROWS],
    b: *const f32,
    c: &[*mut f32; MAX_ROWS],
    ends: &Ends,
    ahead: &mut [Ahead],
) {
    // SAFETY: the caller's promises.
    unsafe { block::accumulate::<Avx512, ROWS, VECTORS>(sweep, a, b, c, ends, ahead) };
}

/// # Safety
/// The processor has AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
unsafe fn work_avx2<W: Work>(work: W) {
    // SAFETY: the caller's promise.
    unsafe { work.run::<Avx2>() };
}

/// # Safety
/// The processor has AVX-512F.
#[target_feature(enable = "avx512f")]
unsafe fn work_avx512<W: Work>(work: W) {
    // SAFETY: the caller's promise.
    unsafe { work.run::<Avx512>() };
}

/// Does `work` with `vectors`, which the processor has; gives it back where they are neither AVX2 nor AVX-512.
#[inline]
pub fn with_vectors<W: Work>(work: W, vectors: Vectors) -> Option<W> {
    match vectors {
        // SAFETY: the processor has the instructions.
        Vectors::Avx512 => unsafe { work_avx512(work) },
        // SAFETY: as above.
        Vectors::Avx2 => unsafe { work_avx2(work) },
        Vectors::Portable => return Some(work),
    }
    None
}

/// Of the 16 registers 12 hold sums, two a row of b, one an element of a.
const AVX2: &[Tile] = &[Tile { rows: 6, columns: 16, lanes: 8, body: avx2::<6, 2> }];

const fn wide<const ROWS: usize, const VECTORS: usize>() -> Tile {
    Tile { rows: ROWS, columns: 16 * VECTORS, lanes: 16, body: avx512::<ROWS, VECTORS> }
}

/// Of the 32 registers up to 27 hold sums. The first of several that suit a product equally well is taken.
const AVX512: &[Tile] = &[
    wide::<6, 4>(),
    wide::<9, 3>(),
    wide::<12, 2>(),
    wide::<11, 2>(),
    wide::<8, 2>(),
    wide::<12, 1>(),
    wide::<6, 1>(),
];

/// The tiles of AVX2 or AVX-512.
pub fn tiles(vectors: Vectors) -> Option<&'static [Tile]> {
    match vectors {
        Vectors::Avx512 => Some(AVX512),
        Vectors::Avx2 => Some(AVX2),
        Vectors::Portable => None,
    }
}
