//! From a list of files to classes and splits: `cat/1.jpg`, or `train/cat/1.jpg` and `val/cat/2.jpg`.

use crate::{files::Entry, options::Split};
use alexnode_core::{Error, Result};
use std::{cmp::Ordering, collections::HashMap, ffi::OsStr};

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
const EXPECTED: &str = "Expected a folder per class (photos/cat/1.jpg, photos/dog/2.jpg), \
    with or without train/ and val/ around (photos/train/cat/1.jpg).";

/// Numbers for names of classes, in the order in which they are met.
#[derive(Default)]
pub(crate) struct Classes {
    numbers: HashMap<String, u32>,
    names: Vec<String>,
}

impl Classes {
    /// The number of a class.
    pub fn number(&mut self, name: &str) -> u32 {
        if let Some(&number) = self.numbers.get(name) {
            return number;
        }
        let number = self.names.len() as u32;
        self.numbers.insert(name.into(), number);
        self.names.push(name.into());
        number
    }
}

/// Sorts `entries` of the data set called `name` into classes and splits, by the folders they are in.
///
/// # Errors
/// `ERR_DATA` where there are no images, no class folders, fewer than two classes, or different classes in train and val.
pub(crate) fn arrange(name: &str, entries: Vec<Entry>) -> Result<Layout> {
    if entries.is_empty() {
        return Err(Error::data(format!("{name}: there are no images in it")).hint(EXPECTED));
    }
    let wrappers = wrappers(&entries);
    let depth = |e: &Entry| e.path.iter().count() - wrappers;
    let folder = |e: &Entry, level: usize| e.path.iter().nth(wrappers + level).map(OsStr::to_os_string);
    let part = |names: &[&str]| {
        names.iter().find_map(|name| {
            let found = entries.iter().find(|e| {
                depth(e) > 1 && e.path.iter().nth(wrappers).is_some_and(|folder| folder.eq_ignore_ascii_case(name))
            })?;
            let found = folder(found, 0)?;
            let inside = |e: &&Entry| e.path.iter().nth(wrappers) == Some(&found);
            // `train` may be a class of vehicles: as a split it holds folders, as a class it holds images.
            entries.iter().filter(inside).all(|e| depth(e) > 2).then_some(found)
        })
    };
    let (train, val) = (part(&TRAIN), part(&VAL));
    let mut classes = Classes::default();
    let mut lists = [Vec::new(), Vec::new()];
    let mut loose = 0;
    for entry in entries {
        let first = entry.path.iter().nth(wrappers);
        let (split, level) = match (&train, &val) {
            (Some(train), _) if first == Some(train) => (Split::Train, 1),
            (Some(_), Some(val)) if first == Some(val) => (Split::Val, 1),
            (Some(_), _) => continue,
            (None, _) => (Split::Train, 0),
        };
        if entry.path.iter().count() - wrappers < level + 2 {
            loose += 1;
            continue;
        }
        let class = entry.path.iter().nth(wrappers + level).map(OsStr::to_string_lossy).unwrap_or_default();
        let class = classes.number(&class);
        lists[split.index()].push(Item { entry, class });
    }
    if lists.iter().all(Vec::is_empty) {
        return Err(Error::data(format!("{name}: its {loose} images are not in folders of classes")).hint(EXPECTED));
    }
    arranged(name, classes, lists, train.is_some() && val.is_some())
}

