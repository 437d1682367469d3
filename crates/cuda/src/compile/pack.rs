//! Kernels that were compiled beforehand: a folder beside the program, so that a machine needs no compiler. Each file is named by the key of
//! its [`Job`](super::Job): a kernel that has changed since is not in the pack.

use super::{Version, is_cubin};
use alexnode_core::{Error, Result};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Says which compiler the pack is from.
const COMPILER: &str = "compiler";

/// A folder of compiled kernels.
#[derive(Clone, Debug)]
pub struct Pack {
    folder: PathBuf,
    version: Version,
}

impl Pack {
    /// The pack in `folder`, if there is one.
    pub fn open(folder: &Path) -> Option<Self> {
        let version = Version::parse(fs::read_to_string(folder.join(COMPILER)).ok()?.trim())?;
        Some(Self { folder: folder.to_owned(), version })
    }

    /// A new pack in `folder`, from a compiler of version `version`. What was there before is removed.
    ///
    /// # Errors
    /// `ERR_DEVICE` where the folder cannot be written.
    pub fn create(folder: &Path, version: Version) -> Result<Self> {
        let make = || {
            if folder.exists() {
                fs::remove_dir_all(folder)?;
            }
            fs::create_dir_all(folder)?;
            fs::write(folder.join(COMPILER), format!("{version}\n"))
        };
        make().map_err(|e| refused(folder, e))?;
        Ok(Self { folder: folder.to_owned(), version })
    }

    /// Adds a kernel.
    ///
    /// # Errors
    /// `ERR_DEVICE` where it cannot be written.
    pub fn add(&self, key: &str, image: &[u8]) -> Result<()> {
        fs::write(self.path(key), image).map_err(|e| refused(&self.folder, e))
    }

    /// The compiler that made it.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The kernel of a job's key, if the pack has it.
    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        fs::read(self.path(key)).ok().filter(|image| is_cubin(image))
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder.join(format!("{key}.cubin"))
    }
}

fn refused(folder: &Path, error: io::Error) -> Error {
    Error::device(format!("cannot write compiled kernels to {}", folder.display())).caused_by(error)
}
