//! One look at every file when a data set is opened: is it a picture, and what is the hash of its bytes.

use crate::{
    cache::{Cache, Key},
    decode,
    files::Files,
    layout::Item,
    options::OnBadImage,
    parallel::Workers,
};
use alexnode_core::Result;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The beginning of a file that nearly always holds the size of the picture.
const HEAD: u64 = 64 << 10;

/// What a look at a file showed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Finding {
    /// SHA-256 of its bytes, where asked for.
    pub hash: Option<[u8; 32]>,
    /// Why it cannot be used.
    pub bad: Option<String>,
}

/// How closely to look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Depth {
    /// `Skip` decodes every picture, `Error` only reads its head.
    pub on_bad_image: OnBadImage,
    /// Whether hashes are wanted, for which every byte must be read.
    pub hash: bool,
}

/// Identifies the files as they are now: a changed file changes it.
pub(crate) fn stamp<'a>(files: &Files, items: impl Iterator<Item = &'a Item>) -> Key {
    let root = std::fs::canonicalize(files.root()).unwrap_or_else(|_| files.root().to_path_buf());
    let archive = std::fs::metadata(&root).and_then(|m| m.modified()).map(|t| format!("{t:?}"));
    let archive = if root.is_file() { archive.unwrap_or_default() } else { String::new() };
    let mut list = Vec::new();
    for Item { entry, .. } in items {
        list.extend_from_slice(entry.path.as_os_str().as_encoded_bytes());
        list.push(0);
        for number in [entry.size, entry.modified, entry.offset] {
            list.extend_from_slice(&number.to_le_bytes());
        }
    }
    Key::of([root.as_os_str().as_encoded_bytes(), archive.as_bytes(), &list])
}

/// Looks at all `items` and keeps what it found under `stamp`.
///
/// # Errors
/// `ERR_ABORTED` after a cancel. A bad file is a finding, not an error.
pub(crate) fn scan(
    files: &Files,
    items: &[&Item],
    depth: Depth,
    stamp: &Key,
    cache: &Cache,
    workers: Workers<'_>,
) -> Result<Vec<Finding>> {
    let full = depth.on_bad_image == OnBadImage::Skip;
    let key = Key::of([&b"scan 1"[..], stamp.bytes(), &[u8::from(full), u8::from(depth.hash)]]);
    let kept: Option<Vec<Finding>> = cache.load("scan", &key).and_then(|b| serde_json::from_slice(&b).ok());
    if let Some(findings) = kept.filter(|f| f.len() == items.len()) {
        return Ok(findings);
    }
    let findings = workers.map(
        16,
        items.len(),
        || (Vec::new(), Vec::new()),
        |(bytes, pixels), i| Ok(look(files, items[i], full, depth.hash, bytes, pixels)),
    )?;
    if let Ok(bytes) = serde_json::to_vec(&findings) {
        cache.store("scan", &key, &bytes);
    }
    Ok(findings)
}

fn look(files: &Files, item: &Item, full: bool, hash: bool, bytes: &mut Vec<u8>, pixels: &mut Vec<u8>) -> Finding {
    let most = if full || hash { u64::MAX } else { HEAD };
    if let Err(reason) = files.read(&item.entry, most, bytes) {
        return Finding { hash: None, bad: Some(reason) };
    }
    let hash = hash.then(|| Sha256::digest(&bytes).into());
    let mut result = if full { decode::decode(bytes, pixels) } else { decode::header(bytes) };
    if result.is_err() && (bytes.len() as u64) < item.entry.size {
        // A long preview or colour profile may stand before the size.
        result = files.read(&item.entry, u64::MAX, bytes).and_then(|()| decode::header(bytes));
    }
    Finding { hash, bad: result.err() }
}
