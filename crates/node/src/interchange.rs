//! Weights from files of any layout, and files for other programs.

use crate::{
    error::{answer, json, parse, to_js},
    task,
};
use alexnode_core::Result;
use alexnode_interchange::{
    onnx,
    tensorboard::{self, Event},
};
use alexnode_nn::{
    checkpoint,
    network::{Network, NetworkSpec},
    tensors::{self, Foreign, Layout, Source},
};
use napi::{
    Env,
    bindgen_prelude::{Object, Uint8Array},
};
use napi_derive::napi;
use serde::Deserialize;
use std::{collections::BTreeMap, path::PathBuf};

/// A file with weights.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Weights {
    path: PathBuf,
    /// How it lays them out, where it is none of ours.
    #[serde(default)]
    layout: Option<Layout>,
}

impl Weights {
    /// Reads the file.
    ///
    /// # Errors
    /// `ERR_CHECKPOINT` where it is missing or damaged.
    pub fn open(self) -> Result<Box<dyn Source>> {
        Ok(match self.layout {
            Some(layout) => Box::new(Foreign::read(&self.path, layout)?),
            None => Box::new(checkpoint::read(&self.path)?),
        })
    }
}

/// The header of a safetensors file of any program, its data unseen: `{ strings, shapes }`. ERR_CHECKPOINT if it is missing or is none.
#[napi]
pub fn read_head(env: Env, path: String) -> napi::Result<String> {
    answer(env, || json(&tensors::read_head(&PathBuf::from(path))?))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct OnnxRequest {
    weights: Weights,
    network: NetworkSpec,
    file: PathBuf,
    embed_preprocessing: bool,
    metadata: BTreeMap<String, String>,
    version: String,
}

/// Writes an ONNX model: `{ weights: { path, layout? }, network, file, embedPreprocessing, metadata, version }`. Resolves to `{ path, bytes, opset, input,
/// shape, dtype }`.
#[napi(ts_return_type = "Promise<string>")]
pub fn export_onnx(env: &Env, request: String) -> napi::Result<Object<'_>> {
    let request: OnnxRequest = parse("exportOnnx", &request).map_err(|e| to_js(*env, &e))?;
    let OnnxRequest { weights, network, file, embed_preprocessing, metadata, version } = request;
    let work = move |_: &_| {
        let network = Network::new(network)?;
        let options = onnx::Options { embed_preprocessing, metadata, version };
        json(&onnx::write(&file, &network, &*weights.open()?, &options)?)
    };
    task::once(env, "export", work, |_, written| Ok(written))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SafetensorsRequest {
    weights: Weights,
    network: NetworkSpec,
    file: PathBuf,
    metadata: String,
}

/// Writes weights without momentum: `{ weights: { path, layout? }, network, file, metadata }`. Resolves to `{ path, bytes, sha256, seconds }`.
#[napi(ts_return_type = "Promise<string>")]
pub fn export_safetensors(env: &Env, request: String) -> napi::Result<Object<'_>> {
    let request: SafetensorsRequest = parse("exportSafetensors", &request).map_err(|e| to_js(*env, &e))?;
    let SafetensorsRequest { weights, network, file, metadata } = request;
    let work = move |_: &_| {
        let network = Network::new(network)?;
        json(&checkpoint::write_weights(&file, &network, &*weights.open()?, &metadata)?)
    };
    task::once(env, "export", work, |_, written| Ok(written))
}

/// A record of a TensorBoard event file: `{ wallTime, step?, version?, restart?, scalars? }`.
#[napi]
pub fn tensorboard_record(env: Env, event: String) -> napi::Result<Uint8Array> {
    answer(env, || Ok(Uint8Array::new(tensorboard::record(&parse::<Event>("event", &event)?))))
}
