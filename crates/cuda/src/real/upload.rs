//! Uploads through page-locked memory, so that the caller has its bytes back at once and the device copies while the processor goes on.

use super::{
    context::{Context, Pinned},
    failure::cuda,
};
use crate::driver::Address;
use alexnode_core::{Error, ErrorCode, Result};
use cudarc::driver::sys::{self, CUevent, CUresult, CUstream};
use std::{collections::VecDeque, ptr};

/// Bytes of the ring: two minibatches of 128 images of 256 x 256 pixels. Less where the system does not lock as many.
const SIZES: [usize; 3] = [64 << 20, 16 << 20, 4 << 20];
/// Bytes of a piece: the device begins with the first while the processor copies the second.
const PIECE: usize = 4 << 20;
/// Pieces under way at most.
const PIECES: usize = 256;

/// Where the pieces under way lie in a ring of bytes: given back in the order in which they were taken.
#[derive(Debug)]
pub(super) struct Ring<T> {
    bytes: usize,
    pieces: VecDeque<Piece<T>>,
}

#[derive(Debug)]
struct Piece<T> {
    offset: usize,
    end: usize,
    ticket: T,
}

impl<T: Copy> Ring<T> {
    pub fn new(bytes: usize) -> Self {
        Self { bytes, pieces: VecDeque::new() }
    }

    /// Where `bytes` bytes in a row are free now.
    pub fn place(&self, bytes: usize) -> Option<usize> {
        let (Some(oldest), Some(newest)) = (self.pieces.front(), self.pieces.back()) else {
            return (bytes <= self.bytes).then_some(0);
        };
        if self.pieces.len() >= PIECES {
            return None;
        }
        let (used, free) = (oldest.offset, newest.end);
        if newest.offset >= oldest.offset {
            // The end of the ring, then its beginning.
            if bytes <= self.bytes - free {
                return Some(free);
            }
            return (bytes <= used).then_some(0);
        }
        (bytes <= used - free).then_some(free)
    }

    /// Takes what [`place`](Self::place) returned, until `ticket` is done.
    pub fn take(&mut self, offset: usize, bytes: usize, ticket: T) {
        self.pieces.push_back(Piece { offset, end: offset + bytes, ticket });
    }

    /// What the oldest piece waits for.
    pub fn oldest(&self) -> Option<T> {
        self.pieces.front().map(|piece| piece.ticket)
    }

    /// Gives the oldest piece back.
    pub fn give(&mut self) {
        self.pieces.pop_front();
    }
}

/// The uploads of a device.
#[derive(Debug)]
pub(super) struct Uploads {
    pinned: Option<Pinned>,
    ring: Ring<CUevent>,
    events: Vec<CUevent>,
}

impl Uploads {
    pub fn new() -> Self {
        Self { pinned: None, ring: Ring::new(0), events: Vec::new() }
    }

    /// Writes `src` to `dst` on `stream`. Waits only where so much is under way that the ring is full.
    pub fn write(&mut self, context: &Context, stream: CUstream, dst: Address, src: &[u8]) -> Result<()> {
        let ring = self.memory(context)?;
        context.bind()?;
        for (i, piece) in src.chunks(PIECE).enumerate() {
            let offset = self.place(context, piece.len())?;
            let event = match self.events.pop() {
                Some(event) => event,
                None => context.event(true)?,
            };
            // SAFETY: `place` found the bytes in the ring and free: no copy of an earlier piece still reads them.
            let staged = unsafe {
                let staged = ring.add(offset);
                ptr::copy_nonoverlapping(piece.as_ptr(), staged, piece.len());
                staged
            };
            let to = dst + (i * PIECE) as Address;
            // SAFETY: the backend resolved `dst` to memory of this size, and the ring keeps the piece until the event.
            unsafe {
                cuda!(context.name, cuMemcpyHtoDAsync_v2(to, staged.cast(), piece.len(), stream))?;
                cuda!(context.name, cuEventRecord(event, stream))?;
            }
            self.ring.take(offset, piece.len(), event);
        }
        Ok(())
    }

