//! Whether this machine can run CUDA, and what to do where it cannot. Nothing here panics: cudarc would, where a library is missing, so its
//! presence is asked first.

use super::{
    context::{self, Context},
    failure,
    peer::{self, Link},
};
use crate::compile::{Nvcc, Nvrtc, REMEDY, Version};
use alexnode_core::{Error, Result};
use cudarc::driver::sys::{self, CUdevice_attribute, CUresult};
use serde::Serialize;
use std::panic::{self, AssertUnwindSafe};

/// The oldest driver that is asked to do anything, as `cuDriverGetVersion` counts: CUDA 12.0. Older ones load no cubin of a compiler of today.
const OLDEST: i32 = 12_000;

/// What is there, for `doctor` and `listDevices`.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// The CUDA version that the driver supports: "13.0".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// The devices, usable or not.
    pub devices: Vec<ProbedDevice>,
    /// The run-time compiler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nvrtc: Option<ProbedCompiler>,
    /// The toolkit's compiler, which serves where there is no NVRTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nvcc: Option<ProbedCompiler>,
    /// What stands in the way, the most important first.
    pub problems: Vec<Problem>,
}

/// A device that the driver lists.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbedDevice {
    /// Its name in `devices`: "cuda:0".
    pub name: String,
    /// Its product name.
    pub description: String,
    /// Compute capability, times ten: 90 for sm_90.
    pub compute: u32,
    /// Bytes in all.
    pub memory: u64,
    /// Number of multiprocessors.
    pub multiprocessors: u32,
    /// The highest clock of the multiprocessors, in MHz.
    pub megahertz: u32,
    /// Its shared memory.
    pub shared_memory: SharedMemory,
    /// Where it sits: "0000:01:00.0". `nvidia-smi` may count devices in another order than CUDA does.
    pub pci: String,
    /// What it is known by wherever it sits: what `nvidia-smi -L` shows after "GPU-".
    pub uuid: String,
    /// Why it cannot be used, where that is known beforehand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

impl ProbedDevice {
    /// An error where the device cannot be used.
    ///
    /// # Errors
    /// `ERR_DEVICE`.
    pub fn usable(&self) -> Result<()> {
        let Some(Problem { message, remedy }) = &self.problem else { return Ok(()) };
        let error = Error::device(message.as_str());
        Err(remedy.iter().fold(error, |error, remedy| error.hint(remedy.as_str())))
    }
}

/// Bytes of shared memory.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SharedMemory {
    /// Of a block that asks for nothing.
    pub block: u32,
    /// Of a block that asks for more.
    pub opt_in: u32,
    /// Of a multiprocessor.
    pub multiprocessor: u32,
}

/// A compiler for kernels.
#[derive(Clone, Debug, Serialize)]
pub struct ProbedCompiler {
    /// "13.0".
    pub version: String,
    /// Where it lies.
    pub path: String,
}

