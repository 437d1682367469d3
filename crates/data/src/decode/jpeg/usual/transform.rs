//! Coefficients to samples.

#[cfg(target_arch = "x86_64")]
pub mod avx2;

/// A half, what is lost between the passes, and the middle of the samples.
const LAST_ROUNDING: i32 = 512 + 65_536 + (128 << 17);

/// The inverse cosine transform in whole numbers with thirteen bits behind the point, columns first (Loeffler, Ligtenberg and Moschytz). Of
/// `block`, which is all 0 afterwards, only the first `end` coefficients are not 0. The samples go to `out`, whose rows are `width` apart.
#[inline(always)]
pub fn inverse(block: &mut [i32; 64], end: usize, out: &mut [u8], width: usize) {
    if end <= 1 {
        return even(block, out, width);
    }
    let columns = pass(block, 512, 10);
    *block = [0; 64];
    let rows = pass(&transposed(&columns), LAST_ROUNDING, 17);
    let rows = transposed(&rows);
    for (y, row) in out.chunks_mut(width).take(8).enumerate() {
        let samples: &[i32; 8] = rows[8 * y..].first_chunk().expect("eight rows of eight");
        for (to, &sample) in row[..8].iter_mut().zip(samples) {
            *to = sample.clamp(0, 255) as u8;
        }
    }
}

/// Of the first coefficient alone.
#[inline(always)]
fn even(block: &mut [i32; 64], out: &mut [u8], width: usize) {
    let light = ((block[0] + 4 + 1024) >> 3).clamp(0, 255) as u8;
    block[0] = 0;
    for row in out.chunks_mut(width).take(8) {
        row[..8].fill(light);
    }
}

#[inline(always)]
fn transposed(from: &[i32; 64]) -> [i32; 64] {
    let mut to = [0; 64];
    for y in 0..8 {
        for x in 0..8 {
            to[8 * x + y] = from[8 * y + x];
        }
    }
    to
}

/// Transforms eight columns.
#[inline(always)]
fn pass(from: &[i32; 64], rounding: i32, shift: u32) -> [i32; 64] {
    let mut to = [0; 64];
    for x in 0..8 {
        let (s0, s1, s2, s3) = (from[x], from[x + 8], from[x + 16], from[x + 24]);
        let (s4, s5, s6, s7) = (from[x + 32], from[x + 40], from[x + 48], from[x + 56]);
        let times = i32::wrapping_mul;
        let plus = i32::wrapping_add;
        let minus = i32::wrapping_sub;
        // Even ones.
        let turned = times(plus(s2, s6), 2217);
        let (a2, a3) = (plus(turned, times(s6, -7567)), plus(turned, times(s2, 3135)));
        let (a0, a1) = (times(plus(s0, s4), 4096), times(minus(s0, s4), 4096));
        let (a0, a1) = (plus(a0, rounding), plus(a1, rounding));
        let even = [plus(a0, a3), plus(a1, a2), minus(a1, a2), minus(a0, a3)];
        // Odd ones.
        let all = times(plus(plus(s7, s3), plus(s5, s1)), 4816);
        let (b0, b1) = (plus(all, times(plus(s7, s1), -3685)), plus(all, times(plus(s5, s3), -10_497)));
        let (b2, b3) = (times(plus(s7, s3), -8034), times(plus(s5, s1), -1597));
        let odd = [
            plus(times(s1, 6149), plus(b0, b3)),
            plus(times(s3, 12_586), plus(b1, b2)),
            plus(times(s5, 8410), plus(b1, b3)),
            plus(times(s7, 1223), plus(b0, b2)),
        ];
        for i in 0..4 {
            to[8 * i + x] = plus(even[i], odd[i]) >> shift;
            to[8 * (7 - i) + x] = minus(even[i], odd[i]) >> shift;
        }
    }
    to
}