/// Items whose classes have been numbered, with the classes in natural order. `given`: whether the lists are the splits; otherwise all
/// items are in the first.
///
/// # Errors
/// `ERR_DATA` where there are fewer than two classes, or different ones in train and val.
pub(crate) fn arranged(name: &str, classes: Classes, mut lists: [Vec<Item>; 2], given: bool) -> Result<Layout> {
    let names = classes.names;
    let mut order: Vec<usize> = (0..names.len()).collect();
    order.sort_by(|&a, &b| natural(&names[a], &names[b]));
    if given {
        let has = lists.each_ref().map(|list| {
            let mut has = vec![false; names.len()];
            list.iter().for_each(|item| has[item.class as usize] = true);
            has
        });
        let only = |split: usize| -> Vec<&String> {
            order
                .iter()
                .filter(|&&class| has[split][class] && !has[1 - split][class])
                .map(|&class| &names[class])
                .collect()
        };
        let (missing, extra) = (only(0), only(1));
        if !missing.is_empty() || !extra.is_empty() {
            let mut message = format!("{name}: train and val have different classes");
            if !missing.is_empty() {
                message += &format!("; only in train: {}", enumerate(&missing));
            }
            if !extra.is_empty() {
                message += &format!("; only in val: {}", enumerate(&extra));
            }
            return Err(Error::data(message).hint(
                "Give both folders the same class folders with at least one image each, or remove val/ to have it split off by itself.",
            ));
        }
    }
    let mut place = vec![0; names.len()];
    order.iter().enumerate().for_each(|(to, &from)| place[from] = to as u32);
    let names: Vec<String> = order.into_iter().map(|class| names[class].clone()).collect();
    check_count(name, &names)?;
    for list in &mut lists {
        list.iter_mut().for_each(|item| item.class = place[item.class as usize]);
        list.sort_unstable_by(|a, b| (a.class, &a.entry.path).cmp(&(b.class, &b.entry.path)));
    }
    Ok(Layout { items: lists, given, classes: names })
}

/// How many folders only wrap the data set, as archives have them: `imagenette/train/...`.
fn wrappers(entries: &[Entry]) -> usize {
    let shallowest = entries.iter().map(|e| e.path.iter().count()).min().unwrap_or(0);
    let level = |e: &Entry, level| e.path.iter().nth(level).map(OsStr::to_os_string);
    let same = |&at: &usize| {
        let first = level(&entries[0], at);
        entries.iter().all(|e| e.path.iter().nth(at) == first.as_deref())
    };
    (0..shallowest.saturating_sub(2)).take_while(same).count()
}

fn check_count(name: &str, classes: &[String]) -> Result<()> {
    match classes {
        [only] => Err(Error::data(format!("{name}: there is only one class, '{only}'"))
            .hint(format!("A classifier tells at least two apart. {EXPECTED}"))),
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

    fn of(paths: &[&str]) -> Result<Layout> {
        let entry = |p: &&str| Entry { path: Path::new(p).into(), size: 1, ..Entry::default() };
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
        let layout = of(&["dog/b.png", "cat/z/1.jpg", "cat/a.jpg", "preview.png"]).unwrap();
        assert_eq!(layout.classes, ["cat", "dog"]);
        assert!(!layout.given);
        let expected = [(0, "cat/a.jpg".into()), (0, "cat/z/1.jpg".into()), (1, "dog/b.png".into())];
        assert_eq!(listed(&layout, Split::Train), expected);
    }

    #[test]
    fn train_and_val_inside_a_wrapper() {
        let layout =
            of(&["set/train/10/a.jpg", "set/train/9/a.jpg", "set/val/9/b.jpg", "set/val/10/c.jpg", "set/test/9/d.jpg"])
                .unwrap();
        assert!(layout.given);
        assert_eq!(layout.classes, ["9", "10"]);
        assert_eq!(listed(&layout, Split::Val), [(0, "set/val/9/b.jpg".into()), (1, "set/val/10/c.jpg".into())]);
    }

    #[test]
    fn test_stands_in_for_val_and_train_alone_is_split() {
        assert!(of(&["train/a/1.jpg", "train/b/1.jpg", "test/a/2.jpg", "test/b/2.jpg"]).unwrap().given);
        let alone = of(&["train/a/1.jpg", "train/b/1.jpg"]).unwrap();
        assert_eq!((alone.given, alone.classes), (false, vec!["a".to_string(), "b".into()]));
    }

    #[test]
    fn a_class_may_be_called_train() {
        let layout = of(&["train/1.jpg", "bus/1.jpg", "val/1.jpg"]).unwrap();
        assert_eq!((layout.given, layout.classes.len()), (false, 3));
    }

    #[test]
    fn different_classes_are_named() {
        let error = of(&["train/a/1.jpg", "train/b/1.jpg", "val/a/2.jpg", "val/c/2.jpg"]).unwrap_err();
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
            let error = of(paths).unwrap_err();
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
