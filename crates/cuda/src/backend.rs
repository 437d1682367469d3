//! The backend: slots on devices, launches as compiled kernels on streams, copies between devices beside them.

use crate::{
    driver::{Address, Call, Driver, Event, Function, Recording, Rows, Stream},
    program::Program,
};
use alexnode_core::{
    Backend, BufferId, Copy2d, Engine, Error, Launch, Precision, Result, SlotId, SlotInfo, Target, View,
    backend::{MAX_ARGS, MAX_PARAMS, RecordingId},
};
use std::collections::HashMap;

/// CUDA devices, real or emulated, as slots.
///
/// Each slot has two streams: launches, uploads and copies of its own memory run on the first, copies that arrive from another slot on
/// the second, beside the launches that do not touch their memory. What does waits for them by events.
pub struct CudaBackend {
    driver: Box<dyn Driver>,
    precision: Precision,
    /// Whether kernels are compiled for their parameters where they ask for it.
    specialise: bool,
    infos: Vec<SlotInfo>,
    lanes: Vec<Lane>,
    buffers: Vec<Option<Buffer>>,
    compiled: HashMap<Key, Vec<Compiled>>,
    /// Copies between slots that somebody may still have to wait for.
    pending: Vec<Pending>,
    /// Events of each slot that can be recorded anew.
    free_events: Vec<Vec<Event>>,
}

/// The streams of a slot.
#[derive(Clone, Copy)]
struct Lane {
    compute: Stream,
    copy: Stream,
}

struct Buffer {
    slot: SlotId,
    address: Address,
    bytes: usize,
}

/// A launch without its buffers: what is compiled once.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    slot: SlotId,
    kernel: usize,
    params: [u8; MAX_PARAMS],
}

impl Key {
    fn new(slot: SlotId, launch: &Launch) -> Self {
        let mut params = [0; MAX_PARAMS];
        params[..launch.params().len()].copy_from_slice(launch.params());
        Self { slot, kernel: std::ptr::from_ref(launch.kernel) as usize, params }
    }
}

#[derive(Clone, Copy)]
struct Compiled {
    function: Function,
    grid: [u32; 3],
    threads: u32,
}

/// A copy between slots.
struct Pending {
    src: View,
    dst: View,
    event: Event,
    /// Slots whose launches already wait for it.
    known: Vec<bool>,
}

impl CudaBackend {
    /// One slot per device of `driver`. `specialise`: whether kernels may be compiled for their parameters.
    ///
    /// # Errors
    /// `ERR_DEVICE` where a device cannot compute in `precision`, or refuses a stream.
    pub fn new(mut driver: Box<dyn Driver>, precision: Precision, specialise: bool) -> Result<Self> {
        let devices = driver.devices().to_vec();
        let (mut infos, mut lanes) = (Vec::new(), Vec::new());
        for (index, device) in devices.iter().enumerate() {
            if precision != Precision::Fp32 && device.compute < 80 {
                let (name, compute) = (device.device, device.compute);
                return Err(Error::device(format!(
                    "{name}: sm_{compute} has no {precision} tensor cores, sm_80 is the first"
                ))
                .hint("Use `--precision fp32`."));
            }
            let engine = Engine::Cuda(Target { compute: device.compute, precision });
            let (description, free) = (device.description.clone(), Some(device.memory.0));
            infos.push(SlotInfo { device: device.device, description, engine, free });
            lanes.push(Lane { compute: driver.stream(index)?, copy: driver.stream(index)? });
        }
        let free_events = vec![Vec::new(); lanes.len()];
        Ok(Self {
            driver,
            precision,
            specialise,
            infos,
            lanes,
            buffers: Vec::new(),
            compiled: HashMap::new(),
            pending: Vec::new(),
            free_events,
        })
    }

    /// The driver.
    pub fn driver(&mut self) -> &mut dyn Driver {
        &mut *self.driver
    }

