//! The vocabulary of alexnode. Everything that two crates must agree on lives here, and nothing else does:
//! no device library, no codec, no network.
//!
//! | module | about |
//! |---|---|
//! | [`error`] | one error type with a code, a message and a remedy |
//! | [`shape`] | image shapes, window arithmetic |
//! | [`device`] | device names, slots, element types, buffers and views |
//! | [`backend`] | the [`Backend`] trait: allocate, copy, launch, wait |
//! | [`kernel`] | the [`Kernel`] trait: one operation on one slot |
//! | [`host`] | what the Rust body of a kernel may use: workers |
//! | [`rng`] | Philox4x32-10, the same numbers on every backend |
//! | [`state`] | the one buffer that changes between steps |
//! | [`system`] | free memory, the processor's name |
//! | [`batch`] | what a trainer pulls and a data set provides |

pub mod backend;
pub mod batch;
pub mod device;
pub mod error;
pub mod host;
pub mod kernel;
pub mod rng;
pub mod shape;
pub mod state;
pub mod system;

pub use backend::{Backend, Copy2d, Launch, SlotInfo};
pub use batch::{Batch, BatchSource};
pub use device::{BufferId, DType, DeviceName, Engine, Precision, SlotId, Target, View};
pub use error::{Error, ErrorCode, Result};
pub use host::Host;
pub use kernel::{Access, Args, Kernel, KernelDef, Stage};
pub use shape::{Shape, Window};
pub use state::StepState;
