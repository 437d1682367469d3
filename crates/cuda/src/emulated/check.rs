//! The checking flavour: looks at every access of a kernel to memory that others see.
//!
//! The kernels are compiled with the instrumentation of `-fsanitize=thread`, but without its library: the calls that it makes before each access arrive
//! in `cuda/emulator/check.h`, which drops those to the thread's own stack and hands the others to [`Check::access`]. What a compiler can tell alone
//! (an index outside of its array, a shift or a division without a result, a type at an address that it cannot have) comes from the instrumentation of
//! `-fsanitize=bounds-strict,...`, likewise without its library, and ends the block directly.
//!
//! An access is judged by what came before it:
//!
//! * It has to lie, whole, in a living allocation of the device that launched the kernel, or in what the block declared as `SHARED`.
//! * Its address is a multiple of its size.
//! * Who reads finds bytes that were written: by the host, by a copy (which takes over what is known of its source), by a kernel before, by this one.
//! * Bytes that an asynchronous copy is on its way to are touched by nobody until the thread that asked for the copy has waited for it.
//! * Of two accesses to the same bytes, one of them a write, something says which comes first: see [`shadow`](super::shadow). Atomic accesses
//!   do not conflict with each other. It does not matter in which order the threads happened to run, so one run suffices.
//!
//! Barriers and collectives that not all threads reach, or not in the same place, are found by the scheduler, in every flavour.
//!
//! Not seen: races by fences and flags (they would be false alarms; kernels here have none), conflicts among lanes of a warp that meet in several
//! groups (some of them), and what the library functions of the compiler read or write (kernels here call none).

use super::{
    block::{AsyncCopy, Job},
    failure::Failure,
    order::Order,
    runtime::Place,
    shadow::{Clock, Conflict, Kind, Shadow},
    site,
};
use std::{collections::BTreeMap, fmt, ops::Range};

// Twins of `emulator::Kind` in `emulator.h`.
const WRITE: u32 = 1;
const ATOMIC: u32 = 2;
const UNALIGNED: u32 = 4;

/// What is known of the value of a byte.
mod state {
    pub const UNWRITTEN: u8 = 0;
    pub const WRITTEN: u8 = 1;
    /// An asynchronous copy is on its way.
    pub const ARRIVING: u8 = 2;
}

/// Memory that is looked after.
#[derive(Debug)]
struct Region {
    values: Vec<u8>,
    shadow: Shadow,
}

impl Region {
    fn new(bytes: usize, shared: bool) -> Self {
        Self { values: vec![state::UNWRITTEN; bytes], shadow: Shadow::new(bytes, shared) }
    }
}

/// What a block declared as shared memory.
struct Declaration {
    bytes: Range<usize>,
    place: Place,
}

/// What the running launch tells.
#[derive(Default)]
struct Launch {
    device: usize,
    image: Range<usize>,
    grid: [u32; 3],
    order: Order,
}

/// A thread touches memory.
#[derive(Clone, Copy)]
struct Access {
    address: usize,
    bytes: usize,
    kind: Kind,
    thread: u16,
    site: usize,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} bytes", self.kind.verb(), self.bytes)
    }
}

/// The checker of the only worker.
pub struct Check {
    /// Per device: its living allocations by their addresses.
    devices: Vec<BTreeMap<usize, Region>>,
    launch: Launch,
    clock: Clock,
    /// Where the worker's shared memory begins.
    shared_start: usize,
    shared: Region,
    declared: Vec<Declaration>,
}

impl Check {
    /// For so many devices, whose blocks have their shared memory in these bytes.
    pub fn new(devices: usize, shared: Range<usize>) -> Self {
        Self {
            devices: (0..devices).map(|_| BTreeMap::new()).collect(),
            launch: Launch::default(),
            clock: Clock::default(),
            shared_start: shared.start,
            shared: Region::new(shared.len(), true),
            declared: Vec::new(),
        }
    }

