//! Runs the blocks of a launch. Every thread of a block is a fiber on a stack of its own; it runs until it waits at a barrier, for its warp,
//! or is done. Nothing here preempts: a thread that spins on another one is stopped by the watchdog.

use super::{
    check::Check,
    failure::Failure,
    fault::{self, Cause, End, Trap},
    memory::POISON,
    order::Order,
    runtime::{Combine, Context, Place, RUNTIME, Run},
    site,
    stack::{self, FiberStack, Stacks},
    watchdog::Pulse,
};
use corosensei::{Coroutine, CoroutineResult, Yielder};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    ffi::c_void,
    io,
    ops::Range,
    ptr,
    sync::{Arc, atomic::Ordering},
};

/// Shared memory that a block may use without asking for more.
const SHARED: usize = 48 * 1024;
/// Threads of a warp.
const WARP: usize = 32;
/// The most threads of a block.
pub const MAX_THREADS: u32 = 1024;

/// When an asynchronous copy happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Asynchronous {
    /// At the wait that covers it, so that a missing wait shows.
    #[default]
    Late,
    /// At once, so that a missing barrier before the memory is used again shows.
    Eager,
}

/// A launch, as every block sees it.
#[derive(Clone)]
pub struct Job<'a> {
    /// For messages.
    pub entry: &'a str,
    /// The place of the device among those of the driver.
    pub device: usize,
    /// The code.
    pub run: Run,
    /// Where the library lies that it belongs to.
    pub image: Range<usize>,
    /// Pointers to the arguments.
    pub arguments: &'a [usize],
    /// Blocks in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub threads: u32,
    /// Of threads and blocks.
    pub order: Order,
    /// When asynchronous copies happen.
    pub asynchronous: Asynchronous,
}

impl Job<'_> {
    /// Number of blocks.
    pub fn blocks(&self) -> usize {
        self.grid.iter().map(|n| *n as usize).product()
    }
}

/// Where block `index` lies in a grid.
pub fn coordinates(index: usize, grid: [u32; 3]) -> [u32; 3] {
    let [x, y, _] = grid.map(|n| n as usize);
    [(index % x) as u32, (index / x % y) as u32, (index / x / y) as u32]
}

/// What a fiber waits for.
#[derive(Clone, Copy)]
enum Wait {
    /// All threads of the block.
    Barrier(Place),
    /// The lanes of `mask`.
    Warp { mask: u32, place: Place, operands: *mut c_void, combine: Combine },
    /// Nothing: the block has failed.
    Failed,
}

#[derive(Clone, Copy)]
enum State {
    Ready,
    Waiting(Wait),
    Done,
}

/// A thread that has begun.
struct Fiber {
    coroutine: Coroutine<(), Wait, End, FiberStack>,
    /// The bytes of its stack.
    stack: Range<usize>,
}

impl Fiber {
    /// The stack of a fiber that will not be resumed.
    fn abandon(mut self) -> FiberStack {
        // SAFETY: the stack holds numbers and pointers of a kernel, nothing that a destructor would have to see.
        unsafe { self.coroutine.force_reset() };
        self.coroutine.into_stack()
    }
}

/// A copy that has been asked for.
#[derive(Clone, Copy)]
pub struct AsyncCopy {
    /// First byte of the target.
    pub to: usize,
    /// First byte of the source.
    pub from: usize,
    /// Bytes of the target.
    pub bytes: usize,
    /// Bytes of the source; the rest of the target becomes 0.
    pub valid: usize,
    /// Who asked for it.
    pub site: usize,
    /// Whether it has happened.
    pub done: bool,
}

/// The asynchronous copies of a thread: closed groups, then the open one.
#[derive(Default)]
struct Groups {
    closed: Vec<Vec<AsyncCopy>>,
    open: Vec<AsyncCopy>,
}

