//! `NativeSpool`: images that JavaScript hands over, until they are a data set.

use crate::{
    dataset::NativeDataset,
    error::{parse, to_js},
    owner::Owner,
};
use alexnode_core::Error;
use alexnode_data::{Dataset, DatasetOptions, Split, Spool};
use napi::{
    Env,
    bindgen_prelude::{Object, Uint8Array},
};
use napi_derive::napi;

/// Takes images one by one.
#[napi]
pub struct NativeSpool {
    spool: Owner<Option<Spool>>,
}

#[napi]
impl NativeSpool {
    /// Without images.
    #[napi(ts_return_type = "Promise<NativeSpool>")]
    pub fn open(env: &Env) -> napi::Result<Object<'_>> {
        Owner::create(env, "spool", |_| Spool::new().map(Some), |spool, _| Self { spool })
    }

    /// Adds the bytes of a picture's file, with the name of its class, and its split (`train` or `val`) where there is one.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn add<'env>(
        &self,
        env: &'env Env,
        bytes: Uint8Array,
        label: String,
        split: Option<String>,
    ) -> napi::Result<Object<'env>> {
        let bytes = bytes.to_vec();
        let split = split.map(|split| if split == Split::Val.name() { Split::Val } else { Split::Train });
        let work = move |spool: &mut Option<Spool>, _: &_| match spool {
            Some(spool) => spool.add(&bytes, &label, split),
            None => Err(Error::usage("the images are a data set already")),
        };
        self.spool.submit(env, work, |_, ()| Ok(()))
    }

    /// Makes a data set of them; `options` as in `lib/data.ts`.
    #[napi(ts_return_type = "Promise<NativeDataset>")]
    pub fn finish<'env>(&self, env: &'env Env, options: String) -> napi::Result<Object<'env>> {
        let options: DatasetOptions = parse("data", &options).map_err(|e| to_js(*env, &e))?;
        let work = move |spool: &mut Option<Spool>, cancel: &_| {
            let spool = spool.take().ok_or_else(|| Error::usage("the images are a data set already"))?;
            NativeDataset::new(Dataset::of_spool(spool, &options, cancel)?)
        };
        self.spool.submit(env, work, |_, dataset| Ok(dataset))
    }

    /// Lets the images go. May be called again.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn close<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        self.spool.dispose(env)
    }
}
