//! Safetensors files of any program, and what a network takes from them. Nothing in such a file is executed: it is a JSON header and numbers.

use alexnode_core::{Error, Result};
use half::{bf16, f16};
use safetensors::{
    Dtype,
    tensor::{Metadata, TensorInfo},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// Where the tensors of a network come from.
pub trait Source {
    /// Whether there is a tensor with this name in files of ours and this shape; reads none.
    ///
    /// # Errors
    /// `ERR_CHECKPOINT` where it is missing or another one.
    fn check(&self, name: &str, shape: &[usize]) -> Result<()>;
    /// The elements of the tensor with this name in files of ours (`conv1.weight`, `input.mean`), in the order of files. It must have the shape.
    ///
    /// # Errors
    /// As [`check`](Self::check), and where it cannot be read.
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>>;
}

/// A safetensors file whose header fits its data: sizes, dtypes and shapes agree, no two tensors overlap, nothing is left over. It stays open; its data
/// are read as they are asked for.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    file: Mutex<File>,
    header: Metadata,
    /// Bytes of the header and of the eight that tell its length.
    head: u64,
}

/// Bytes that are read at a time: whole elements of any dtype.
const PIECE: usize = 1 << 20;

impl TensorFile {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// `ERR_CHECKPOINT` where it is missing, or no complete and consistent safetensors file.
    pub fn read(path: &Path) -> Result<Self> {
        let incomplete = |what: String| {
            Error::checkpoint(format!("{}: is not a complete safetensors file ({what})", path.display()))
                .hint("The file is damaged or of another format; copy or download it again.")
        };
        let mut file = File::open(path).map_err(|e| unreadable(path, e))?;
        let bytes = file.metadata().map_err(|e| unreadable(path, e))?.len();
        let json = header(&mut file).map_err(|e| unreadable(path, e))?;
        let json = json.ok_or_else(|| incomplete("its header is longer than the file".into()))?;
        let header: Metadata = serde_json::from_slice(&json).map_err(|e| incomplete(e.to_string()).caused_by(e))?;
        let head = LENGTH + json.len() as u64;
        let told = head + header.data_len() as u64;
        if bytes != told {
            return Err(incomplete(format!("it has {bytes} bytes, its header tells of {told}")));
        }
        Ok(Self { path: path.to_owned(), file: Mutex::new(file), header, head })
    }
    /// The strings of the header.
    pub fn strings(&self) -> HashMap<String, String> {
        self.header.metadata().clone().unwrap_or_default()
    }
    /// Where it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// Shows `look` all tensors' bytes, piece by piece.
    ///
    /// # Errors
    /// `ERR_CHECKPOINT` where they cannot be read.
    pub fn for_data(&self, look: impl FnMut(&[u8])) -> Result<()> {
        self.for_range((0, self.header.data_len()), look)
    }
    fn for_range(&self, (start, end): (usize, usize), mut look: impl FnMut(&[u8])) -> Result<()> {
        let mut read = || -> std::io::Result<()> {
            // A reader that panicked has left the file open, and its position is set here.
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            file.seek(SeekFrom::Start(self.head + start as u64))?;
            let mut piece = vec![0; PIECE.min(end - start)];
            for at in (start..end).step_by(PIECE) {
                let piece = &mut piece[..PIECE.min(end - at)];
                file.read_exact(piece)?;
                look(piece);
            }
            Ok(())
        };
        read().map_err(|e| unreadable(&self.path, e))
    }
    /// What the header tells of tensor `name`, which must have the given shape and a dtype for real numbers of 16 to 64 bits.
    ///
    /// # Errors
    /// `ERR_CHECKPOINT` where it is missing or another one.
    pub fn check(&self, name: &str, shape: &[usize]) -> Result<&TensorInfo> {
        let wrong = |what: String| {
            Error::checkpoint(format!("{}: {what}", self.path.display()))
                .hint("The checkpoint belongs to another network: use the run's own preset and number of classes.")
        };
        let info = self.header.info(name).ok_or_else(|| wrong(format!("has no tensor {name}")))?;
        if info.shape != shape {
            return Err(wrong(format!("{name} is {:?} {:?}, the network needs F32 {shape:?}", info.dtype, info.shape)));
        }
        match info.dtype {
            Dtype::F32 | Dtype::F64 | Dtype::F16 | Dtype::BF16 => Ok(info),
            other => Err(wrong(format!("{name} is {other:?}, weights are F32, F64, F16 or BF16"))),
        }
    }
    /// The elements of tensor `name`, which must have the given shape, as f32; it may be of any dtype for real numbers of 16 to 64 bits.
    ///
    /// # Errors
    /// As [`check`](Self::check), and where it cannot be read.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let info = self.check(name, shape)?;
        let mut values = Vec::with_capacity(shape.iter().product());
        self.for_range(info.data_offsets, |data| match info.dtype {
            Dtype::F64 => values.extend(data.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b) as f32)),
            Dtype::F16 => values.extend(data.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32())),
            Dtype::BF16 => values.extend(data.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32())),
            _ => values.extend(data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b))),
        })?;
        Ok(values)
    }
}