/// Runs blocks, one after the other, on the calling thread.
// `Context` comes first: the callbacks get its address and mean the whole. Fibers and scheduler take turns on one thread and see the same
// worker, so everything that changes is in a cell, and no borrow is held while a fiber runs or where it may fail.
#[repr(C)]
pub struct Worker {
    context: Cell<Context>,
    asynchronous: Cell<Asynchronous>,
    running: Cell<usize>,
    /// The site of an asynchronous copy that happens right now.
    copying: Cell<Option<usize>>,
    /// Whether the running fiber does what its warp asked for together: it may look at the operands of the others.
    combining: Cell<bool>,
    fibers: RefCell<Vec<Option<Fiber>>>,
    yielders: RefCell<Vec<*const Yielder<(), Wait>>>,
    states: RefCell<Vec<State>>,
    copies: RefCell<Vec<Groups>>,
    stacks: RefCell<Stacks>,
    /// Shared memory, its bytes in use, and what lies where: the declaration, its offset.
    memory: *mut u8,
    used: Cell<usize>,
    places: RefCell<Vec<(Place, usize)>>,
    failure: RefCell<Option<Failure>>,
    pulse: Arc<Pulse>,
    /// The checker, in the checking flavour.
    check: Option<RefCell<Check>>,
}

// SAFETY: a worker's pointers lead to its own memory and to code; it runs on one thread at a time.
unsafe impl Send for Worker {}

impl Worker {
    /// A worker, which `check` looks after where it looks at `devices` devices.
    ///
    /// # Errors
    /// Where the system refuses addresses for stacks.
    pub fn new(check_devices: Option<usize>, pulse: Arc<Pulse>) -> io::Result<Self> {
        let context = Context {
            thread: [0; 3],
            block: [0; 3],
            threads: [1; 3],
            blocks: [1; 3],
            runtime: &RUNTIME,
            stack: [0; 2],
        };
        let memory: Box<[u128]> = vec![0; SHARED / size_of::<u128>()].into();
        let memory: *mut u8 = Box::into_raw(memory).cast();
        let shared = memory as usize..memory as usize + SHARED;
        Ok(Self {
            context: Cell::new(context),
            asynchronous: Cell::default(),
            running: Cell::new(0),
            copying: Cell::new(None),
            combining: Cell::new(false),
            fibers: RefCell::default(),
            yielders: RefCell::default(),
            states: RefCell::default(),
            copies: RefCell::default(),
            stacks: RefCell::new(Stacks::new(MAX_THREADS as usize)?),
            memory,
            used: Cell::new(0),
            places: RefCell::default(),
            failure: RefCell::default(),
            pulse,
            check: check_devices.map(|devices| RefCell::new(Check::new(devices, shared))),
        })
    }

    /// Runs block number `index` of `job`.
    ///
    /// # Errors
    /// What went wrong, with block and thread.
    pub fn block(&self, job: &Job<'_>, index: usize) -> Result<(), Failure> {
        let (n, block) = (job.threads as usize, coordinates(index, job.grid));
        self.context.set(Context { block, threads: [job.threads, 1, 1], blocks: job.grid, ..self.context.get() });
        self.asynchronous.set(job.asynchronous);
        self.used.set(0);
        self.places.borrow_mut().clear();
        self.fibers.borrow_mut().resize_with(n, || None);
        self.yielders.borrow_mut().resize(n, ptr::null());
        *self.states.borrow_mut() = vec![State::Ready; n];
        let mut copies = self.copies.borrow_mut();
        copies.clear();
        copies.resize_with(n, Groups::default);
        drop(copies);
        self.checked(|check| check.begin_block(n));
        fault::prepare();
        let running = self.pulse.block();
        let outcome = self.schedule(job, &job.order.of(n, index));
        drop(running);
        // Fibers that are still waiting hold nothing that needs to be dropped: their stacks serve again.
        let left: Vec<Fiber> = self.fibers.borrow_mut().iter_mut().filter_map(Option::take).collect();
        left.into_iter().for_each(|fiber| self.stacks.borrow_mut().give(fiber.abandon()));
        self.combining.set(false);
        self.copying.set(None);
        outcome.map_err(|failure| failure.context(format!("{}: block {block:?}", job.entry)))
    }

    /// Tells the checker something, where there is one.
    pub fn checked(&self, tell: impl FnOnce(&mut Check)) {
        if let Some(check) = &self.check {
            tell(&mut check.borrow_mut());
        }
    }

    fn schedule(&self, job: &Job<'_>, order: &[u32]) -> Result<(), Failure> {
        loop {
            let mut ran = false;
            for thread in order.iter().map(|t| *t as usize) {
                let ready = matches!(self.states.borrow()[thread], State::Ready);
                if ready {
                    ran = true;
                    self.resume(job, thread)?;
                }
            }
            if !ran && !self.release()? {
                return Ok(());
            }
        }
    }

