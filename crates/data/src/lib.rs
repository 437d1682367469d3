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
//! | `cifar`, [`generated`], `ilsvrc`, `listed`, `webdataset`, `spool` | the other sources |
//! | `decode`, `prepare` | bytes of a file to an upright square of RGB |
//! | `scan`, `cache` | one look at every file, remembered |
//! | `print`, `alike` | perceptual hashes, and which pictures are the same or nearly |
//! | [`survey`], `quarantine` | a report about a folder, and the list of files to leave out |
//! | [`statistics`] | mean image and colour components |
//! | `list`, `source`, `members` | which images there are, where their bytes come from, which are used |
//! | [`dataset`], [`loader`] | what comes of it |
//! | [`pack`] | the same, prepared once and for all |
//! | [`images`] | pictures that are given one by one |

mod alike;
mod cache;
mod cifar;
pub mod dataset;
mod decode;
mod files;
pub mod generated;
mod ilsvrc;
pub mod images;
mod info;
mod layout;
mod list;
mod listed;
pub mod loader;
mod members;
pub mod options;
pub mod pack;
mod parallel;
mod prepare;
mod print;
mod quarantine;
mod scan;
mod source;
mod split;
mod spool;
pub mod statistics;
pub mod survey;
mod webdataset;

pub use dataset::Dataset;
pub use info::{DatasetInfo, DatasetKind, PerClass, Skipped, SplitOrigin};
pub use loader::Loader;
pub use options::{Balance, DatasetOptions, LoaderOptions, OnBadImage, Split};
pub use spool::Spool;
pub use statistics::Statistics;
