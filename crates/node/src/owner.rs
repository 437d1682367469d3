//! A thing that lives on a native thread of its own, which answers the calls of a JavaScript object one after the other.

use crate::{
    error::{guard, to_js},
    task::{Task, lock},
};
use alexnode_core::{Error, ErrorCode, Result};
use napi::{
    Env,
    bindgen_prelude::{Object, ToNapiValue},
};
use std::sync::{Arc, Mutex, atomic::AtomicBool};

/// The owner of a `T`. Letting it go cancels what is under way and frees the `T` on its thread.
pub struct Owner<T: Send + 'static> {
    what: &'static str,
    task: Arc<Task>,
    slot: Slot<T>,
}

/// The thing; `None` of it once it has been disposed of, or after a panic, whose message is kept.
type Slot<T> = Arc<Mutex<State<T>>>;

enum State<T> {
    Ready(Box<T>),
    Broken(String),
    Disposed,
}

impl<T: Send + 'static> Owner<T> {
    /// Starts a thread, lets `make` make the thing on it, and resolves to the JavaScript object that `wrap` makes of its owner. `what` it is, for messages
    /// and for the name of the thread: "trainer".
    ///
    /// # Errors
    /// Where no thread can be started or no promise made.
    pub fn create<'env, J: ToNapiValue + Send + 'static>(
        env: &'env Env,
        what: &'static str,
        make: impl FnOnce(&AtomicBool) -> Result<T> + Send + 'static,
        wrap: impl FnOnce(Self, &mut T) -> J + Send + 'static,
    ) -> napi::Result<Object<'env>> {
        let task = Task::start(*env, what).map_err(|e| to_js(*env, &e))?;
        let itself = task.clone();
        let work = move |cancel: &AtomicBool| {
            let made = Box::new(make(cancel)?);
            let slot: Slot<T> = Arc::new(Mutex::new(State::Ready(made)));
            let owner = Self { what, task: itself, slot: slot.clone() };
            match &mut *lock(&slot) {
                State::Ready(made) => Ok(wrap(owner, made)),
                _ => unreachable!("just made"),
            }
        };
        task.submit(env, work, |_, object| Ok(object))
    }

    /// Queues `work` on the thing, and returns a promise of what it returns, made into a JavaScript value by `convert` on the JavaScript thread.
    ///
    /// # Errors
    /// Where no promise can be made.
    pub fn submit<'env, R: Send + 'static, J: ToNapiValue + 'static>(
        &self,
        env: &'env Env,
        work: impl FnOnce(&mut T, &AtomicBool) -> Result<R> + Send + 'static,
        convert: impl FnOnce(Env, R) -> napi::Result<J> + Send + 'static,
    ) -> napi::Result<Object<'env>> {
        let (what, slot) = (self.what, self.slot.clone());
        self.task.submit(env, move |cancel| on(what, &slot, |thing| work(thing, cancel)), convert)
    }

    /// As [`submit`](Self::submit), for answers that are strings.
    ///
    /// # Errors
    /// Where no promise can be made.
    pub fn ask<'env>(
        &self,
        env: &'env Env,
        work: impl FnOnce(&mut T, &AtomicBool) -> Result<String> + Send + 'static,
    ) -> napi::Result<Object<'env>> {
        self.submit(env, work, |_, answer| Ok(answer))
    }

    /// Asks the calls that have not been answered yet to end early.
    pub fn cancel(&self) {
        self.task.cancel();
    }

    /// Cancels what is under way, frees the thing and its thread, and resolves when they are gone. May be called again.
    ///
    /// # Errors
    /// Where no promise can be made.
    pub fn dispose<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        let slot = self.slot.clone();
        self.task.finish(env, move || dispose(&slot))
    }
}

impl<T: Send + 'static> Drop for Owner<T> {
    fn drop(&mut self) {
        let slot = self.slot.clone();
        self.task.stop(move || dispose(&slot));
    }
}

fn dispose<T>(slot: &Slot<T>) {
    *lock(slot) = State::Disposed;
}

/// `work` on the thing. A panic in it ends the thing: nobody knows what state it is in.
fn on<T, R>(what: &str, slot: &Slot<T>, work: impl FnOnce(&mut T) -> Result<R>) -> Result<R> {
    let mut state = lock(slot);
    let ready = match &mut *state {
        State::Ready(ready) => ready,
        State::Broken(message) => {
            return Err(Error::kernel(format!("the {what} stopped after an earlier failure: {message}"))
                .hint(format!("Create a new {what}.")));
        }
        State::Disposed => {
            return Err(Error::usage(format!("the {what} has been disposed")).hint(format!("Create a new {what}.")));
        }
    };
    let mut whole = false;
    let outcome = guard(|| {
        let outcome = work(ready);
        whole = true;
        outcome
    });
    if !whole && let Err(error) = &outcome {
        debug_assert_eq!(error.code(), ErrorCode::Kernel);
        let old = std::mem::replace(&mut *state, State::Broken(error.message().to_owned()));
        // What is left of it may panic once more.
        let _ = guard(|| {
            drop(old);
            Ok(())
        });
    }
    outcome
}
