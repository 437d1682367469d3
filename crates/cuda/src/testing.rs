//! For tests, of this crate and of others: what a machine lacks is skipped, and said so; where it has to be there, its absence is a failure.

use alexnode_core::Result;
use std::{
    collections::BTreeSet,
    env,
    io::{self, Write},
    sync::{Mutex, PoisonError},
};

/// Set where a C++ compiler has to be there.
pub const CXX: &str = "ALEXNODE_REQUIRE_CXX";
/// Set where NVRTC has to be there.
pub const NVRTC: &str = "ALEXNODE_REQUIRE_NVRTC";

/// What was `found`; none where it is missing and the variable `required` is not set. That is said once, past the test harness, which would keep
/// it to itself.
///
/// # Panics
/// Where it is missing and the variable is set.
pub fn unless_missing<T>(found: Result<T>, required: &str) -> Option<T> {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let error = match found {
        Ok(found) => return Some(found),
        Err(error) => error,
    };
    let remedy = error.remedy().unwrap_or_default();
    assert!(env::var_os(required).is_none_or(|value| value.is_empty()), "{required} is set, but {error}. {remedy}");
    if SAID.lock().unwrap_or_else(PoisonError::into_inner).insert(error.to_string()) {
        let _ = writeln!(io::stderr(), "SKIPPED: {error}. {remedy}");
    }
    None
}