    /// A device has new memory.
    pub fn allocated(&mut self, device: usize, address: usize, bytes: usize) {
        self.devices[device].insert(address, Region::new(bytes, false));
    }
    /// A device has given memory back.
    pub fn freed(&mut self, device: usize, address: usize) {
        self.devices[device].remove(&address);
    }
    /// The host has written.
    pub fn written(&mut self, device: usize, address: usize, bytes: usize) {
        if let Some(values) = self.values(device, address, bytes) {
            values.fill(state::WRITTEN);
        }
    }
    /// Bytes were copied.
    pub fn copied(&mut self, from: (usize, usize), to: (usize, usize), bytes: usize) {
        let known = self.values(from.0, from.1, bytes).map(|values| values.to_vec());
        if let Some((values, known)) = self.values(to.0, to.1, bytes).zip(known) {
            values.copy_from_slice(&known);
        }
    }
    fn values(&mut self, device: usize, address: usize, bytes: usize) -> Option<&mut [u8]> {
        let (start, region) = self.devices[device].range_mut(..=address).next_back()?;
        region.values.get_mut(address - start..)?.get_mut(..bytes)
    }

    /// A launch begins.
    pub fn begin_launch(&mut self, job: &Job<'_>) {
        self.launch = Launch { device: job.device, image: job.image.clone(), grid: job.grid, order: job.order };
        self.clock.begin_launch();
    }
    /// A block of it begins: its shared memory is new.
    pub fn begin_block(&mut self, threads: usize) {
        self.clock.begin_block(threads);
        self.declared.clear();
    }
    /// All threads of the block have met.
    pub fn barrier(&mut self) {
        self.clock.barrier();
    }
    /// The lanes of `mask` of a warp have met.
    pub fn meet(&mut self, warp: usize, mask: u32) {
        self.clock.meet(warp, mask);
    }
    /// Shared memory was declared, and poisoned.
    pub fn declared(&mut self, address: usize, bytes: usize, place: Place) {
        let start = address - self.shared_start;
        self.shared.values[start..start + bytes].fill(state::UNWRITTEN);
        self.declared.push(Declaration { bytes: address..address + bytes, place });
    }

