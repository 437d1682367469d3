//! `NativeImages`: images that are ready for a network, given one by one or read from a data set.

use crate::{
    dataset::NativeDataset,
    error::{answer, json, parse, to_js},
    owner::Owner,
    task,
};
use alexnode_core::{Batch, BatchSource, Error, Result};
use alexnode_data::{
    Loader, LoaderOptions, Split,
    images::{self, Picture},
};
use napi::{
    Env,
    bindgen_prelude::{Int32Array, Object, Uint8Array, Uint32Array},
};
use napi_derive::napi;
use serde::Deserialize;
use std::{path::Path, sync::Arc};

/// A picture: `path`, or `bytes` of a file, or `bytes` with `width` and `height`: pixels as red, green, blue.
#[napi(object, object_to_js = false)]
pub struct NativePicture {
    /// A file.
    pub path: Option<String>,
    /// Those of a file, or pixels.
    pub bytes: Option<Uint8Array>,
    /// Pixels of a row.
    pub width: Option<u32>,
    /// Rows.
    pub height: Option<u32>,
}

impl NativePicture {
    fn picture(self) -> Result<Picture> {
        match (self.path, self.bytes, self.width, self.height) {
            (Some(path), None, None, None) => Ok(Picture::File(path.into())),
            (None, Some(bytes), None, None) => Ok(Picture::Bytes(bytes.to_vec())),
            (None, Some(bytes), Some(width), Some(height)) => {
                Ok(Picture::Pixels { rgb: bytes.to_vec(), width: width as usize, height: height as usize })
            }
            _ => Err(Error::usage("a picture is a path, or bytes, or bytes with width and height")),
        }
    }
}

/// Images at one size.
pub struct Images {
    /// Side in pixels.
    pub size: usize,
    /// `size * size * 3` bytes each.
    pub pixels: Vec<u8>,
    labels: Vec<i32>,
    ids: Vec<u32>,
    failures: Vec<Option<String>>,
}

/// Images that are ready for a network.
#[napi]
pub struct NativeImages {
    images: Arc<Images>,
}

#[napi]
impl NativeImages {
    /// Why an image cannot be used, null where it can: `[null, "damaged JPEG: ..."]`.
    #[napi(getter)]
    pub fn failures(&self, env: Env) -> napi::Result<String> {
        answer(env, || json(&self.images.failures))
    }

    /// The class of each image; empty for pictures that were given one by one.
    #[napi(getter)]
    pub fn labels(&self) -> Int32Array {
        Int32Array::new(self.images.labels.clone())
    }

    /// The id in its split of each image; empty for pictures that were given one by one.
    #[napi(getter)]
    pub fn ids(&self) -> Uint32Array {
        Uint32Array::new(self.images.ids.clone())
    }
}

impl NativeImages {
    /// The images, for a model's thread.
    pub fn get(&self) -> Arc<Images> {
        self.images.clone()
    }
}

/// Decodes pictures and brings them to `size` pixels as a data set does, on up to `threads` threads (default: all).
#[napi(ts_return_type = "Promise<NativeImages>")]
pub fn prepare_pictures(
    env: &Env,
    pictures: Vec<NativePicture>,
    size: u32,
    threads: Option<u32>,
) -> napi::Result<Object<'_>> {
    let pictures: Result<Vec<Picture>> = pictures.into_iter().map(NativePicture::picture).collect();
    let pictures = pictures.map_err(|e| to_js(*env, &e))?;
    let size = size as usize;
    let work = move |cancel: &_| {
        let prepared = images::prepare(&pictures, size, threads.map(|n| n as usize), cancel)?;
        let images::Prepared { pixels, failures } = prepared;
        Ok(Images { size, pixels, failures, labels: Vec::new(), ids: Vec::new() })
    };
    task::once(env, "pictures", work, |_, images| Ok(NativeImages { images: Arc::new(images) }))
}

/// Decodes the bytes of pictures one after the other, on one thread, and lets the pixels go; resolves to their number.
#[napi(ts_return_type = "Promise<number>")]
pub fn decode_pictures(env: &Env, pictures: Vec<NativePicture>) -> napi::Result<Object<'_>> {
    let pictures: Result<Vec<Picture>> = pictures.into_iter().map(NativePicture::picture).collect();
    let pictures = pictures.map_err(|e| to_js(*env, &e))?;
    let work = move |cancel: &_| Ok(images::decode(&pictures, cancel)? as f64);
    task::once(env, "decode", work, |_, pixels: f64| Ok(pixels))
}

/// The paths of the pictures below a folder, by the rules of data sets, as a JSON list.
#[napi(ts_return_type = "Promise<string>")]
pub fn list_pictures(env: &Env, folder: String) -> napi::Result<Object<'_>> {
    let work = move |_: &_| {
        let paths = images::pictures(Path::new(&folder))?;
        json(&paths.iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>())
    };
    task::once(env, "list", work, |_, paths| Ok(paths))
}

/// Whether the first bytes of something (16 are enough) are those of a picture.
#[napi]
pub fn is_picture(head: Uint8Array) -> bool {
    images::is_picture(&head)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Pass {
    split: Split,
    batch: usize,
    seed: u64,
    #[serde(default)]
    limit: Option<usize>,
}

/// One pass over the images of a split, in the order of their ids, or over `limit` of them as an evaluation draws them.
#[napi]
pub struct NativePass {
    size: usize,
    loader: Owner<Loader>,
}

#[napi]
impl NativePass {
    /// Begins a pass: `{ split, batch, seed, limit? }`.
    #[napi(ts_return_type = "Promise<NativePass>")]
    pub fn open<'env>(env: &'env Env, dataset: &NativeDataset, options: String) -> napi::Result<Object<'env>> {
        let js = |e: Error| to_js(*env, &e);
        let Pass { split, batch, seed, limit } = parse("pass", &options).map_err(js)?;
        let dataset = dataset.get().map_err(js)?;
        let size = dataset.info().image_size;
        let options = LoaderOptions::test(split, batch, seed, limit);
        Owner::create(env, "pass", move |_| dataset.loader(&options), move |loader, _| Self { size, loader })
    }

    /// The next images, at most `batch` of them; null after the last.
    #[napi(ts_return_type = "Promise<NativeImages | null>")]
    pub fn next<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        let size = self.size;
        let work = move |loader: &mut Loader, _: &_| {
            let Some(Batch { mut pixels, mut labels, mut ids, valid }) = loader.next()? else { return Ok(None) };
            pixels.truncate(valid * size * size * 3);
            labels.truncate(valid);
            ids.truncate(valid);
            Ok(Some(Images { size, pixels, labels, ids, failures: vec![None; valid] }))
        };
        self.loader.submit(env, work, |_, images| Ok(images.map(|images| NativeImages { images: Arc::new(images) })))
    }

    /// Ends the pass. May be called again.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn close<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        self.loader.dispose(env)
    }
}
