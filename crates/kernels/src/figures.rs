//! What a compiled kernel takes of a device, in the words of the assembler (`ptxas -v`), which every version of it has used.

use alexnode_core::{Error, Result};
use alexnode_cuda::compile::Architecture;
use std::{fmt, str::FromStr};

/// The figures of a kernel on one architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// Registers of a thread.
    pub registers: usize,
    /// Bytes of static shared memory of a block.
    pub shared: usize,
    /// Bytes of a thread's arrays that are not in registers.
    pub stack: usize,
    /// Bytes written for want of registers, and read back.
    pub spilled: usize,
}

impl Figures {
    /// From what a compiler said of one entry.
    ///
    /// # Errors
    /// `ERR_KERNEL` where it is not understood.
    pub fn read(log: &str) -> Result<Self> {
        let before = |what: &str| number_before(log, what);
        match (
            before("registers"),
            before("bytes stack frame"),
            before("bytes spill stores"),
            before("bytes spill loads"),
        ) {
            (Some(registers), Some(stack), Some(stores), Some(loads)) => Ok(Self {
                registers,
                // It is silent about it where there is none.
                shared: before("bytes smem").unwrap_or(0),
                stack: stack.saturating_sub(stores),
                spilled: stores + loads,
            }),
            _ => Err(Error::kernel(format!("the compiler does not say what the kernel takes: {log}"))),
        }
    }

    /// What is wrong with them, if anything.
    pub fn problem(&self) -> Option<String> {
        if self.spilled > 0 {
            return Some(format!("spills {} bytes with {} registers", self.spilled, self.registers));
        }
        let most = Architecture::STATIC_SHARED;
        (self.shared > most).then(|| format!("{} bytes of static shared memory, {most} are possible", self.shared))
    }
}

fn number_before(log: &str, what: &str) -> Option<usize> {
    let (before, _) = log.split_once(&format!(" {what}"))?;
    before.rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

impl fmt::Display for Figures {
    /// As in the table: "128/33792", and the stack behind it where there is one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registers, self.shared)?;
        if self.stack > 0 { write!(f, "/{}", self.stack) } else { Ok(()) }
    }
}

impl FromStr for Figures {
    type Err = ();
    fn from_str(s: &str) -> std::result::Result<Self, ()> {
        let mut numbers = s.split('/').map(|number| number.parse::<usize>().map_err(drop));
        let mut next = || numbers.next();
        match (next(), next(), next()) {
            (Some(registers), Some(shared), stack) => {
                let stack = stack.transpose()?.unwrap_or(0);
                Ok(Self { registers: registers?, shared: shared?, stack, spilled: 0 })
            }
            _ => Err(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "ptxas info    : 58 bytes gmem
ptxas info    : Compiling entry function 'conv2d_forward' for 'sm_90a'
ptxas info    : Function properties for conv2d_forward
ptxas         .     24 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 130 registers, used 1 barriers, 33792 bytes smem
ptxas info    : Compile time = 136.492 ms";

    #[test]
    fn the_assembler_is_understood() {
        let figures = Figures::read(LOG).unwrap();
        assert_eq!(figures, Figures { registers: 130, shared: 33792, stack: 16, spilled: 20 });
        let sound = LOG.replace("24 bytes stack", "0 bytes stack").replace("8 bytes spill", "0 bytes spill");
        let sound =
            Figures::read(&sound.replace("12 bytes spill", "0 bytes spill").replace(", 33792 bytes smem", "")).unwrap();
        assert_eq!(sound, Figures { registers: 130, shared: 0, stack: 0, spilled: 0 });
        assert!(Figures::read("ptxas info    : Used 130 registers").is_err());
    }

    #[test]
    fn spills_and_too_much_shared_memory_are_problems() {
        let sound = Figures { registers: 32, shared: 48 << 10, stack: 0, spilled: 0 };
        let problem = |figures: Figures| figures.problem();
        assert_eq!(problem(sound), None);
        assert!(problem(Figures { spilled: 4, ..sound }).unwrap().contains("spills 4 bytes"));
        assert!(problem(Figures { shared: sound.shared + 1, ..sound }).unwrap().contains("49153 bytes of static"));
    }

    #[test]
    fn figures_survive_the_table() {
        for figures in ["12/0", "255/49152", "40/16/24"] {
            assert_eq!(figures.parse::<Figures>().unwrap().to_string(), figures);
        }
        for wrong in ["", "-", "12", "a/b"] {
            assert!(wrong.parse::<Figures>().is_err(), "{wrong}");
        }
    }
}
