//! The processor as a backend: every slot is an own thread with an own pool of workers, and runs the Rust bodies of kernels.
//!
//! A slot behaves like a CUDA stream: launches and copies return at once, run in the order of their issue, and two slots run at
//! the same time unless a copy between them says otherwise. After start-up neither side allocates.
//!
//! | module | about |
//! |---|---|
//! | [`workers`] | [`Workers`]: the [`Host`](alexnode_core::Host) of kernel bodies |
//! | `slot` | the thread of a slot, its commands, who waits for whom |
//! | `memory` | buffers on huge pages |

mod memory;
mod slot;
pub mod workers;

use alexnode_core::{
    Backend, BufferId, Copy2d, DeviceName, Engine, Error, Launch, Result, SlotId, SlotInfo, View,
    backend::{MAX_ARGS, Stamp},
    kernel::RawArg,
    system,
};
use memory::Memory;
use slot::{Command, INLINE_UPLOAD, Rows, Slot};
use std::{ptr, sync::Arc};
pub use workers::Workers;

/// Threads that can be asked for: more than a minibatch can keep busy, and few enough that a slip of the hand is an error.
const MAX_THREADS: usize = 1024;

/// The processor, divided into one or two slots.
pub struct CpuBackend {
    // Declared before the memory: dropped first, so that no thread outlives what it works on.
    slots: Vec<Slot>,
    infos: Vec<SlotInfo>,
    buffers: Vec<Option<Buffer>>,
}

struct Buffer {
    slot: SlotId,
    memory: Memory,
}

impl CpuBackend {
    /// `slots` slots that share `threads` threads evenly, at least one each. Default: as many threads as the process may use
    /// processors.
    ///
    /// # Errors
    /// `ERR_USAGE` where `slots` or `threads` is 0 or too large; `ERR_DEVICE` where the system refuses threads.
    pub fn new(slots: usize, threads: Option<usize>) -> Result<Self> {
        let workers = Self::workers(slots, threads)?;
        let plural = if workers == 1 { "" } else { "s" };
        let description = format!("{}, {workers} thread{plural}", system::processor());
        let free = system::free_memory().map(|bytes| bytes as usize);
        let info = SlotInfo { device: DeviceName::Cpu, description, engine: Engine::Host { workers }, free };
        let started: Result<Vec<Slot>> = (0..slots).map(|index| Slot::start(index, workers)).collect();
        Ok(Self { slots: started?, infos: vec![info; slots], buffers: Vec::new() })
    }

    /// How many workers each slot of [`new`](Self::new) has.
    ///
    /// # Errors
    /// `ERR_USAGE` where `slots` or `threads` is 0 or too large.
    pub fn workers(slots: usize, threads: Option<usize>) -> Result<usize> {
        if slots == 0 || slots > u8::MAX as usize {
            return Err(Error::usage(format!("a backend needs 1 to {} devices, got {slots}", u8::MAX)));
        }
        if let Some(threads) = threads.filter(|threads| !(1..=MAX_THREADS).contains(threads)) {
            return Err(Error::usage(format!("threads must lie between 1 and {MAX_THREADS}, got {threads}"))
                .hint("Leave `threads` out to use every processor."));
        }
        let available = || std::thread::available_parallelism().map_or(1, usize::from);
        Ok((threads.unwrap_or_else(available) / slots).max(1))
    }

    /// The address of `view`, which must lie in a live buffer.
    fn resolve(&self, view: View) -> Result<*mut u8> {
        let buffer = self.buffers.get(view.buffer.index as usize).and_then(Option::as_ref);
        let buffer = buffer.ok_or_else(|| Error::kernel(format!("{:?} is not allocated", view.buffer)))?;
        let len = buffer.memory.len();
        if buffer.slot != view.buffer.slot || view.offset > len || view.bytes > len - view.offset {
            return Err(Error::kernel(format!("{view:?} lies outside of its buffer of {len} bytes")));
        }
        // The offset lies inside the allocation (checked above).
        Ok(buffer.memory.pointer().wrapping_add(view.offset))
    }

    fn slot(&self, slot: SlotId) -> Result<&Slot> {
        self.slots.get(slot.index()).ok_or_else(|| Error::kernel(format!("slot {} does not exist", slot.0)))
    }
}

impl Backend for CpuBackend {
    fn slots(&self) -> &[SlotInfo] {
        &self.infos
    }

