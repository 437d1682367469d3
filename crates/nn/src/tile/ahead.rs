//! Asking for memory that a later block reads or writes, while this one multiplies.
//!
//! Operands as large as the weights of a linear layer come from memory, in pieces of rows that are too short for the processor to see where they go on; without this, a block waits
//! for each of their lines. Asked for many at a time, they hold up the loads of the block itself, as a core can wait for a dozen lines or two at once: hence a few after each run of
//! a [`Sweep`].

use super::Sweep;

/// Elements of a line of the caches.
const LINE: usize = 16;

/// The lines of a rectangle of memory: rows of neighbours, asked for one by one.
#[derive(Clone, Copy, Debug)]
pub struct Ahead {
    next: *const f32,
    /// Elements from the end of a row to the start of the next.
    gap: usize,
    /// Lines of a row.
    width: usize,
    /// Lines of this row that are left.
    left: usize,
    /// Lines that are left in all.
    total: usize,
    /// Lines after each run of a sweep.
    share: usize,
}

impl Ahead {
    /// `rows` rows of `width` elements from `first` on, `step` elements apart, evenly during so many `sweeps`. Nothing is read: only the address of `first` matters, and what lies
    /// behind it need not exist.
    pub fn new(first: *const f32, rows: usize, width: usize, step: usize, sweeps: usize, sweep: &Sweep) -> Self {
        let lines = width.div_ceil(LINE).max(1);
        let total = if width == 0 { 0 } else { rows * lines };
        let share = total.div_ceil((sweeps * sweep.segments).max(1));
        Self { next: first, gap: step.wrapping_sub(lines * LINE), width: lines, left: lines, total, share }
    }

    /// Asks for the next few.
    #[inline(always)]
    pub(super) fn ask(&mut self) {
        let share = self.share.min(self.total);
        self.total -= share;
        for _ in 0..share {
            prefetch(self.next);
            self.next = self.next.wrapping_add(LINE);
            self.left -= 1;
            if self.left == 0 {
                self.next = self.next.wrapping_add(self.gap);
                self.left = self.width;
            }
        }
    }
}

/// Asks for the line of this address in the second-level cache; nothing need lie there. On other processors than x86-64 nothing.
#[inline(always)]
pub fn prefetch(address: *const f32) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: SSE is part of x86-64; a prefetch changes nothing, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_a_rectangle_is_asked_for_once() {
        let data = [0.0f32; 1024];
        let sweep = Sweep::even(64, 1, 1);
        let mut ahead = Ahead::new(data.as_ptr(), 5, 40, 100, 2, &sweep);
        assert_eq!((sweep.segments, sweep.len, ahead.total, ahead.share), (4, 16, 15, 2));
        let mut asked = vec![];
        while ahead.total > 0 {
            let mut one = Ahead { share: 1, ..ahead };
            // SAFETY: both lie in `data`, or one line behind it.
            asked.push(unsafe { ahead.next.offset_from(data.as_ptr()) });
            one.ask();
            ahead = one;
        }
        let want = (0..5).flat_map(|row| (0..3).map(move |line| row * 100 + line * 16));
        assert_eq!(asked, want.collect::<Vec<_>>());
    }
}
