//! From the names of devices to a backend: the one place that knows which backends this build has.

use alexnode_core::{Backend, DeviceName, Engine, Error, Precision, Result, Target, system};
use alexnode_cpu::CpuBackend;
use alexnode_cuda::{
    CudaBackend,
    emulated::{self, EmulatedDriver},
    real::{self, CudaDriver},
};
use serde::Serialize;

/// A device as `listDevices()` shows it.
#[derive(Serialize)]
pub struct DeviceInfo {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    usable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// The devices that this program knows, usable or not: the processor, and the CUDA devices or the reason why there are none.
pub fn list() -> Vec<DeviceInfo> {
    let processor =
        DeviceInfo { name: "cpu".into(), description: Some(system::processor()), usable: true, reason: None };
    let found = real::probe();
    let mut devices = vec![processor];
    devices.extend(found.devices.into_iter().map(|device| DeviceInfo {
        usable: device.problem.is_none(),
        name: device.name,
        description: Some(device.description),
        reason: device.problem.map(|problem| problem.message),
    }));
    if devices.len() == 1 {
        let reason = found.problems.into_iter().next().map(|problem| problem.message);
        devices.push(DeviceInfo { name: "cuda".into(), description: None, usable: false, reason });
    }
    devices
}

/// What a run asks for.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// One name per slot.
    pub names: &'a [String],
    /// Processor threads; default: all that the process may use.
    pub threads: Option<usize>,
    /// The arithmetic of the layers that multiply.
    pub precision: Precision,
    /// Whether stderr is told of what takes long, such as the compilation of kernels.
    pub notices: bool,
}

/// Devices of one kind: a backend drives no others.
enum Kind {
    Cpu,
    Cuda(Vec<usize>),
    Emulated(Vec<usize>),
}

impl Request<'_> {
    /// The devices, all of one kind.
    ///
    /// # Errors
    /// `ERR_USAGE` for names that do not exist or do not go together, `ERR_DEVICE` for devices that cannot be used.
    fn kind(&self) -> Result<Kind> {
        let devices: Vec<DeviceName> = self.names.iter().map(|name| name.parse()).collect::<Result<_>>()?;
        let Some(first) = devices.first() else {
            return Err(Error::usage("no device is named").hint("E.g. `--devices cpu`."));
        };
        let kind = std::mem::discriminant(first);
        if let Some(other) = devices.iter().find(|device| std::mem::discriminant(*device) != kind) {
            return Err(Error::usage(format!("{first} and {other} cannot train one network together"))
                .hint("Name devices of one kind, e.g. `--devices cuda:0,cuda:1`."));
        }
        let ordinals = devices.iter().filter_map(|device| match device {
            DeviceName::Cuda(n) | DeviceName::Emulated(n) => Some(*n),
            DeviceName::Cpu => None,
        });
        match first {
            DeviceName::Cpu if self.precision != Precision::Fp32 => {
                Err(Error::usage(format!("the processor computes in fp32, not in {}", self.precision))
                    .hint("Use `--precision fp32`, or a CUDA device."))
            }
            DeviceName::Cpu => Ok(Kind::Cpu),
            DeviceName::Cuda(_) => Ok(Kind::Cuda(ordinals.collect())),
            DeviceName::Emulated(_) => Ok(Kind::Emulated(ordinals.collect())),
        }
    }

    /// What computes on each of the devices, as far as a plan must know.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn engines(&self) -> Result<Vec<Engine>> {
        let slots = self.names.len();
        match self.kind()? {
            Kind::Cpu => Ok(vec![Engine::Host { workers: CpuBackend::workers(slots, self.threads)? }; slots]),
            Kind::Cuda(ordinals) => {
                let engine = |ordinal: usize| {
                    let device = real::device(ordinal)?;
                    device.usable()?;
                    Ok(Engine::Cuda(Target { compute: device.compute, precision: self.precision }))
                };
                ordinals.into_iter().map(engine).collect()
            }
            Kind::Emulated(_) => {
                Ok(vec![Engine::Cuda(Target { compute: emulated::COMPUTE, precision: self.precision }); slots])
            }
        }
    }

    /// A backend with one slot per name. Slots on the processor share its threads.
    ///
    /// # Errors
    /// `ERR_USAGE` for names that do not exist or do not go together, `ERR_DEVICE` for devices that cannot be used.
    pub fn open(&self) -> Result<Box<dyn Backend>> {
        match self.kind()? {
            Kind::Cpu => Ok(Box::new(CpuBackend::new(self.names.len(), self.threads)?)),
            Kind::Cuda(ordinals) => {
                let notices = self.notices;
                let tell = move |what: &str| {
                    if notices {
                        eprintln!("alexnode: {what}");
                    }
                };
                let driver = CudaDriver::new(&ordinals, Box::new(tell))?;
                Ok(Box::new(CudaBackend::new(Box::new(driver), self.precision, true)?))
            }
            Kind::Emulated(ordinals) => {
                let options = emulated::Options { threads: self.threads, ..emulated::Options::default() };
                let driver = EmulatedDriver::new(&ordinals, options)?;
                Ok(Box::new(CudaBackend::new(Box::new(driver), self.precision, false)?))
            }
        }
    }
}
