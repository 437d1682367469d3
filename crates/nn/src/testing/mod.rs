//! For tests.

pub mod body;
pub mod conv;
pub mod probe;
