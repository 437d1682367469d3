//! What a caller may choose.

use alexnode_core::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Which images: to learn from or to be judged on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Split {
    /// Images to learn from.
    Train,
    /// Images to be judged on.
    Val,
}

impl Split {
    /// Both, in the order of [`index`](Self::index).
    pub const ALL: [Self; 2] = [Self::Train, Self::Val];
    /// 0 for train, 1 for val.
    pub const fn index(self) -> usize {
        self as usize
    }
    /// `train` or `val`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Val => "val",
        }
    }
}

/// What to do with a file that cannot be decoded. The file itself is never touched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnBadImage {
    /// Stop with an error that names it: when the data set is opened where its beginning shows it, else when it is met.
    #[default]
    Error,
    /// Leave it out. Every file is decoded once when the data set is opened (the outcome is kept until a file changes; one that could
    /// not be read is tried again every time); the others keep their ids, so their random numbers do not change. A file that goes bad
    /// after that is an error that names it, and is left out when the data set is opened again.
    Skip,
}

/// What is done about classes with unequally many training images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Balance {
    /// Nothing: an epoch has every image once.
    #[default]
    None,
    /// An epoch has as many images as before, but equally many of each class. Images of small classes come several times, each time with a
    /// crop, flip and colours of its own; those of large ones take turns over the epochs, so that none is left out for good.
    Sample,
    /// An epoch has every image once, but an image of a small class counts more in the loss: see [`DatasetInfo::class_weights`](crate::DatasetInfo::class_weights).
    Loss,
}

/// How to open a data set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DatasetOptions {
    /// `generated`, or the path of a folder, of a .tar file, or of a folder with the CIFAR-10 binaries.
    pub source: String,
    /// Side of the stored images in pixels: short side scaled to it, middle cut out.
    pub image_size: usize,
    /// Draws the generated images and which images a `limit` keeps. Default 0.
    #[serde(default)]
    pub seed: u64,
    /// Share of the images that becomes val where the data has no split of its own: above 0, below 1. Default 0.1.
    #[serde(default = "default_val_fraction")]
    pub val_fraction: f64,
    /// What to do with a file that cannot be decoded. Default: an error.
    #[serde(default)]
    pub on_bad_image: OnBadImage,
    /// A list of files to leave out, as a scan writes it; of a folder or a .tar. Default: none.
    #[serde(default)]
    pub quarantine: Option<PathBuf>,
    /// Keep only the first so many training images of the order `sample_order(seed, 0, n)`. Default: all.
    #[serde(default)]
    pub limit: Option<usize>,
    /// What is done about classes with unequally many training images. Default: nothing.
    #[serde(default)]
    pub balance: Balance,
    /// The names of the classes in the order in which they are numbered, as a network knows them. A source with other names is numbered in an
    /// order of its own: who needs these compares [`DatasetInfo::classes`](crate::DatasetInfo::classes). Default: that of the source.
    #[serde(default)]
    pub classes: Option<Vec<String>>,
    /// Threads that decode. Default: as many as the process may use.
    #[serde(default)]
    pub threads: Option<usize>,
    /// Where findings about the data are kept between runs. Default: `$XDG_CACHE_HOME/alexnode`, else `~/.cache/alexnode`.
    #[serde(default)]
    pub cache_dir: Option<PathBuf>,
    /// Prepared images stay in memory up to this many bytes, if that is a quarter of them at least, so that a small data set is decoded once
    /// and not once per epoch. Default: 128 MiB.
    #[serde(default = "default_keep_bytes")]
    pub keep_bytes: usize,
}

fn default_keep_bytes() -> usize {
    128 << 20
}

fn default_val_fraction() -> f64 {
    0.1
}

/// Threads that the process may use at once.
pub(crate) fn usable_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Larger images than this are no photographs of a training set but a mistake.
const MAX_SIZE: usize = 4096;

