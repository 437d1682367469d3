//! Devices that the environment names, instead of an emulated one: so that this program runs, by itself, on a machine with a GPU.
//! `ALEXNODE_TEST_DEVICES=cuda:0`, or several with commas.

use super::{Family, processor, programs};
use alexnode_core::{Backend, BufferId, Copy2d, DeviceName, Engine, Launch, Precision, Result, SlotId, SlotInfo, View};
use alexnode_cuda::{
    CudaBackend,
    emulated::{EmulatedDriver, Options},
    real::CudaDriver,
};
use std::sync::{Mutex, PoisonError};

const VARIABLE: &str = "ALEXNODE_TEST_DEVICES";

/// The processor, which comes first everywhere, and a family for each device that the environment names; or none where it names none.
///
/// # Panics
/// Where a device cannot be opened: who names one wants it.
pub fn named(precision: Precision) -> Option<Vec<Family>> {
    let family = |name: &String| {
        let gaps = [[0, 0], [5, 3], [0, 16], [7, 0]];
        gaps.map(|gaps| (name.clone(), gaps, wanted(name, precision))).into()
    };
    let first: Family = vec![("1 worker".to_owned(), [0, 0], Box::new(processor(1)))];
    Some(std::iter::once(first).chain(names()?.iter().map(family)).collect())
}

/// The devices that the environment names, four times the first that has tensor cores; or none where it names none.
///
/// # Panics
/// As [`named`].
pub fn with_tensor_cores(precision: Precision) -> Option<Vec<(String, Box<dyn Backend>)>> {
    let has_some = |name: &&String| {
        let engine = wanted(name, Precision::Fp32).slots()[0].engine;
        matches!(engine, Engine::Cuda(target) if target.compute >= 80)
    };
    let Some(name) = names()?.into_iter().find(|name| has_some(&name)) else {
        eprintln!("SKIPPED: no device that {VARIABLE} names has tensor cores");
        return Some(Vec::new());
    };
    Some((0..4).map(|_| (format!("{name} in {precision}"), wanted(&name, precision))).collect())
}

fn names() -> Option<Vec<String>> {
    let names = std::env::var(VARIABLE).ok().filter(|names| !names.is_empty())?;
    Some(names.split(',').map(str::to_owned).collect())
}

fn wanted(name: &str, precision: Precision) -> Box<dyn Backend> {
    lend(name, precision).unwrap_or_else(|error| panic!("{VARIABLE}: {name}: {error}"))
}

/// The one place that knows how a device is opened here.
fn open(name: &str, precision: Precision) -> Result<Box<dyn Backend>> {
    match name.parse()? {
        DeviceName::Cpu => Ok(Box::new(processor(2))),
        DeviceName::Emulated(n) => {
            let driver = EmulatedDriver::new(&[n], Options::default())?;
            Ok(Box::new(CudaBackend::new(Box::new(driver), precision, false)?))
        }
        DeviceName::Cuda(n) => {
            // Kernels that read their parameters: compiled for the constants of every case, they would be hundreds.
            let driver = CudaDriver::new(&[n], Box::new(|_| ()))?;
            Ok(Box::new(CudaBackend::new(Box::new(driver), precision, false)?))
        }
    }
}

type Idle = (String, Precision, Box<dyn Backend>);
/// Devices that no test uses right now. Opening one and loading kernels takes longer than most tests.
static IDLE: Mutex<Vec<Idle>> = Mutex::new(Vec::new());

fn lend(name: &str, precision: Precision) -> Result<Box<dyn Backend>> {
    let found = {
        let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
        let place = idle.iter().position(|(other, its, _)| other == name && *its == precision);
        place.map(|place| idle.swap_remove(place).2)
    };
    let backend = found.map_or_else(|| open(name, precision), Ok)?;
    Ok(Box::new(Lent { name: name.to_owned(), precision, backend: Some(backend) }))
}

/// A device that comes back after use.
struct Lent {
    name: String,
    precision: Precision,
    // None only while it is dropped.
    backend: Option<Box<dyn Backend>>,
}

impl Lent {
    fn inner(&mut self) -> &mut dyn Backend {
        self.backend.as_deref_mut().expect("a device that is lent")
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // After a failure nobody knows what state a device is in.
        if let Some(backend) = self.backend.take().filter(|_| !std::thread::panicking()) {
            let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push((std::mem::take(&mut self.name), self.precision, backend));
        }
    }
}

impl Backend for Lent {
    fn slots(&self) -> &[SlotInfo] {
        self.backend.as_ref().expect("a device that is lent").slots()
    }
    fn alloc(&mut self, slot: SlotId, bytes: usize) -> Result<BufferId> {
        self.inner().alloc(slot, bytes)
    }
    fn free(&mut self, buffer: BufferId) {
        self.inner().free(buffer);
    }
    fn upload(&mut self, dst: View, src: &[u8]) -> Result<()> {
        self.inner().upload(dst, src)
    }
    fn download(&mut self, src: View, dst: &mut [u8]) -> Result<()> {
        self.inner().download(src, dst)
    }
    fn copy(&mut self, copy: &Copy2d) -> Result<()> {
        self.inner().copy(copy)
    }
    fn prepare(&mut self, launches: &mut dyn Iterator<Item = (SlotId, &Launch)>) -> Result<()> {
        self.inner().prepare(launches)
    }
    fn launch(&mut self, slot: SlotId, launch: &Launch) -> Result<()> {
        programs::note(launch, self.precision);
        self.inner().launch(slot, launch)
    }
    fn synchronize(&mut self) -> Result<()> {
        self.inner().synchronize()
    }
}