    fn lane(&self, slot: SlotId) -> Result<Lane> {
        self.lanes.get(slot.index()).copied().ok_or_else(|| Error::kernel(format!("slot {} does not exist", slot.0)))
    }

    /// The address of `view`, which must lie in a live buffer.
    fn resolve(&self, view: View) -> Result<Address> {
        let buffer = self.buffers.get(view.buffer.index as usize).and_then(Option::as_ref);
        let buffer = buffer.ok_or_else(|| Error::kernel(format!("{:?} is not allocated", view.buffer)))?;
        if buffer.slot != view.buffer.slot || view.offset > buffer.bytes || view.bytes > buffer.bytes - view.offset {
            return Err(Error::kernel(format!("{view:?} lies outside of its buffer of {} bytes", buffer.bytes)));
        }
        Ok(buffer.address + view.offset as Address)
    }

    /// An event of `slot`, recorded on `stream`.
    fn moment(&mut self, slot: SlotId, stream: Stream) -> Result<Event> {
        let event = match self.free_events[slot.index()].pop() {
            Some(event) => event,
            None => self.driver.event(stream.device)?,
        };
        self.driver.record(event, stream)?;
        Ok(event)
    }

    /// Makes what is issued next on `stream` wait for the pending copies that write what it touches, or read what it writes. `compute` names the slot
    /// whose launches the stream carries, if it does: these need not wait again.
    fn settle(&mut self, stream: Stream, touched: &[(View, bool)], compute: Option<SlotId>) -> Result<()> {
        let mut done = Vec::new();
        for (i, copy) in self.pending.iter_mut().enumerate() {
            if compute.is_some_and(|slot| copy.known[slot.index()]) {
                continue;
            }
            let conflicts =
                |(view, writes): &(View, bool)| view.overlaps(&copy.dst) || (*writes && view.overlaps(&copy.src));
            if touched.iter().any(conflicts) {
                self.driver.wait(stream, copy.event)?;
                if let Some(slot) = compute {
                    copy.known[slot.index()] = true;
                    if [copy.src, copy.dst].iter().all(|view| copy.known[view.buffer.slot.index()]) {
                        done.push(i);
                    }
                }
            }
        }
        for i in done.into_iter().rev() {
            let copy = self.pending.swap_remove(i);
            self.free_events[copy.dst.buffer.slot.index()].push(copy.event);
        }
        Ok(())
    }

    /// Holds all other streams back until `origin` is where it is now.
    fn fork(&mut self, origin: Stream) -> Result<()> {
        let event = self.moment(SlotId(0), origin)?;
        for stream in self.streams_but(origin) {
            self.driver.wait(stream, event)?;
        }
        self.free_events[0].push(event);
        Ok(())
    }

    /// Holds `origin` back until all other streams are where they are now.
    fn join(&mut self, origin: Stream) -> Result<()> {
        for stream in self.streams_but(origin) {
            let slot = SlotId(stream.device as u8);
            let event = self.moment(slot, stream)?;
            self.driver.wait(origin, event)?;
            self.free_events[slot.index()].push(event);
        }
        Ok(())
    }

    fn streams_but(&self, origin: Stream) -> Vec<Stream> {
        self.lanes.iter().flat_map(|lane| [lane.compute, lane.copy]).filter(|stream| *stream != origin).collect()
    }

    /// Nobody has to wait for copies between slots any more.
    fn forget_copies(&mut self) {
        for copy in self.pending.drain(..) {
            self.free_events[copy.dst.buffer.slot.index()].push(copy.event);
        }
    }

