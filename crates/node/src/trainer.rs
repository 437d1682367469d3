//! `NativeTrainer`: a network in training, on a thread of its own.

use crate::{
    dataset::NativeDataset,
    error::{parse, to_js},
    owner::Owner,
    session::{Adoption, Config, Evaluation, Sample, Session},
};
use alexnode_core::Error;
use alexnode_nn::{
    outcomes::Outcomes,
    timing::{TimingOptions, profile::ProfileOptions},
    trainer::Segment,
};
use napi::{
    Env,
    bindgen_prelude::{Float32Array, Int32Array, Object, Uint32Array},
};
use napi_derive::napi;
use std::path::PathBuf;

/// A tensor of a network, as other tools lay it out: weights of convolutions as output, input, row, column.
#[napi(object, object_from_js = false)]
pub struct NativeTensor {
    /// Extents, outermost first.
    pub shape: Vec<u32>,
    /// Elements, row by row.
    pub data: Float32Array,
}

/// An evaluation, image by image.
#[napi(object, object_from_js = false)]
pub struct NativeJudgement {
    /// What `evaluate` resolves to.
    pub report: String,
    /// Most probable classes of an image: 5, or all where there are fewer.
    pub top: u32,
    /// The id of each image in its split.
    pub ids: Uint32Array,
    /// Its class.
    pub labels: Int32Array,
    /// The probability of its class.
    pub own: Float32Array,
    /// Its `top` most probable classes, the most probable first.
    pub classes: Int32Array,
    /// Their probabilities.
    pub probabilities: Float32Array,
}

/// A network in training. All calls are answered in the order in which they were made, by one native thread.
#[napi]
pub struct NativeTrainer {
    session: Owner<Session>,
    link: Option<String>,
}

