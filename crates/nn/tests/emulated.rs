//! Whole training on emulated CUDA devices: what the processor computes, on one device and on two, with every order of threads and streams.

mod common;

use alexnode_core::{Backend, BufferId, Copy2d, Launch, Precision, Result, SlotId, SlotInfo, View};
use alexnode_cpu::CpuBackend;
use alexnode_cuda::{
    CudaBackend,
    emulated::{Asynchronous, EmulatedDriver, Flavour, Options, Order, Streams},
};
use common::{BATCH, first_losses, losses, network, relative_l2, tensors, trainer_on};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Losses of 20 steps, and all weights and momenta after them.
type Outcome = (Vec<f64>, Vec<(String, Vec<f32>)>);

fn train(backend: Box<dyn Backend>) -> Outcome {
    let mut trainer = trainer_on(backend, network(), BATCH, 120.0);
    (losses(&mut trainer), tensors(&mut trainer))
}

/// Emulated devices; none where there is no C++ compiler, which only a developer's machine may lack.
fn emulated(ordinals: &[usize], options: Options) -> Option<Box<dyn Backend>> {
    match EmulatedDriver::new(ordinals, options) {
        Ok(driver) => Some(Box::new(CudaBackend::new(Box::new(driver), Precision::Fp32, false).unwrap())),
        Err(error) if std::env::var_os("CI").is_none() => {
            eprintln!("SKIPPED on the emulated GPU: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn assert_near(what: &str, got: &Outcome, want: &Outcome) {
    for (step, (a, b)) in got.0.iter().zip(&want.0).enumerate() {
        assert!((a - b).abs() <= 1e-4 * b.abs(), "{what}: loss of step {step}: {a} and {b}");
    }
    for ((name, a), (_, b)) in got.1.iter().zip(&want.1) {
        let distance = relative_l2(a, b);
        assert!(distance <= 1e-4, "{what}: {name}: relative L2 {distance:e}");
    }
}

#[test]
fn processor_and_emulated_devices_train_alike() {
    let processor = |slots| train(Box::new(CpuBackend::new(slots, Some(2)).unwrap()));
    let want = processor(1);
    assert_near("cpu,cpu", &processor(2), &want);
    for ordinals in [&[0][..], &[0, 1], &[0, 0]] {
        let Some(backend) = emulated(ordinals, Options::default()) else { return };
        assert_near(&format!("emulated {ordinals:?}"), &train(backend), &want);
    }
}

/// A command that runs as late as its events allow shows where one is missing; so do other orders of threads, and copies that arrive early or late.
#[test]
fn the_bits_depend_on_no_order() {
    for ordinals in [&[0][..], &[0, 1]] {
        let Some(backend) = emulated(ordinals, Options::default()) else { return };
        let want = train(backend);
        let late = Options { streams: Streams::Late, ..Options::default() };
        let others = [
            late.clone(),
            Options { order: Order::Reverse, asynchronous: Asynchronous::Eager, ..late.clone() },
            Options { order: Order::Random(3), ..late },
        ];
        for options in others {
            let how = format!("{options:?}");
            assert!(train(emulated(ordinals, options).unwrap()) == want, "other bits on {ordinals:?} with {how}");
        }
    }
}

/// No race, nothing out of bounds, nothing read that nobody wrote: in the whole plan of a step, the copies between devices among it.
#[test]
fn every_access_of_a_step_is_sound() {
    for ordinals in [&[0][..], &[0, 1]] {
        let options = Options { flavour: Flavour::Check, streams: Streams::Late, ..Options::default() };
        let Some(backend) = emulated(ordinals, options) else { return };
        let mut trainer = trainer_on(backend, network(), BATCH, 120.0);
        assert!(first_losses(&mut trainer, 2).iter().all(|loss| loss.is_finite()));
    }
}

/// Counts the copies between slots that reach a backend.
struct Counting {
    backend: Box<dyn Backend>,
    copies: Arc<AtomicUsize>,
    bytes: Arc<AtomicUsize>,
}

impl Backend for Counting {
    fn slots(&self) -> &[SlotInfo] {
        self.backend.slots()
    }
    fn alloc(&mut self, slot: SlotId, bytes: usize) -> Result<BufferId> {
        self.backend.alloc(slot, bytes)
    }
    fn free(&mut self, buffer: BufferId) {
        self.backend.free(buffer);
    }
    fn upload(&mut self, dst: View, src: &[u8]) -> Result<()> {
        self.backend.upload(dst, src)
    }
    fn download(&mut self, src: View, dst: &mut [u8]) -> Result<()> {
        self.backend.download(src, dst)
    }
    fn copy(&mut self, copy: &Copy2d) -> Result<()> {
        if copy.src.buffer.slot != copy.dst.buffer.slot {
            self.copies.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(copy.rows * copy.row_bytes, Ordering::Relaxed);
        }
        self.backend.copy(copy)
    }
    fn launch(&mut self, slot: SlotId, launch: &Launch) -> Result<()> {
        self.backend.launch(slot, launch)
    }
    fn synchronize(&mut self) -> Result<()> {
        self.backend.synchronize()
    }
}

#[test]
fn what_crosses_is_what_the_plan_counts() {
    let Some(backend) = emulated(&[0, 1], Options::default()) else { return };
    let (copies, bytes) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counting = Counting { backend, copies: copies.clone(), bytes: bytes.clone() };
    let mut trainer = trainer_on(Box::new(counting), network(), BATCH, 120.0);
    let counters = trainer.counters();
    assert!(counters.transfers > 0);
    let steps = losses(&mut trainer).len();
    // Beside the tensors, the other tower hears whether the loss was finite: four bytes that are not counted.
    assert_eq!(bytes.load(Ordering::Relaxed), steps * (counters.transfer_bytes + 4));
    assert_eq!(copies.load(Ordering::Relaxed), steps * (counters.transfers + 1));
}
