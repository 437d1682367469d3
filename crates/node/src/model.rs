//! `NativeModel`: a trained network that answers, on a thread of its own.

use crate::{
    dataset::NativeDataset,
    devices,
    error::{json, parse, to_js},
    images::{Images, NativeImages},
    interchange::Weights,
    owner::Owner,
};
use alexnode_core::{Error, Result};
use alexnode_data::{LoaderOptions, Split};
use alexnode_nn::{
    model::{Model, ModelConfig},
    network::NetworkSpec,
};
use napi::{
    Env,
    bindgen_prelude::{Float32Array, Object},
};
use napi_derive::napi;
use serde::Deserialize;

/// What a model is made from.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Config {
    weights: Weights,
    network: NetworkSpec,
    devices: Vec<String>,
    #[serde(default)]
    threads: Option<usize>,
    batch: usize,
    #[serde(default = "crate::functions::fp32")]
    precision: String,
    #[serde(default)]
    notices: bool,
}

impl Config {
    fn open(self) -> Result<Model> {
        let Self { weights, network, devices, threads, batch, precision, notices } = self;
        let file = weights.open()?;
        let request = devices::Request { names: &devices, threads, precision: precision.parse()?, notices };
        Model::new(ModelConfig { network, batch }, &*file, request.open()?)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Evaluation {
    split: Split,
    crops: u32,
    seed: u64,
    #[serde(default)]
    limit: Option<usize>,
}

/// A trained network that answers. All calls are answered in the order in which they were made, by one native thread.
#[napi]
pub struct NativeModel {
    model: Owner<Model>,
}

#[napi]
impl NativeModel {
    /// Opens devices, plans a network and reads its weights. `config`: `{ weights: { path, layout? }, network, devices, threads?, batch, precision?, notices? }`.
    #[napi(ts_return_type = "Promise<NativeModel>")]
    pub fn create(env: &Env, config: String) -> napi::Result<Object<'_>> {
        let config: Config = parse("model", &config).map_err(|e| to_js(*env, &e))?;
        Owner::create(env, "model", move |_| config.open(), |model, _| Self { model })
    }

    /// Probabilities of all classes, a row per image. `crops`: 1 or 10. Rejects with ERR_ABORTED after `cancel()`.
    #[napi(ts_return_type = "Promise<Float32Array>")]
    pub fn probabilities<'env>(&self, env: &'env Env, images: &NativeImages, crops: u32) -> napi::Result<Object<'env>> {
        let images = images.get();
        let work = move |model: &mut Model, cancel: &_| {
            check(model, &images)?;
            model.probabilities(&images.pixels, crops, cancel)
        };
        self.model.submit(env, work, |_, rows| Ok(Float32Array::new(rows)))
    }

    /// What a layer puts out for the central crop of each image, a row per image: maps one after the other, each row by row. Rejects with ERR_ABORTED after
    /// `cancel()`.
    #[napi(ts_return_type = "Promise<Float32Array>")]
    pub fn outputs<'env>(&self, env: &'env Env, images: &NativeImages, layer: String) -> napi::Result<Object<'env>> {
        let images = images.get();
        let work = move |model: &mut Model, cancel: &_| {
            check(model, &images)?;
            let layer = model.layer(&layer)?;
            model.outputs(layer, &images.pixels, cancel)
        };
        self.model.submit(env, work, |_, rows| Ok(Float32Array::new(rows)))
    }

    /// Tests on a split: `{ split, crops, seed, limit? }`. Resolves to a report as that of a trainer; rejects with ERR_ABORTED after `cancel()`.
    #[napi(ts_return_type = "Promise<string>")]
    pub fn evaluate<'env>(
        &self,
        env: &'env Env,
        dataset: &NativeDataset,
        options: String,
    ) -> napi::Result<Object<'env>> {
        let js = |e: Error| to_js(*env, &e);
        let Evaluation { split, crops, seed, limit } = parse("evaluate", &options).map_err(js)?;
        let dataset = dataset.get().map_err(js)?;
        self.model.ask(env, move |model, cancel| {
            let mut loader = dataset.loader(&LoaderOptions::test(split, model.batch(), seed, limit))?;
            json(&model.evaluate(&mut loader, crops, cancel)?)
        })
    }

    /// Asks the calls that have not been answered yet to end early.
    #[napi]
    pub fn cancel(&self) {
        self.model.cancel();
    }

    /// Cancels what is under way, frees memory and threads, and resolves when they are gone. May be called again.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn dispose<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        self.model.dispose(env)
    }
}

fn check(model: &Model, images: &Images) -> Result<()> {
    let size = model.network().image().map_or(0, |image| image.image_size);
    if images.size == size {
        return Ok(());
    }
    Err(Error::shape(format!("{}: expected images of {size} pixels, got {}", model.network().name(), images.size)))
}
