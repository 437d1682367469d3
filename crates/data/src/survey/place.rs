//! Which class and split each file of a folder belongs to, by the rules of `layout`, but without insisting on anything.

use crate::{
    files::{Entry, hidden},
    layout::{TRAIN, VAL, natural},
    options::Split,
};
use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

/// Where the classes are.
#[derive(Debug, PartialEq)]
pub struct Places {
    /// The folders that hold a folder per class: of train and of val, or one that is yet to be split.
    pub train: PathBuf,
    pub val: Option<PathBuf>,
    /// In natural order.
    pub classes: Vec<String>,
}

/// The class (an index) and the split of a file.
pub type Place = (u32, Split);

fn part(path: &Path, at: usize) -> Option<&OsStr> {
    path.iter().nth(at)
}

fn depth(path: &Path) -> usize {
    path.iter().count()
}

impl Places {
    /// From the paths of all pictures.
    pub fn of(entries: &[Entry]) -> Self {
        let base = wrapper(entries);
        let skip = depth(&base);
        let folder = |names: &[&str]| {
            let inside = |entry: &&Entry, name: &OsStr| part(&entry.path, skip) == Some(name);
            names.iter().find_map(|name| {
                let mut found = entries.iter().filter(|entry| depth(&entry.path) > skip + 1);
                let found = found.find_map(|e| part(&e.path, skip).filter(|p| p.eq_ignore_ascii_case(name)))?;
                // As a split it holds folders, as a class it holds pictures.
                let mut all = entries.iter().filter(|entry| inside(entry, found));
                all.all(|entry| depth(&entry.path) > skip + 2).then(|| base.join(found))
            })
        };
        let (train, val) = match (folder(&TRAIN), folder(&VAL)) {
            (Some(train), val) => (train, val),
            (None, _) => (base.clone(), None),
        };
        let mut places = Self { train, val, classes: Vec::new() };
        let names: BTreeSet<&OsStr> = entries.iter().filter_map(|entry| Some(places.class(&entry.path)?.0)).collect();
        let mut classes: Vec<String> = names.into_iter().map(|name| name.to_string_lossy().into_owned()).collect();
        classes.sort_by(|a, b| natural(a, b));
        classes.dedup();
        places.classes = classes;
        places
    }

    fn class<'a>(&self, path: &'a Path) -> Option<(&'a OsStr, Split)> {
        let within = |folder: &Path| {
            let rest = path.strip_prefix(folder).ok()?;
            // A picture that lies loose has no class.
            (depth(rest) > 1).then(|| part(rest, 0)).flatten()
        };
        let val = self.val.as_deref().and_then(within).map(|class| (class, Split::Val));
        val.or_else(|| within(&self.train).map(|class| (class, Split::Train)))
    }

    /// That of the file at `path`; `None` for one outside of all class folders.
    pub fn of_file(&self, path: &Path) -> Option<Place> {
        let (class, split) = self.class(path)?;
        let class = class.to_string_lossy();
        let index = self.classes.binary_search_by(|name| natural(name, &class)).ok()?;
        Some((index as u32, split))
    }

    /// The class folders below `root` that exist, with or without pictures, relative to it.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn class_folders(&self, root: &Path) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for base in std::iter::once(&self.train).chain(&self.val) {
            for item in fs::read_dir(root.join(base))? {
                let item = item?;
                let path = base.join(item.file_name());
                let is_split = [Some(&self.train), self.val.as_ref()].contains(&Some(&path));
                if !hidden(&item.file_name()) && !is_split && fs::metadata(item.path()).is_ok_and(|meta| meta.is_dir())
                {
                    found.push(path);
                }
            }
        }
        found.sort();
        Ok(found)
    }
}

/// The folders that only wrap the data set, as archives have them.
fn wrapper(entries: &[Entry]) -> PathBuf {
    let Some(first) = entries.first() else { return PathBuf::new() };
    let least = entries.iter().map(|entry| depth(&entry.path)).min().unwrap_or_default();
    let mut base = PathBuf::new();
    for name in first.path.iter().take(least.saturating_sub(2)) {
        let longer = base.join(name);
        if !entries.iter().all(|entry| entry.path.starts_with(&longer)) {
            break;
        }
        base = longer;
    }
    base
}

/// Hidden folders at any depth below `root`, relative to it. What is inside of them is not looked at.
///
/// # Errors
/// Those of the file system.
pub fn hidden_folders(root: &Path) -> io::Result<Vec<PathBuf>> {
    let (mut found, mut open) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(folder) = open.pop() {
        for item in fs::read_dir(root.join(&folder))? {
            let item = item?;
            if item.file_type()?.is_dir() {
                let path = folder.join(item.file_name());
                if hidden(&item.file_name()) { &mut found } else { &mut open }.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(paths: &[&str]) -> Vec<Entry> {
        paths.iter().map(|p| Entry { path: Path::new(p).into(), size: 1, at: [0; 2] }).collect()
    }

    fn places(paths: &[&str]) -> (String, Option<String>, Vec<String>) {
        let found = Places::of(&entries(paths));
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        (text(&found.train), found.val.as_deref().map(text), found.classes)
    }

    #[test]
    fn folders_mean_what_they_mean_to_a_training() {
        let classes = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let plain = places(&["cat/1.jpg", "dog/10.jpg", "loose.jpg"]);
        assert_eq!(plain, (String::new(), None, classes(&["cat", "dog"])));
        let given = places(&["w/Train/10/1.jpg", "w/Train/9/1.jpg", "w/valid/9/1.jpg", "w/test/x/1.jpg"]);
        assert_eq!(given, ("w/Train".into(), Some("w/valid".into()), classes(&["9", "10"])));
        assert_eq!(places(&["train/a/1.jpg", "train/b/1.jpg"]).0, "train");
        // A class may be called train.
        assert_eq!(places(&["train/1.jpg", "bus/1.jpg"]), (String::new(), None, classes(&["bus", "train"])));
        assert_eq!(places(&[]), (String::new(), None, Vec::new()));
        assert_eq!(places(&["1.jpg"]).2, classes(&[]));
    }

    #[test]
    fn every_file_has_its_class_and_split() {
        let paths = ["train/a/1.jpg", "train/b/x/1.jpg", "val/c/1.jpg", "other/a/1.jpg"];
        let found = Places::of(&entries(&paths));
        let each = paths.map(|path| found.of_file(Path::new(path)));
        assert_eq!(each, [Some((0, Split::Train)), Some((1, Split::Train)), Some((2, Split::Val)), None]);
    }
}
