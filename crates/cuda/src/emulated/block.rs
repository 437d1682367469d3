//! Runs the blocks of a launch. Every thread of a block is a fiber on a stack of its own; it runs until it waits at a barrier, for its warp,
//! or is done. Nothing here preempts: a thread that spins on another one hangs.

use super::{check::Check, memory::POISON};
use alexnode_core::rng::sample_order;
use corosensei::{Coroutine, CoroutineResult, Yielder, stack::DefaultStack};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    ffi::c_void,
    ptr,
};

/// Bytes of a fiber's stack. Kernels keep little there: on a device it would spill.
const STACK: usize = 64 * 1024;
/// Shared memory that a block may use without asking for more.
const SHARED: usize = 48 * 1024;
/// Threads of a warp.
const WARP: usize = 32;
/// The most threads of a block.
pub const MAX_THREADS: u32 = 1024;

/// Twin of `emulator::Combine` in `emulator.h`.
type Combine = unsafe extern "C" fn(operands: *const *mut c_void, mask: u32);

/// Twin of `emulator::Runtime` in `emulator.h`.
#[repr(C)]
pub struct Runtime {
    barrier: unsafe extern "C" fn(*mut Context, u32),
    shared: unsafe extern "C" fn(*mut Context, usize, u32) -> *mut c_void,
    warp: unsafe extern "C" fn(*mut Context, u32, u32, *mut c_void, Combine),
    copy_async: unsafe extern "C" fn(*mut Context, *mut c_void, *const c_void, u32, u32),
    commit_async: unsafe extern "C" fn(*mut Context),
    wait_async: unsafe extern "C" fn(*mut Context, u32),
    access: unsafe extern "C" fn(*mut Context, *const c_void, u32, u32, *const c_void),
}

static RUNTIME: Runtime = Runtime { barrier, shared, warp, copy_async, commit_async, wait_async, access };

/// Twin of `emulator::Context` in `emulator.h`: what the running fiber sees.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Context {
    thread: [u32; 3],
    block: [u32; 3],
    threads: [u32; 3],
    blocks: [u32; 3],
    runtime: *const Runtime,
}

/// How an entry is called: `EMULATED_ENTRY` in `emulator.h`.
pub type Run = unsafe extern "C" fn(*mut Context, *const *mut c_void);

/// In which order threads and blocks run. The results of a correct kernel do not depend on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// From the first to the last.
    #[default]
    Forward,
    /// From the last to the first.
    Reverse,
    /// Another one for every block, from a seed.
    Random(u64),
}

impl Order {
    /// The order of `n` things, of which there are many: `which` tells them apart.
    fn of(self, n: usize, which: usize) -> Vec<u32> {
        match self {
            Self::Forward => (0..n as u32).collect(),
            Self::Reverse => (0..n as u32).rev().collect(),
            Self::Random(seed) => sample_order(seed, which as u32, n),
        }
    }
    /// The place of block `i` of `n` in the grid.
    pub fn block(self, i: usize, n: usize) -> usize {
        match self {
            Self::Forward => i,
            Self::Reverse => n - 1 - i,
            // A stride that is prime to any count of blocks below it visits each once.
            Self::Random(seed) => (seed as usize % n + i.wrapping_mul(stride(n))) % n,
        }
    }
}

/// A step that visits all of `n` places: prime to `n`, and far from 1.
fn stride(n: usize) -> usize {
    let gcd = |mut a: usize, mut b: usize| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    (n * 2 / 5 + 1..).find(|s| gcd(*s, n) == 1).unwrap_or(1)
}

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
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// For messages.
    pub entry: &'a str,
    /// The code.
    pub run: Run,
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

/// What a fiber waits for.
#[derive(Clone, Copy)]
enum Wait {
    /// All threads of the block, at this line.
    Barrier(u32),
    /// The lanes of `mask`, at this line.
    Warp { mask: u32, line: u32, operands: *mut c_void, combine: Combine },
    /// Nothing: the block has failed.
    Failed,
}

#[derive(Clone, Copy)]
enum State {
    Ready,
    Waiting(Wait),
    Done,
}

type Fiber = Coroutine<(), Wait, (), DefaultStack>;

/// A copy that has been asked for.
#[derive(Clone, Copy)]
struct AsyncCopy {
    to: usize,
    from: usize,
    bytes: usize,
    valid: usize,
}