#[napi]
impl NativeTrainer {
    /// Opens devices, plans and initialises a network. `config`: `{ network, devices, threads?, batch, seed, momentum?, precision?,
    /// notices? }`.
    #[napi(ts_return_type = "Promise<NativeTrainer>")]
    pub fn create<'env>(env: &'env Env, config: String, dataset: &NativeDataset) -> napi::Result<Object<'env>> {
        let js = |e: Error| to_js(*env, &e);
        let config: Config = parse("trainer", &config).map_err(js)?;
        let dataset = dataset.get().map_err(js)?;
        let wrap = |session, made: &mut Session| Self { session, link: made.link().map(str::to_owned) };
        Owner::create(env, "trainer", move |_| Session::new(config, dataset), wrap)
    }

    /// How data gets from one device to another, and how fast, in words; null where there is nothing to tell.
    #[napi(getter)]
    pub fn link(&self) -> Option<String> {
        self.link.clone()
    }

    /// Trains on a segment of an epoch: `{ epoch, batch, step, steps, rates, colourNoise, augment }`. Resolves to `{ steps, samples, loss, top1Error, top5Error,
    /// seconds, waitSeconds }`, with fewer steps than asked where the epoch ended or `cancel()` was called.
    #[napi(ts_return_type = "Promise<string>")]
    pub fn run<'env>(&self, env: &'env Env, segment: String) -> napi::Result<Object<'env>> {
        let segment: Segment = parse("run", &segment).map_err(|e| to_js(*env, &e))?;
        self.session.ask(env, move |session, cancel| session.run(&segment, cancel))
    }

    /// Tests on a split: `{ split, crops, limit? }`. Resolves to a report as `run` does; rejects with ERR_ABORTED after `cancel()`.
    #[napi(ts_return_type = "Promise<string>")]
    pub fn evaluate<'env>(&self, env: &'env Env, options: String) -> napi::Result<Object<'env>> {
        let options: Evaluation = parse("evaluate", &options).map_err(|e| to_js(*env, &e))?;
        self.session.ask(env, move |session, cancel| session.evaluate(&options, cancel))
    }

    /// Tests on a split as `evaluate` does, and tells what the network makes of each image.
    #[napi(ts_return_type = "Promise<NativeJudgement>")]
    pub fn judge<'env>(&self, env: &'env Env, options: String) -> napi::Result<Object<'env>> {
        let options: Evaluation = parse("judge", &options).map_err(|e| to_js(*env, &e))?;
        self.session.submit(
            env,
            move |session, cancel| session.judge(&options, cancel),
            |_, (report, outcomes)| {
                let Outcomes { top, ids, labels, own, classes, probabilities } = outcomes;
                Ok(NativeJudgement {
                    report,
                    top: top as u32,
                    ids: Uint32Array::new(ids),
                    labels: Int32Array::new(labels),
                    own: Float32Array::new(own),
                    classes: Int32Array::new(classes),
                    probabilities: Float32Array::new(probabilities),
                })
            },
        )
    }

    /// How the network is doing inside, its units looked at with some images of a split: `{ split, limit }`. Resolves to `Statistics` of lib/engine.ts.
    #[napi(ts_return_type = "Promise<string>")]
    pub fn statistics<'env>(&self, env: &'env Env, sample: String) -> napi::Result<Object<'env>> {
        let sample: Sample = parse("statistics", &sample).map_err(|e| to_js(*env, &e))?;
        self.session.ask(env, move |session, cancel| session.statistics(&sample, cancel))
    }

    /// How long a training step takes, as a whole and operation by operation: `{ rounds?, sampleSeconds? }`. Resolves to `Timings` of lib/timings.ts; nothing
    /// has been learnt then. Rejects with ERR_ABORTED after `cancel()`.
    #[napi(ts_return_type = "Promise<string>")]
    pub fn timings<'env>(&self, env: &'env Env, options: String) -> napi::Result<Object<'env>> {
        let options: TimingOptions = parse("timings", &options).map_err(|e| to_js(*env, &e))?;
        self.session.ask(env, move |session, cancel| session.timings(&options, cancel))
    }

    /// Where the time of whole steps goes: `{ mode: 'train' | 'evaluate', steps }`. Resolves to `Profile` of lib/timings.ts; weights and momentum have changed
    /// a little then. Rejects with ERR_ABORTED after `cancel()`.
    #[napi(ts_return_type = "Promise<string>")]
    pub fn profile<'env>(&self, env: &'env Env, options: String) -> napi::Result<Object<'env>> {
        let options: ProfileOptions = parse("profile", &options).map_err(|e| to_js(*env, &e))?;
        self.session.ask(env, move |session, cancel| session.profile(&options, cancel))
    }

    /// Writes weights, momentum and `metadata` to `path`, completely or not at all. Resolves to `{ path, bytes, sha256, seconds }`.
    #[napi(ts_return_type = "Promise<string>")]
    pub fn save<'env>(&self, env: &'env Env, path: String, metadata: String) -> napi::Result<Object<'env>> {
        self.session.ask(env, move |session, _| session.save(&PathBuf::from(path), &metadata))
    }

    /// Reads weights and momentum from `path`. Resolves to the metadata.
    #[napi(ts_return_type = "Promise<string>")]
    pub fn load<'env>(&self, env: &'env Env, path: String) -> napi::Result<Object<'env>> {
        self.session.ask(env, move |session, _| session.load(&PathBuf::from(path)))
    }

    /// Takes over parameters, and with `mean` the mean image, of another network: `{ weights: { path, layout? }, parameters, mean }`.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn adopt<'env>(&self, env: &'env Env, adoption: String) -> napi::Result<Object<'env>> {
        let adoption: Adoption = parse("adopt", &adoption).map_err(|e| to_js(*env, &e))?;
        self.session.submit(env, move |session, _| session.adopt(adoption), |_, ()| Ok(()))
    }

    /// A tensor: `conv1.weight`, `conv1.bias`, `momentum.conv1.weight`, ...
    #[napi(ts_return_type = "Promise<NativeTensor>")]
    pub fn tensor<'env>(&self, env: &'env Env, name: String) -> napi::Result<Object<'env>> {
        self.session.submit(
            env,
            move |session, _| session.tensor(&name),
            |_, (shape, data)| {
                let shape = shape.into_iter().map(|extent| extent as u32).collect();
                Ok(NativeTensor { shape, data: Float32Array::new(data) })
            },
        )
    }

    /// Asks the calls that have not been answered yet to end early.
    #[napi]
    pub fn cancel(&self) {
        self.session.cancel();
    }

    /// Cancels what is under way, frees memory and threads, and resolves when they are gone. May be called again.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn dispose<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        self.session.dispose(env)
    }

    /// Panics on the trainer's thread: by this the tests see that Node and the other trainers survive a defect.
    #[napi(js_name = "__panic", skip_typescript)]
    pub fn panic_for_tests<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        self.session.ask(env, |_, _| panic!("a panic on purpose"))
    }
}
