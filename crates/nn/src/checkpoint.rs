//! Checkpoints: safetensors files with weights and momentum, in the order of axes that other tools expect (OIHW), the statistics of the training images
//! (`input.mean`: the central crop of the mean image, height x width x RGB; `input.colour`: three standard deviations, then three principal components as
//! rows), and a metadata string.
//!
//! A file is complete or absent: it is written under a temporary name in the same folder, flushed to disk and renamed; then the folder is flushed.
//! The metadata of the file holds `format`, `sha256` (of the data section, hexadecimal) and `alexnode` (the caller's string).

use alexnode_core::{Error, Result};
use safetensors::{Dtype, SafeTensors, View};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
    time::Instant,
};

const FORMAT: &str = "alexnode-checkpoint-1";

/// What was written.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Saved {
    /// Where.
    pub path: PathBuf,
    /// Length of the file in bytes.
    pub bytes: u64,
    /// SHA-256 of its data section, hexadecimal.
    pub sha256: String,
    /// Time it took.
    pub seconds: f64,
}

/// Shape and elements of a tensor.
type Values = (Vec<usize>, Vec<f32>);

struct Borrowed<'a>(&'a Values);

impl View for Borrowed<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }
    fn shape(&self) -> &[usize] {
        &self.0.0
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(bytemuck::cast_slice(&self.0.1))
    }
    fn data_len(&self) -> usize {
        self.0.1.len() * 4
    }
}

/// Writes `tensors` and `metadata` to `path`.
///
/// # Errors
/// `ERR_CHECKPOINT` where the folder cannot be written or the disk is full; a file that was at `path` before is untouched then.
pub fn write(path: &Path, tensors: &BTreeMap<String, Values>, metadata: &str) -> Result<Saved> {
    let begin = Instant::now();
    let mut hash = Sha256::new();
    // One dtype: safetensors lays tensors out by name, as the map does; `read` checks the hash against the bytes themselves.
    tensors.values().for_each(|(_, values)| hash.update(bytemuck::cast_slice::<f32, u8>(values)));
    let sha256 = hex(&hash.finalize());
    let header = HashMap::from([
        ("format".to_owned(), FORMAT.to_owned()),
        ("sha256".to_owned(), sha256.clone()),
        ("alexnode".to_owned(), metadata.to_owned()),
    ]);
    let bytes = safetensors::serialize(tensors.iter().map(|(name, values)| (name, Borrowed(values))), Some(header))
        .map_err(|e| Error::checkpoint(format!("{}: cannot be encoded", path.display())).caused_by(e))?;
    replace(path, &bytes).map_err(|e| {
        let hint = match e.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                "the disk is full: free some space, then resume the run"
            }
            std::io::ErrorKind::NotFound => "the folder does not exist",
            _ => "check that the folder can be written to",
        };
        Error::checkpoint(format!("{}: cannot be written ({e})", path.display())).hint(hint).caused_by(e)
    })?;
    Ok(Saved { path: path.to_owned(), bytes: bytes.len() as u64, sha256, seconds: begin.elapsed().as_secs_f64() })
}

/// Puts `bytes` at `path`, completely or not at all.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut file = tempfile::Builder::new().prefix(".checkpoint-").suffix(".tmp").tempfile_in(folder)?;
    file.write_all(bytes)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?; // a temporary file is private otherwise
    }
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    Ok(())
}

/// A checkpoint whose data section has been checked.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    bytes: Vec<u8>,
    metadata: String,
}

/// Reads the checkpoint at `path` and checks its hash.
///
/// # Errors
/// `ERR_CHECKPOINT` where the file is missing, is no checkpoint of this program, or is damaged.
pub fn read(path: &Path) -> Result<Checkpoint> {
    let name = path.display();
    let bytes = fs::read(path).map_err(|e| unreadable(path, e))?;
    let broken = |what: &str| Error::checkpoint(format!("{name}: {what}")).hint("use an earlier checkpoint of the run");
    let (length, header) =
        SafeTensors::read_metadata(&bytes).map_err(|e| broken("is not a complete safetensors file").caused_by(e))?;
    let strings = header.metadata().clone().unwrap_or_default();
    let string = |key: &str| strings.get(key).map(String::as_str);
    check_format(path, &strings)?;
    let data = &bytes[8 + length..];
    if string("sha256") != Some(hex(&Sha256::digest(data)).as_str()) {
        return Err(broken("is damaged, its data do not have the SHA-256 that its header gives"));
    }
    let metadata = string("alexnode").unwrap_or_default().to_owned();
    Ok(Checkpoint { path: path.to_owned(), bytes, metadata })
}

/// What the head of a checkpoint says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Head {
    /// SHA-256 of its data section, hexadecimal, as it was written: the data have not been looked at.
    pub sha256: String,
    /// The string that [`write()`] was given.
    pub metadata: String,
}