    /// A thread touches memory.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn access(
        &mut self,
        address: usize,
        bytes: usize,
        kind: u32,
        thread: usize,
        site: usize,
    ) -> Result<(), Failure> {
        let what = match kind {
            kind if kind & WRITE != 0 => Kind::Write,
            kind if kind & ATOMIC != 0 => Kind::Atomic,
            _ => Kind::Read,
        };
        let access = Access { address, bytes, kind: what, thread: thread as u16, site };
        self.judge(&access, kind & UNALIGNED != 0)
    }

    /// A thread asks for an asynchronous copy, or has waited for it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn copy_async(&mut self, copy: &AsyncCopy, thread: usize, arrived: bool) -> Result<(), Failure> {
        let access = |address, bytes, kind| Access { address, bytes, kind, thread: thread as u16, site: copy.site };
        let (from, to) = (access(copy.from, copy.valid, Kind::Read), access(copy.to, copy.bytes, Kind::Write));
        let place = || site::of_call(copy.site);
        let within = self.declared.iter().any(|d| d.bytes.start <= copy.to && copy.to + copy.bytes <= d.bytes.end);
        if !within {
            let what =
                format!("{}: an asynchronous copy of {} bytes does not end in shared memory", place(), copy.bytes);
            return Err(Failure::new(what).at(copy.to).hint("Copy to what the block declared as SHARED."));
        }
        if copy.valid > 0 && !copy.from.is_multiple_of(copy.bytes) {
            return Err(misaligned(&from, &place(), copy.bytes));
        }
        let start = copy.to - self.shared_start;
        if arrived {
            self.shared.values[start..start + copy.bytes].fill(state::WRITTEN);
        }
        if copy.valid > 0 {
            self.judge(&from, true)?;
        }
        self.judge(&to, false)?;
        if !arrived {
            self.shared.values[start..start + copy.bytes].fill(state::ARRIVING);
        }
        Ok(())
    }

    fn judge(&mut self, access: &Access, unaligned: bool) -> Result<(), Failure> {
        let Access { address, bytes, kind, thread, .. } = *access;
        let shared = self.shared_start..self.shared_start + self.shared.values.len();
        let (first, region) = if shared.contains(&address) {
            if !self.declared.iter().any(|d| d.bytes.start <= address && address + bytes <= d.bytes.end) {
                return Err(self.outside_of_shared(access));
            }
            (address - shared.start, &mut self.shared)
        } else {
            match self.devices[self.launch.device].range_mut(..=address).next_back() {
                Some((start, region)) if address + bytes <= start + region.values.len() => (address - start, region),
                // Constants that the compiler put beside the code.
                _ if kind == Kind::Read && self.launch.image.contains(&address) => return Ok(()),
                _ => return Err(self.outside(access)),
            }
        };
        if !unaligned && !address.is_multiple_of(bytes) {
            return Err(misaligned(access, &site::of_call(access.site), bytes));
        }
        let values = &mut region.values[first..first + bytes];
        if let Some(bad) =
            values.iter().position(|v| *v == state::ARRIVING || *v != state::WRITTEN && kind != Kind::Write)
        {
            let arriving = values[bad] == state::ARRIVING;
            return Err(self.unfit(access, bad, arriving));
        }
        if kind != Kind::Read {
            values.fill(state::WRITTEN);
        }
        let site = (access.site - self.launch.image.start) as u32;
        match region.shadow.touch(first, bytes, kind, &self.clock, thread, site) {
            None => Ok(()),
            Some(conflict) => Err(self.race(access, conflict)),
        }
    }

    /// What lies at an address of shared memory.
    fn shared_name(&self, address: usize) -> Option<String> {
        let behind = self.declared.iter().filter(|d| d.bytes.start <= address).max_by_key(|d| d.bytes.start)?;
        let (offset, len) = (address - behind.bytes.start, behind.bytes.len());
        Some(format!("byte {offset} of the {len} bytes of shared memory that {} declares", behind.place))
    }

    /// A failure that concerns the memory of `access`.
    fn about(&self, access: &Access, offset: usize, what: String) -> Failure {
        let address = access.address + offset;
        let what = format!("{}: {what}", site::of_call(access.site));
        match self.shared_name(address).filter(|_| self.is_shared(address)) {
            Some(name) => Failure::new(format!("{what}: {name}")),
            None => Failure::new(what).at(address),
        }
    }

    fn is_shared(&self, address: usize) -> bool {
        (self.shared_start..self.shared_start + self.shared.values.len()).contains(&address)
    }

    fn outside_of_shared(&self, access: &Access) -> Failure {
        self.about(access, 0, format!("out of bounds: {access}")).hint("Index within what SHARED declares.")
    }

    fn outside(&self, access: &Access) -> Failure {
        if self.launch.image.contains(&access.address) {
            let what =
                format!("{}: {access} of a variable that is neither local nor shared", site::of_call(access.site));
            return Failure::new(what).hint("Kernels have no variables of their own: use a buffer, or SHARED.");
        }
        let what = format!("{}: out of bounds: {access}", site::of_call(access.site));
        Failure::new(what)
            .at(access.address)
            .hint("Compare the index with the size of the buffer, and the sizes of the launch with each other.")
    }

    fn unfit(&self, access: &Access, offset: usize, arriving: bool) -> Failure {
        if arriving {
            let what = format!("an asynchronous copy that was not waited for: {access} that it is on its way to");
            return self.about(access, offset, what).hint(
                "The thread that asked for the copy waits for it (wait_async), then all meet (__syncthreads), then it may be used.",
            );
        }
        self.about(access, offset, format!("uninitialised: {access} that nobody has written")).hint(
            "Write it first; where another thread of the block does, put a barrier between (__syncthreads, or sync_warp in a warp).",
        )
    }

    fn race(&self, access: &Access, conflict: Conflict) -> Failure {
        let thread = conflict.thread.map_or_else(|| "a thread".to_owned(), |thread| format!("thread {thread}"));
        let block = conflict.block.map_or_else(String::new, |number| format!(" of block {:?}", self.block(number)));
        let there = site::of_call(self.launch.image.start + conflict.site as usize);
        let verb = conflict.kind.verb();
        let what = format!("race: {access} that {thread}{block} {verb} at {there}, and nothing says which comes first");
        self.about(access, 0, what).hint(if conflict.block.is_some() {
            "Nothing orders the blocks of a launch: let each have its own part, or use two launches."
        } else {
            "Put a barrier between the two (__syncthreads, or sync_warp in a warp)."
        })
    }

    /// Where the block with running number `number` lies in the grid.
    fn block(&self, number: u32) -> [u32; 3] {
        let [x, y, z] = self.launch.grid.map(|n| n as usize);
        let index = self.launch.order.block(self.clock.place(number), x * y * z);
        super::block::coordinates(index, self.launch.grid)
    }
}

fn misaligned(access: &Access, place: &str, alignment: usize) -> Failure {
    let what = format!("{place}: misaligned: {access} at {:#x}, which is no multiple of {alignment}", access.address);
    Failure::new(what).hint("Use a narrower type, or let buffers and rows begin at multiples of the wider one.")
}