/// The asynchronous copies of a thread: closed groups, then the open one.
#[derive(Default)]
struct Groups {
    closed: Vec<Vec<AsyncCopy>>,
    open: Vec<AsyncCopy>,
}

/// Runs blocks, one after the other, on the calling thread.
// `Context` comes first: the callbacks get its address and mean the whole. Fibers and scheduler take turns on one thread and see the same
// worker, so everything that changes is in a cell, and no borrow is held while a fiber runs.
#[repr(C)]
pub struct Worker {
    context: Cell<Context>,
    asynchronous: Cell<Asynchronous>,
    running: Cell<usize>,
    fibers: RefCell<Vec<Option<Fiber>>>,
    yielders: RefCell<Vec<*const Yielder<(), Wait>>>,
    states: RefCell<Vec<State>>,
    copies: RefCell<Vec<Groups>>,
    stacks: RefCell<Vec<DefaultStack>>,
    /// Shared memory, its bytes in use, and what lies where: line of the declaration, offset.
    memory: *mut u8,
    used: Cell<usize>,
    places: RefCell<Vec<(u32, usize)>>,
    failure: RefCell<Option<String>>,
    /// The checker, in the checking flavour.
    check: Option<RefCell<Check>>,
}

// SAFETY: a worker's pointers lead to its own memory and to code; it runs on one thread at a time.
unsafe impl Send for Worker {}

impl Worker {
    /// A worker without stacks: they come with the first threads that wait.
    pub fn new(check: Option<Check>) -> Self {
        let context = Context { thread: [0; 3], block: [0; 3], threads: [1; 3], blocks: [1; 3], runtime: &RUNTIME };
        let memory: Box<[u128]> = vec![0; SHARED / size_of::<u128>()].into();
        Self {
            context: Cell::new(context),
            asynchronous: Cell::default(),
            running: Cell::new(0),
            fibers: RefCell::default(),
            yielders: RefCell::default(),
            states: RefCell::default(),
            copies: RefCell::default(),
            stacks: RefCell::default(),
            memory: Box::into_raw(memory).cast(),
            used: Cell::new(0),
            places: RefCell::default(),
            failure: RefCell::default(),
            check: check.map(RefCell::new),
        }
    }

    /// Runs block number `index` of `job`.
    ///
    /// # Errors
    /// What went wrong, with block and thread.
    pub fn block(&self, job: &Job<'_>, index: usize) -> Result<(), String> {
        let (n, [gx, gy, _]) = (job.threads as usize, job.grid.map(|n| n as usize));
        let block = [(index % gx) as u32, (index / gx % gy) as u32, (index / gx / gy) as u32];
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
        self.checked(Check::begin_block);
        let outcome = self.schedule(job, &job.order.of(n, index));
        // Fibers that are still waiting hold nothing that needs to be dropped: their stacks serve again.
        let left: Vec<Fiber> = self.fibers.borrow_mut().iter_mut().filter_map(Option::take).collect();
        self.stacks.borrow_mut().extend(left.into_iter().map(abandon));
        outcome.map_err(|what| format!("{}: block {block:?}: {what}", job.entry))
    }

    /// Tells the checker something, where there is one.
    fn checked(&self, tell: impl FnOnce(&mut Check)) {
        if let Some(check) = &self.check {
            tell(&mut check.borrow_mut());
        }
    }

