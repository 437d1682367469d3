//! Whole training on emulated CUDA devices: what the processor computes, on one device and on two, with every order of threads and streams.

mod common;

use alexnode_core::{Backend, BufferId, Copy2d, Error, ErrorCode, Launch, Precision, Result, SlotId, SlotInfo, View};
use alexnode_cpu::CpuBackend;
use alexnode_cuda::{
    CudaBackend, Driver,
    driver::{Address, Call, DeviceIndex, Event, Function, Properties, Recording, Rows, Stream},
    emulated::{Asynchronous, EmulatedDriver, Flavour, Options, Order, Streams},
    program::Program,
};
use common::{BATCH, Noise, emulated, first_losses, losses, network, relative_l2, segment, tensors, trainer_on};
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

/// Losses of 20 steps, and all weights and momenta after them.
type Outcome = (Vec<f64>, Vec<(String, Vec<f32>)>);

fn train(backend: Box<dyn Backend>) -> Outcome {
    let mut trainer = trainer_on(backend, network(), BATCH, 120.0);
    (losses(&mut trainer), tensors(&mut trainer))
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

fn counting(backend: Box<dyn Backend>) -> Counting {
    Counting { backend, copies: Arc::default(), bytes: Arc::default() }
}

/// What is recorded once and replayed gives the bits of what is issued operation by operation: by a backend that records nothing.
#[test]
fn a_recorded_step_is_the_step() {
    for ordinals in [&[0][..], &[0, 1]] {
        let late = Options { streams: Streams::Late, ..Options::default() };
        let Some(backend) = emulated(ordinals, Options::default()) else { return };
        let want = train(Box::new(counting(backend)));
        assert!(train(emulated(ordinals, late).unwrap()) == want, "{ordinals:?}");
    }
}

/// What is wrong with a [`Faulty`] driver.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    /// It is deaf to events.
    Deaf,
    /// It makes no graph of a recording, and says whether that is an error.
    Graphless { error: bool },
}

/// An emulated driver with a fault.
struct Faulty(EmulatedDriver, Fault);

impl Driver for Faulty {
    fn devices(&self) -> &[Properties] {
        self.0.devices()
    }
    fn stream(&mut self, device: DeviceIndex) -> Result<Stream> {
        self.0.stream(device)
    }
    fn alloc(&mut self, device: DeviceIndex, bytes: usize) -> Result<Address> {
        self.0.alloc(device, bytes)
    }
    fn free(&mut self, device: DeviceIndex, address: Address) -> Result<()> {
        self.0.free(device, address)
    }
    fn upload(&mut self, stream: Stream, dst: Address, src: &[u8]) -> Result<()> {
        self.0.upload(stream, dst, src)
    }
    fn download(&mut self, stream: Stream, src: Address, dst: &mut [u8]) -> Result<()> {
        self.0.download(stream, src, dst)
    }
    fn copy(&mut self, stream: Stream, rows: &Rows) -> Result<()> {
        self.0.copy(stream, rows)
    }
    fn load(&mut self, device: DeviceIndex, programs: &[Program]) -> Result<Vec<Function>> {
        self.0.load(device, programs)
    }
    fn launch(&mut self, stream: Stream, call: &Call<'_>) -> Result<()> {
        self.0.launch(stream, call)
    }
    fn event(&mut self, device: DeviceIndex) -> Result<Event> {
        self.0.event(device)
    }
    fn record(&mut self, event: Event, stream: Stream) -> Result<()> {
        self.0.record(event, stream)
    }
    fn wait(&mut self, stream: Stream, event: Event) -> Result<()> {
        if self.1 == Fault::Deaf { Ok(()) } else { self.0.wait(stream, event) }
    }
    fn synchronize(&mut self, stream: Stream) -> Result<()> {
        self.0.synchronize(stream)
    }
    fn records(&self) -> bool {
        self.1 != Fault::Deaf
    }
    fn start_recording(&mut self, stream: Stream) -> Result<()> {
        self.0.start_recording(stream)
    }
    fn stop_recording(&mut self, stream: Stream) -> Result<Recording> {
        self.0.stop_recording(stream)?;
        Err(Error::kernel("no graph"))
    }
    fn unrecorded(&mut self, error: Error) -> Result<()> {
        if self.1 == (Fault::Graphless { error: false }) { Ok(()) } else { Err(error) }
    }
    fn replay(&mut self, stream: Stream, recording: Recording) -> Result<()> {
        self.0.replay(stream, recording)
    }
}

/// That late streams give the same bits means something: without its events, a step on two devices reads what has not arrived yet, which is poison.
#[test]
fn late_streams_show_missing_events() {
    let late = Options { streams: Streams::Late, ..Options::default() };
    if emulated(&[0, 1], late.clone()).is_none() {
        return;
    }
    let deaf = Faulty(EmulatedDriver::new(&[0, 1], late).unwrap(), Fault::Deaf);
    let backend = CudaBackend::new(Box::new(deaf), Precision::Fp32, false).unwrap();
    let mut trainer = trainer_on(Box::new(backend), network(), BATCH, 120.0);
    let segment = segment(0, 0, 0, 1, 0.02);
    let error = trainer.run(&mut Noise::new(BATCH), &segment, &AtomicBool::new(false)).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Diverged, "{error}");
}

/// Where the driver makes no graph, a step is issued operation by operation, from the one on that could not be recorded; or that is an error.
#[test]
fn a_step_that_cannot_be_recorded_is_issued() {
    for ordinals in [&[0][..], &[0, 1]] {
        let late = Options { streams: Streams::Late, ..Options::default() };
        let Some(backend) = emulated(ordinals, Options::default()) else { return };
        let faulty = |error| {
            let driver = EmulatedDriver::new(ordinals, late.clone()).unwrap();
            Box::new(
                CudaBackend::new(Box::new(Faulty(driver, Fault::Graphless { error })), Precision::Fp32, false).unwrap(),
            )
        };
        assert!(train(faulty(false)) == train(backend), "{ordinals:?}");
        let mut trainer = trainer_on(faulty(true), network(), BATCH, 120.0);
        let segment = segment(0, 0, 0, 2, 0.02);
        let error = trainer.run(&mut Noise::new(BATCH), &segment, &AtomicBool::new(false)).unwrap_err();
        assert_eq!((error.code(), error.message()), (ErrorCode::Kernel, "no graph"));
    }
}

#[test]
fn what_crosses_is_what_the_plan_counts() {
    let Some(backend) = emulated(&[0, 1], Options::default()) else { return };
    let counting = counting(backend);
    let (copies, bytes) = (counting.copies.clone(), counting.bytes.clone());
    let mut trainer = trainer_on(Box::new(counting), network(), BATCH, 120.0);
    let counters = trainer.counters();
    assert!(counters.transfers > 0);
    let steps = losses(&mut trainer).len();
    // Beside the tensors, the other tower hears whether the loss was finite: four bytes that are not counted.
    assert_eq!(bytes.load(Ordering::Relaxed), steps * (counters.transfer_bytes + 4));
    assert_eq!(copies.load(Ordering::Relaxed), steps * (counters.transfers + 1));
}
