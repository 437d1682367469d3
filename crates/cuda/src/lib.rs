//! The CUDA backend: slots on CUDA devices, real or emulated, that run the kernels of `cuda/`.
//!
//! | module | about |
//! |---|---|
//! | [`backend`] | [`CudaBackend`]: launches, copies between slots, who waits for whom |
//! | [`driver`] | the [`Driver`] trait: what drives devices |
//! | [`emulated`] | a driver without a GPU: the same kernels, compiled for the host |
//! | [`real`] | a driver of real devices |
//! | [`program`] | a kernel before it is compiled; the sources |
//! | [`compile`] | from a program to machine code of a real device |
//! | [`cache`] | compiled kernels on disk |
//! | [`testing`] | what tests do where a machine lacks a compiler |

pub mod backend;
pub mod cache;
pub mod compile;
pub mod driver;
pub mod emulated;
pub mod program;
pub mod real;
pub mod testing;

pub use backend::CudaBackend;
pub use driver::Driver;
