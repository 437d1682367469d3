//! A trained network as an ONNX model (IR version 8, opset 17), for programs that know nothing of this one.
//!
//! The network is written as it is in evaluation: dropout has become a factor, the two towers are groups of convolutions and normalisations. Layers that
//! ONNX has not (unshared convolutions, normalisation within maps) are composed of standard operations. `images` goes in, `probabilities` (after the
//! softmax) and `logits` come out. Weights are those of the checkpoint, value for value.

mod graph;
mod layers;
mod schema;

use alexnode_core::{Error, Result};
use alexnode_nn::{checkpoint, network::Network, tensors::Source};
use graph::{Chain, Value, batch_of};
use layers::Writer;
use prost::Message;
use schema::{DataType, Model, OperatorSet, StringEntry};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Of the operators; all of them are those of 2021 or older, which every runtime has.
pub const OPSET: i64 = 17;
const IR_VERSION: i64 = 8;
/// Protocol buffers end here.
const MOST_BYTES: usize = i32::MAX as usize;

/// What is written besides the network.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Whether the model takes stored images (u8, n x size x size x RGB) and crops them itself, instead of central crops (f32, n x RGB x crop x crop).
    /// Both hold values from 0 to 255; mean and scale are in the model.
    pub embed_preprocessing: bool,
    /// Named strings that are stored with the model.
    pub metadata: BTreeMap<String, String>,
    /// The version of the program that writes.
    pub version: String,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Written {
    /// Where.
    pub path: PathBuf,
    /// Length of the file in bytes.
    pub bytes: usize,
    /// Version of the operators.
    pub opset: i64,
    /// The name of the input.
    pub input: String,
    /// Its extents; "n" images.
    pub shape: Vec<String>,
    /// `float32` or `uint8`.
    pub dtype: String,
}

/// Writes `network` with the weights of `source` to `path`.
///
/// # Errors
/// `ERR_CHECKPOINT` where `source` belongs to another network or the file cannot be written, `ERR_USAGE` where the model would be larger than 2 GiB.
pub fn write(path: &Path, network: &Network, source: &dyn Source, options: &Options) -> Result<Written> {
    let bytes = network.parameter_count() * 4;
    if bytes > MOST_BYTES {
        return Err(Error::usage(format!("{}: {bytes} bytes of weights do not fit into an ONNX file", network.name()))
            .hint("Export it with --safetensors."));
    }
    let (chain, input) = preprocessing(network, source, options.embed_preprocessing)?;
    let mut writer = Writer::new(chain, network, source);
    for index in 0..network.len() {
        let last = index + 1 == network.len();
        let name = if last { "logits".into() } else { format!("{}.out", network.layer(index).name()) };
        writer.layer(index, &name)?;
    }
    let mut chain = writer.chain;
    chain.add("Softmax", "probabilities", &[], &[("axis", Value::Int(1))]);
    let classes = [network.classes()];
    let outputs = vec![
        batch_of("probabilities", DataType::Float, &classes, "of the classes, in the order of the metadata's list"),
        batch_of("logits", DataType::Float, &classes, "before the softmax"),
    ];
    let metadata_props =
        options.metadata.iter().map(|(key, value)| StringEntry { key: key.clone(), value: value.clone() }).collect();
    let Input { data_type, dtype, extents, doc } = input;
    let model = Model {
        ir_version: IR_VERSION,
        producer_name: "alexnode".into(),
        producer_version: options.version.clone(),
        doc_string: doc.into(),
        graph: Some(chain.finish(network.name(), batch_of(IMAGES, data_type, &extents, doc), outputs)),
        opset_import: vec![OperatorSet { domain: String::new(), version: OPSET }],
        metadata_props,
    };
    let encoded = model.encode_to_vec();
    checkpoint::replace(path, &encoded)?;
    Ok(Written {
        path: path.to_owned(),
        bytes: encoded.len(),
        opset: OPSET,
        input: IMAGES.into(),
        shape: std::iter::once("n".into()).chain(extents.iter().map(usize::to_string)).collect(),
        dtype: dtype.into(),
    })
}

const IMAGES: &str = "images";

struct Input {
    data_type: DataType,
    dtype: &'static str,
    extents: [usize; 3],
    doc: &'static str,
}

/// From the model's input to the first layer's: (central crop of pixels - mean) * scale.
fn preprocessing(network: &Network, source: &dyn Source, embed: bool) -> Result<(Chain, Input)> {
    let image = network.image().ok_or_else(|| Error::usage("a network without images cannot be exported"))?;
    let (size, crop) = (image.image_size, image.crop_size);
    let mut chain = Chain::new(IMAGES);
    let input = if embed {
        if size != crop {
            let from = ((size - crop) / 2) as i64;
            let to = from + crop as i64;
            chain.ints("input.crop.from", &[from, from]);
            chain.ints("input.crop.to", &[to, to]);
            chain.ints("input.crop.axes", &[1, 2]);
            chain.add("Slice", "input.crop", &["input.crop.from", "input.crop.to", "input.crop.axes"], &[]);
        }
        chain.add("Cast", "input.numbers", &[], &[("to", Value::Int(DataType::Float as i64))]);
        chain.add("Transpose", "input.planes", &[], &[("perm", Value::Ints(&[0, 3, 1, 2]))]);
        let doc = "stored images: the shorter side resized, the central square, RGB, 0 to 255";
        Input { data_type: DataType::Uint8, dtype: "uint8", extents: [size, size, 3], doc }
    } else {
        let doc = "central crops of stored images, RGB, 0 to 255; the mean is subtracted by the model";
        Input { data_type: DataType::Float, dtype: "float32", extents: [3, crop, crop], doc }
    };
    let mean = source.tensor("input.mean", &[crop, crop, 3])?;
    let planes: Vec<f32> = (0..3).flat_map(|c| mean.iter().skip(c).step_by(3).copied()).collect();
    chain.floats("input.mean", &[1, 3, crop, crop], &planes);
    chain.add("Sub", "input.centred", &["input.mean"], &[]);
    chain.number("input.scale", image.scale);
    chain.add("Mul", "input.scaled", &["input.scale"], &[]);
    Ok((chain, input))
}
