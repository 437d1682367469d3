//! From the names of devices to a backend: the one place that knows which backends this build has.

use alexnode_core::{Backend, DeviceName, Engine, Error, Result, system};
use alexnode_cpu::CpuBackend;
use serde::Serialize;

const NO_CUDA: &str = "this build has no CUDA backend";

/// A device as `listDevices()` shows it.
#[derive(Serialize)]
pub struct DeviceInfo {
    name: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    usable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

/// The devices that this program knows, usable or not.
pub fn list() -> Vec<DeviceInfo> {
    vec![
        DeviceInfo { name: "cpu", description: Some(system::processor()), usable: true, reason: None },
        DeviceInfo { name: "cuda", description: None, usable: false, reason: Some(NO_CUDA) },
    ]
}

/// The named devices, all of them usable.
///
/// # Errors
/// `ERR_USAGE` for names that do not exist, `ERR_DEVICE` for devices that cannot be used.
fn parse(names: &[String]) -> Result<Vec<DeviceName>> {
    let devices: Vec<DeviceName> = names.iter().map(|name| name.parse()).collect::<Result<_>>()?;
    match devices.iter().find(|device| **device != DeviceName::Cpu) {
        Some(device) => Err(Error::device(format!("{device}: {NO_CUDA}")).hint("use `--devices cpu`")),
        None => Ok(devices),
    }
}

/// What computes on each of the named devices, as far as a plan must know.
///
/// # Errors
/// As [`open`].
pub fn engines(names: &[String], threads: Option<usize>) -> Result<Vec<Engine>> {
    let slots = parse(names)?.len();
    Ok(vec![Engine::Host { workers: CpuBackend::workers(slots, threads)? }; slots])
}

/// A backend with one slot per name. `threads` are shared by the slots on the processor; default: all that the process may use.
///
/// # Errors
/// `ERR_USAGE` for names that do not exist, `ERR_DEVICE` for devices that cannot be used.
pub fn open(names: &[String], threads: Option<usize>) -> Result<Box<dyn Backend>> {
    Ok(Box::new(CpuBackend::new(parse(names)?.len(), threads)?))
}
