//! From a list of files to classes and splits: `cat/1.jpg`, or `train/cat/1.jpg` and `val/cat/2.jpg`.

use crate::{files::Entry, options::Split};
use alexnode_core::{Error, Result};
use std::{cmp::Ordering, collections::BTreeSet};

/// A file with its class.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub entry: Entry,
    /// Index into the classes.
    pub class: u32,
}

/// Which class and which split every file belongs to.
#[derive(Debug)]
pub(crate) struct Layout {
    /// In natural order.
    pub classes: Vec<String>,
    /// Whether the folders themselves say what is val. Otherwise all items are in the first list and still to be split.
    pub given: bool,
    /// Train and val, each by class, then by path.
    pub items: [Vec<Item>; 2],
}

pub(crate) const TRAIN: [&str; 2] = ["train", "training"];
/// A test set stands in where there is no val set.
pub(crate) const VAL: [&str; 5] = ["val", "valid", "validation", "test", "testing"];

/// What folders a data set is made of, for remedies.
const EXPECTED: &str = "expected a folder per class (photos/cat/1.jpg, photos/dog/2.jpg), \
    with or without train/ and val/ around (photos/train/cat/1.jpg)";

/// Sorts `entries` of the data set called `name` into classes and splits.
///
/// # Errors
/// `ERR_DATA` where there are no images, no class folders, fewer than two classes, or different classes in train and val.
pub(crate) fn arrange(name: &str, entries: Vec<Entry>) -> Result<Layout> {
    if entries.is_empty() {
        return Err(Error::data(format!("{name}: there are no images in it")).hint(EXPECTED));
    }
    let mut files: Vec<(Vec<String>, Entry)> = entries
        .into_iter()
        .map(|e| (e.path.iter().map(|part| part.to_string_lossy().into_owned()).collect(), e))
        .collect();
    strip_wrappers(&mut files);
    let part = |names: &[&str]| {
        names.iter().find_map(|name| {
            let folder = files.iter().find(|(p, _)| p.len() > 1 && p[0].eq_ignore_ascii_case(name))?.0[0].clone();
            // `train` may be a class of vehicles: as a split it holds folders, as a class it holds images.
            files.iter().filter(|(p, _)| p[0] == folder).all(|(p, _)| p.len() > 2).then_some(folder)
        })
    };
    let lists = match (part(&TRAIN), part(&VAL)) {
        (Some(train), Some(val)) => {
            let mut lists = [Vec::new(), Vec::new()];
            for (mut parts, entry) in files {
                let split = if parts[0] == train {
                    Split::Train
                } else if parts[0] == val {
                    Split::Val
                } else {
                    continue;
                };
                parts.remove(0);
                lists[split.index()].push((parts, entry));
            }
            return given(name, lists);
        }
        (Some(train), None) => files
            .into_iter()
            .filter(|(p, _)| p[0] == train)
            .map(|(mut p, e)| {
                p.remove(0);
                (p, e)
            })
            .collect(),
        _ => files,
    };
    let loose = lists.iter().filter(|(p, _)| p.len() == 1).count();
    let lists: Vec<_> = lists.into_iter().filter(|(p, _)| p.len() > 1).collect();
    if lists.is_empty() {
        return Err(Error::data(format!("{name}: its {loose} images are not in folders of classes")).hint(EXPECTED));
    }
    let classes = class_names(&lists);
    check_count(name, &classes)?;
    Ok(Layout { items: [items(lists, &classes), Vec::new()], given: false, classes })
}

fn given(name: &str, lists: [Vec<(Vec<String>, Entry)>; 2]) -> Result<Layout> {
    let [classes, val] = [&lists[0], &lists[1]].map(|list| class_names(list));
    let missing: Vec<_> = classes.iter().filter(|c| !val.contains(c)).collect();
    let extra: Vec<_> = val.iter().filter(|c| !classes.contains(c)).collect();
    if !missing.is_empty() || !extra.is_empty() {
        let mut message = format!("{name}: train and val have different classes");
        if !missing.is_empty() {
            message += &format!("; only in train: {}", enumerate(&missing));
        }
        if !extra.is_empty() {
            message += &format!("; only in val: {}", enumerate(&extra));
        }
        return Err(Error::data(message).hint(
            "give both folders the same class folders with at least one image each, or remove val/ to have it split off by itself",
        ));
    }
    check_count(name, &classes)?;
    let items = lists.map(|list| items(list, &classes));
    Ok(Layout { items, given: true, classes })
}

/// Removes folders that only wrap the data set, as archives have them: `imagenette/train/...`.
fn strip_wrappers(files: &mut [(Vec<String>, Entry)]) {
    while let Some((first, rest)) = files.split_first() {
        let same = rest.iter().all(|(p, _)| p[0] == first.0[0]);
        if !same || files.iter().any(|(p, _)| p.len() < 3) {
            break;
        }
        for (parts, _) in files.iter_mut() {
            parts.remove(0);
        }
    }
}

fn class_names(list: &[(Vec<String>, Entry)]) -> Vec<String> {
    let names: BTreeSet<&String> = list.iter().map(|(p, _)| &p[0]).collect();
    let mut names: Vec<String> = names.into_iter().cloned().collect();
    names.sort_by(|a, b| natural(a, b));
    names
}

fn items(list: Vec<(Vec<String>, Entry)>, classes: &[String]) -> Vec<Item> {
    let mut items: Vec<Item> = list
        .into_iter()
        .filter_map(|(p, entry)| {
            let class = classes.binary_search_by(|c| natural(c, &p[0])).ok()? as u32;
            Some(Item { entry, class })
        })
        .collect();
    items.sort_by(|a, b| (a.class, &a.entry.path).cmp(&(b.class, &b.entry.path)));
    items
}

