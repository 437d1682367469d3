//! What a call of the CUDA driver that failed says to the reader.

use alexnode_core::{DeviceName, Error, Result};
use cudarc::driver::{result::DriverError, sys::CUresult};

/// Calls a function of the driver on a device: `cuda!(device, cuStreamSynchronize(stream))`. The error names the device, the function and CUDA's
/// own words. To be used in an unsafe block.
macro_rules! cuda {
    ($device:expr, $function:ident($($argument:expr),* $(,)?)) => {
        $crate::real::failure::check(cudarc::driver::sys::$function($($argument),*), $device, stringify!($function))
    };
}
pub(super) use cuda;

/// `Ok` where `code` says success.
///
/// # Errors
/// `ERR_DEVICE` where the device cannot be used or has no memory left, else `ERR_KERNEL`.
pub fn check(code: CUresult, device: DeviceName, function: &str) -> Result<()> {
    if code == CUresult::CUDA_SUCCESS { Ok(()) } else { Err(failure(code, device, function)) }
}

/// "CUDA_ERROR_ILLEGAL_ADDRESS (an illegal memory access was encountered)".
pub fn describe(code: CUresult) -> String {
    let error = DriverError(code);
    let name = error.error_name().map(|name| name.to_string_lossy().into_owned());
    let name = name.unwrap_or_else(|_| format!("error {}", code as u32));
    match error.error_string() {
        Ok(text) => format!("{name} ({})", text.to_string_lossy()),
        Err(_) => name,
    }
}

fn failure(code: CUresult, device: DeviceName, function: &str) -> Error {
    use CUresult as C;
    let message = format!("{device}: {} in {function}", describe(code));
    match code {
        C::CUDA_ERROR_OUT_OF_MEMORY => Error::device(message)
            .hint("use a smaller `--batch`, or end other programs that use the device (`nvidia-smi` lists them)"),
        C::CUDA_ERROR_DEVICE_UNAVAILABLE => {
            Error::device(message).hint("another program holds the device for itself: `nvidia-smi` lists it")
        }
        C::CUDA_ERROR_ECC_UNCORRECTABLE | C::CUDA_ERROR_NVLINK_UNCORRECTABLE => {
            Error::device(message).hint("the hardware failed: see `nvidia-smi -q`, then use another device")
        }
        C::CUDA_ERROR_NO_DEVICE
        | C::CUDA_ERROR_INVALID_DEVICE
        | C::CUDA_ERROR_NOT_INITIALIZED
        | C::CUDA_ERROR_STUB_LIBRARY
        | C::CUDA_ERROR_SYSTEM_NOT_READY
        | C::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH => {
            Error::device(message).hint("`npm run doctor` says what is wrong with the installation")
        }
        C::CUDA_ERROR_LAUNCH_TIMEOUT => {
            Error::kernel(message).hint("a display runs on this device and its driver ends long kernels: use another one")
        }
        C::CUDA_ERROR_ILLEGAL_ADDRESS
        | C::CUDA_ERROR_MISALIGNED_ADDRESS
        | C::CUDA_ERROR_ILLEGAL_INSTRUCTION
        | C::CUDA_ERROR_INVALID_ADDRESS_SPACE
        | C::CUDA_ERROR_INVALID_PC
        | C::CUDA_ERROR_HARDWARE_STACK_ERROR
        | C::CUDA_ERROR_ASSERT
        | C::CUDA_ERROR_LAUNCH_FAILED => Error::kernel(message).hint(
            "a kernel issued earlier went wrong; `compute-sanitizer` names it. This process can no longer use the device: start it again",
        ),
        _ => Error::kernel(message),
    }
}
