//! `NativeTrainer`: a network in training, on a thread of its own.

use crate::{
    dataset::NativeDataset,
    error::{guard, parse, to_js},
    session::{Config, Evaluation, Session},
    task::{Task, lock},
};
use alexnode_core::{Error, ErrorCode, Result};
use alexnode_nn::{timing::TimingOptions, trainer::Segment};
use napi::{
    Env,
    bindgen_prelude::{Float32Array, Object},
};
use napi_derive::napi;
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, atomic::AtomicBool},
};

/// A tensor of a network, as other tools lay it out: weights of convolutions as output, input, row, column.
#[napi(object, object_from_js = false)]
pub struct NativeTensor {
    /// Extents, outermost first.
    pub shape: Vec<u32>,
    /// Elements, row by row.
    pub data: Float32Array,
}

/// A network in training. All calls are answered in the order in which they were made, by one native thread.
#[napi]
pub struct NativeTrainer {
    task: Arc<Task>,
    session: Slot,
    link: Option<String>,
}

/// The session; `None` once it has been disposed of, or after a panic, whose message is kept.
type Slot = Arc<Mutex<State>>;

enum State {
    Ready(Box<Session>),
    Broken(String),
    Disposed,
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
        let task = Task::start(*env, "alexnode-trainer").map_err(js)?;
        let itself = task.clone();
        let work = move |_: &AtomicBool| {
            let session = Box::new(Session::new(config, dataset)?);
            let link = session.link().map(str::to_owned);
            Ok(Self { task: itself, session: Arc::new(Mutex::new(State::Ready(session))), link })
        };
        task.submit(env, work, |_, trainer| Ok(trainer))
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
        self.submit(env, move |session, cancel| session.run(&segment, cancel))
    }

    /// Tests on a split: `{ split, crops, limit? }`. Resolves to a report as `run` does; rejects with ERR_ABORTED after `cancel()`.
    #[napi(ts_return_type = "Promise<string>")]
    pub fn evaluate<'env>(&self, env: &'env Env, options: String) -> napi::Result<Object<'env>> {
        let options: Evaluation = parse("evaluate", &options).map_err(|e| to_js(*env, &e))?;
        self.submit(env, move |session, cancel| session.evaluate(&options, cancel))
    }

    /// How long a training step takes, as a whole and operation by operation: `{ rounds?, sampleSeconds? }`. Resolves to `Timings` of lib/timings.ts; nothing
    /// has been learnt then. Rejects with ERR_ABORTED after `cancel()`.
    #[napi(ts_return_type = "Promise<string>")]
    pub fn timings<'env>(&self, env: &'env Env, options: String) -> napi::Result<Object<'env>> {
        let options: TimingOptions = parse("timings", &options).map_err(|e| to_js(*env, &e))?;
        self.submit(env, move |session, cancel| session.timings(&options, cancel))
    }

    /// Writes weights, momentum and `metadata` to `path`, completely or not at all. Resolves to `{ path, bytes, sha256, seconds }`.
    #[napi(ts_return_type = "Promise<string>")]
    pub fn save<'env>(&self, env: &'env Env, path: String, metadata: String) -> napi::Result<Object<'env>> {
        self.submit(env, move |session, _| session.save(&PathBuf::from(path), &metadata))
    }

    /// Reads weights and momentum from `path`. Resolves to the metadata.
    #[napi(ts_return_type = "Promise<string>")]
    pub fn load<'env>(&self, env: &'env Env, path: String) -> napi::Result<Object<'env>> {
        self.submit(env, move |session, _| session.load(&PathBuf::from(path)))
    }

    /// A tensor: `conv1.weight`, `conv1.bias`, `momentum.conv1.weight`, ...
    #[napi(ts_return_type = "Promise<NativeTensor>")]
    pub fn tensor<'env>(&self, env: &'env Env, name: String) -> napi::Result<Object<'env>> {
        let work = guarded(self.session.clone(), move |session, _| session.tensor(&name));
        self.task.submit(env, work, |_, (shape, data)| {
            let shape = shape.into_iter().map(|extent| extent as u32).collect();
            Ok(NativeTensor { shape, data: Float32Array::new(data) })
        })
    }

    /// Asks the calls that have not been answered yet to end early.
    #[napi]
    pub fn cancel(&self) {
        self.task.cancel();
    }

    /// Cancels what is under way, frees memory and threads, and resolves when they are gone. May be called again.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn dispose<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        let session = self.session.clone();
        self.task.finish(env, move || dispose(&session))
    }

    /// Panics on the trainer's thread: by this the tests see that Node and the other trainers survive a defect.
    #[napi(js_name = "__panic", skip_typescript)]
    pub fn panic_for_tests<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        self.submit(env, |_, _| panic!("a panic on purpose"))
    }

    fn submit<'env>(
        &self,
        env: &'env Env,
        work: impl FnOnce(&mut Session, &AtomicBool) -> Result<String> + Send + 'static,
    ) -> napi::Result<Object<'env>> {
        self.task.submit(env, guarded(self.session.clone(), work), |_, answer| Ok(answer))
    }
}

impl Drop for NativeTrainer {
    fn drop(&mut self) {
        let session = self.session.clone();
        self.task.stop(move || dispose(&session));
    }
}

fn dispose(session: &Slot) {
    *lock(session) = State::Disposed;
}

/// `work` on the session. A panic in it ends the session: nobody knows what state it is in.
fn guarded<T>(
    session: Slot,
    work: impl FnOnce(&mut Session, &AtomicBool) -> Result<T> + Send,
) -> impl FnOnce(&AtomicBool) -> Result<T> + Send {
    move |cancel| {
        let mut state = lock(&session);
        let ready = match &mut *state {
            State::Ready(ready) => ready,
            State::Broken(message) => {
                return Err(Error::kernel(format!("the trainer stopped after an earlier failure: {message}"))
                    .hint("create a new trainer and load the last checkpoint"));
            }
            State::Disposed => return Err(Error::usage("the trainer has been disposed").hint("create a new one")),
        };
        let mut whole = false;
        let outcome = guard(|| {
            let outcome = work(ready, cancel);
            whole = true;
            outcome
        });
        if !whole && let Err(error) = &outcome {
            debug_assert_eq!(error.code(), ErrorCode::Kernel);
            let old = std::mem::replace(&mut *state, State::Broken(error.message().to_owned()));
            // What is left of the session may panic once more.
            let _ = guard(|| {
                drop(old);
                Ok(())
            });
        }
        outcome
    }
}
