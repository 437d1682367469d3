//! Compiled kernels on a device.

use super::{
    context::Context,
    failure::{self, cuda},
};
use alexnode_core::{DeviceName, Error, Result};
use cudarc::driver::sys::{self, CUfunction, CUjit_option, CUmodule, CUresult};
use std::{
    ffi::{CString, c_void},
    ptr,
};

/// Bytes for what the driver has to say about a kernel that it does not load.
const LOG: usize = 4096;

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
        let (mut raw, mut log) = (ptr::null_mut(), [0u8; LOG]);
        let mut options = [CUjit_option::CU_JIT_ERROR_LOG_BUFFER, CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
        // A size is passed in the place of a pointer.
        let mut values: [*mut c_void; 2] = [log.as_mut_ptr().cast(), ptr::without_provenance_mut(LOG)];
        // SAFETY: the image is whole: its beginning and its hash were checked where it came from; the log is as long as its option says.
        let code = unsafe {
            let (options, values) = (options.as_mut_ptr(), values.as_mut_ptr());
            sys::cuModuleLoadDataEx(&mut raw, image.as_ptr().cast(), 2, options, values)
        };
        if code != CUresult::CUDA_SUCCESS {
            return Err(refused(code, context.name, entry, &log));
        }
        let mut module = Self { device: context.name, entry, function: ptr::null_mut(), raw };
        let name = CString::new(entry).expect("names of kernels have no zero bytes");
        // SAFETY: the module is loaded, and the name ends with a zero.
        let found = unsafe { cuda!(context.name, cuModuleGetFunction(&mut module.function, raw, name.as_ptr())) };
        if let Err(error) = found {
            module.unload(context);
            return Err(error.context(entry));
        }
        Ok(module)
    }

    /// Takes it off the device, nothing of it under way.
    pub fn unload(&self, context: &Context) {
        if context.bind().is_ok() {
            // SAFETY: loaded by `load`, unloaded once.
            let _ = unsafe { sys::cuModuleUnload(self.raw) };
        }
    }
}

/// The error where the driver does not load the code of `entry`.
fn refused(code: CUresult, device: DeviceName, entry: &str, log: &[u8]) -> Error {
    use CUresult as C;
    match code {
        C::CUDA_ERROR_INVALID_IMAGE
        | C::CUDA_ERROR_NO_BINARY_FOR_GPU
        | C::CUDA_ERROR_INVALID_PTX
        | C::CUDA_ERROR_UNSUPPORTED_PTX_VERSION
        | C::CUDA_ERROR_INVALID_SOURCE => {
            let what = failure::describe(code);
            Error::device(format!("{device}: the driver does not load {entry}: {what}{}", said(log))).hint(
                "Delete the cache of compiled kernels (`npm run doctor` says where it is); if that does not help, install a newer driver.",
            )
        }
        code => failure::failure(code, device, "cuModuleLoadDataEx").context(entry),
    }
}

/// What stands in a log, after a colon; nothing where it is empty.
fn said(log: &[u8]) -> String {
    let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
    let text = String::from_utf8_lossy(&log[..end]);
    if text.trim().is_empty() { String::new() } else { format!(": {}", text.trim()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drivers_log_ends_with_its_text() {
        assert_eq!(said(&[0; 8]), "");
        assert_eq!(said(b" \n\0junk"), "");
        assert_eq!(said(b"no kernel image\n\0junk"), ": no kernel image");
        assert_eq!(said(b"cut off"), ": cut off");
    }
}