/// Reads the head of the checkpoint at `path`, and nothing else.
///
/// # Errors
/// `ERR_CHECKPOINT` where the file is missing or is no checkpoint of this program.
pub fn read_head(path: &Path) -> Result<Head> {
    #[derive(Deserialize)]
    struct Json {
        #[serde(rename = "__metadata__", default)]
        strings: HashMap<String, String>,
    }
    let name = path.display();
    let head = || -> std::io::Result<Option<Json>> {
        let mut file = File::open(path)?;
        let mut length = [0; 8];
        if file.read(&mut length)? < length.len() {
            return Ok(None);
        }
        let mut head = Vec::new();
        file.take(u64::from_le_bytes(length).min(MAX_HEAD)).read_to_end(&mut head)?;
        Ok(serde_json::from_slice(&head).ok())
    };
    let head = head().map_err(|e| unreadable(path, e))?;
    let Json { mut strings } = head.ok_or_else(|| Error::checkpoint(format!("{name}: is not a safetensors file")))?;
    check_format(path, &strings)?;
    let mut take = |key: &str| strings.remove(key).unwrap_or_default();
    Ok(Head { sha256: take("sha256"), metadata: take("alexnode") })
}

/// Longer heads are no checkpoints: safetensors has the same bound.
const MAX_HEAD: u64 = 100_000_000;

fn unreadable(path: &Path, e: std::io::Error) -> Error {
    Error::checkpoint(format!("{}: cannot be read ({e})", path.display()))
        .hint("check the path; nothing has been started in its place")
        .caused_by(e)
}

fn check_format(path: &Path, strings: &HashMap<String, String>) -> Result<()> {
    let format = strings.get("format").map(String::as_str);
    if format == Some(FORMAT) {
        return Ok(());
    }
    Err(Error::checkpoint(format!(
        "{}: is not a checkpoint of alexnode (its format is {:?})",
        path.display(),
        format.unwrap_or("not given")
    )))
}

impl Checkpoint {
    /// The string that [`write()`] was given.
    pub fn metadata(&self) -> &str {
        &self.metadata
    }
    /// The elements of tensor `name`, which must have the given shape.
    ///
    /// # Errors
    /// `ERR_CHECKPOINT` where it is missing or another one.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let wrong = |what: String| {
            Error::checkpoint(format!("{}: {what}", self.path.display()))
                .hint("the checkpoint belongs to another network: use the run's own preset and number of classes")
        };
        let tensors =
            SafeTensors::deserialize(&self.bytes).map_err(|e| wrong("cannot be decoded".into()).caused_by(e))?;
        let tensor = tensors.tensor(name).map_err(|e| wrong(format!("has no tensor {name}")).caused_by(e))?;
        if tensor.dtype() != Dtype::F32 || tensor.shape() != shape {
            return Err(wrong(format!(
                "{name} is {:?} {:?}, the network needs F32 {shape:?}",
                tensor.dtype(),
                tensor.shape()
            )));
        }
        Ok(tensor.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensors() -> BTreeMap<String, Values> {
        let values = |n: usize| (0..n).map(|i| i as f32 * 0.5 - 3.0).collect();
        BTreeMap::from([
            ("conv1.weight".into(), (vec![2, 3, 2, 2], values(24))),
            ("a.bias".into(), (vec![5], values(5))),
            ("momentum.conv1.weight".into(), (vec![24], values(24))),
        ])
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("step-1.safetensors");
        let saved = write(&path, &tensors(), "{\"step\":1}").unwrap();
        assert_eq!(saved.bytes, fs::metadata(&path).unwrap().len());
        let file = read(&path).unwrap();
        assert_eq!(file.metadata(), "{\"step\":1}");
        assert_eq!(read_head(&path).unwrap(), Head { sha256: saved.sha256, metadata: file.metadata().into() });
        for (name, (shape, values)) in tensors() {
            assert_eq!(file.tensor(&name, &shape).unwrap(), values);
        }
        assert!(file.tensor("conv1.weight", &[3, 2, 2, 2]).unwrap_err().message().contains("conv1.weight"));
        assert!(file.tensor("conv9.weight", &[1]).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "a temporary file was left behind");
    }

    #[test]
    fn a_damaged_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        assert!(read(&path).unwrap_err().message().contains("cannot be read"));
        write(&path, &tensors(), "").unwrap();
        let good = fs::read(&path).unwrap();
        let mut flipped = good.clone();
        *flipped.last_mut().unwrap() ^= 1;
        for bad in [&good[..good.len() - 3], &good[..20], &flipped, b"".as_slice()] {
            fs::write(&path, bad).unwrap();
            assert_eq!(read(&path).unwrap_err().code().as_str(), "ERR_CHECKPOINT");
        }
        for bad in [&good[..20], b"", b"\x05\0\0\0\0\0\0\0{    }", &[0xff; 30]] {
            fs::write(&path, bad).unwrap();
            assert_eq!(read_head(&path).unwrap_err().code().as_str(), "ERR_CHECKPOINT");
        }
    }

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("no-such-folder").join("x.safetensors");
        assert_eq!(write(&missing, &tensors(), "").unwrap_err().code().as_str(), "ERR_CHECKPOINT");
    }
}
