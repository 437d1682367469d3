//! From a kernel's text to machine code of a device.
//!
//! | module | about |
//! |---|---|
//! | `architecture` | what code is made for |
//! | `find` | where NVRTC may lie |
//! | `images` | [`Images`]: compiled kernels from the pack, the cache or a compiler |
//! | `job` | a kernel with its options for one architecture; its hash |
//! | `nvcc` | the toolkit's compiler |
//! | `nvrtc` | the compiler as a library |
//! | `pack` | kernels compiled beforehand |
//! | `version` | versions of CUDA, and who loads whose code |

mod architecture;
mod find;
mod images;
mod job;
mod nvcc;
mod nvrtc;
mod pack;
mod version;

pub use architecture::Architecture;
pub use images::{Compiler, Images, Progress, REMEDY};
pub use job::Job;
pub use nvcc::Nvcc;
pub use nvrtc::Nvrtc;
pub use pack::Pack;
pub use version::Version;

/// What a compiler makes of a [`Job`].
#[derive(Clone, Debug)]
pub struct Compiled {
    /// A cubin: machine code for one architecture.
    pub image: Vec<u8>,
    /// What the compiler said, with the resources that the kernel takes.
    pub log: String,
}

/// Whether these bytes are machine code, as far as their beginning tells.
fn is_cubin(bytes: &[u8]) -> bool {
    bytes.len() > 64 && bytes.starts_with(b"\x7fELF")
}
