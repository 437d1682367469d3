//! What there is to say about a data set.

use serde::{Deserialize, Serialize};

/// What kind of source a data set came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DatasetKind {
    /// Drawn from a seed.
    Generated,
    /// A folder per class.
    Folder,
    /// A folder per class in a .tar.
    Tar,
    /// The CIFAR-10 binaries.
    Cifar10,
    /// The archives of ILSVRC2012.
    Ilsvrc2012,
    /// A list of files with their classes, as CSV or JSON Lines.
    List,
    /// Pictures and classes side by side in one or more .tar.
    WebDataset,
    /// Images that a program handed over.
    Stream,
    /// What `data pack` wrote.
    Pack,
}

/// Where the split into train and val came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SplitOrigin {
    /// The source says so.
    #[serde(rename = "given")]
    Given,
    /// The SHA-256 of each file decided.
    #[serde(rename = "by content hash")]
    ByContentHash,
    /// Both are generated.
    #[serde(rename = "generated")]
    Generated,
}

/// A file that was left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Its path; `archive.tar:path` inside an archive.
    pub path: String,
    /// Why it cannot be decoded.
    pub reason: String,
}

/// Usable images of each class, in the order of the classes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PerClass {
    /// To learn from.
    pub train: Vec<usize>,
    /// To be judged on.
    pub val: Vec<usize>,
}

/// What there is to say about a data set.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DatasetInfo {
    /// What kind of source.
    pub kind: DatasetKind,
    /// The source, as it was named.
    pub source: String,
    /// Names of the classes, in natural order or that of [`DatasetOptions::classes`](crate::DatasetOptions::classes); a label is an index into them.
    pub classes: Vec<String>,
    /// Usable training images, after `limit`.
    pub train: usize,
    /// Usable validation images.
    pub val: usize,
    /// Side of the stored images in pixels.
    pub image_size: usize,
    /// Where the split came from.
    pub split: SplitOrigin,
    /// Images of each class.
    pub per_class: PerClass,
    /// With [`Balance::Loss`](crate::Balance::Loss) what an image of each class counts in the loss: `N / (K n_c)`, where `n_c` of the `N` training images are of
    /// class `c` and `K` classes have any. All these classes together count alike then, and the mean over the training images is 1. A
    /// class that a `limit` leaves without images has 0.
    pub class_weights: Option<Vec<f32>>,
    /// Files that were left out.
    pub skipped: Vec<Skipped>,
    /// Files that were not looked at, because a quarantine list names them.
    pub quarantined: usize,
    /// Different images that are on the side of others because they look nearly the same; 0 where the source has a split of its own.
    pub kept_together: usize,
    /// Different images that look nearly the same as others, too, but were split one by one: their groups are too large, or too much of a class, to say
    /// anything.
    pub taken_apart: usize,
    /// Mean R, G, B of the training images, from 0 to 255.
    pub mean: [f64; 3],
    /// SHA-256 (hexadecimal) of the sorted list of images: of their paths and sizes, of their content where the split depends on it, of
    /// the whole data for CIFAR-10. The same wherever the data lies; `limit` does not change it.
    pub fingerprint: String,
    /// How long opening took.
    pub seconds: f64,
}
