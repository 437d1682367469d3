//! Checkpoints: safetensors files with weights and momentum, in the order of axes that other tools expect (OIHW), the statistics of the training images
//! (`input.mean`: the central crop of the mean image, height x width x RGB; `input.colour`: three standard deviations, then three principal components as
//! rows), and a metadata string.
//!
//! A file is complete or absent: it is written under a temporary name in the same folder, flushed to disk and renamed; then the folder is flushed.
//! The metadata of the file holds `format`, `sha256` (of the data section, hexadecimal) and `alexnode` (the caller's string).

use crate::{
    network::Network,
    tensors::{Source, TensorFile},
};
use alexnode_core::{Error, Result};
use safetensors::{Dtype, View};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    time::Instant,
};

const FORMAT: &str = "alexnode-checkpoint-1";
/// Of files without momentum.
const WEIGHTS: &str = "alexnode-weights-1";

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
    write_as(FORMAT, path, tensors, metadata)
}

/// Writes what the network has learnt to `path`, without momentum: its parameters from `source`, the statistics of its images, and `metadata`.
///
/// # Errors
/// As [`write()`], and those of `source`.
pub fn write_weights(path: &Path, network: &Network, source: &dyn Source, metadata: &str) -> Result<Saved> {
    let mut tensors = BTreeMap::new();
    let parameters = network.parameters().iter().map(|p| (p.name.clone(), p.spec.border_shape.clone()));
    let inputs = network.input_tensors().map(|(name, shape)| (name.to_owned(), shape));
    for (name, shape) in parameters.chain(inputs) {
        let values = source.tensor(&name, &shape)?;
        tensors.insert(name, (shape, values));
    }
    write_as(WEIGHTS, path, &tensors, metadata)
}

fn write_as(format: &str, path: &Path, tensors: &BTreeMap<String, Values>, metadata: &str) -> Result<Saved> {
    let begin = Instant::now();
    let mut hash = Sha256::new();
    // One dtype: safetensors lays tensors out by name, as the map does; `read` checks the hash against the bytes themselves.
    tensors.values().for_each(|(_, values)| hash.update(bytemuck::cast_slice::<f32, u8>(values)));
    let sha256 = hex(&hash.finalize());
    let header = HashMap::from([
        ("format".to_owned(), format.to_owned()),
        ("sha256".to_owned(), sha256.clone()),
        ("alexnode".to_owned(), metadata.to_owned()),
    ]);
    let bytes = safetensors::serialize(tensors.iter().map(|(name, values)| (name, Borrowed(values))), Some(header))
        .map_err(|e| Error::checkpoint(format!("{}: cannot be encoded", path.display())).caused_by(e))?;
    replace(path, &bytes)?;
    Ok(Saved { path: path.to_owned(), bytes: bytes.len() as u64, sha256, seconds: begin.elapsed().as_secs_f64() })
}

/// Puts `bytes` at `path`, completely or not at all.
///
/// # Errors
/// `ERR_CHECKPOINT` where the folder cannot be written or the disk is full; a file that was at `path` before is untouched then.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    put(path, bytes).map_err(|e| {
        let hint = match e.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                "the disk is full: free some space, then resume the run"
            }
            std::io::ErrorKind::NotFound => "the folder does not exist",
            _ => "check that the folder can be written to",
        };
        Error::checkpoint(format!("{}: cannot be written ({e})", path.display())).hint(hint).caused_by(e)
    })
}

fn put(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
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
    file: TensorFile,
    metadata: String,
}

/// Reads the checkpoint, or the exported weights, at `path` and checks the hash.
///
/// # Errors
/// `ERR_CHECKPOINT` where the file is missing, is none of this program, or is damaged.
pub fn read(path: &Path) -> Result<Checkpoint> {
    let file = TensorFile::read(path)?;
    let string = |key: &str| file.strings().get(key).map(String::as_str);
    let format = string("format");
    if !matches!(format, Some(FORMAT | WEIGHTS)) {
        return Err(Error::checkpoint(format!(
            "{}: is not a checkpoint of alexnode (its format is {:?})",
            path.display(),
            format.unwrap_or("not given")
        )));
    }
    if string("sha256") != Some(hex(&Sha256::digest(file.data())).as_str()) {
        let message = "is damaged, its data do not have the SHA-256 that its header gives";
        return Err(Error::checkpoint(format!("{}: {message}", path.display()))
            .hint("use an earlier checkpoint of the run, or copy the file again"));
    }
    let metadata = string("alexnode").unwrap_or_default().to_owned();
    Ok(Checkpoint { file, metadata })
}

impl Checkpoint {
    /// The string that [`write()`] was given.
    pub fn metadata(&self) -> &str {
        &self.metadata
    }
}

impl Source for Checkpoint {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        self.file.tensor(name, shape)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensors::read_head;

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
        let head = read_head(&path).unwrap();
        assert_eq!((&head.strings["sha256"], head.strings["alexnode"].as_str()), (&saved.sha256, file.metadata()));
        assert_eq!(head.shapes["conv1.weight"], [2, 3, 2, 2]);
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
