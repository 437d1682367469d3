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
use safetensors::{
    Dtype, SafeTensorError,
    tensor::{Metadata, TensorInfo},
};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Seek, Write},
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

/// What a file holds, by name: shapes.
pub type Shapes = BTreeMap<String, Vec<usize>>;

/// Writes to `path` the f32 tensors of `shapes` and `metadata`. `values` gives the elements of the tensor it is asked for; no two tensors are held at a time.
///
/// # Errors
/// `ERR_CHECKPOINT` where the folder cannot be written or the disk is full, `ERR_SHAPE` where a tensor has other elements than its shape, and those of `values`;
/// a file that was at `path` before is untouched then.
pub fn write(
    path: &Path,
    shapes: &Shapes,
    values: &mut dyn FnMut(&str) -> Result<Vec<f32>>,
    metadata: &str,
) -> Result<Saved> {
    write_as(FORMAT, path, shapes, values, metadata)
}

/// Writes what the network has learnt to `path`, without momentum: its parameters from `source`, the statistics of its images, and `metadata`.
///
/// # Errors
/// As [`write()`], and those of `source`.
pub fn write_weights(path: &Path, network: &Network, source: &dyn Source, metadata: &str) -> Result<Saved> {
    let parameters = network.parameters().iter().map(|p| (p.name.clone(), p.spec.border_shape.clone()));
    let inputs = network.input_tensors().map(|(name, shape)| (name.to_owned(), shape));
    let shapes: Shapes = parameters.chain(inputs).collect();
    write_as(WEIGHTS, path, &shapes, &mut |name| source.tensor(name, &shapes[name]), metadata)
}

fn write_as(
    format: &str,
    path: &Path,
    shapes: &Shapes,
    values: &mut dyn FnMut(&str) -> Result<Vec<f32>>,
    metadata: &str,
) -> Result<Saved> {
    let begin = Instant::now();
    let head = |sha256: &str| {
        head(format, shapes, sha256, metadata)
            .map_err(|e| Error::checkpoint(format!("{}: cannot be encoded", path.display())).caused_by(e))
    };
    let (bytes, sha256) = replace_by(path, |file| {
        let failed = |e| unwritable(path, e);
        // The head tells the hash of what comes behind it: it is written again at the end, as long as before.
        let before = head(&hex(&[0; 32]))?;
        file.write_all(&before).map_err(failed)?;
        let (mut hash, mut bytes) = (Sha256::new(), before.len() as u64);
        for (name, shape) in shapes {
            let values = values(name)?;
            if values.len() != shape.iter().product::<usize>() {
                return Err(Error::shape(format!("{name}: {} elements do not have the shape {shape:?}", values.len())));
            }
            let data: &[u8] = bytemuck::cast_slice(&values);
            hash.update(data);
            file.write_all(data).map_err(failed)?;
            bytes += data.len() as u64;
        }
        let sha256 = hex(&hash.finalize());
        let after = head(&sha256)?;
        assert_eq!(before.len(), after.len(), "two heads of the same tensors");
        file.rewind().and_then(|()| file.write_all(&after)).map_err(failed)?;
        Ok((bytes, sha256))
    })?;
    Ok(Saved { path: path.to_owned(), bytes, sha256, seconds: begin.elapsed().as_secs_f64() })
}

/// What stands before the data of a file: the length of its header, and that.
fn head(format: &str, shapes: &Shapes, sha256: &str, metadata: &str) -> std::result::Result<Vec<u8>, SafeTensorError> {
    let mut end = 0;
    let tensors = shapes.iter().map(|(name, shape)| {
        let start = end;
        end += shape.iter().product::<usize>() * 4;
        (name.clone(), TensorInfo { dtype: Dtype::F32, shape: shape.clone(), data_offsets: (start, end) })
    });
    let strings = [("format", format), ("sha256", sha256), ("alexnode", metadata)];
    let strings = strings.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let mut header = serde_json::to_vec(&Metadata::new(Some(strings), tensors.collect())?)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok([&(header.len() as u64).to_le_bytes(), header.as_slice()].concat())
}

