//! What machine code is made for.

use std::fmt;

/// A kind of device: the machine code of one runs on no other, apart from later ones of the same generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Architecture {
    /// Compute capability, times ten.
    pub compute: u32,
}

impl Architecture {
    /// The most shared memory that the static arrays of a block may have, everywhere.
    pub const STATIC_SHARED: usize = 48 << 10;

    /// The best of `supported` (compute capabilities, times ten) whose code runs on this one.
    pub(super) fn nearest(self, supported: &[u32]) -> Option<Self> {
        // Code with the features of sm_90a runs nowhere else, so it is no stand-in.
        let runs = |other: &u32| {
            *other == self.compute || (other / 10 == self.compute / 10 && *other < self.compute && *other != 90)
        };
        supported.iter().copied().filter(runs).max().map(|compute| Self { compute })
    }
}

impl fmt::Display for Architecture {
    /// As compilers call it. sm_90a: with the instructions that only sm_90 has.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sm_{}{}", self.compute, if self.compute == 90 { "a" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_of_the_same_generation_stands_in() {
        let supported = [75, 80, 86, 89, 90, 100];
        let nearest = |compute| Architecture { compute }.nearest(&supported).map(|a| a.to_string());
        assert_eq!(nearest(90).as_deref(), Some("sm_90a"));
        assert_eq!(nearest(87).as_deref(), Some("sm_86"));
        assert_eq!(nearest(103).as_deref(), Some("sm_100"));
        assert_eq!((nearest(70), nearest(120)), (None, None));
    }
}
