//! Pictures and their classes side by side in .tar files: `000123.jpg` beside `000123.cls`, as the WebDataset library has them.

use crate::{
    files::{Entry, Files, has_picture_name, is_label},
    layout::{self, Classes, Item, Layout, natural},
    options::Split,
};
use alexnode_core::{Error, Result};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A label is a number or a name.
const MAX_LABEL: u64 = 64 << 10;
/// Names of the classes, a line each, beside the archives.
const NAMES: [&str; 3] = ["classes.txt", "classnames.txt", "labels.txt"];
const EXPECTED: &str = "Each picture (000123.jpg) has a file with the number or the name of its class (000123.cls) beside it, \
    or 000123.json with a field `label`.";

/// The archives of a folder that holds nothing else of a data set, sorted; `None` where it is no such folder.
pub(crate) fn shards(folder: &Path) -> Option<Vec<PathBuf>> {
    let mut shards = Vec::new();
    for item in fs::read_dir(folder).ok()?.flatten() {
        let path = item.path();
        let name = item.file_name();
        if crate::files::hidden(&name) {
            continue;
        }
        if path.is_dir() || has_picture_name(&path) {
            return None;
        }
        if path.extension().is_some_and(|end| end == "tar") {
            shards.push(path);
        }
    }
    shards.sort_by(|a, b| natural(&a.to_string_lossy(), &b.to_string_lossy()));
    (!shards.is_empty()).then_some(shards)
}

/// What has the same key belongs together: the path up to the first dot of its last part.
fn key(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(name.split('.').next().unwrap_or_default())
}

/// Which split the name of an archive speaks of.
fn side(shard: &Path) -> Option<Split> {
    let name = shard.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    let has =
        |words: &[&str]| words.iter().any(|word| name.split(|c: char| !c.is_ascii_alphabetic()).any(|w| w == *word));
    if has(&["train", "training"]) {
        Some(Split::Train)
    } else if has(&["val", "valid", "validation", "test"]) {
        Some(Split::Val)
    } else {
        None
    }
}

/// Lists the archives: one pass over their headers, and a look at every label.
///
/// # Errors
/// `ERR_DATA` where a picture has no label, or as for other archives.
pub(crate) fn open(root: &Path, shards: &[PathBuf]) -> Result<(Files, Layout)> {
    let files = Files::archives(root, shards)?;
    let names = class_names(if root.is_dir() { root } else { root.parent().unwrap_or(Path::new("")) });
    let sides: Vec<Option<Split>> = shards.iter().map(|path| side(path)).collect();
    let given = Split::ALL.iter().all(|split| sides.contains(&Some(*split)));
    let mut classes = Classes::default();
    let mut lists = [Vec::new(), Vec::new()];
    for (number, shard) in shards.iter().enumerate() {
        let split = match sides[number] {
            Some(side) if given => side,
            None if given => continue,
            _ => Split::Train,
        };
        let (mut pictures, mut labels) = (Vec::new(), Vec::new());
        files.members(number as u32, None, |entry| {
            if is_label(&entry.path) || entry.path.extension().is_some_and(|end| end == "json") {
                labels.push((key(&entry.path), entry));
            } else if has_picture_name(&entry.path) {
                pictures.push(entry);
            }
            Ok(())
        })?;
        labels.sort_by(|a, b| a.0.cmp(&b.0));
        for entry in pictures {
            let own = key(&entry.path);
            let first = labels.partition_point(|(key, _)| *key < own);
            let of = labels[first..].iter().take_while(|(key, _)| *key == own).map(|(_, label)| label);
            let mut label = None;
            for entry in of {
                label = label.or(read_label(&files, entry)?);
            }
            let label =
                label.ok_or_else(|| Error::data(format!("{}: has no label", files.name(&entry))).hint(EXPECTED))?;
            let name = label.parse::<usize>().ok().and_then(|number| names.get(number)).unwrap_or(&label);
            let class = classes.number(name);
            // Keys need not differ between archives.
            let path = Path::new(shard.file_name().unwrap_or_default()).join(&entry.path).into();
            lists[split.index()].push(Item { entry: Entry { path, ..entry }, class });
        }
    }
    if lists.iter().all(Vec::is_empty) {
        return Err(Error::data(format!("{}: there are no pictures in it", root.display())).hint(EXPECTED));
    }
    let layout = layout::arranged(&root.display().to_string(), classes, lists, given)?;
    Ok((files, layout))
}

fn read_label(files: &Files, entry: &Entry) -> Result<Option<String>> {
    let mut bytes = Vec::new();
    let failed = |reason: String| Error::data(format!("{}: {reason}", files.name(entry))).hint(EXPECTED);
    if entry.size > MAX_LABEL {
        return Err(failed(format!("a label of {} bytes", entry.size)));
    }
    files.read(entry, u64::MAX, &mut bytes).map_err(failed)?;
    if entry.path.extension().is_some_and(|end| end == "json") {
        let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(|e| failed(format!("not JSON: {e}")))?;
        let field = ["label", "class", "cls"].iter().find_map(|name| value.get(name));
        return Ok(field
            .and_then(|field| field.as_str().map(str::to_string).or_else(|| field.as_u64().map(|n| n.to_string()))));
    }
    let text = String::from_utf8_lossy(&bytes).trim().to_string();
    if text.is_empty() { Err(failed("the label is empty".into())) } else { Ok(Some(text)) }
}

fn class_names(folder: &Path) -> Vec<String> {
    let text = NAMES.iter().find_map(|name| fs::read_to_string(folder.join(name)).ok()).unwrap_or_default();
    text.lines().map(str::trim).map(str::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_sides() {
        assert_eq!(key(Path::new("a/b.c.jpg")), Path::new("a/b"));
        let of = |name: &str| side(Path::new(name));
        assert_eq!(of("imagenet-train-000012.tar"), Some(Split::Train));
        assert_eq!(of("dir/val_3.tar"), Some(Split::Val));
        assert_eq!((of("training.tar"), of("trainers.tar"), of("00012.tar")), (Some(Split::Train), None, None));
    }
}