impl DatasetOptions {
    /// Everything at its default, for `source` at `image_size`.
    pub fn new(source: impl Into<String>, image_size: usize) -> Self {
        Self {
            source: source.into(),
            image_size,
            seed: 0,
            val_fraction: default_val_fraction(),
            on_bad_image: OnBadImage::default(),
            quarantine: None,
            limit: None,
            balance: Balance::default(),
            classes: None,
            threads: None,
            cache_dir: None,
            keep_bytes: default_keep_bytes(),
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.source.is_empty() {
            return Err(Error::usage("data source: is empty")
                .hint("Name a folder, a .tar file, a folder with the CIFAR-10 binaries, or `generated`."));
        }
        if !(1..=MAX_SIZE).contains(&self.image_size) {
            return Err(Error::usage(format!("imageSize: expected 1 to {MAX_SIZE}, got {}", self.image_size)));
        }
        if !(self.val_fraction > 0.0 && self.val_fraction < 1.0) {
            return Err(Error::usage(format!("valFraction: expected above 0 and below 1, got {}", self.val_fraction))
                .hint("0.1 keeps a tenth of the images for validation."));
        }
        if self.limit == Some(0) {
            return Err(Error::usage("limit: expected at least 1 image, got 0"));
        }
        if self.threads == Some(0) {
            return Err(Error::usage("threads: expected at least 1, got 0"));
        }
        Ok(())
    }

    /// Refuses a quarantine list for a source without files, which is called `kind`.
    pub(crate) fn has_files(&self, kind: &str) -> Result<()> {
        match &self.quarantine {
            Some(_) => Err(Error::usage(format!("quarantine: {kind} has no files to leave out"))
                .hint("A quarantine list goes with a folder or a .tar.")),
            None => Ok(()),
        }
    }

    pub(crate) fn threads(&self) -> usize {
        self.threads.unwrap_or_else(usable_threads)
    }
}

/// Which minibatches, in which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LoaderOptions {
    /// Which images.
    pub split: Split,
    /// Images per minibatch.
    pub batch: usize,
    /// Draws the order.
    pub seed: u64,
    /// The epoch, from 0: part of what draws the order.
    pub epoch: u32,
    /// The minibatch of the epoch to begin with.
    pub first_batch: usize,
    /// Whether the images come in the order `sample_order(seed, epoch, n)`, or in that of their ids.
    pub shuffle: bool,
    /// Only the first so many images of the order `sample_order(seed, 0, n)`; the epochs then shuffle within those.
    pub limit: Option<usize>,
}

impl LoaderOptions {
    /// To test on a split: all of it in the order of the ids, or `limit` images that `seed` draws, since the first ones of a split are all of one class.
    pub const fn test(split: Split, batch: usize, seed: u64, limit: Option<usize>) -> Self {
        Self { split, batch, seed, epoch: 0, first_batch: 0, shuffle: limit.is_some(), limit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_have_defaults_and_refuse_what_they_do_not_know() {
        let options: DatasetOptions = serde_json::from_str(r#"{"source":"photos","imageSize":64}"#).unwrap();
        assert_eq!(options, DatasetOptions::new("photos", 64));
        assert!(serde_json::from_str::<DatasetOptions>(r#"{"source":"photos","imageSize":64,"sead":1}"#).is_err());
        let skip: DatasetOptions =
            serde_json::from_str(r#"{"source":"x","imageSize":8,"onBadImage":"skip","limit":3}"#).unwrap();
        assert_eq!((skip.on_bad_image, skip.limit), (OnBadImage::Skip, Some(3)));
    }

    #[test]
    fn impossible_values_are_usage_errors() {
        let base = || DatasetOptions::new("photos", 64);
        for (bad, name) in [
            (DatasetOptions { image_size: 0, ..base() }, "imageSize"),
            (DatasetOptions { val_fraction: 0.0, ..base() }, "valFraction"),
            (DatasetOptions { val_fraction: f64::NAN, ..base() }, "valFraction"),
            (DatasetOptions { limit: Some(0), ..base() }, "limit"),
            (DatasetOptions { threads: Some(0), ..base() }, "threads"),
            (DatasetOptions { source: String::new(), ..base() }, "source"),
        ] {
            let error = bad.check().unwrap_err();
            assert_eq!(error.code(), alexnode_core::ErrorCode::Usage);
            assert!(error.message().contains(name), "{error}");
        }
        base().check().unwrap();
    }
}
