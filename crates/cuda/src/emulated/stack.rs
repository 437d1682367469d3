//! Stacks of fibers: one range of addresses per worker, a page that nobody may touch below each stack.

use corosensei::stack::{Stack, StackPointer};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use std::{ffi::c_void, io, ops::Range, ptr};

/// Bytes of a stack.
const SIZE: usize = KERNEL + OWN;
/// What a kernel may use of it. It keeps little there: on a device it would spill.
pub const KERNEL: usize = 96 * 1024;
/// What is kept for the emulator, which must not run out of it.
const OWN: usize = 32 * 1024;

/// The stacks of a worker.
#[derive(Debug)]
pub struct Stacks {
    base: *mut c_void,
    page: usize,
    capacity: usize,
    /// How many have been opened: the first ones.
    opened: usize,
    free: Vec<FiberStack>,
}

/// One of them, without its bytes: they are the worker's.
#[derive(Debug)]
pub struct FiberStack {
    limit: usize,
    base: usize,
    page: usize,
}

impl FiberStack {
    /// Its bytes.
    pub fn range(&self) -> Range<usize> {
        self.limit + self.page..self.base
    }
}

/// Whether the calling function runs near the end of a stack that begins at `start`.
#[inline(never)]
pub fn is_full(start: usize) -> bool {
    let here = 0u8;
    (&raw const here as usize) < start + OWN
}

// SAFETY: `Stacks::take` made a page below `SIZE` bytes that faults; both ends are multiples of a page.
unsafe impl Stack for FiberStack {
    fn base(&self) -> StackPointer {
        StackPointer::new(self.base).expect("the end of a mapping")
    }
    fn limit(&self) -> StackPointer {
        StackPointer::new(self.limit).expect("a mapping is not at 0")
    }
}

impl Stacks {
    /// Addresses for `capacity` stacks.
    ///
    /// # Errors
    /// Where the system refuses them.
    pub fn new(capacity: usize) -> io::Result<Self> {
        let page = rustix::param::page_size();
        // SAFETY: a fresh mapping that aliases nothing; pages without access cost nothing.
        let base = unsafe {
            mmap_anonymous(
                ptr::null_mut(),
                capacity * (SIZE + page),
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }?;
        Ok(Self { base, page, capacity, opened: 0, free: Vec::new() })
    }

    /// A stack that nobody uses.
    ///
    /// # Errors
    /// Where there is no memory for it, or all are in use.
    pub fn take(&mut self) -> io::Result<FiberStack> {
        if let Some(stack) = self.free.pop() {
            return Ok(stack);
        }
        if self.opened == self.capacity {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let limit = self.base as usize + self.opened * (SIZE + self.page);
        let stack = FiberStack { limit, base: limit + self.page + SIZE, page: self.page };
        // SAFETY: pages of the own mapping that were never opened.
        unsafe {
            mprotect(stack.range().start as *mut c_void, SIZE, MprotectFlags::READ | MprotectFlags::WRITE)?;
        }
        self.opened += 1;
        Ok(stack)
    }

    /// Takes a stack back.
    pub fn give(&mut self, stack: FiberStack) {
        self.free.push(stack);
    }

    /// Whether `address` lies in one of the stacks, or in a page below one.
    pub fn hold(&self, address: usize) -> bool {
        (self.base as usize..self.base as usize + self.capacity * (SIZE + self.page)).contains(&address)
    }
}

impl Drop for Stacks {
    fn drop(&mut self) {
        // SAFETY: the own mapping; the worker's fibers, which used it, are gone.
        let _ = unsafe { munmap(self.base, self.capacity * (SIZE + self.page)) };
    }
}