    /// Runs `thread` until it waits or is done.
    fn resume(&self, job: &Job<'_>, thread: usize) -> Result<(), Failure> {
        let known = self.fibers.borrow_mut()[thread].take();
        let mut fiber = match known {
            Some(fiber) => fiber,
            None => self.start(job, thread)?,
        };
        self.running.set(thread);
        let (stack, image) = (&fiber.stack, &job.image);
        let stack = [stack.start, stack.end];
        self.context.set(Context { thread: [thread as u32, 0, 0], stack, ..self.context.get() });
        let (handler, coroutine) = (fiber.coroutine.trap_handler(), &mut fiber.coroutine);
        let (result, trap) = fault::guarded(handler, self.pulse.stop(), image, || coroutine.resume(()));
        if let Some(failure) = self.failure.borrow_mut().take() {
            self.stacks.borrow_mut().give(fiber.abandon());
            return Err(failure.context(format!("thread {thread}")));
        }
        match result {
            CoroutineResult::Return(end) => {
                self.states.borrow_mut()[thread] = State::Done;
                self.stacks.borrow_mut().give(fiber.coroutine.into_stack());
                if let (End::Trapped, Some(trap)) = (end, trap) {
                    return Err(self.trapped(trap).context(format!("thread {thread}")));
                }
            }
            CoroutineResult::Yield(wait) => {
                self.states.borrow_mut()[thread] = State::Waiting(wait);
                self.fibers.borrow_mut()[thread] = Some(fiber);
            }
        }
        Ok(())
    }

    fn start(&self, job: &Job<'_>, thread: usize) -> Result<Fiber, Failure> {
        let stack = self.stacks.borrow_mut().take();
        let stack = stack.map_err(|e| Failure::new(format!("no memory for the stack of thread {thread}: {e}")))?;
        let (run, arguments, worker) = (job.run, job.arguments.as_ptr() as usize, ptr::from_ref(self) as usize);
        let range = stack.range();
        let coroutine = Coroutine::with_stack(stack, move |yielder: &Yielder<(), Wait>, ()| {
            // SAFETY: the worker outlives its fibers and is not moved while a block runs.
            let worker = unsafe { &*(worker as *const Worker) };
            worker.yielders.borrow_mut()[thread] = yielder;
            // SAFETY: entry and arguments belong to the launch, whose signature was compared with theirs.
            unsafe { run(worker.context.as_ptr(), arguments as *const *mut c_void) };
            End::Returned
        });
        Ok(Fiber { coroutine, stack: range })
    }

    /// What a fiber was stopped for.
    fn trapped(&self, trap: Trap) -> Failure {
        let place = self.copying.get().map_or_else(|| site::at(trap.at), site::of_call);
        match trap.cause {
            Cause::Address(address) if self.stacks.borrow().hold(address) => full(&place),
            Cause::Address(address) => Failure::new(format!("{place}: touches what nobody may touch"))
                .at(address)
                .hint("Compare the index with the size of the buffer; the checking flavour says more."),
            Cause::Division => {
                Failure::new(format!("{place}: divides a whole number by zero")).hint("Look at what it divides by.")
            }
            Cause::Instruction => {
                Failure::new(format!("{place}: undefined behaviour that the compiler relied on not to happen"))
                    .hint("The checking flavour says more.")
            }
            Cause::Endless => endless(&place),
        }
    }

    /// Nobody can run: all are done (false), or all wait at one barrier and go on (true).
    fn release(&self) -> Result<bool, Failure> {
        let mut states = self.states.borrow_mut();
        if states.iter().all(|state| matches!(state, State::Done)) {
            return Ok(false);
        }
        let State::Waiting(Wait::Barrier(first)) = states[0] else { return Err(deadlock(&states)) };
        if !states.iter().all(|state| matches!(state, State::Waiting(Wait::Barrier(place)) if *place == first)) {
            return Err(deadlock(&states));
        }
        states.fill(State::Ready);
        drop(states);
        self.checked(Check::barrier);
        Ok(true)
    }
}