    fn schedule(&self, job: &Job<'_>, order: &[u32]) -> Result<(), String> {
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
    fn resume(&self, job: &Job<'_>, thread: usize) -> Result<(), String> {
        let known = self.fibers.borrow_mut()[thread].take();
        let mut fiber = match known {
            Some(fiber) => fiber,
            None => self.start(job, thread)?,
        };
        self.running.set(thread);
        self.context.set(Context { thread: [thread as u32, 0, 0], ..self.context.get() });
        let result = fiber.resume(());
        if let Some(failure) = self.failure.borrow_mut().take() {
            self.stacks.borrow_mut().push(abandon(fiber));
            return Err(format!("thread {thread}: {failure}"));
        }
        match result {
            CoroutineResult::Return(()) => {
                self.states.borrow_mut()[thread] = State::Done;
                self.stacks.borrow_mut().push(fiber.into_stack());
            }
            CoroutineResult::Yield(wait) => {
                self.states.borrow_mut()[thread] = State::Waiting(wait);
                self.fibers.borrow_mut()[thread] = Some(fiber);
                if let Wait::Warp { mask, line, combine, .. } = wait {
                    self.meet(thread / WARP, mask, line, combine)?;
                }
            }
        }
        Ok(())
    }

    fn start(&self, job: &Job<'_>, thread: usize) -> Result<Fiber, String> {
        let stack = match self.stacks.borrow_mut().pop() {
            Some(stack) => stack,
            None => DefaultStack::new(STACK).map_err(|e| format!("no memory for the stack of a thread: {e}"))?,
        };
        let (run, arguments, worker) = (job.run, job.arguments.as_ptr() as usize, ptr::from_ref(self) as usize);
        Ok(Coroutine::with_stack(stack, move |yielder: &Yielder<(), Wait>, ()| {
            // SAFETY: the worker outlives its fibers and is not moved while a block runs.
            let worker = unsafe { &*(worker as *const Worker) };
            worker.yielders.borrow_mut()[thread] = yielder;
            // SAFETY: entry and arguments belong to the launch, whose signature was compared with theirs.
            unsafe { run(worker.context.as_ptr(), arguments as *const *mut c_void) };
        }))
    }

    /// Where all lanes of `mask` have come to the same operation: combines what they left, and lets them go on.
    fn meet(&self, warp: usize, mask: u32, line: u32, combine: Combine) -> Result<(), String> {
        let mut states = self.states.borrow_mut();
        let mut operands = [ptr::null_mut(); WARP];
        let lanes = || (0..WARP).filter(|lane| mask >> lane & 1 == 1);
        for lane in lanes() {
            match states.get(warp * WARP + lane) {
                Some(State::Waiting(Wait::Warp { mask: other, line: there, operands: left, .. })) => {
                    if (*other, *there) != (mask, line) {
                        return Err(format!(
                            "lanes of one warp wait for each other at line {line} (mask {mask:#x}) and line {there} (mask {other:#x})"
                        ));
                    }
                    operands[lane] = *left;
                }
                // It may still come; if it never does, `release` finds that nobody can go on.
                _ => return Ok(()),
            }
        }
        // SAFETY: every operand points to the stack of a fiber that waits, and has the type that this operation left there.
        unsafe { combine(operands.as_ptr(), mask) };
        for lane in lanes() {
            states[warp * WARP + lane] = State::Ready;
        }
        self.checked(|check| check.warp_met(warp, mask));
        Ok(())
    }

    /// Nobody can run: all are done (false), or all wait at one barrier and go on (true).
    fn release(&self) -> Result<bool, String> {
        let mut states = self.states.borrow_mut();
        let live = states.iter().filter(|s| !matches!(s, State::Done)).count();
        if live == 0 {
            return Ok(false);
        }
        let mut lines: BTreeMap<u32, usize> = BTreeMap::new();
        for state in states.iter() {
            if let State::Waiting(Wait::Barrier(line) | Wait::Warp { line, .. }) = state {
                *lines.entry(*line).or_default() += 1;
            }
        }
        let at_barrier = states.iter().all(|s| matches!(s, State::Waiting(Wait::Barrier(_))));
        if lines.len() > 1 || !at_barrier {
            let places: Vec<String> = lines.iter().map(|(line, count)| format!("{count} at line {line}")).collect();
            let (all, ended) = (states.len(), states.len() - live);
            return Err(format!(
                "deadlock: {live} of {all} threads wait for each other in different places ({}; {ended} have ended)",
                places.join(", ")
            ));
        }
        states.fill(State::Ready);
        self.checked(Check::barrier);
        Ok(true)
    }

    /// Ends the running fiber with a failure; it is never resumed.
    fn fail(&self, what: String) {
        *self.failure.borrow_mut() = Some(what);
        self.suspend(Wait::Failed);
    }

    fn suspend(&self, wait: Wait) {
        let yielder = self.yielders.borrow()[self.running.get()];
        // SAFETY: the yielder of the fiber that runs right now, which lives on its stack.
        unsafe { (*yielder).suspend(wait) };
    }

    /// The memory of the declaration at `line`: the same for every thread of the block.
    fn shared(&self, bytes: usize, line: u32) -> *mut c_void {
        let known = self.places.borrow().iter().find(|(l, _)| *l == line).map(|(_, offset)| *offset);
        let offset = known.unwrap_or_else(|| {
            let (offset, size) = (self.used.get(), bytes.next_multiple_of(16));
            if offset + size > SHARED {
                self.fail(format!("line {line}: {} bytes of shared memory, a block has {SHARED}", offset + size));
            }
            self.used.set(offset + size);
            self.places.borrow_mut().push((line, offset));
            // SAFETY: inside the worker's shared memory (checked above).
            unsafe { ptr::write_bytes(self.memory.add(offset), POISON, size) };
            self.checked(|check| check.shared(self.memory as usize + offset, bytes));
            offset
        });
        self.memory.wrapping_add(offset).cast()
    }

    fn copy_async(&self, copy: AsyncCopy) {
        match self.asynchronous.get() {
            Asynchronous::Eager => perform(&copy),
            Asynchronous::Late => {
                self.checked(|check| check.pending(copy.to, copy.bytes));
                self.copies.borrow_mut()[self.running.get()].open.push(copy);
            }
        }
    }

    fn commit_async(&self) {
        let groups = &mut self.copies.borrow_mut()[self.running.get()];
        let closed = std::mem::take(&mut groups.open);
        groups.closed.push(closed);
    }

    fn wait_async(&self, pending: usize) {
        let groups = &mut self.copies.borrow_mut()[self.running.get()].closed;
        let done = groups.len().saturating_sub(pending);
        for copy in groups.drain(..done).flatten() {
            perform(&copy);
            self.checked(|check| check.arrived(copy.to, copy.bytes));
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

/// The stack of a fiber that will not be resumed.
fn abandon(mut fiber: Fiber) -> DefaultStack {
    // SAFETY: the stack holds numbers and pointers of a kernel, nothing that a destructor would have to see.
    unsafe { fiber.force_reset() };
    fiber.into_stack()
}

fn perform(copy: &AsyncCopy) {
    // SAFETY: as safe as the kernel's own access would be: the addresses are the kernel's.
    unsafe {
        ptr::copy_nonoverlapping(copy.from as *const u8, copy.to as *mut u8, copy.valid);
        ptr::write_bytes((copy.to + copy.valid) as *mut u8, 0, copy.bytes - copy.valid);
    }
}

/// The worker whose context this is.
///
/// # Safety
/// `context` must be the one that `Worker::start` handed to the entry.
unsafe fn worker<'a>(context: *mut Context) -> &'a Worker {
    // SAFETY: `Context` is the first field of a `#[repr(C)]` worker (the caller's promise).
    unsafe { &*context.cast::<Worker>() }
}

unsafe extern "C" fn barrier(context: *mut Context, line: u32) {
    // SAFETY: called by the running fiber with the context it was started with.
    unsafe { worker(context) }.suspend(Wait::Barrier(line));
}

unsafe extern "C" fn shared(context: *mut Context, bytes: usize, line: u32) -> *mut c_void {
    // SAFETY: as in `barrier`.
    unsafe { worker(context) }.shared(bytes, line)
}

unsafe extern "C" fn warp(context: *mut Context, mask: u32, line: u32, operands: *mut c_void, combine: Combine) {
    // SAFETY: as in `barrier`.
    let worker = unsafe { worker(context) };
    if mask >> (worker.running.get() % WARP) & 1 == 0 {
        worker.fail(format!("line {line}: the mask {mask:#x} does not name the lane that calls"));
    }
    worker.suspend(Wait::Warp { mask, line, operands, combine });
}

unsafe extern "C" fn copy_async(context: *mut Context, to: *mut c_void, from: *const c_void, bytes: u32, valid: u32) {
    // SAFETY: as in `barrier`.
    let worker = unsafe { worker(context) };
    let copy = AsyncCopy { to: to as usize, from: from as usize, bytes: bytes as usize, valid: valid as usize };
    worker.copy_async(copy);
}

unsafe extern "C" fn commit_async(context: *mut Context) {
    // SAFETY: as in `barrier`.
    unsafe { worker(context) }.commit_async();
}

unsafe extern "C" fn wait_async(context: *mut Context, pending: u32) {
    // SAFETY: as in `barrier`.
    unsafe { worker(context) }.wait_async(pending as usize);
}

unsafe extern "C" fn access(context: *mut Context, address: *const c_void, bytes: u32, kind: u32, site: *const c_void) {
    // SAFETY: as in `barrier`.
    let worker = unsafe { worker(context) };
    let Some(check) = &worker.check else { return };
    let (thread, block) = (worker.running.get(), worker.context.get().block);
    let found = check.borrow_mut().access(address as usize, bytes as usize, kind, thread, block, site as usize);
    if let Err(what) = found {
        worker.fail(what);
    }
}