/// Something that is wrong, and what to do about it.
#[derive(Clone, Debug, Serialize)]
pub struct Problem {
    /// What is wrong.
    pub message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl From<Error> for Problem {
    fn from(e: Error) -> Self {
        Self { message: e.message().to_owned(), remedy: e.remedy().map(str::to_owned) }
    }
}

/// Looks at the driver, its devices and the compilers. Never fails: what is wrong stands in `problems`.
pub fn probe() -> Probe {
    let mut probe = Probe::default();
    let mut driver = None;
    match start() {
        Ok(version) => {
            driver = Some(version);
            probe.driver = Some(version.to_string());
            match count() {
                Ok(devices) => {
                    for ordinal in 0..devices {
                        match device(ordinal) {
                            Ok(device) => {
                                probe.problems.extend(device.problem.clone());
                                probe.devices.push(device);
                            }
                            Err(e) => probe.problems.push(e.into()),
                        }
                    }
                }
                Err(e) => probe.problems.push(e.into()),
            }
        }
        Err(e) => probe.problems.push(e.into()),
    }
    let described = |version: Version, path: String| ProbedCompiler { version: version.to_string(), path };
    probe.nvcc = Nvcc::find(driver).ok().map(|nvcc| described(nvcc.version(), nvcc.path().display().to_string()));
    match Nvrtc::find(driver) {
        Ok(nvrtc) => probe.nvrtc = Some(described(nvrtc.version(), nvrtc.path().display().to_string())),
        // A toolkit's compiler does as well; on a machine without devices there is nothing to compile for.
        Err(e) if probe.nvcc.is_none() && !probe.devices.is_empty() => {
            probe.problems.push(e.hint(REMEDY).into());
        }
        Err(_) => {}
    }
    probe
}

/// How every two of the first `devices` devices exchange data, measured in both directions. Devices that refuse to be used are left out.
///
/// # Errors
/// `ERR_DEVICE` where there is no driver, or a device has no memory left.
pub fn links(devices: usize) -> Result<Vec<Link>> {
    if devices < 2 {
        return Ok(Vec::new());
    }
    start()?;
    guarded(|| {
        let contexts: Vec<Context> = (0..devices).filter_map(|ordinal| Context::retain(ordinal).ok()).collect();
        let mut links = Vec::new();
        for (i, a) in contexts.iter().enumerate() {
            for b in &contexts[i + 1..] {
                let [(there, to_b), (back, to_a)] = peer::connect(a, b)?;
                there.close(a, b);
                back.close(b, a);
                links.extend([to_b, to_a]);
            }
        }
        Ok(links)
    })
}

/// The oldest compute capability, times ten, that compilers of today know.
const OLDEST_COMPUTE: u32 = 75;

/// The device with this ordinal, without touching it.
///
/// # Errors
/// `ERR_DEVICE` where there is no driver or no such device.
pub fn device(ordinal: usize) -> Result<ProbedDevice> {
    start()?;
    let devices = count()?;
    let name = alexnode_core::DeviceName::Cuda(ordinal);
    if ordinal >= devices {
        let last = devices - 1;
        let all = if last == 0 { "only cuda:0".to_owned() } else { format!("cuda:0 to cuda:{last}") };
        return Err(Error::device(format!("{name}: there is no such device"))
            .hint(format!("This machine has {all}; `npm run doctor` lists them.")));
    }
    guarded(|| {
        let (mut handle, mut bytes) = (0, 0);
        // SAFETY: the driver is initialised; both outlive the calls.
        unsafe {
            failure::cuda!(name, cuDeviceGet(&mut handle, ordinal as i32))?;
            failure::cuda!(name, cuDeviceTotalMem_v2(&mut bytes, handle))?;
        }
        let compute = context::compute(name, handle)?;
        let problem = (compute < OLDEST_COMPUTE).then(|| Problem {
            message: format!(
                "{name}: sm_{compute} is too old, sm_{OLDEST_COMPUTE} is the first that kernels are made for"
            ),
            remedy: Some("Use another device, or `--devices cpu`.".into()),
        });
        use CUdevice_attribute as A;
        let number = |attribute| Ok::<_, Error>(context::attribute(name, handle, attribute)?.unsigned_abs());
        Ok(ProbedDevice {
            name: name.to_string(),
            description: context::product(name, handle)?,
            compute,
            memory: bytes as u64,
            multiprocessors: number(A::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            megahertz: number(A::CU_DEVICE_ATTRIBUTE_CLOCK_RATE)? / 1000,
            shared_memory: SharedMemory {
                block: number(A::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK)?,
                opt_in: number(A::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
                multiprocessor: number(A::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR)?,
            },
            pci: context::pci(name, handle)?,
            uuid: context::uuid(name, handle)?,
            problem,
        })
    })
}

/// Bytes that can be allocated on a device now. Makes a context there, which takes a moment and some memory.
///
/// # Errors
/// `ERR_DEVICE` where the device refuses to be used, as one may that another program holds.
pub fn free_memory(ordinal: usize) -> Result<u64> {
    start()?;
    guarded(|| Ok(Context::retain(ordinal)?.memory()?.0 as u64))
}

/// Loads and initialises the driver.
///
/// # Errors
/// `ERR_DEVICE` with the reason and the remedy.
pub(super) fn start() -> Result<Version> {
    guarded(|| {
        // SAFETY: loads a library and unloads it again; the driver's has no requirements for that.
        if !unsafe { sys::is_culib_present() } {
            return Err(absent());
        }
        // SAFETY: no requirements.
        let code = unsafe { sys::cuInit(0) };
        if code != CUresult::CUDA_SUCCESS {
            return Err(refused(code));
        }
        let mut version = 0;
        // SAFETY: `version` outlives the call.
        let code = unsafe { sys::cuDriverGetVersion(&mut version) };
        if code != CUresult::CUDA_SUCCESS {
            return Err(refused(code));
        }
        let found = Version::of_number(version);
        if version < OLDEST {
            return Err(Error::device(format!(
                "CUDA: the driver supports CUDA {found}; 12.0 is the first that will do"
            ))
            .hint("Install a driver of series 525 or later, or use `--devices cpu`."));
        }
        Ok(found)
    })
}

/// The number of devices, at least one. After [`start`].
pub(super) fn count() -> Result<usize> {
    guarded(|| {
        let mut count = 0;
        // SAFETY: `count` outlives the call.
        let code = unsafe { sys::cuDeviceGetCount(&mut count) };
        match (code, count) {
            (CUresult::CUDA_SUCCESS, 1..) => Ok(count as usize),
            (CUresult::CUDA_SUCCESS, _) => Err(refused(CUresult::CUDA_ERROR_NO_DEVICE)),
            (code, _) => Err(refused(code)),
        }
    })
}

/// `f`, its panics as errors: cudarc panics where a library lacks a function.
pub(super) fn guarded<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    panic::catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|payload| {
        let what = payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref::<&str>().copied());
        Err(Error::device(format!("CUDA: the driver cannot be used: {}", what.unwrap_or("unknown reason")))
            .hint("Install a newer driver, or use `--devices cpu`."))
    })
}

