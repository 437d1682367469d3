//! Copies from one device to another through page-locked memory of the host: where devices do not reach each other's memory.

use super::{
    context::{Context, Pinned},
    failure::cuda,
    rows,
};
use crate::driver::Rows;
use alexnode_core::Result;
use cudarc::driver::sys::{CUevent, CUstream};

/// Bytes of a slot, and number of slots: one is filled while another is emptied.
const SLOT: usize = 4 << 20;
const SLOTS: usize = 4;

/// The way from one device to another. Both are held back by events only: the processor never waits.
#[derive(Debug)]
pub(super) struct Relay {
    pinned: Pinned,
    /// A stream of the source.
    out: CUstream,
    /// Of the target's stream: what was issued on it before the copy.
    start: CUevent,
    slots: [Slot; SLOTS],
    next: usize,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// Of the source: its rows lie in the slot.
    filled: CUevent,
    /// Of the target: it has read the slot, which is free again. Nothing where it was never used.
    drained: CUevent,
}

impl Relay {
    pub fn new(from: &Context, to: &Context) -> Result<Self> {
        let out = from.stream()?;
        let start = to.event(false)?;
        let mut slots = Vec::new();
        for _ in 0..SLOTS {
            slots.push(Slot { filled: from.event(false)?, drained: to.event(false)? });
        }
        let slots = slots.try_into().expect("as many slots as were made");
        Ok(Self { pinned: Pinned::alloc(to, SLOT * SLOTS)?, out, start, slots, next: 0 })
    }

    /// Copies `rows` from the memory of `from` to that of `to`, whose `stream` it is.
    pub fn copy(&mut self, from: &Context, to: &Context, stream: CUstream, rows: &Rows) -> Result<()> {
        to.record(self.start, stream)?;
        from.wait(self.out, self.start)?;
        for part in rows::parts(rows, SLOT) {
            let slot = self.slots[self.next];
            // SAFETY: the slot lies in the pinned memory.
            let host = unsafe { self.pinned.pointer.add(self.next * SLOT) };
            self.next = (self.next + 1) % SLOTS;
            // Before its first use the event stands for nothing, and holds nothing back.
            from.wait(self.out, slot.drained)?;
            // SAFETY: the backend resolved both ends to living memory; the part fits into the slot, which the events keep for it.
            unsafe { cuda!(from.name, cuMemcpy2DAsync_v2(&rows::to_host(&part, host), self.out)) }?;
            from.record(slot.filled, self.out)?;
            to.wait(stream, slot.filled)?;
            // SAFETY: as above.
            unsafe { cuda!(to.name, cuMemcpy2DAsync_v2(&rows::from_host(&part, host), stream)) }?;
            to.record(slot.drained, stream)?;
        }
        Ok(())
    }

    /// Frees everything; no copy may be under way.
    pub fn close(self, from: &Context, to: &Context) {
        // All of it, unless a copy failed half way.
        let _ = from.synchronize(self.out);
        from.destroy(&[self.out], &self.slots.map(|slot| slot.filled));
        let mut events = vec![self.start];
        events.extend(self.slots.map(|slot| slot.drained));
        to.destroy(&[], &events);
        self.pinned.free(to);
    }
}
