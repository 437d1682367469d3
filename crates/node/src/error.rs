//! How an error of the other crates becomes a JavaScript `Error` with `code` and `hint`.

use alexnode_core::{Error, Result};
use napi::{Env, JsValue, bindgen_prelude::JsObjectValue};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Runs `work`; a panic in it is an `ERR_KERNEL` that quotes it.
///
/// # Errors
/// Those of `work`.
pub fn guard<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| Err(panicked(payload.as_ref())))
}

fn panicked(payload: &(dyn Any + Send)) -> Error {
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    Error::kernel(format!("internal error: {}", text.unwrap_or("a panic without a message")))
        .hint("This is a defect of alexnode; please report it together with the lines on stderr above it.")
}

/// Runs `work` on the JavaScript thread, for functions that answer at once.
///
/// # Errors
/// Those of `work`, as JavaScript errors.
pub fn answer<T>(env: Env, work: impl FnOnce() -> Result<T>) -> napi::Result<T> {
    guard(work).map_err(|error| to_js(env, &error))
}

/// `error` as a JavaScript error object: `message`, `code`, `hint` if there is one, and its causes' messages in `cause`.
pub fn to_js(env: Env, error: &Error) -> napi::Error {
    let build = || -> napi::Result<napi::Error> {
        let mut object = env.create_error(napi::Error::from_reason(error.message()))?;
        object.set_named_property("code", error.code().as_str())?;
        if let Some(hint) = error.remedy() {
            object.set_named_property("hint", hint)?;
        }
        let causes: Vec<String> =
            std::iter::successors(std::error::Error::source(error), |e| e.source()).map(ToString::to_string).collect();
        if !causes.is_empty() {
            object.set_named_property("cause", env.create_error(napi::Error::from_reason(causes.join(": ")))?)?;
        }
        Ok(napi::Error::from(object.to_unknown()))
    };
    // If the object cannot be made the environment is ending; the message is still the best answer.
    build().unwrap_or_else(|_| napi::Error::from_reason(error.message()))
}

/// Reads the JSON of an argument. Unknown fields and wrong types are errors that name `what` and the place.
///
/// # Errors
/// `ERR_USAGE`.
pub fn parse<T: DeserializeOwned>(what: &str, json: &str) -> Result<T> {
    serde_json::from_str(json).map_err(|e| Error::usage(format!("{what}: {e}")))
}

/// Writes a result as JSON.
///
/// # Errors
/// `ERR_KERNEL` where it has no JSON form, which would be a defect.
pub fn json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Error::kernel(format!("a result cannot be written as JSON: {e}")))
}