/// Threads that wait for others which do not come.
fn deadlock(states: &[State]) -> Failure {
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for state in states {
        let place = match state {
            State::Waiting(Wait::Barrier(place)) => format!("wait at the barrier {place}"),
            State::Waiting(Wait::Warp { place, mask, .. }) => {
                format!("wait for the lanes {mask:#x} of their warp at {place}")
            }
            State::Waiting(Wait::Failed) | State::Ready | State::Done => "have ended".to_owned(),
        };
        *places.entry(place).or_default() += 1;
    }
    let places: Vec<String> = places.iter().map(|(place, count)| format!("{count} {place}")).collect();
    let what = format!("deadlock: of {} threads {}", states.len(), places.join(", "));
    Failure::new(what).hint(
        "Let every thread of the block come to the same barrier, every lane of a mask to the same collective, and none end before.",
    )
}

fn full(place: &str) -> Failure {
    Failure::new(format!("{place}: the {} KiB of the thread's stack are full", stack::KERNEL / 1024)).hint(
        "Keep less in local variables and arrays, and end every recursion: a device would be slow with so much, too.",
    )
}

fn endless(place: &str) -> Failure {
    Failure::new(format!("{place}: does not end: the block has run longer than its limit")).hint(
        "Look for a loop that does not end, or a thread that spins on another one: threads change only where they wait for each other.",
    )
}

/// What kernels ask for, on the fiber that asks.
impl Worker {
    /// Ends the running fiber with a failure; it is never resumed.
    fn fail(&self, failure: Failure) {
        *self.failure.borrow_mut() = Some(failure);
        self.suspend(Wait::Failed);
    }

    fn suspend(&self, wait: Wait) {
        let yielder = self.yielders.borrow()[self.running.get()];
        // SAFETY: the yielder of the fiber that runs right now, which lives on its stack.
        unsafe { (*yielder).suspend(wait) };
    }

    /// Begins what a kernel asks for. Fails where the block has run for too long, or there is too little room for it.
    fn begin(&self, place: impl Fn() -> String) {
        if stack::is_full(self.context.get().stack[0]) {
            self.fail(full(&place()));
        }
        if self.pulse.stop().load(Ordering::Relaxed) {
            self.fail(endless(&place()));
        }
    }

    /// What the compiler's instrumentation found.
    pub fn report(&self, what: &str, place: Place) {
        self.fail(Failure::new(format!("{place}: {what}")).hint(
            "The language does not say what happens then, and a device does something else than a processor: look at the operands before.",
        ));
    }

    /// Waits for all threads of the block.
    pub fn barrier(&self, place: Place) {
        self.begin(|| place.to_string());
        self.suspend(Wait::Barrier(place));
    }

    /// Waits for the lanes of `mask`; the last one combines what they left.
    pub fn warp(&self, mask: u32, place: Place, own: *mut c_void, combine: Combine) {
        self.begin(|| place.to_string());
        let (warp, lane) = (self.running.get() / WARP, self.running.get() % WARP);
        if mask >> lane & 1 == 0 {
            let what = format!("{place}: the mask {mask:#x} does not name lane {lane}, which calls");
            self.fail(Failure::new(what).hint("Name all lanes that come here, and only those."));
        }
        let lanes = || {
            (0..WARP).filter(|other| *other != lane && mask >> other & 1 == 1).map(|other| (other, warp * WARP + other))
        };
        let (mut operands, mut all, mut stranger) = ([ptr::null_mut(); WARP], true, None);
        operands[lane] = own;
        for (lane, thread) in lanes() {
            match self.states.borrow().get(thread) {
                Some(State::Waiting(Wait::Warp { mask: other, place: there, operands: left, combine: what })) => {
                    if (*other, *there) != (mask, place) || !ptr::fn_addr_eq(*what, combine) {
                        stranger = Some((thread, *other, *there));
                    }
                    operands[lane] = *left;
                }
                // It may still come; if it never does, `release` finds that nobody can go on.
                _ => all = false,
            }
        }
        if let Some((thread, other, there)) = stranger {
            let what = format!(
                "{place}: waits for the lanes {mask:#x} of its warp, of which thread {thread} waits at {there} for {other:#x}"
            );
            self.fail(Failure::new(what).hint("All lanes of a mask come to the same collective with the same mask."));
        }
        if !all {
            self.suspend(Wait::Warp { mask, place, operands: own, combine });
            return;
        }
        self.combining.set(true);
        // SAFETY: every operand points to the stack of a fiber that waits, or of this one, and has the type that this operation left there.
        unsafe { combine(operands.as_ptr(), mask) };
        self.combining.set(false);
        for (_, thread) in lanes() {
            self.states.borrow_mut()[thread] = State::Ready;
        }
        self.checked(|check| check.meet(warp, mask));
    }