    /// The kernels of `launch`, compiled.
    fn compile(&mut self, slot: SlotId, launches: &[&Launch]) -> Result<()> {
        let target = Target { compute: self.driver.devices()[slot.index()].compute, precision: self.precision };
        let (mut programs, mut places) = (Vec::new(), Vec::new());
        for launch in launches {
            let (stages, needed): (Vec<_>, Vec<_>) = Program::of(launch, &target, self.specialise)?.into_iter().unzip();
            programs.extend(needed);
            places.push((Key::new(slot, launch), stages));
        }
        let mut functions = self.driver.load(slot.index(), &programs)?.into_iter();
        for (key, stages) in places {
            let compiled = stages.iter().zip(&mut functions).map(|(stage, function)| Compiled {
                function,
                grid: stage.grid,
                threads: stage.threads,
            });
            self.compiled.insert(key, compiled.collect());
        }
        Ok(())
    }
}

impl Backend for CudaBackend {
    fn slots(&self) -> &[SlotInfo] {
        &self.infos
    }

    fn link(&self) -> Option<String> {
        self.driver.link()
    }

    fn alloc(&mut self, slot: SlotId, bytes: usize) -> Result<BufferId> {
        self.lane(slot)?;
        let address = self.driver.alloc(slot.index(), bytes)?;
        let free = self.buffers.iter().position(Option::is_none);
        let index = free.unwrap_or_else(|| {
            self.buffers.push(None);
            self.buffers.len() - 1
        });
        self.buffers[index] = Some(Buffer { slot, address, bytes });
        Ok(BufferId { slot, index: index as u32 })
    }

    fn free(&mut self, buffer: BufferId) {
        let taken =
            self.buffers.get_mut(buffer.index as usize).filter(|b| b.as_ref().is_some_and(|b| b.slot == buffer.slot));
        if let Some(Buffer { address, .. }) = taken.and_then(Option::take) {
            // A failure stays with the device, and the next wait reports it.
            let _ = self.driver.free(buffer.slot.index(), address);
        }
    }

    fn upload(&mut self, dst: View, src: &[u8]) -> Result<()> {
        if src.len() != dst.bytes {
            return Err(Error::kernel(format!("upload of {} bytes into {dst:?}", src.len())));
        }
        let (slot, address) = (dst.buffer.slot, self.resolve(dst)?);
        let stream = self.lane(slot)?.compute;
        self.settle(stream, &[(dst, true)], Some(slot))?;
        self.driver.upload(stream, address, src)
    }

    fn download(&mut self, src: View, dst: &mut [u8]) -> Result<()> {
        if dst.len() != src.bytes {
            return Err(Error::kernel(format!("download of {src:?} into {} bytes", dst.len())));
        }
        let (slot, address) = (src.buffer.slot, self.resolve(src)?);
        let stream = self.lane(slot)?.compute;
        self.settle(stream, &[(src, false)], Some(slot))?;
        self.driver.download(stream, address, dst)
    }

    fn copy(&mut self, copy: &Copy2d) -> Result<()> {
        let Copy2d { src, dst, rows, row_bytes, src_pitch, dst_pitch } = *copy;
        if rows == 0 || row_bytes == 0 {
            return Ok(());
        }
        for (view, pitch) in [(src, src_pitch), (dst, dst_pitch)] {
            let fits = (rows - 1).checked_mul(pitch).and_then(|n| n.checked_add(row_bytes));
            if fits.is_none_or(|n| n > view.bytes) {
                return Err(Error::kernel(format!(
                    "copy of {rows} rows of {row_bytes} bytes every {pitch}: not in {view:?}"
                )));
            }
        }
        let (from, to) = (src.buffer.slot, dst.buffer.slot);
        let described = Rows {
            from: from.index(),
            src: self.resolve(src)?,
            src_pitch,
            to: to.index(),
            dst: self.resolve(dst)?,
            dst_pitch,
            row_bytes,
            rows,
        };
        let touched = [(src, false), (dst, true)];
        let (source, target) = (self.lane(from)?, self.lane(to)?);
        if from == to {
            self.settle(target.compute, &touched, Some(to))?;
            return self.driver.copy(target.compute, &described);
        }
        // After everything issued so far on both slots, and after the copies that it depends on.
        for (slot, lane) in [(from, source), (to, target)] {
            let event = self.moment(slot, lane.compute)?;
            self.driver.wait(target.copy, event)?;
            self.free_events[slot.index()].push(event);
        }
        self.settle(target.copy, &touched, None)?;
        self.driver.copy(target.copy, &described)?;
        let event = self.moment(to, target.copy)?;
        self.pending.push(Pending { src, dst, event, known: vec![false; self.lanes.len()] });
        Ok(())
    }

