//! The same, eight columns or rows in a register.

use super::{LAST_ROUNDING, even};
use std::arch::x86_64::*;

/// As [`super::inverse`].
#[inline]
#[target_feature(enable = "avx2")]
pub fn inverse(block: &mut [i32; 64], end: usize, out: &mut [u8], width: usize) {
    if end <= 1 {
        return even(block, out, width);
    }
    // SAFETY: both are 256 bytes, and any bytes are numbers.
    let rows: [__m256i; 8] = unsafe { std::mem::transmute(*block) };
    *block = [0; 64];
    let columns = pass::<10>(rows, 512);
    let [c0, c1, c2, c3, c4, c5, c6, c7] = pass::<17>(transposed(columns), LAST_ROUNDING);
    // Four columns of four bytes in each half.
    let left = _mm256_packus_epi16(_mm256_packs_epi32(c0, c1), _mm256_packs_epi32(c2, c3));
    let right = _mm256_packus_epi16(_mm256_packs_epi32(c4, c5), _mm256_packs_epi32(c6, c7));
    let order = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    let (left, right) = (_mm256_shuffle_epi8(left, order), _mm256_shuffle_epi8(right, order));
    // SAFETY: both are 64 bytes, and any bytes are numbers.
    let [r0, r1, r4, r5, r2, r3, r6, r7]: [u64; 8] =
        unsafe { std::mem::transmute([_mm256_unpacklo_epi32(left, right), _mm256_unpackhi_epi32(left, right)]) };
    for (to, row) in out.chunks_mut(width).zip([r0, r1, r2, r3, r4, r5, r6, r7]) {
        to[..8].copy_from_slice(&row.to_le_bytes());
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn transposed(rows: [__m256i; 8]) -> [__m256i; 8] {
    let [r0, r1, r2, r3, r4, r5, r6, r7] = rows;
    let (a0, a1) = (_mm256_unpacklo_epi32(r0, r1), _mm256_unpackhi_epi32(r0, r1));
    let (a2, a3) = (_mm256_unpacklo_epi32(r2, r3), _mm256_unpackhi_epi32(r2, r3));
    let (a4, a5) = (_mm256_unpacklo_epi32(r4, r5), _mm256_unpackhi_epi32(r4, r5));
    let (a6, a7) = (_mm256_unpacklo_epi32(r6, r7), _mm256_unpackhi_epi32(r6, r7));
    let (b0, b1) = (_mm256_unpacklo_epi64(a0, a2), _mm256_unpackhi_epi64(a0, a2));
    let (b2, b3) = (_mm256_unpacklo_epi64(a1, a3), _mm256_unpackhi_epi64(a1, a3));
    let (b4, b5) = (_mm256_unpacklo_epi64(a4, a6), _mm256_unpackhi_epi64(a4, a6));
    let (b6, b7) = (_mm256_unpacklo_epi64(a5, a7), _mm256_unpackhi_epi64(a5, a7));
    let upper = [(b0, b4), (b1, b5), (b2, b6), (b3, b7)];
    let [(c0, c4), (c1, c5), (c2, c6), (c3, c7)] =
        [halves(upper[0]), halves(upper[1]), halves(upper[2]), halves(upper[3])];
    [c0, c1, c2, c3, c4, c5, c6, c7]
}

/// The lower halves of both, and the upper ones.
#[inline]
#[target_feature(enable = "avx2")]
fn halves((a, b): (__m256i, __m256i)) -> (__m256i, __m256i) {
    (_mm256_permute2x128_si256::<0x20>(a, b), _mm256_permute2x128_si256::<0x31>(a, b))
}

#[inline]
#[target_feature(enable = "avx2")]
fn times(a: __m256i, factor: i32) -> __m256i {
    _mm256_mullo_epi32(a, _mm256_set1_epi32(factor))
}

#[inline]
#[target_feature(enable = "avx2")]
fn plus(a: __m256i, b: __m256i) -> __m256i {
    _mm256_add_epi32(a, b)
}

#[inline]
#[target_feature(enable = "avx2")]
fn minus(a: __m256i, b: __m256i) -> __m256i {
    _mm256_sub_epi32(a, b)
}

/// As [`super::pass`].
#[inline]
#[target_feature(enable = "avx2")]
fn pass<const SHIFT: i32>(from: [__m256i; 8], rounding: i32) -> [__m256i; 8] {
    let [s0, s1, s2, s3, s4, s5, s6, s7] = from;
    let rounding = _mm256_set1_epi32(rounding);
    // Even ones.
    let turned = times(plus(s2, s6), 2217);
    let (a2, a3) = (plus(turned, times(s6, -7567)), plus(turned, times(s2, 3135)));
    let a0 = plus(_mm256_slli_epi32::<12>(plus(s0, s4)), rounding);
    let a1 = plus(_mm256_slli_epi32::<12>(minus(s0, s4)), rounding);
    let (e0, e1, e2, e3) = (plus(a0, a3), plus(a1, a2), minus(a1, a2), minus(a0, a3));
    // Odd ones.
    let all = times(plus(plus(s7, s3), plus(s5, s1)), 4816);
    let (b0, b1) = (plus(all, times(plus(s7, s1), -3685)), plus(all, times(plus(s5, s3), -10_497)));
    let (b2, b3) = (times(plus(s7, s3), -8034), times(plus(s5, s1), -1597));
    let o0 = plus(times(s1, 6149), plus(b0, b3));
    let o1 = plus(times(s3, 12_586), plus(b1, b2));
    let o2 = plus(times(s5, 8410), plus(b1, b3));
    let o3 = plus(times(s7, 1223), plus(b0, b2));
    let shifted = |v| _mm256_srai_epi32::<SHIFT>(v);
    [
        shifted(plus(e0, o0)),
        shifted(plus(e1, o1)),
        shifted(plus(e2, o2)),
        shifted(plus(e3, o3)),
        shifted(minus(e3, o3)),
        shifted(minus(e2, o2)),
        shifted(minus(e1, o1)),
        shifted(minus(e0, o0)),
    ]
}
