//! Where the bytes of an image come from.

use crate::{
    cifar::{self, Cifar},
    files::Files,
    generated,
    layout::Item,
    options::Split,
    pack::Pack,
    prepare::{KEEP, Preparer},
    scan::{Memory, bad_image, gone_bad},
};
use alexnode_core::{Error, Result};
use image::metadata::Orientation;

/// Images by split and id.
pub(crate) enum Source {
    Generated {
        seed: u64,
    },
    Files {
        files: Files,
        items: [Vec<Item>; 2],
        /// Where bad files are skipped: what says which are.
        skip: Option<Memory>,
    },
    Cifar(Cifar),
    Pack(Box<Pack>),
}

/// Working memory of a thread that prepares images.
pub(crate) struct Worker {
    preparer: Preparer,
    file: Vec<u8>,
}

impl Worker {
    /// For images of `image_size x image_size` pixels.
    pub fn new(image_size: usize) -> Self {
        Self { preparer: Preparer::new(image_size), file: Vec::new() }
    }
}

impl Source {
    /// Index of the class of image `id`.
    pub fn class(&self, split: Split, id: u32) -> usize {
        match self {
            Self::Generated { .. } => id as usize % generated::CLASSES.len(),
            Self::Files { items, .. } => items[split.index()][id as usize].class as usize,
            Self::Cifar(cifar) => usize::from(cifar.image(split, id as usize).0),
            Self::Pack(pack) => pack.class(split, id),
        }
    }

    /// How a message names image `id`: the path of its file where there are files, otherwise its place in the data set called `source`.
    pub fn name(&self, split: Split, id: u32, source: &str) -> String {
        match self {
            Self::Files { files, items, .. } => files.name(&items[split.index()][id as usize].entry),
            Self::Generated { .. } | Self::Cifar(_) => format!("{source}:{}:{id}", split.name()),
            Self::Pack(pack) => pack.name(split, id),
        }
    }

    /// What image `id` is called inside the data set, wherever that lies: for a pack made of it.
    pub fn own_name(&self, split: Split, id: u32) -> String {
        match self {
            Self::Files { items, .. } => items[split.index()][id as usize].entry.path.to_string_lossy().into_owned(),
            Self::Generated { .. } | Self::Cifar(_) => format!("{}/{id}", split.name()),
            Self::Pack(pack) => pack.own_name(split, id),
        }
    }

    /// Writes image `id` at `size x size` pixels to `out`.
    ///
    /// # Errors
    /// `ERR_DATA` naming the image that cannot be read or decoded.
    pub fn render(&self, split: Split, id: u32, size: usize, worker: &mut Worker, out: &mut [u8]) -> Result<()> {
        let unfit = |reason| Error::data(format!("{} image {id}: {reason}", split.name()));
        match self {
            Self::Generated { seed } => {
                generated::render(*seed, split.index() as u32, id, size, out);
                Ok(())
            }
            Self::Cifar(cifar) => {
                let (_, image) = cifar.image(split, id as usize);
                worker.fit(image, cifar::SIDE, size, out).map_err(unfit)
            }
            Self::Files { files, items, skip } => {
                let item = &items[split.index()][id as usize];
                let read = files.read(&item.entry, u64::MAX, &mut worker.file);
                read.and_then(|()| worker.preparer.prepare(&worker.file, out)).map_err(|reason| {
                    let name = files.name(&item.entry);
                    skip.as_ref().map_or_else(|| bad_image(&name, &reason), |found| gone_bad(&name, &reason, found))
                })?;
                worker.spare();
                Ok(())
            }
            Self::Pack(pack) => {
                if pack.is_raw() && pack.image_size() == size {
                    pack.read_raw(split, id, out)?;
                } else {
                    let mut file = std::mem::take(&mut worker.file);
                    let read = pack.read(split, id, &mut file).and_then(|()| {
                        let fitted = if pack.is_raw() {
                            worker.fit(&file, pack.image_size(), size, out)
                        } else {
                            worker.preparer.prepare(&file, out)
                        };
                        fitted.map_err(|reason| pack.damaged(split, id, &reason))
                    });
                    worker.file = file;
                    read?;
                    worker.spare();
                }
                Ok(())
            }
        }
    }
}

impl Worker {
    /// A square image of `side` pixels at `size` pixels.
    fn fit(&mut self, image: &[u8], side: usize, size: usize, out: &mut [u8]) -> Result<(), String> {
        if side == size {
            out.copy_from_slice(image);
            return Ok(());
        }
        self.preparer.fit(image, side, side, Orientation::NoTransforms, out)
    }

    fn spare(&mut self) {
        if self.file.capacity() > KEEP {
            self.file = Vec::new();
        }
    }
}
