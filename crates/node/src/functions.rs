//! What needs no object.

use crate::{
    devices,
    error::{answer, json, parse, to_js},
    task,
};
use alexnode_core::Result;
use alexnode_nn::{
    ceilings, checkpoint,
    describe::{Description, describe},
    network::NetworkSpec,
    resident::MemoryUse,
    timing::TimingOptions,
};
use napi::{Env, bindgen_prelude::Object};
use napi_derive::napi;
use serde::{Deserialize, Serialize};
use std::{path::Path, sync::atomic::AtomicBool};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Request {
    network: NetworkSpec,
    batch: usize,
    devices: Vec<String>,
    #[serde(default)]
    threads: Option<usize>,
    #[serde(default = "fp32")]
    precision: String,
    #[serde(default)]
    class_weights: bool,
}

/// The precision where none is asked for.
pub fn fp32() -> String {
    "fp32".into()
}

/// `Description`, with the names of the devices.
#[derive(Serialize)]
struct Described<'a> {
    #[serde(flatten)]
    network: &'a Description,
    memory: Vec<DeviceMemory<'a>>,
}

#[derive(Serialize)]
struct DeviceMemory<'a> {
    device: &'a str,
    #[serde(flatten)]
    memory: &'a MemoryUse,
}

/// Checks a network and plans it without allocating anything. In: `{ network, batch, devices, threads?, precision?, classWeights? }`. Out: the layer table, the
/// memory of each device and the counters of a training step. ERR_USAGE or ERR_SHAPE names the layer that does not fit.
#[napi]
pub fn describe_network(env: Env, request: String) -> napi::Result<String> {
    answer(env, || {
        let Request { network, batch, devices, threads, precision, class_weights } =
            parse("describeNetwork", &request)?;
        let engines =
            devices::Request { names: &devices, threads, precision: precision.parse()?, notices: false }.engines()?;
        let description = describe(network, batch, class_weights, &engines)?;
        let memory = devices.iter().zip(&description.memory);
        let memory = memory.map(|(device, memory)| DeviceMemory { device, memory }).collect();
        json(&Described { network: &description, memory })
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CeilingsRequest {
    device: String,
    #[serde(default)]
    threads: Option<usize>,
    #[serde(default = "fp32")]
    precision: String,
    #[serde(default)]
    notices: bool,
    #[serde(default)]
    options: TimingOptions,
}

/// What a device can do at most: `{ device, threads?, precision?, notices?, options?: { rounds?, sampleSeconds? } }`. Resolves to `Ceilings` of lib/timings.ts.
#[napi(ts_return_type = "Promise<string>")]
pub fn measure_ceilings(env: &Env, request: String) -> napi::Result<Object<'_>> {
    let CeilingsRequest { device, threads, precision, notices, options } =
        parse("measureCeilings", &request).map_err(|e| to_js(*env, &e))?;
    let work = move |cancel: &AtomicBool| -> Result<String> {
        let request = devices::Request { names: &[device], threads, precision: precision.parse()?, notices };
        let mut backend = request.open()?;
        json(&ceilings::measure(&mut *backend, &options, cancel)?)
    };
    task::once(env, "ceilings", work, |_, found| Ok(found))
}

/// The devices that this program knows: `[{ name, description?, usable, reason? }]`.
#[napi]
pub fn list_devices(env: Env) -> napi::Result<String> {
    answer(env, || json(&devices::list()))
}

/// The metadata of a checkpoint, after the SHA-256 of its data has been checked. ERR_CHECKPOINT if it is missing or damaged.
#[napi(ts_return_type = "Promise<string>")]
pub fn read_checkpoint(env: &Env, path: String) -> napi::Result<Object<'_>> {
    let work = move |_: &_| -> Result<String> { Ok(checkpoint::read(Path::new(&path))?.metadata().to_owned()) };
    task::once(env, "read", work, |_, metadata| Ok(metadata))
}
