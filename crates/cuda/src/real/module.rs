//! Compiled kernels on a device.

use super::{
    context::Context,
    failure::{self, cuda},
};
use alexnode_core::{DeviceName, Error, Result};
use cudarc::driver::sys::{self, CUfunction, CUmodule, CUresult};
use std::{ffi::CString, ptr};

/// Machine code with one entry, loaded on a device.
#[derive(Debug)]
pub(super) struct Module {
    /// Where.
    pub device: DeviceName,
    /// The entry's name.
    pub entry: &'static str,
    /// The entry.
    pub function: CUfunction,
    raw: CUmodule,
}

impl Module {
    /// Loads `image`, a cubin, and looks `entry` up in it.
    pub fn load(context: &Context, image: &[u8], entry: &'static str) -> Result<Self> {
        context.bind()?;
        let mut raw = ptr::null_mut();
        // SAFETY: the image is whole: its beginning and its hash were checked where it came from; no options are passed.
        let code =
            unsafe { sys::cuModuleLoadDataEx(&mut raw, image.as_ptr().cast(), 0, ptr::null_mut(), ptr::null_mut()) };
        if code != CUresult::CUDA_SUCCESS {
            let what = failure::describe(code);
            return Err(Error::device(format!("{}: the driver does not load {entry}: {what}", context.name)).hint(
                "delete the cache of compiled kernels (`npm run doctor` says where it is); then install a newer driver",
            ));
        }
        let name = CString::new(entry).expect("names of kernels have no zero bytes");
        let mut function = ptr::null_mut();
        // SAFETY: the module is loaded, and the name ends with a zero.
        unsafe { cuda!(context.name, cuModuleGetFunction(&mut function, raw, name.as_ptr())) }
            .map_err(|e| e.context(entry))?;
        Ok(Self { device: context.name, entry, function, raw })
    }

    /// Takes it off the device, nothing of it under way.
    pub fn unload(&self, context: &Context) {
        if context.bind().is_ok() {
            // SAFETY: loaded by `load`, unloaded once.
            let _ = unsafe { sys::cuModuleUnload(self.raw) };
        }
    }
}
