//! Where numbers live: device names, slots, element types, buffers and views.

use crate::error::{Error, Result};
use std::{fmt, str::FromStr};

/// A device as a user names it: `cpu`, `cuda:0`, `emulated:1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceName {
    /// The processor.
    Cpu,
    /// The CUDA device with this ordinal.
    Cuda(usize),
    /// A CUDA device emulated on the processor.
    Emulated(usize),
}

impl FromStr for DeviceName {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        let bad = || {
            Error::usage(format!("unknown device '{s}'"))
                .hint("A device is `cpu`, `cuda:N` or `emulated:N`, e.g. `--devices cpu,cpu`.")
        };
        if s == "cpu" {
            return Ok(Self::Cpu);
        }
        let (kind, ordinal) = s.split_once(':').ok_or_else(bad)?;
        let ordinal = ordinal.parse().map_err(|_| bad())?;
        match kind {
            "cuda" => Ok(Self::Cuda(ordinal)),
            "emulated" => Ok(Self::Emulated(ordinal)),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => write!(f, "cpu"),
            Self::Cuda(n) => write!(f, "cuda:{n}"),
            Self::Emulated(n) => write!(f, "emulated:{n}"),
        }
    }
}

/// The arithmetic of the layers that multiply. Everything else, and every sum, is in 32-bit floats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    Fp32,
    /// Factors are rounded to 10 bits behind the point, on tensor cores (sm_80 and later).
    Tf32,
    /// Factors are rounded to 7 bits behind the point, on tensor cores (sm_80 and later).
    Bf16,
}

impl FromStr for Precision {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        match s {
            "fp32" => Ok(Self::Fp32),
            "tf32" => Ok(Self::Tf32),
            "bf16" => Ok(Self::Bf16),
            _ => Err(Error::usage(format!("unknown precision '{s}'")).hint("One of `fp32`, `tf32` and `bf16`.")),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fp32 => "fp32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
        })
    }
}

/// What a CUDA kernel is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Compute capability, times ten: 90 for sm_90.
    pub compute: u32,
    /// The arithmetic of the layers that multiply.
    pub precision: Precision,
}

/// What computes in a slot, as far as a plan must know: it sizes scratch memory by it, and chooses which layers become one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Rust bodies on workers, each of which may want scratch memory of its own.
    Host {
        /// Tasks that run at once.
        workers: usize,
    },
    /// CUDA kernels.
    Cuda(Target),
}

/// One place that computes: an index into the `devices` of a run. The same device may fill two slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId(pub u8);

impl SlotId {
    /// The slot as an array index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The type of the elements of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// 32-bit IEEE float.
    F32,
    /// The upper half of an f32.
    Bf16,
    /// A byte.
    U8,
    /// A 32-bit signed integer.
    I32,
}

impl DType {
    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            Self::F32 | Self::I32 => 4,
            Self::Bf16 => 2,
            Self::U8 => 1,
        }
    }
}

/// A piece of memory that a [`Backend`](crate::Backend) has allocated on a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BufferId {
    /// The slot whose memory it is.
    pub slot: SlotId,
    /// The backend's own number for it.
    pub index: u32,
}

/// A range of bytes of a buffer. Offsets are multiples of 4, those of planned values of 256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct View {
    /// The buffer.
    pub buffer: BufferId,
    /// First byte.
    pub offset: usize,
    /// Length in bytes.
    pub bytes: usize,
}

impl View {
    /// The view `offset..offset + bytes` of this view.
    ///
    /// # Panics
    /// Where the range does not lie inside this view.
    pub fn slice(&self, offset: usize, bytes: usize) -> View {
        assert!(offset + bytes <= self.bytes, "view {offset}+{bytes} outside of {} bytes", self.bytes);
        View { buffer: self.buffer, offset: self.offset + offset, bytes }
    }
    /// Whether the two share a byte.
    pub fn overlaps(&self, other: &View) -> bool {
        self.buffer == other.buffer
            && self.offset < other.offset + other.bytes
            && other.offset < self.offset + self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_names() {
        for name in ["cpu", "cuda:0", "emulated:1"] {
            assert_eq!(name.parse::<DeviceName>().unwrap().to_string(), name);
        }
        for name in ["", "gpu", "cuda", "cuda:x", "cpu:0"] {
            assert!(name.parse::<DeviceName>().is_err(), "{name}");
        }
    }
}
