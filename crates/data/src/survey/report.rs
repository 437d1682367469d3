//! What a scan has to tell.

use super::facts::Facts;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Usable images of a class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClassCount {
    /// Its folder.
    pub name: String,
    /// To learn from; all of them where the folder has no split of its own.
    pub train: usize,
    /// To be judged on.
    pub val: usize,
}

/// A file and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marked {
    /// Relative to the folder that was scanned.
    pub path: String,
    /// Why it cannot be used, or is left out.
    pub reason: String,
}

/// What was found, as `--report` writes it. All paths are relative to the folder.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Picture files, the unreadable ones among them.
    pub images: usize,
    /// In natural order, with their usable images.
    pub classes: Vec<ClassCount>,
    /// Empty, cut off, damaged, of a format that is not read, or no pictures at all.
    pub unreadable: Vec<Marked>,
    /// Named as another format than they are.
    pub wrong_extension: Vec<String>,
    /// Of four inks (CMYK or YCCK).
    pub cmyk: Vec<String>,
    /// Of one channel.
    pub grey: Vec<String>,
    /// Stored in another position than they are to be seen in.
    pub exif_rotated: Vec<String>,
    /// Shorter side below a limit.
    pub tiny: Vec<String>,
    /// More pixels than a limit.
    pub huge: Vec<String>,
    /// Class folders without a usable image.
    pub empty_classes: Vec<String>,
    /// Folders that are not looked into, such as `.ipynb_checkpoints`.
    pub hidden_folders: Vec<String>,
    /// Files with the same bytes.
    pub duplicates: Vec<Vec<String>>,
    /// Pictures that look the same in other bytes; of duplicates, the first stands for all.
    pub near_duplicates: Vec<Vec<String>>,
    /// Duplicates and near-duplicates with members on both sides, in train and in val.
    pub leaks: Vec<Vec<String>>,
    /// Training images of the largest class for each of the smallest one; 1 where they are even, 0 without classes.
    pub imbalance: f64,
}

/// What else is worth saying.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Whether the folder itself says what is train and what is val.
    pub given: bool,
    /// Bytes of all picture files.
    pub bytes: u64,
    /// Usable images of each format: `JPEG`, `PNG`, ...
    pub formats: BTreeMap<&'static str, usize>,
    /// Pixels of the shorter side: the smallest, the median and the largest.
    pub short_sides: Option<[u32; 3]>,
    /// Picture files outside of all class folders.
    pub outside: usize,
    /// Classes that only one side has, where there are two.
    pub only_train: Vec<String>,
    /// As above.
    pub only_val: Vec<String>,
    /// Groups of duplicates whose members are in several classes.
    pub conflicts: usize,
    /// Groups of near-duplicates whose members are in several classes.
    pub near_conflicts: usize,
}

/// Report, summary, and the files to leave out.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Findings {
    /// The report.
    pub report: Report,
    /// The rest.
    pub summary: Summary,
    /// Unreadable files, and what was asked for.
    pub quarantine: Vec<Marked>,
}

/// What may be left out beside unreadable files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LeaveOut {
    /// Small pictures.
    Tiny,
    /// Large pictures.
    Huge,
    /// All copies but one of each split; where they are in several classes, all.
    Duplicates,
    /// The same for pictures that look the same.
    NearDuplicates,
    /// The training images of which there is a copy, exact or near, in val.
    Leaks,
    /// Classes that only one of train and val has.
    UnmatchedClasses,
}

/// From where on a picture counts as tiny or huge.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Pixels of the shorter side.
    pub tiny: u32,
    /// Millions of pixels.
    pub huge: f64,
}

impl Limits {
    pub(super) fn is_tiny(&self, facts: &Facts) -> bool {
        facts.short_side() < self.tiny
    }
    pub(super) fn is_huge(&self, facts: &Facts) -> bool {
        f64::from(facts.width) * f64::from(facts.height) > self.huge * 1e6
    }
}