/// What the header of a safetensors file says; its data have not been looked at.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Head {
    /// Its strings (`__metadata__`).
    pub strings: BTreeMap<String, String>,
    /// The shapes of its tensors.
    pub shapes: BTreeMap<String, Vec<usize>>,
}

/// Longer headers are refused, as safetensors itself does.
const MAX_HEAD: u64 = 100_000_000;
/// Bytes that tell the length of a header.
const LENGTH: u64 = 8;

/// The header of a safetensors file, from its beginning; `None` where the file is shorter than it says.
fn header(file: &mut File) -> std::io::Result<Option<Vec<u8>>> {
    let bytes = file.metadata()?.len();
    let mut length = [0; LENGTH as usize];
    if bytes < LENGTH {
        return Ok(None);
    }
    file.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEAD || length > bytes - LENGTH {
        return Ok(None);
    }
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header)?;
    Ok(Some(header))
}

/// Reads the header of the safetensors file at `path`, and nothing else.
///
/// # Errors
/// `ERR_CHECKPOINT` where the file is missing or has no such header.
pub fn read_head(path: &Path) -> Result<Head> {
    #[derive(Deserialize)]
    struct Tensor {
        shape: Vec<usize>,
    }
    #[derive(Deserialize)]
    struct Json {
        #[serde(rename = "__metadata__", default)]
        strings: BTreeMap<String, String>,
        #[serde(flatten)]
        tensors: BTreeMap<String, Tensor>,
    }
    let head = || -> std::io::Result<Option<Json>> {
        Ok(header(&mut File::open(path)?)?.and_then(|json| serde_json::from_slice(&json).ok()))
    };
    let Json { strings, tensors } = head().map_err(|e| unreadable(path, e))?.ok_or_else(|| {
        Error::checkpoint(format!("{}: is not a safetensors file", path.display())).hint(expected(path))
    })?;
    Ok(Head { strings, shapes: tensors.into_iter().map(|(name, tensor)| (name, tensor.shape)).collect() })
}

/// What to give in place of a file of another kind.
fn expected(path: &Path) -> &'static str {
    let mut begin = [0; 4];
    // Pickles begin with their protocol; what PyTorch saves is one in a zip archive.
    let pickle = File::open(path).and_then(|mut file| file.read_exact(&mut begin)).is_ok()
        && (begin[0] == 0x80 || begin == *b"PK\x03\x04");
    if pickle {
        "A pickle (.pt, .pth) can run code and is never opened: save its tensors as .safetensors."
    } else {
        "Weights come from a run, one of its checkpoints, what `export --safetensors` writes, or torchvision's alexnet as .safetensors."
    }
}

fn unreadable(path: &Path, e: std::io::Error) -> Error {
    Error::checkpoint(format!("{}: cannot be read ({e})", path.display()))
        .hint("Check the path; nothing has been started in its place.")
        .caused_by(e)
}

/// How the files of another program lay out a network.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Layout {
    /// Names of files of ours (`conv1.weight`), and the names there.
    pub names: BTreeMap<String, String>,
    /// What the weights of one tensor (our name) are multiplied by, per input channel: where that program divides each colour by a deviation of its own.
    #[serde(default)]
    pub factors: BTreeMap<String, Vec<f32>>,
    /// The colour that is subtracted from every pixel, 0 to 255.
    pub mean: [f32; 3],
}

/// The file of another program.
#[derive(Debug)]
pub struct Foreign {
    file: TensorFile,
    layout: Layout,
}

impl Foreign {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// As [`TensorFile::read`].
    pub fn read(path: &Path, layout: Layout) -> Result<Self> {
        Ok(Self { file: TensorFile::read(path)?, layout })
    }
}

impl Foreign {
    /// The name there of a tensor of ours, and its factors per input channel.
    fn find(&self, name: &str, shape: &[usize]) -> Result<(&str, Option<&[f32]>)> {
        let missing = || Error::checkpoint(format!("{}: has nothing for {name}", self.file.path().display()));
        let theirs = self.layout.names.get(name).ok_or_else(missing)?;
        let factors = self.layout.factors.get(name).map(Vec::as_slice);
        match factors {
            Some(factors) if shape.get(1) != Some(&factors.len()) => Err(missing()),
            _ => Ok((theirs, factors)),
        }
    }
}

