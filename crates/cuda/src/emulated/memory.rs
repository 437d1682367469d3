//! Memory of an emulated device: a range of addresses of its own. Every allocation ends at a page that nobody may touch, and begins as NaN.

use crate::driver::Address;
use alexnode_core::{Error, Result};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use std::{collections::BTreeMap, ffi::c_void, ptr};

/// Addresses that a device has: reserved, not taken.
const SPACE: usize = 64 << 30;
/// Every allocation is a multiple of this, so that its beginning is aligned for vectors.
const ALIGNMENT: usize = 16;
/// What fresh memory holds: a NaN in every float.
pub const POISON: u8 = 0xff;

/// The memory of one device.
#[derive(Debug)]
pub struct Memory {
    base: *mut c_void,
    page: usize,
    /// First address that was never given out.
    next: usize,
    /// Start and length of what is alive.
    live: BTreeMap<usize, usize>,
}

// SAFETY: the range belongs to this value alone.
unsafe impl Send for Memory {}

impl Memory {
    /// Reserves the addresses of a device.
    ///
    /// # Errors
    /// `ERR_DEVICE` where the system refuses.
    pub fn new() -> Result<Self> {
        // SAFETY: a fresh mapping that aliases nothing; PROT_NONE pages cost nothing.
        let base = unsafe {
            mmap_anonymous(ptr::null_mut(), SPACE, ProtFlags::empty(), MapFlags::PRIVATE | MapFlags::NORESERVE)
        };
        let base = base.map_err(|e| Error::device("emulated: cannot reserve addresses").caused_by(e))?;
        let page = rustix::param::page_size();
        Ok(Self { base, page, next: base as usize + page, live: BTreeMap::new() })
    }

    /// Takes `bytes` bytes, filled with NaN.
    ///
    /// # Errors
    /// `ERR_DEVICE` where addresses or memory run out.
    pub fn alloc(&mut self, bytes: usize) -> Result<Address> {
        let refused = |bytes: usize| Error::device(format!("emulated: cannot allocate {bytes} bytes"));
        let pages = bytes.max(1).next_multiple_of(self.page);
        let end = self.next.checked_add(pages + self.page).filter(|end| *end <= self.base as usize + SPACE);
        let Some(end) = end else { return Err(refused(bytes).hint("Use fewer or smaller buffers.")) };
        let begin = self.next;
        // SAFETY: pages of the own range that were never given out.
        unsafe { mprotect(begin as *mut c_void, pages, MprotectFlags::READ | MprotectFlags::WRITE) }
            .map_err(|e| refused(bytes).caused_by(e))?;
        let start = begin + pages - bytes.next_multiple_of(ALIGNMENT);
        // SAFETY: inside the pages just opened.
        unsafe { ptr::write_bytes(begin as *mut u8, POISON, pages) };
        self.next = end;
        self.live.insert(start, bytes);
        Ok(start as Address)
    }

    /// Gives memory back. Its addresses are not used again, so that a stale one faults.
    pub fn free(&mut self, address: Address) {
        let Some(bytes) = self.live.remove(&(address as usize)) else { return };
        let begin = address as usize / self.page * self.page;
        let pages = (address as usize + bytes.max(1)).next_multiple_of(self.page) - begin;
        // SAFETY: pages of the own range; a new mapping over them drops what they held.
        let closed = unsafe {
            mmap_anonymous(
                begin as *mut c_void,
                pages,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED,
            )
        };
        debug_assert!(closed.is_ok(), "closing pages of an own mapping");
    }

    /// Whether `address` lies in this device's range at all.
    pub fn owns(&self, address: usize) -> bool {
        (self.base as usize..self.base as usize + SPACE).contains(&address)
    }

    /// The living allocation that begins last at or below `address`.
    fn at_or_below(&self, address: usize) -> Option<(usize, usize)> {
        self.live.range(..=address).next_back().map(|(start, len)| (*start, *len))
    }

    /// What lies at an address of this device, for whom `buffers` are the arguments of a kernel.
    pub fn whereabouts(&self, address: usize, buffers: &[Address]) -> String {
        // An allocation ends in the last bytes of a page, and behind it comes one that nobody may touch.
        let below = self.at_or_below(address).filter(|(start, len)| address < start + len + self.page);
        let Some((start, len)) = below else {
            let next = self.live.range(address..).next().filter(|(start, _)| *start - address < self.page);
            return next.map_or_else(
                || "in memory that is not allocated (or not any more)".to_owned(),
                |(start, len)| format!("{} bytes before an allocation of {len} bytes", start - address),
            );
        };
        let end = start + len;
        let argument = buffers.iter().enumerate().filter(|(_, a)| (start..=address).contains(&(**a as usize)));
        let argument = argument.max_by_key(|(_, a)| **a);
        let (name, from) = match argument {
            Some((i, from)) => (format!("argument {i}"), *from as usize),
            None => ("an allocation that is no argument".to_owned(), start),
        };
        let len = end - from;
        match address.checked_sub(end) {
            None => format!("byte {} of {name}, which has {len} bytes", address - from),
            Some(0) => format!("right behind the end of {name}, which has {len} bytes"),
            Some(beyond) => format!("{beyond} bytes behind the end of {name}, which has {len} bytes"),
        }
    }

    /// Whether `bytes` bytes from `address` on lie in one living allocation.
    pub fn holds(&self, address: usize, bytes: usize) -> bool {
        self.at_or_below(address).is_some_and(|(start, len)| address + bytes <= start + len)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the own mapping; nothing of it outlives this value.
        let _ = unsafe { munmap(self.base, SPACE) };
    }
}