    fn alloc(&mut self, slot: SlotId, bytes: usize) -> Result<BufferId> {
        self.slot(slot)?;
        let buffer = Buffer { slot, memory: Memory::new(bytes)? };
        let free = self.buffers.iter().position(Option::is_none);
        let index = free.unwrap_or_else(|| {
            self.buffers.push(None);
            self.buffers.len() - 1
        });
        self.buffers[index] = Some(buffer);
        Ok(BufferId { slot, index: index as u32 })
    }

    fn free(&mut self, buffer: BufferId) {
        // A copy that another slot runs for this one holds this one back, so waiting for the owner is enough.
        if let Some(slot) = self.slots.get(buffer.slot.index()) {
            slot.wait();
        }
        if let Some(entry) = self.buffers.get_mut(buffer.index as usize)
            && entry.as_ref().is_some_and(|b| b.slot == buffer.slot)
        {
            *entry = None;
        }
    }

    fn upload(&mut self, dst: View, src: &[u8]) -> Result<()> {
        if src.len() != dst.bytes {
            return Err(Error::kernel(format!("upload of {} bytes into {dst:?}", src.len())));
        }
        let pointer = self.resolve(dst)?;
        let slot = self.slot(dst.buffer.slot)?;
        if src.len() <= INLINE_UPLOAD {
            let mut data = [0; INLINE_UPLOAD];
            data[..src.len()].copy_from_slice(src);
            return slot.send(Command::Write { dst: pointer, data, len: src.len() });
        }
        slot.wait();
        slot.check()?;
        // SAFETY: `resolve` checked that the bytes lie inside a live buffer; the slot is idle, so nobody else uses them.
        unsafe { ptr::copy_nonoverlapping(src.as_ptr(), pointer, src.len()) };
        Ok(())
    }

    fn download(&mut self, src: View, dst: &mut [u8]) -> Result<()> {
        if dst.len() != src.bytes {
            return Err(Error::kernel(format!("download of {src:?} into {} bytes", dst.len())));
        }
        let pointer = self.resolve(src)?;
        let slot = self.slot(src.buffer.slot)?;
        slot.wait();
        slot.check()?;
        // SAFETY: `resolve` checked that the bytes lie inside a live buffer; the slot is idle, so nobody writes them.
        unsafe { ptr::copy_nonoverlapping(pointer, dst.as_mut_ptr(), dst.len()) };
        Ok(())
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
        let rows = Rows { src: self.resolve(src)?, dst: self.resolve(dst)?, rows, row_bytes, src_pitch, dst_pitch };
        let to = self.slot(dst.buffer.slot)?;
        if src.buffer.slot == dst.buffer.slot {
            return to.send(Command::Copy { rows, after: None });
        }
        let from = self.slot(src.buffer.slot)?;
        // The destination copies once the source has done what it was told before; the source goes on after the copy.
        let after = Some((Arc::clone(&from.progress), from.issued()));
        to.send(Command::Copy { rows, after })?;
        from.send(Command::Hold { until: (Arc::clone(&to.progress), to.issued()) })
    }

    fn launch(&mut self, slot: SlotId, launch: &Launch) -> Result<()> {
        let mut args = [RawArg { pointer: ptr::null_mut(), bytes: 0 }; MAX_ARGS];
        for (arg, view) in args.iter_mut().zip(launch.args()) {
            if view.buffer.slot != slot {
                let name = launch.kernel.name;
                return Err(Error::kernel(format!("{name}: {view:?} does not live on slot {}", slot.0)));
            }
            let pointer = self.resolve(view).map_err(|e| e.context(launch.kernel.name))?;
            *arg = RawArg { pointer, bytes: view.bytes };
        }
        self.slot(slot)?.send(Command::Launch { launch: *launch, args })
    }

    fn stamp(&mut self, slot: SlotId, stamp: &Stamp) -> Result<()> {
        self.slot(slot)?.send(Command::Stamp(Arc::clone(stamp)))
    }

    fn synchronize(&mut self) -> Result<()> {
        for slot in &self.slots {
            slot.wait();
        }
        // Every slot is asked, so that one failure does not leave another for the next call.
        let mut outcome = Ok(());
        for slot in &self.slots {
            outcome = outcome.and(slot.check());
        }
        outcome
    }
}
