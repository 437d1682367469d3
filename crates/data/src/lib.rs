//! Data sets, decoding, resizing, loader threads: the only home of image codecs.
//!
//! [`Dataset::open`] takes a folder per class, the same inside a .tar, the CIFAR-10 binaries, or draws the generated set;
//! [`Dataset::loader`] gives minibatches of bytes, prepared ahead on threads, the same for any number of threads.
//!
//! | module | about |
//! |---|---|
//! | [`options`] | what a caller may choose |
//! | `files` | listing and reading files in a folder or a .tar |
//! | `layout`, `split` | from paths to classes, from content to train and val |
//! | `cifar`, [`generated`] | the other two sources |
//! | `decode`, `prepare` | bytes of a file to an upright square of RGB |
//! | `scan`, `cache` | one look at every file, remembered |
//! | [`statistics`] | mean image and colour components |
//! | [`dataset`], `members`, [`loader`] | what comes of it |
//! | [`images`] | pictures that are given one by one |

mod cache;
mod cifar;
pub mod dataset;
mod decode;
mod files;
pub mod generated;
pub mod images;
mod layout;
pub mod loader;
mod members;
pub mod options;
mod parallel;
mod prepare;
mod scan;
mod split;
pub mod statistics;

pub use dataset::{Dataset, DatasetInfo, DatasetKind, PerClass, Skipped, SplitOrigin};
pub use loader::Loader;
pub use options::{DatasetOptions, LoaderOptions, OnBadImage, Split};
pub use statistics::Statistics;
