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

/// `Ok` where `code`, what the first use of a device came to, says success.
///
/// # Errors
/// `ERR_DEVICE`, whatever the driver says.
pub fn usable(code: CUresult, device: DeviceName) -> Result<()> {
    if code == CUresult::CUDA_SUCCESS { Ok(()) } else { Err(unusable(code, format!("{device}: {}", describe(code)))) }
}

/// The error for a device that cannot be used at all.
fn unusable(code: CUresult, message: String) -> Error {
    let error = Error::device(message);
    match code {
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
            error.hint("Its memory is full: end other programs that use the device (`nvidia-smi` lists them), or use another one.")
        }
        CUresult::CUDA_ERROR_DEVICE_UNAVAILABLE => error.hint(
            "Another program holds the device for itself, or its compute mode forbids to use it: see `nvidia-smi -q -d COMPUTE`; or use another one.",
        ),
        _ => error.hint("See whether `nvidia-smi` shows a fault of the device, or use another one."),
    }
}

/// The error for a call of `function` that failed.
pub fn failure(code: CUresult, device: DeviceName, function: &str) -> Error {
    of_code(code, format!("{device}: {} in {function}", describe(code)))
}

/// The error for a failed call, described by `message`.
fn of_code(code: CUresult, message: String) -> Error {
    use CUresult as C;
    match code {
        C::CUDA_ERROR_OUT_OF_MEMORY => Error::device(message)
            .hint("Use a smaller `--batch`, or end other programs that use the device (`nvidia-smi` lists them)."),
        C::CUDA_ERROR_DEVICE_UNAVAILABLE => {
            Error::device(message).hint("Another program holds the device for itself: `nvidia-smi` lists it.")
        }
        C::CUDA_ERROR_ECC_UNCORRECTABLE | C::CUDA_ERROR_NVLINK_UNCORRECTABLE => {
            Error::device(message).hint("The hardware failed: see `nvidia-smi -q`, then use another device.")
        }
        C::CUDA_ERROR_NO_DEVICE
        | C::CUDA_ERROR_INVALID_DEVICE
        | C::CUDA_ERROR_NOT_INITIALIZED
        | C::CUDA_ERROR_STUB_LIBRARY
        | C::CUDA_ERROR_SYSTEM_NOT_READY
        | C::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH => {
            Error::device(message).hint("`npm run doctor` says what is wrong with the installation.")
        }
        C::CUDA_ERROR_LAUNCH_TIMEOUT => {
            Error::kernel(message).hint("A display runs on this device and its driver ends long kernels: use another one.")
        }
        C::CUDA_ERROR_ILLEGAL_ADDRESS
        | C::CUDA_ERROR_MISALIGNED_ADDRESS
        | C::CUDA_ERROR_ILLEGAL_INSTRUCTION
        | C::CUDA_ERROR_INVALID_ADDRESS_SPACE
        | C::CUDA_ERROR_INVALID_PC
        | C::CUDA_ERROR_HARDWARE_STACK_ERROR
        | C::CUDA_ERROR_ASSERT
        | C::CUDA_ERROR_LAUNCH_FAILED => Error::kernel(message).hint(
            "A kernel issued earlier went wrong; `compute-sanitizer` names it. This process can no longer use the device: start it again.",
        ),
        _ => Error::kernel(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alexnode_core::ErrorCode;

    #[test]
    fn what_the_device_lacks_is_no_fault_of_a_kernel() {
        use CUresult as C;
        for (code, want) in [
            (C::CUDA_ERROR_OUT_OF_MEMORY, ErrorCode::Device),
            (C::CUDA_ERROR_DEVICE_UNAVAILABLE, ErrorCode::Device),
            (C::CUDA_ERROR_NO_DEVICE, ErrorCode::Device),
            (C::CUDA_ERROR_ECC_UNCORRECTABLE, ErrorCode::Device),
            (C::CUDA_ERROR_ILLEGAL_ADDRESS, ErrorCode::Kernel),
            (C::CUDA_ERROR_LAUNCH_TIMEOUT, ErrorCode::Kernel),
        ] {
            let error = of_code(code, "cuda:0: what happened".into());
            assert_eq!((error.code(), error.message()), (want, "cuda:0: what happened"), "{code:?}");
            assert!(error.remedy().is_some(), "{code:?}");
        }
        assert_eq!(of_code(C::CUDA_ERROR_INVALID_VALUE, String::new()).code(), ErrorCode::Kernel);
    }

    #[test]
    fn a_device_that_refuses_is_a_matter_of_devices() {
        use CUresult as C;
        let remedy = |code| {
            let error = unusable(code, "cuda:0".into());
            assert_eq!(error.code(), ErrorCode::Device, "{code:?}");
            error.remedy().unwrap().to_owned()
        };
        assert!(remedy(C::CUDA_ERROR_OUT_OF_MEMORY).contains("memory"));
        assert!(remedy(C::CUDA_ERROR_DEVICE_UNAVAILABLE).contains("compute mode"));
        assert!(remedy(C::CUDA_ERROR_DEVICE_NOT_LICENSED).contains("nvidia-smi"));
    }
}