/// Puts `bytes` at `path`, completely or not at all.
///
/// # Errors
/// `ERR_CHECKPOINT` where the folder cannot be written or the disk is full; a file that was at `path` before is untouched then.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    replace_by(path, |file| file.write_all(bytes).map_err(|e| unwritable(path, e)))
}

/// Puts what `write` writes at `path`, completely or not at all.
fn replace_by<T>(path: &Path, write: impl FnOnce(&mut File) -> Result<T>) -> Result<T> {
    let failed = |e| unwritable(path, e);
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let builder = tempfile::Builder::new().prefix(".checkpoint-").suffix(".tmp").tempfile_in(folder);
    let mut file = builder.map_err(failed)?;
    let written = write(file.as_file_mut())?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // A temporary file is private otherwise.
        file.as_file().set_permissions(fs::Permissions::from_mode(0o644)).map_err(failed)?;
    }
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|e| failed(e.error))?;
    #[cfg(unix)]
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    Ok(written)
}

fn unwritable(path: &Path, e: std::io::Error) -> Error {
    let hint = match e.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            "The disk is full: free some space, then resume the run."
        }
        std::io::ErrorKind::NotFound => "The folder does not exist.",
        _ => "Check that the folder can be written to.",
    };
    Error::checkpoint(format!("{}: cannot be written ({e})", path.display())).hint(hint).caused_by(e)
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
    let strings = file.strings();
    let string = |key: &str| strings.get(key).map(String::as_str);
    let format = string("format");
    if !matches!(format, Some(FORMAT | WEIGHTS)) {
        return Err(Error::checkpoint(format!(
            "{}: is not a checkpoint of alexnode (its format is {:?})",
            path.display(),
            format.unwrap_or("not given")
        )));
    }
    let mut hash = Sha256::new();
    file.for_data(|data| hash.update(data))?;
    if string("sha256") != Some(hex(&hash.finalize()).as_str()) {
        let message = "is damaged, its data do not have the SHA-256 that its header gives";
        return Err(Error::checkpoint(format!("{}: {message}", path.display()))
            .hint("Use an earlier checkpoint of the run, or copy the file again."));
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
    fn check(&self, name: &str, shape: &[usize]) -> Result<()> {
        self.file.check(name, shape).map(drop)
    }
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

    type Values = (Vec<usize>, Vec<f32>);

    fn tensors() -> BTreeMap<String, Values> {
        let values = |n: usize| (0..n).map(|i| i as f32 * 0.5 - 3.0).collect();
        BTreeMap::from([
            ("conv1.weight".into(), (vec![2, 3, 2, 2], values(24))),
            ("a.bias".into(), (vec![5], values(5))),
            ("momentum.conv1.weight".into(), (vec![24], values(24))),
        ])
    }

    fn write(path: &Path, tensors: &BTreeMap<String, Values>, metadata: &str) -> Result<Saved> {
        let shapes = tensors.iter().map(|(name, (shape, _))| (name.clone(), shape.clone())).collect();
        super::write(path, &shapes, &mut |name| Ok(tensors[name].1.clone()), metadata)
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
        let path = folder.path().join("x.safetensors");
        let old = write(&path, &tensors(), "old").unwrap();
        let mut other = tensors();
        other.get_mut("momentum.conv1.weight").unwrap().1.pop();
        assert_eq!(write(&path, &other, "new").unwrap_err().code().as_str(), "ERR_SHAPE");
        let file = read(&path).unwrap();
        assert_eq!((file.metadata(), old.bytes), ("old", fs::metadata(&path).unwrap().len()));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "a temporary file was left behind");
        let missing = folder.path().join("no-such-folder").join("x.safetensors");
        assert_eq!(write(&missing, &tensors(), "").unwrap_err().code().as_str(), "ERR_CHECKPOINT");
    }
}
