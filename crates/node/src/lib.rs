//! The addon that `lib/` loads as `#native`. As thin as it can be: strings of JSON in, promises out; what is computed lives in
//! the other crates. Nothing here works longer than a moment on the JavaScript thread, and no panic leaves Rust.
//!
//! | module | about |
//! |---|---|
//! | [`functions`] | what needs no object: describe a network, list devices, read a checkpoint's metadata |
//! | [`dataset`], [`spool`] | `NativeDataset`, and images handed over for one |
//! | [`images`] | `NativeImages`: pictures given one by one, `NativePass`: those of a data set |
//! | [`trainer`] | `NativeTrainer` |
//! | [`model`] | `NativeModel` |
//! | [`survey`] | `NativeSurvey` |
//! | [`pack`] | `NativePacker`, `NativeVerifier` |
//! | [`owner`] | what lives on a thread of its own and answers calls |
//! | [`session`] | what runs on a trainer's own thread |
//! | [`devices`] | device names to a backend: the one place that knows which backends there are |
//! | [`task`] | native threads, promises that they settle, and their end |
//! | [`interchange`] | weights from files of any layout, files for other programs |
//! | [`inspect`] | what the machine offers |
//! | [`error`] | errors with code and hint, and panics made into such |

pub mod dataset;
pub mod devices;
pub mod error;
pub mod functions;
pub mod images;
pub mod inspect;
pub mod interchange;
pub mod model;
pub mod owner;
pub mod pack;
pub mod session;
pub mod spool;
pub mod survey;
pub mod task;
pub mod trainer;
