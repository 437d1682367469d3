//! What this machine offers: for `doctor()`.

use crate::{error::json, task};
use alexnode_core::{Result, system};
use alexnode_cuda::{
    cache::Cache,
    emulated::Compiler,
    real::{self, Link, Probe, Problem},
};
use napi::{Env, bindgen_prelude::Object};
use napi_derive::napi;
use serde::Serialize;
use std::path::PathBuf;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Inspection {
    processor: Processor,
    cuda: Cuda,
    emulator: Emulator,
    cache: Kept,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Processor {
    name: String,
    threads: usize,
    /// What the kernels could use, as the processor calls it.
    features: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    free_bytes: Option<u64>,
}

/// The compiler behind `emulated:N`.
#[derive(Serialize)]
struct Emulator {
    #[serde(skip_serializing_if = "Option::is_none")]
    compiler: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<Problem>,
}

/// Compiled kernels on the disk.
#[derive(Serialize)]
struct Kept {
    path: PathBuf,
    bytes: u64,
}

/// What CUDA offers.
#[derive(Serialize)]
struct Cuda {
    #[serde(flatten)]
    probe: Probe,
    /// Bytes that can be allocated on each device now; null where it refuses to be used.
    free: Vec<Option<u64>>,
    links: Vec<Link>,
}

impl Cuda {
    fn look() -> Self {
        let mut probe = real::probe();
        let (mut free, mut links) = (Vec::new(), Vec::new());
        for ordinal in 0..probe.devices.len() {
            let bytes = real::free_memory(ordinal);
            free.push(bytes.as_ref().ok().copied());
            probe.problems.extend(bytes.err().map(Problem::from));
        }
        match real::links(probe.devices.len()) {
            Ok(found) => links = found,
            Err(error) => probe.problems.push(error.into()),
        }
        Self { probe, free, links }
    }
}

fn features() -> Vec<&'static str> {
    let mut found = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        macro_rules! look {
            ($($name:tt)*) => { $(if is_x86_feature_detected!($name) { found.push($name); })* };
        }
        look!("sse4.2" "avx" "avx2" "fma" "avx512f" "avx512bf16");
    }
    #[cfg(target_arch = "aarch64")]
    found.push("neon");
    found
}

fn look() -> Result<String> {
    let emulator = match Compiler::find() {
        Ok(compiler) => Emulator { compiler: Some(compiler.version().to_owned()), problem: None },
        Err(error) => Emulator { compiler: None, problem: Some(error.into()) },
    };
    let cache = Cache::of_user();
    json(&Inspection {
        processor: Processor {
            name: system::processor(),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            features: features(),
            free_bytes: system::free_memory(),
        },
        cuda: Cuda::look(),
        emulator,
        cache: Kept { path: cache.folder().to_owned(), bytes: cache.bytes() },
    })
}

/// What this machine offers: `{ processor, cuda, emulator, cache }`.
#[napi(ts_return_type = "Promise<string>")]
pub fn inspect(env: &Env) -> napi::Result<Object<'_>> {
    task::once(env, "inspect", |_| look(), |_, found| Ok(found))
}
