//! For tests.
pub mod probe;