    fn prepare(&mut self, launches: &mut dyn Iterator<Item = (SlotId, &Launch)>) -> Result<()> {
        let mut wanted: Vec<Vec<&Launch>> = vec![Vec::new(); self.lanes.len()];
        let mut seen = std::collections::HashSet::new();
        for (slot, launch) in launches {
            let key = Key::new(slot, launch);
            if !self.compiled.contains_key(&key) && seen.insert(key) {
                wanted[slot.index()].push(launch);
            }
        }
        for (slot, launches) in wanted.iter().enumerate().filter(|(_, launches)| !launches.is_empty()) {
            self.compile(SlotId(slot as u8), launches)?;
        }
        Ok(())
    }

    fn launch(&mut self, slot: SlotId, launch: &Launch) -> Result<()> {
        let stream = self.lane(slot)?.compute;
        let (mut addresses, mut touched, mut count) = ([0; MAX_ARGS], Vec::with_capacity(MAX_ARGS), 0);
        for (view, access) in launch.args().zip(launch.kernel.access) {
            if view.buffer.slot != slot {
                let name = launch.kernel.name;
                return Err(Error::kernel(format!("{name}: {view:?} does not live on slot {}", slot.0)));
            }
            // Scratch memory of no bytes has no address.
            if view.bytes > 0 {
                addresses[count] = self.resolve(view).map_err(|e| e.context(launch.kernel.name))?;
            }
            touched.push((view, access.writes()));
            count += 1;
        }
        let key = Key::new(slot, launch);
        if !self.compiled.contains_key(&key) {
            self.compile(slot, &[launch])?;
        }
        self.settle(stream, &touched, Some(slot))?;
        for stage in &self.compiled[&key] {
            let call = Call {
                function: stage.function,
                grid: stage.grid,
                threads: stage.threads,
                params: launch.params(),
                buffers: &addresses[..count],
            };
            self.driver.launch(stream, &call)?;
        }
        Ok(())
    }

    fn record(&mut self, issue: &mut dyn FnMut(&mut dyn Backend) -> Result<()>) -> Result<Option<RecordingId>> {
        if !self.driver.records() {
            return Ok(None);
        }
        // A recording knows nothing of what was issued before it.
        self.synchronize()?;
        let origin = self.lanes[0].compute;
        let recorded = self.driver.start_recording(origin).and_then(|()| {
            let issued = self.fork(origin).and_then(|()| issue(self)).and_then(|()| self.join(origin));
            // Ended in any case, so that the streams can be used again; the first failure is the one that tells.
            let stopped = self.driver.stop_recording(origin);
            self.forget_copies();
            issued.and(stopped)
        });
        match recorded {
            Ok(recording) => Ok(Some(RecordingId(recording.0))),
            Err(error) => {
                // A device that is broken says so here.
                self.synchronize()?;
                self.driver.unrecorded(error)?;
                Ok(None)
            }
        }
    }

    fn replay(&mut self, recording: RecordingId) -> Result<()> {
        let origin = self.lanes[0].compute;
        self.join(origin)?;
        self.driver.replay(origin, Recording(recording.0))?;
        self.fork(origin)?;
        self.forget_copies();
        Ok(())
    }

    fn synchronize(&mut self) -> Result<()> {
        let mut outcome = Ok(());
        // Every stream is asked, so that one failure does not leave another for the next call.
        for lane in &self.lanes {
            outcome = outcome.and(self.driver.synchronize(lane.compute));
            outcome = outcome.and(self.driver.synchronize(lane.copy));
        }
        self.forget_copies();
        outcome
    }
}
