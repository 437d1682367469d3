//! A list of files with their classes: CSV with a header, or a JSON object per line.

use crate::{
    files::{Entry, Files, times},
    layout::{self, Classes, Item, Layout},
    options::Split,
};
use alexnode_core::{Error, Result};
use std::{
    collections::HashMap,
    fs::{self, File},
    io::{BufRead, BufReader},
    path::Path,
};

const PATH: [&str; 4] = ["path", "file", "filename", "image"];
const LABEL: [&str; 3] = ["label", "class", "category"];
const SPLIT: [&str; 3] = ["split", "set", "subset"];
const EXPECTED: &str = "A CSV has a header with the columns path and label, and split if there is one (photos/1.jpg,cat,train); \
    a .jsonl has the same as fields: {\"path\": \"photos/1.jpg\", \"label\": \"cat\"}. Paths are relative to the list.";

/// Whether a file is such a list, by its name.
pub(crate) fn is_list(path: &Path) -> bool {
    let end = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    ["csv", "jsonl", "ndjson"].contains(&end.as_str())
}

/// A row: path, class, split.
type Row = (String, String, Option<String>);

/// Reads the list and looks up its files.
///
/// # Errors
/// `ERR_DATA` naming the line that is wrong.
pub(crate) fn open(list: &Path) -> Result<(Files, Layout)> {
    let shown = list.display().to_string();
    let files = Files::below(list.parent().unwrap_or(Path::new("")));
    let mut classes = Classes::default();
    let mut lists: [Vec<Item>; 2] = Default::default();
    // What the first row says about the split holds for all.
    let mut splits = None;
    let mut seen: HashMap<Box<Path>, u32> = HashMap::new();
    let mut take = |line: u64, (path, label, split): Row| -> Result<()> {
        let wrong = |what: String| Error::data(format!("{shown}:{line}: {what}")).hint(EXPECTED);
        if path.is_empty() || label.is_empty() {
            return Err(wrong("a row without a path or without a label".into()));
        }
        let split = split.filter(|split| !split.is_empty());
        if *splits.get_or_insert(split.is_some()) != split.is_some() {
            return Err(wrong("some rows name a split and some do not".into()));
        }
        let split = match split.as_deref().map(str::to_lowercase).as_deref() {
            None | Some("train" | "training") => Split::Train,
            Some("val" | "valid" | "validation" | "test" | "testing") => Split::Val,
            Some(other) => return Err(wrong(format!("the split is train or val, not '{other}'"))),
        };
        let class = classes.number(&label);
        let path: Box<Path> = Path::new(&path).into();
        match seen.insert(path.clone(), class) {
            None => {}
            Some(before) if before == class => return Ok(()),
            Some(_) => return Err(wrong(format!("'{}' is listed with two classes", path.display()))),
        }
        // One that is missing is told when it is looked at, as in a folder.
        let meta = fs::metadata(files.root().join(&path)).ok();
        let (size, at) = meta.map_or((0, [0; 2]), |meta| (meta.len(), times(&meta)));
        lists[split.index()].push(Item { entry: Entry { path, size, at }, class });
        Ok(())
    };
    let csv = list.extension().is_some_and(|end| end.eq_ignore_ascii_case("csv"));
    if csv {
        read_csv(list, &mut take)?
    } else {
        read_json(list, &mut take)?
    }
    if lists.iter().all(Vec::is_empty) {
        return Err(Error::data(format!("{shown}: there are no images in it")).hint(EXPECTED));
    }
    // All on one side is no split.
    let given = splits == Some(true) && lists.iter().all(|list| !list.is_empty());
    if !given && lists[0].is_empty() {
        lists.swap(0, 1);
    }
    let layout = layout::arranged(&shown, classes, lists, given)?;
    Ok((files, layout))
}

fn unreadable(list: &Path, e: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::data(format!("{}: cannot be read: {e}", list.display())).caused_by(e).hint(EXPECTED)
}

fn read_csv(list: &Path, take: &mut impl FnMut(u64, Row) -> Result<()>) -> Result<()> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_path(list).map_err(|e| unreadable(list, e))?;
    let header = reader.headers().map_err(|e| unreadable(list, e))?.clone();
    let column = |names: &[&str]| {
        // Some programs put a mark at the beginning of a text.
        header.iter().position(|title| names.contains(&title.trim_start_matches('\u{feff}').to_lowercase().as_str()))
    };
    let (Some(path), Some(label)) = (column(&PATH), column(&LABEL)) else {
        let titles: Vec<&str> = header.iter().collect();
        return Err(Error::data(format!("{}: no columns path and label, but {}", list.display(), titles.join(", ")))
            .hint(EXPECTED));
    };
    let split = column(&SPLIT);
    for row in reader.records() {
        let row = row.map_err(|e| unreadable(list, e))?;
        let field = |at: usize| row.get(at).unwrap_or_default().to_string();
        take(row.position().map_or(0, csv::Position::line), (field(path), field(label), split.map(field)))?;
    }
    Ok(())
}

fn read_json(list: &Path, take: &mut impl FnMut(u64, Row) -> Result<()>) -> Result<()> {
    let file = BufReader::new(File::open(list).map_err(|e| unreadable(list, e))?);
    for (line, text) in (1..).zip(file.lines()) {
        let text = text.map_err(|e| unreadable(list, e))?;
        if text.trim().is_empty() {
            continue;
        }
        let wrong = |what: String| Error::data(format!("{}:{line}: {what}", list.display())).hint(EXPECTED);
        let row: serde_json::Value = serde_json::from_str(&text).map_err(|e| wrong(format!("not JSON: {e}")))?;
        let field = |names: &[&str]| {
            names.iter().find_map(|name| row.get(name)).and_then(|value| match value {
                serde_json::Value::String(text) => Some(text.clone()),
                serde_json::Value::Number(number) => Some(number.to_string()),
                _ => None,
            })
        };
        let missing = |what: &str| wrong(format!("no field {what}"));
        let path = field(&PATH).ok_or_else(|| missing("path"))?;
        take(line, (path, field(&LABEL).ok_or_else(|| missing("label"))?, field(&SPLIT)))?;
    }
    Ok(())
}