    /// The ring's memory, locked at the first upload.
    fn memory(&mut self, context: &Context) -> Result<*mut u8> {
        if let Some(pinned) = &self.pinned {
            return Ok(pinned.pointer);
        }
        let mut refused = Error::device("");
        for bytes in SIZES {
            match Pinned::alloc(context, bytes) {
                Ok(pinned) => {
                    self.ring = Ring::new(bytes);
                    return Ok(self.pinned.insert(pinned).pointer);
                }
                Err(e) if e.code() == ErrorCode::Device => refused = e,
                Err(e) => return Err(e),
            }
        }
        Err(refused)
    }

    /// A free place in the ring, after giving back what is done, and waiting for what is not where there is no other way.
    fn place(&mut self, context: &Context, bytes: usize) -> Result<usize> {
        while let Some(event) = self.ring.oldest() {
            // SAFETY: the event lives as long as `self`.
            match unsafe { sys::cuEventQuery(event) } {
                CUresult::CUDA_SUCCESS => self.give(event),
                CUresult::CUDA_ERROR_NOT_READY => break,
                code => super::failure::check(code, context.name, "cuEventQuery")?,
            }
        }
        loop {
            if let Some(offset) = self.ring.place(bytes) {
                return Ok(offset);
            }
            let Some(event) = self.ring.oldest() else {
                return Err(Error::kernel(format!("{}: {bytes} bytes do not fit into the ring", context.name)));
            };
            // SAFETY: as above.
            unsafe { cuda!(context.name, cuEventSynchronize(event)) }?;
            self.give(event);
        }
    }

    fn give(&mut self, event: CUevent) {
        self.ring.give();
        self.events.push(event);
    }

    /// Frees everything; no copy may be under way.
    pub fn close(&mut self, context: &Context) {
        self.events.extend(self.ring.pieces.drain(..).map(|piece| piece.ticket));
        context.destroy(&[], &std::mem::take(&mut self.events));
        if let Some(pinned) = self.pinned.take() {
            pinned.free(context);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_follow_each_other_and_wrap() {
        let mut ring = Ring::new(100);
        assert_eq!((ring.place(100), ring.place(101)), (Some(0), None));
        ring.take(0, 40, 1);
        assert_eq!((ring.place(60), ring.place(61)), (Some(40), None));
        ring.take(40, 50, 2);
        // Ten bytes at the end, none at the beginning.
        assert_eq!((ring.place(10), ring.place(11)), (Some(90), None));
        ring.give();
        assert_eq!((ring.oldest(), ring.place(10), ring.place(40), ring.place(41)), (Some(2), Some(90), Some(0), None));
        ring.take(0, 40, 3);
        // Full: the beginning meets the oldest piece.
        assert_eq!((ring.place(0), ring.place(1)), (Some(40), None));
        ring.give();
        assert_eq!((ring.oldest(), ring.place(60)), (Some(3), Some(40)));
        ring.give();
        assert_eq!((ring.oldest(), ring.place(100)), (None, Some(0)));
    }

    #[test]
    fn pieces_under_way_are_counted() {
        let mut ring = Ring::new(1 << 20);
        for i in 0..PIECES {
            let offset = ring.place(64).unwrap();
            ring.take(offset, 64, i);
        }
        assert_eq!(ring.place(64), None);
        ring.give();
        assert!(ring.place(64).is_some());
    }

    /// Whatever is taken and given back: no two pieces under way share a byte.
    #[test]
    fn pieces_under_way_never_overlap() {
        let (mut ring, mut state) = (Ring::new(1000), 7u32);
        let mut random = |n: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % n
        };
        for ticket in 0..10_000 {
            let bytes = 1 + random(400) as usize;
            while random(3) == 0 || ring.place(bytes).is_none() {
                ring.give();
            }
            let offset = ring.place(bytes).unwrap();
            assert!(offset + bytes <= 1000);
            assert!(ring.pieces.iter().all(|piece| offset + bytes <= piece.offset || piece.end <= offset));
            ring.take(offset, bytes, ticket);
        }
    }
}
