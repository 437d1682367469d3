//! Images that a program hands over one by one, kept in a file without a name until the data set is closed.

use crate::{
    files::{Entry, Files},
    layout::{self, Classes, Item, Layout},
    options::Split,
};
use alexnode_core::{Error, Result};
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
};

/// Takes images until it is made a data set.
pub struct Spool {
    file: BufWriter<File>,
    bytes: u64,
    sum: Sha256,
    classes: Classes,
    lists: [Vec<Item>; 2],
    count: usize,
    given: Option<bool>,
}

fn failed(e: std::io::Error) -> Error {
    Error::data(format!("the images cannot be kept in the folder for temporary files: {e}"))
        .caused_by(e)
        .hint("Make room there, or set TMPDIR to a folder on a larger disk.")
}

impl Spool {
    /// Without images.
    ///
    /// # Errors
    /// `ERR_DATA` where no temporary file can be made.
    pub fn new() -> Result<Self> {
        Ok(Self {
            file: BufWriter::with_capacity(1 << 20, tempfile::tempfile().map_err(failed)?),
            bytes: 0,
            sum: Sha256::new(),
            classes: Classes::default(),
            lists: Default::default(),
            count: 0,
            given: None,
        })
    }

    /// Adds the bytes of a picture's file with the name of its class, and its split where the source has one.
    ///
    /// # Errors
    /// `ERR_DATA` where only some of the images have a split, or the disk is full.
    pub fn add(&mut self, image: &[u8], class: &str, split: Option<Split>) -> Result<()> {
        if *self.given.get_or_insert(split.is_some()) != split.is_some() {
            return Err(Error::data(format!("image {}: some images name a split and some do not", self.count))
                .hint("Give `split: 'train'` or `'val'` for all images, or for none."));
        }
        self.file.write_all(image).map_err(failed)?;
        self.sum.update((image.len() as u64).to_le_bytes());
        self.sum.update(image);
        let path = Path::new(&format!("{:09}", self.count)).into();
        let entry = Entry { path, size: image.len() as u64, at: [self.bytes, 0] };
        self.lists[split.map_or(0, Split::index)].push(Item { entry, class: self.classes.number(class) });
        self.bytes += image.len() as u64;
        self.count += 1;
        Ok(())
    }

    pub(crate) fn finish(self, name: &str) -> Result<(Files, Layout)> {
        let file = self.file.into_inner().map_err(|e| failed(e.into_error()))?;
        if self.count == 0 {
            return Err(
                Error::data(format!("{name}: there are no images in it")).hint("It ended before the first image.")
            );
        }
        let layout = layout::arranged(name, self.classes, self.lists, self.given == Some(true))?;
        Ok((Files::spooled(name, file, self.sum.finalize().to_vec()), layout))
    }
}
