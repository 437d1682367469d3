//! Lists of files that are to be left out, as a scan writes them: a JSON object per line, `{"path":"cat/1.jpg","reason":"..."}`, the path
//! relative to the root of the data set. The reason is for people.

use crate::files::Entry;
use alexnode_core::{Error, Result};
use serde::Deserialize;
use std::{collections::HashSet, fs, path::Path};

#[derive(Deserialize)]
struct Line {
    path: String,
}

/// Takes the files that the list at `path`, where there is one, names away from `entries`, and gives their number.
///
/// # Errors
/// `ERR_DATA` where the list cannot be read, naming the line that is wrong.
pub(crate) fn leave_out(path: Option<&Path>, entries: &mut Vec<Entry>) -> Result<usize> {
    let Some(path) = path else { return Ok(0) };
    let shown = path.display();
    let text = fs::read_to_string(path).map_err(|e| {
        Error::data(format!("{shown}: the quarantine list cannot be read: {e}"))
            .caused_by(e)
            .hint("Name a file that `alexnode data scan` has written.")
    })?;
    let mut named = HashSet::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let line: Line = serde_json::from_str(line).map_err(|e| {
            Error::data(format!("{shown}: line {}: {e}", at + 1))
                .caused_by(e)
                .hint("A line of a quarantine list is {\"path\":\"cat/1.jpg\",\"reason\":\"...\"}.")
        })?;
        named.insert(line.path);
    }
    let before = entries.len();
    entries.retain(|entry| !named.contains(&crate::survey::text(&entry.path)));
    Ok(before - entries.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_files_are_left_out_and_nothing_else() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let listed = || -> Vec<Entry> {
            let paths = ["cat/1.jpg", "cat/2 \"a\"\n.jpg", "dog/1.jpg"];
            paths.map(|p| Entry { path: Path::new(p).into(), size: 1, at: [0; 2] }).into()
        };
        fs::write(file.path(), "{\"path\":\"cat/2 \\\"a\\\"\\n.jpg\",\"reason\":\"x\"}\n\n{\"path\":\"gone.jpg\"}\n")
            .unwrap();
        let mut entries = listed();
        assert_eq!(leave_out(Some(file.path()), &mut entries).unwrap(), 1);
        assert_eq!(entries.iter().map(|e| e.path.to_str().unwrap()).collect::<Vec<_>>(), ["cat/1.jpg", "dog/1.jpg"]);
        fs::write(file.path(), "{\"path\":\"a\"}\ncat/1.jpg\n").unwrap();
        let error = leave_out(Some(file.path()), &mut listed()).unwrap_err();
        assert!(error.message().contains("line 2") && error.remedy().is_some(), "{error}");
        assert!(leave_out(Some(Path::new("none")), &mut listed()).unwrap_err().message().contains("none"));
    }
}