fn absent() -> Error {
    // The kernel's half of the driver shows itself even where a container lacks the other one.
    let half = std::path::Path::new("/proc/driver/nvidia/version").exists();
    let error = Error::device("CUDA: the driver's library (libcuda) is not on this machine");
    error.hint(if half {
        "Its kernel module is there, as in a container without the driver: start it with `--gpus all`, or use `--devices cpu`."
    } else {
        "Install NVIDIA's driver, or use `--devices cpu`."
    })
}

fn refused(code: CUresult) -> Error {
    use CUresult as C;
    let visible = std::env::var("CUDA_VISIBLE_DEVICES");
    match code {
        C::CUDA_ERROR_STUB_LIBRARY => {
            Error::device("CUDA: the libcuda that was found is the stub of a toolkit: it only serves linkers")
                .hint("Install NVIDIA's driver, and take the toolkit's folder `stubs` out of LD_LIBRARY_PATH; or use `--devices cpu`.")
        }
        C::CUDA_ERROR_NO_DEVICE => match visible {
            Ok(list) => Error::device("CUDA: the driver shows no device")
                .hint(format!("CUDA_VISIBLE_DEVICES is '{list}': change it, or use `--devices cpu`.")),
            Err(_) => Error::device("CUDA: the driver finds no device").hint(
                "`nvidia-smi` must list one; a container must be started with `--gpus all`. Or use `--devices cpu`.",
            ),
        },
        C::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH => {
            Error::device("CUDA: the driver's library and its kernel module have different versions")
                .hint("Restart the machine after the driver's update.")
        }
        C::CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE => {
            Error::device("CUDA: the driver's library is of a compatibility package, which is not made for these devices")
                .hint("Remove the package (cuda-compat, as in some containers) or its folder from LD_LIBRARY_PATH; or install a newer driver.")
        }
        code => Error::device(format!("CUDA: the driver does not start: {}", failure::describe(code)))
            .hint("See whether `nvidia-smi` works, or use `--devices cpu`."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::real::CudaDriver;
    use alexnode_core::ErrorCode;

    /// On a machine without the driver as on one with: an answer, no panic.
    #[test]
    fn a_machine_without_a_driver_is_told_so() {
        // SAFETY: as in `start`.
        if unsafe { sys::is_culib_present() } {
            return;
        }
        let found = probe();
        assert!(found.driver.is_none() && found.devices.is_empty());
        let problem = &found.problems[0];
        assert!(problem.message.contains("libcuda"), "{}", problem.message);
        let opened = CudaDriver::new(&[0], Box::new(|_| {})).err();
        let errors = [opened, device(0).err(), links(2).err(), free_memory(0).err()];
        for error in errors.map(Option::unwrap) {
            assert_eq!((error.code(), error.message()), (ErrorCode::Device, problem.message.as_str()));
            assert!(error.remedy().is_some_and(|remedy| remedy.contains("driver")));
        }
    }

    #[test]
    fn a_function_that_the_driver_lacks_is_an_error() {
        let error = guarded(|| -> Result<()> { panic!("no such symbol") }).unwrap_err();
        assert_eq!(error.code(), ErrorCode::Device);
        assert!(error.message().contains("no such symbol") && error.remedy().is_some());
    }

    #[test]
    fn a_driver_that_does_not_start_says_why() {
        use CUresult as C;
        for (code, word) in [
            (C::CUDA_ERROR_STUB_LIBRARY, "stubs"),
            (C::CUDA_ERROR_NO_DEVICE, "--devices cpu"),
            (C::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH, "Restart"),
            (C::CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE, "cuda-compat"),
        ] {
            let error = refused(code);
            assert_eq!(error.code(), ErrorCode::Device);
            assert!(error.remedy().is_some_and(|remedy| remedy.contains(word)), "{code:?}: {:?}", error.remedy());
        }
    }
}
