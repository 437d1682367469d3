//! `NativePacker` and `NativeVerifier`: packs, written and checked step by step, so that JavaScript hears of progress by asking for more.

use crate::{
    error::{json, parse, to_js},
    owner::Owner,
};
use alexnode_data::pack::{PackOptions, Packer, Verifier};
use napi::{Env, bindgen_prelude::Object};
use napi_derive::napi;
use std::path::Path;

/// A pack that is being written.
#[napi]
pub struct NativePacker {
    packing: String,
    packer: Owner<Made>,
}

/// A packer, and what it is about to do.
pub struct Made {
    packing: String,
    packer: Packer,
}

#[napi]
impl NativePacker {
    /// Lists the source and forecasts; `options` as in `lib/pack.ts`.
    #[napi(ts_return_type = "Promise<NativePacker>")]
    pub fn open(env: &Env, options: String) -> napi::Result<Object<'_>> {
        let options: PackOptions = parse("pack", &options).map_err(|e| to_js(*env, &e))?;
        let make = move |cancel: &_| {
            let packer = Packer::open(&options, cancel)?;
            Ok(Made { packing: json(packer.packing())?, packer })
        };
        Owner::create(env, "packer", make, |packer, made| Self { packing: made.packing.clone(), packer })
    }

    /// What there is to do.
    #[napi]
    pub fn packing(&self) -> String {
        self.packing.clone()
    }

    /// Works for a moment and tells how far it has come; null when all is done.
    #[napi(ts_return_type = "Promise<string | null>")]
    pub fn step<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        let work = |made: &mut Made, cancel: &_| made.packer.step(cancel)?.map(|progress| json(&progress)).transpose();
        self.packer.submit(env, work, |_, progress| Ok(progress))
    }

    /// Asks the step under way to end early.
    #[napi]
    pub fn cancel(&self) {
        self.packer.cancel();
    }

    /// Ends it. What is complete stays for the next time. May be called again.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn close<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        self.packer.dispose(env)
    }
}

/// A pack that is being checked.
#[napi]
pub struct NativeVerifier {
    verifier: Owner<Verifier>,
}

#[napi]
impl NativeVerifier {
    /// Begins with the pack in `folder`.
    #[napi(ts_return_type = "Promise<NativeVerifier>")]
    pub fn open(env: &Env, folder: String, threads: Option<u32>) -> napi::Result<Object<'_>> {
        let make = move |_: &_| Verifier::open(Path::new(&folder), threads.map(|n| n as usize));
        Owner::create(env, "verifier", make, |verifier, _| Self { verifier })
    }

    /// Reads some files and tells what was found so far; null when all are read.
    #[napi(ts_return_type = "Promise<string | null>")]
    pub fn step<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        let work = |verifier: &mut Verifier, cancel: &_| verifier.step(cancel)?.map(|found| json(&found)).transpose();
        self.verifier.submit(env, work, |_, found| Ok(found))
    }

    /// Asks the step under way to end early.
    #[napi]
    pub fn cancel(&self) {
        self.verifier.cancel();
    }

    /// Ends it. May be called again.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn close<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        self.verifier.dispose(env)
    }
}
