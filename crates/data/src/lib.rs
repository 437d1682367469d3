//! Data sets, decoding, resizing, loader threads: the only home of image codecs.

pub mod generated;
