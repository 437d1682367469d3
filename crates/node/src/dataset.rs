//! `NativeDataset`: an open data set that trainers share.

use crate::{
    error::{answer, json, parse, to_js},
    task::{self, lock},
};
use alexnode_core::{Error, Result};
use alexnode_data::{
    Dataset, DatasetOptions, Split,
    images::{self, Picture},
};
use napi::{
    Env,
    bindgen_prelude::{Object, Uint8Array, Uint32Array},
};
use napi_derive::napi;
use std::{
    sync::{Arc, Mutex},
    thread,
};

/// An open data set. Closing it, or letting it go, frees its memory once no trainer uses it any more.
#[napi]
pub struct NativeDataset {
    dataset: Mutex<Option<Arc<Dataset>>>,
    info: String,
}

#[napi]
impl NativeDataset {
    /// Scans, splits and measures a data set; `options` as in `lib/data.ts`. ERR_DATA names what cannot be read.
    #[napi(ts_return_type = "Promise<NativeDataset>")]
    pub fn open(env: &Env, options: String) -> napi::Result<Object<'_>> {
        let options: DatasetOptions = parse("data", &options).map_err(|e| to_js(*env, &e))?;
        let work = move |cancel: &_| Self::new(Dataset::open(&options, cancel)?);
        task::once(env, "open", work, |_, dataset| Ok(dataset))
    }

    /// What the scan has found.
    #[napi]
    pub fn info(&self) -> String {
        self.info.clone()
    }

    /// How messages name images of a split (`train` or `val`), by their ids: the paths of their files, where there are files. A JSON list.
    #[napi]
    pub fn names(&self, env: Env, split: String, ids: Uint32Array) -> napi::Result<String> {
        answer(env, || {
            let dataset = self.get()?;
            let split = named(&split);
            json(&ids.iter().map(|id| dataset.name(split, *id)).collect::<Vec<_>>())
        })
    }

    /// The images of a split (`train` or `val`) with these ids, brought to `size` pixels: `size * size * 3` bytes each, red, green, blue.
    #[napi(ts_return_type = "Promise<Uint8Array>")]
    pub fn images<'env>(
        &self,
        env: &'env Env,
        split: String,
        ids: Uint32Array,
        size: u32,
    ) -> napi::Result<Object<'env>> {
        let dataset = self.get().map_err(|e| to_js(*env, &e))?;
        let (ids, size) = (ids.to_vec(), size as usize);
        let work = move |cancel: &_| {
            let side = dataset.info().image_size;
            let pixels = dataset.images(named(&split), &ids, cancel)?;
            if side == size || ids.is_empty() {
                return Ok(pixels);
            }
            let picture = |rgb: &[u8]| Picture::Pixels { rgb: rgb.to_vec(), width: side, height: side };
            let pictures: Vec<Picture> = pixels.chunks(side * side * 3).map(picture).collect();
            Ok(images::prepare(&pictures, size, None, cancel)?.pixels)
        };
        task::once(env, "images", work, |_, pixels| Ok(Uint8Array::new(pixels)))
    }

    /// Reads `images` training images as a training does, minibatch by minibatch of shuffled epochs from `epoch` on, and does nothing with them:
    /// how many seconds that takes.
    #[napi(ts_return_type = "Promise<number>")]
    pub fn read<'env>(&self, env: &'env Env, batch: u32, epoch: u32, images: u32) -> napi::Result<Object<'env>> {
        let dataset = self.get().map_err(|e| to_js(*env, &e))?;
        let work = move |cancel: &_| dataset.read(batch as usize, epoch, images as usize, cancel);
        task::once(env, "read", work, |_, seconds| Ok(seconds))
    }

    /// Lets the images go. Trainers that use them keep them. Calling it again does nothing.
    #[napi]
    pub fn close(&self, env: Env) -> napi::Result<()> {
        answer(env, || {
            release(lock(&self.dataset).take());
            Ok(())
        })
    }
}

impl NativeDataset {
    /// Of a data set that has been opened.
    ///
    /// # Errors
    /// Where it cannot be described.
    pub fn new(dataset: Dataset) -> Result<Self> {
        let info = json(dataset.info())?;
        Ok(Self { dataset: Mutex::new(Some(Arc::new(dataset))), info })
    }

    /// The data set.
    ///
    /// # Errors
    /// `ERR_USAGE` after `close()`.
    pub fn get(&self) -> Result<Arc<Dataset>> {
        let closed = || Error::usage("the data set has been closed").hint("Close it after the trainers that use it.");
        lock(&self.dataset).clone().ok_or_else(closed)
    }
}

impl Drop for NativeDataset {
    fn drop(&mut self) {
        release(lock(&self.dataset).take());
    }
}

fn named(split: &str) -> Split {
    if split == Split::Val.name() { Split::Val } else { Split::Train }
}

/// Giving much memory back takes a while: not on the JavaScript thread.
fn release(dataset: Option<Arc<Dataset>>) {
    if let Some(dataset) = dataset {
        // Where no thread can be had, the closure and the data set in it are dropped here.
        drop(thread::Builder::new().name("alexnode-close".into()).spawn(move || drop(dataset)));
    }
}