    /// The memory of the declaration at `place`: the same for every thread of the block.
    pub fn shared(&self, bytes: usize, place: Place) -> *mut c_void {
        self.begin(|| place.to_string());
        let known = self.places.borrow().iter().find(|(p, _)| *p == place).map(|(_, offset)| *offset);
        let offset = known.unwrap_or_else(|| {
            let (offset, size) = (self.used.get(), bytes.next_multiple_of(16));
            if offset + size > SHARED {
                let what = format!("{place}: {} bytes of shared memory, a block has {SHARED}", offset + size);
                self.fail(Failure::new(what).hint("Use smaller tiles."));
            }
            self.used.set(offset + size);
            self.places.borrow_mut().push((place, offset));
            // SAFETY: inside the worker's shared memory (checked above).
            unsafe { ptr::write_bytes(self.memory.add(offset), POISON, size) };
            self.checked(|check| check.declared(self.memory as usize + offset, bytes, place));
            offset
        });
        self.memory.wrapping_add(offset).cast()
    }

    /// Asks for an asynchronous copy.
    pub fn copy_async(&self, mut copy: AsyncCopy) {
        self.begin(|| site::of_call(copy.site));
        self.look_at_copy(&copy, false);
        if self.asynchronous.get() == Asynchronous::Eager {
            self.perform(&copy);
            copy.done = true;
        }
        self.copies.borrow_mut()[self.running.get()].open.push(copy);
    }

    /// Closes the open group of copies.
    pub fn commit_async(&self) {
        let groups = &mut self.copies.borrow_mut()[self.running.get()];
        let closed = std::mem::take(&mut groups.open);
        groups.closed.push(closed);
    }

    /// Waits until no more than `pending` groups are under way.
    pub fn wait_async(&self, pending: usize) {
        let mut copies = self.copies.borrow_mut();
        let groups = &mut copies[self.running.get()].closed;
        let done = groups.len().saturating_sub(pending);
        let arrived: Vec<AsyncCopy> = groups.drain(..done).flatten().collect();
        drop(copies);
        for copy in arrived {
            self.look_at_copy(&copy, true);
            if !copy.done {
                self.perform(&copy);
            }
        }
    }

    fn perform(&self, copy: &AsyncCopy) {
        self.copying.set(Some(copy.site));
        // SAFETY: as safe as the kernel's own access would be: the addresses are the kernel's.
        unsafe {
            ptr::copy_nonoverlapping(copy.from as *const u8, copy.to as *mut u8, copy.valid);
            ptr::write_bytes((copy.to + copy.valid) as *mut u8, 0, copy.bytes - copy.valid);
        }
        self.copying.set(None);
    }

    fn look_at_copy(&self, copy: &AsyncCopy, arrived: bool) {
        let Some(check) = &self.check else { return };
        let found = check.borrow_mut().copy_async(copy, self.running.get(), arrived);
        if let Err(failure) = found {
            self.fail(failure);
        }
    }

    /// The checking flavour is about to touch memory that is not on its own stack.
    pub fn access(&self, address: usize, bytes: usize, kind: u32, site: usize) {
        self.begin(|| site::of_call(site));
        let Some(check) = &self.check else { return };
        let found = if self.stacks.borrow().hold(address) {
            let what = || format!("{}: touches a local variable of another thread", site::of_call(site));
            let hint = "Share through SHARED memory, or by a collective.";
            if self.combining.get() { Ok(()) } else { Err(Failure::new(what()).hint(hint)) }
        } else {
            check.borrow_mut().access(address, bytes, kind, self.running.get(), site)
        };
        if let Err(failure) = found {
            self.fail(failure);
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let words = ptr::slice_from_raw_parts_mut(self.memory.cast::<u128>(), SHARED / size_of::<u128>());
        // SAFETY: made by `Box::into_raw` with this length.
        drop(unsafe { Box::from_raw(words) });
    }
}