impl Source for Foreign {
    fn check(&self, name: &str, shape: &[usize]) -> Result<()> {
        if matches!(name, "input.mean" | "input.colour") {
            return Ok(());
        }
        self.file.check(self.find(name, shape)?.0, shape).map(drop)
    }
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        match name {
            "input.mean" => return Ok(self.layout.mean.repeat(shape.iter().product::<usize>() / 3)),
            // Nothing is known of the colours of its images: no noise.
            "input.colour" => return Ok(vec![0.0; shape.iter().product()]),
            _ => (),
        }
        let (theirs, factors) = self.find(name, shape)?;
        let mut values = self.file.tensor(theirs, shape)?;
        if let Some(factors) = factors {
            let pixels: usize = shape.iter().skip(2).product();
            for (plane, values) in values.chunks_mut(pixels).enumerate() {
                values.iter_mut().for_each(|v| *v *= factors[plane % factors.len()]);
            }
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    #[test]
    fn hostile_headers_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let tensor = |shape: &str, from: u64, to: u64| {
            format!(r#""a":{{"dtype":"F32","shape":{shape},"data_offsets":[{from},{to}]}}"#)
        };
        let second = r#""b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}"#;
        let headers = [
            format!("{{{}}}", tensor("[18446744073709551615,4]", 0, 8)),
            format!("{{{}}}", tensor("[2]", 0, u64::MAX)),
            format!("{{{}}}", tensor("[2]", 8, 0)),
            format!("{{{}}}", tensor("[2]", 0, 1 << 40)),
            format!("{{{},{second}}}", tensor("[2]", 0, 8)),
            format!("{{{}}}", tensor("[3]", 0, 8)),
            format!("{{{}}}", tensor("[-2]", 0, 8)),
            "[".repeat(100_000),
            "{}".into(),
        ];
        for header in headers {
            fs::write(&path, file(&header, &[0; 8])).unwrap();
            let error = TensorFile::read(&path).unwrap_err();
            assert!(error.code().as_str() == "ERR_CHECKPOINT" && error.remedy().is_some(), "{header}: {error}");
        }
        let mut endless = file("{}", &[0; 8]);
        endless[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        for bad in [endless, b"\x80\x02}q\x00.".to_vec(), Vec::new()] {
            fs::write(&path, bad).unwrap();
            assert!(read_head(&path).unwrap_err().message().contains("not a safetensors file"));
            assert!(TensorFile::read(&path).is_err());
        }
    }

    #[test]
    fn a_pickle_is_told_from_other_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let remedy = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            read_head(&path).unwrap_err().remedy().unwrap().to_owned()
        };
        assert!(remedy(b"\x80\x02}q\x00.").contains("pickle"));
        assert!(remedy(b"PK\x03\x04 archive/data.pkl").contains("pickle"));
        // An ONNX model begins with its version.
        for other in [&b"\x08\x08\x12\x08alexnode"[..], b""] {
            assert!(remedy(other).contains("torchvision") && !remedy(other).contains("pickle"));
        }
    }

    #[test]
    fn other_dtypes_become_f32_and_other_layouts_ours() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let header = concat!(
            r#"{"__metadata__":{"format":"pt"},"w":{"dtype":"F16","shape":[2,3,1,1],"data_offsets":[0,12]},"#,
            r#""b":{"dtype":"BF16","shape":[2],"data_offsets":[12,16]},"i":{"dtype":"I32","shape":[1],"data_offsets":[16,20]}}"#
        );
        let mut data: Vec<u8> = (0..6).flat_map(|v| f16::from_f32(v as f32).to_le_bytes()).collect();
        data.extend([1.5, -2.0].into_iter().flat_map(|v| bf16::from_f32(v).to_le_bytes()));
        data.extend([0; 4]);
        fs::write(&path, file(header, &data)).unwrap();
        let head = read_head(&path).unwrap();
        assert_eq!((head.strings["format"].as_str(), &head.shapes["w"]), ("pt", &vec![2, 3, 1, 1]));
        let layout = Layout {
            names: [("conv1.weight", "w"), ("conv1.bias", "b"), ("fc2.bias", "i")]
                .map(|(to, from)| (to.to_owned(), from.to_owned()))
                .into(),
            factors: [("conv1.weight".to_owned(), vec![1.0, 10.0, 100.0])].into(),
            mean: [1.0, 2.0, 3.0],
        };
        let foreign = Foreign::read(&path, layout).unwrap();
        assert_eq!(foreign.tensor("conv1.weight", &[2, 3, 1, 1]).unwrap(), [0.0, 10.0, 200.0, 3.0, 40.0, 500.0]);
        assert_eq!(foreign.tensor("conv1.bias", &[2]).unwrap(), [1.5, -2.0]);
        assert_eq!(foreign.tensor("input.mean", &[1, 2, 3]).unwrap(), [1.0, 2.0, 3.0, 1.0, 2.0, 3.0]);
        for (name, shape) in [("conv1.bias", [3]), ("fc2.bias", [1]), ("fc9.bias", [1])] {
            assert_eq!(foreign.tensor(name, &shape).unwrap_err().code().as_str(), "ERR_CHECKPOINT");
        }
    }
}