fn check_count(name: &str, classes: &[String]) -> Result<()> {
    match classes {
        [only] => Err(Error::data(format!("{name}: there is only one class, '{only}'"))
            .hint(format!("a classifier tells at least two apart; {EXPECTED}"))),
        _ => Ok(()),
    }
}

/// `a, b, c and 7 more`.
pub(crate) fn enumerate(names: &[impl AsRef<str>]) -> String {
    const SHOWN: usize = 10;
    let shown: Vec<&str> = names.iter().take(SHOWN).map(AsRef::as_ref).collect();
    let mut text = shown.join(", ");
    if names.len() > SHOWN {
        text += &format!(" and {} more", names.len() - SHOWN);
    }
    text
}

/// Names as people order them: runs of digits compare as numbers (`2` before `10`). A total order: names that look equal this way
/// (`1`, `01`) fall back to their bytes.
pub(crate) fn natural(a: &str, b: &str) -> Ordering {
    let (mut x, mut y) = (a.as_bytes(), b.as_bytes());
    while let (Some(&p), Some(&q)) = (x.first(), y.first()) {
        if p.is_ascii_digit() && q.is_ascii_digit() {
            let number = |s: &[u8]| s.iter().take_while(|c| c.is_ascii_digit()).count();
            let (n, m) = (number(x), number(y));
            let [u, v] = [&x[..n], &y[..m]].map(|s| &s[s.iter().take_while(|&&c| c == b'0').count()..]);
            match u.len().cmp(&v.len()).then_with(|| u.cmp(v)) {
                Ordering::Equal => (x, y) = (&x[n..], &y[m..]),
                unequal => return unequal,
            }
        } else if p != q {
            return p.cmp(&q);
        } else {
            (x, y) = (&x[1..], &y[1..]);
        }
    }
    x.len().cmp(&y.len()).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn arranged(paths: &[&str]) -> Result<Layout> {
        let entry = |p: &&str| Entry { path: Path::new(p).into(), size: 1, times: [0; 2], offset: 0 };
        arrange("photos", paths.iter().map(entry).collect())
    }

    fn listed(layout: &Layout, split: Split) -> Vec<(u32, String)> {
        layout.items[split.index()].iter().map(|i| (i.class, i.entry.path.display().to_string())).collect()
    }

    #[test]
    fn names_sort_as_people_sort_them() {
        let mut names = ["n10", "n2", "b", "n02", "a", "", "n2b", "10", "9", "n"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["", "9", "10", "a", "b", "n", "n02", "n2", "n2b", "n10"]);
    }

    #[test]
    fn a_folder_per_class() {
        let layout = arranged(&["dog/b.png", "cat/z/1.jpg", "cat/a.jpg", "preview.png"]).unwrap();
        assert_eq!(layout.classes, ["cat", "dog"]);
        assert!(!layout.given);
        let expected = [(0, "cat/a.jpg".into()), (0, "cat/z/1.jpg".into()), (1, "dog/b.png".into())];
        assert_eq!(listed(&layout, Split::Train), expected);
    }

    #[test]
    fn train_and_val_inside_a_wrapper() {
        let layout = arranged(&[
            "set/train/10/a.jpg",
            "set/train/9/a.jpg",
            "set/val/9/b.jpg",
            "set/val/10/c.jpg",
            "set/test/9/d.jpg",
        ])
        .unwrap();
        assert!(layout.given);
        assert_eq!(layout.classes, ["9", "10"]);
        assert_eq!(listed(&layout, Split::Val), [(0, "set/val/9/b.jpg".into()), (1, "set/val/10/c.jpg".into())]);
    }

    #[test]
    fn test_stands_in_for_val_and_train_alone_is_split() {
        assert!(arranged(&["train/a/1.jpg", "train/b/1.jpg", "test/a/2.jpg", "test/b/2.jpg"]).unwrap().given);
        let alone = arranged(&["train/a/1.jpg", "train/b/1.jpg"]).unwrap();
        assert_eq!((alone.given, alone.classes), (false, vec!["a".to_string(), "b".into()]));
    }

    #[test]
    fn a_class_may_be_called_train() {
        let layout = arranged(&["train/1.jpg", "bus/1.jpg", "val/1.jpg"]).unwrap();
        assert_eq!((layout.given, layout.classes.len()), (false, 3));
    }

    #[test]
    fn different_classes_are_named() {
        let error = arranged(&["train/a/1.jpg", "train/b/1.jpg", "val/a/2.jpg", "val/c/2.jpg"]).unwrap_err();
        assert_eq!(error.message(), "photos: train and val have different classes; only in train: b; only in val: c");
        assert!(error.remedy().is_some());
    }

    #[test]
    fn what_is_no_data_set_is_refused_with_a_remedy() {
        for (paths, culprit) in [
            (&[][..], "no images"),
            (&["1.jpg", "2.jpg"], "its 2 images are not in folders"),
            (&["cat/1.jpg", "cat/2.jpg"], "only one class, 'cat'"),
            (&["train/cat/1.jpg", "val/cat/2.jpg"], "only one class, 'cat'"),
        ] {
            let error = arranged(paths).unwrap_err();
            assert!(error.message().contains(culprit), "{error}");
            assert!(error.remedy().is_some_and(|r| r.contains("folder per class")), "{error}");
        }
    }

    #[test]
    fn long_lists_are_cut() {
        let names: Vec<String> = (0..12).map(|i| i.to_string()).collect();
        assert_eq!(enumerate(&names), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more");
    }
}
