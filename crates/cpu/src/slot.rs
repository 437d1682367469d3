//! The thread of a slot: takes commands in order, runs them on its workers, and counts those that are done.

use crate::workers::Workers;
use alexnode_core::{
    Error, Host, Launch, Result,
    backend::{MAX_ARGS, Stamp},
    kernel::{Args, RawArg},
};
use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::Instant,
};

/// Commands that wait for their turn before the issuer has to wait as well.
const QUEUE: usize = 1024;
/// The most bytes that travel inside a command; larger uploads wait for the slot and write its memory directly.
pub const INLINE_UPLOAD: usize = 512;
/// Bytes that one task of a copy moves.
const COPY_TASK: usize = 256 * 1024;

/// Rows to be copied, with addresses.
#[derive(Clone, Copy)]
pub struct Rows {
    pub src: *const u8,
    pub dst: *mut u8,
    pub rows: usize,
    pub row_bytes: usize,
    pub src_pitch: usize,
    pub dst_pitch: usize,
}

/// A moment of a slot: when it has done this many commands.
pub type Moment = (Arc<Progress>, u64);

/// What a slot can be told. Plain data and counted references: sending one allocates nothing.
#[expect(
    clippy::large_enum_variant,
    reason = "the queue holds them by value; a box would be an allocation per command"
)]
pub enum Command {
    Launch { launch: Launch, args: [RawArg; MAX_ARGS] },
    Write { dst: *mut u8, data: [u8; INLINE_UPLOAD], len: usize },
    Copy { rows: Rows, after: Option<Moment> },
    Hold { until: Moment },
    Stamp(Stamp),
}

// SAFETY: the addresses belong to buffers of the backend, which frees one only after the slots that use it are idle.
unsafe impl Send for Command {}

/// How far a slot has come, and its first failure since somebody asked.
#[derive(Default)]
pub struct Progress {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    done: u64,
    failure: Option<Error>,
}

impl Progress {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under the lock; a poisoned one would still hold a valid state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn wait_for(&self, done: u64) {
        let waiting = self.changed.wait_while(self.lock(), |state| state.done < done);
        drop(waiting.unwrap_or_else(PoisonError::into_inner));
    }
}

/// The issuer's side of a slot.
pub struct Slot {
    pub progress: Arc<Progress>,
    issued: Cell<u64>,
    index: usize,
    // None only while dropping: closing the queue ends the thread.
    queue: Option<SyncSender<Command>>,
    thread: Option<JoinHandle<()>>,
}

impl Slot {
    /// Starts the thread of slot `index` with `workers` workers, itself included.
    ///
    /// # Errors
    /// `ERR_DEVICE` where the system refuses threads.
    pub fn start(index: usize, workers: usize) -> Result<Self> {
        let progress = Arc::new(Progress::default());
        let (queue, commands) = sync_channel(QUEUE);
        let (ready, started) = sync_channel(1);
        let name = format!("alexnode cpu {index}");
        let on_thread = {
            let (progress, name) = (Arc::clone(&progress), name.clone());
            move || match Workers::with_current_thread(workers, &name) {
                Ok(workers) => {
                    let _ = ready.send(Ok(()));
                    serve(index, &workers, &commands, &progress);
                }
                Err(error) => drop(ready.send(Err(error))),
            }
        };
        let refused = |e: Box<dyn std::error::Error + Send + Sync>| {
            Error::device(format!("cpu: cannot start the thread of slot {index}")).caused_by(e)
        };
        let thread = std::thread::Builder::new().name(name).spawn(on_thread).map_err(|e| refused(e.into()))?;
        started.recv().map_err(|e| refused(e.into()))??;
        Ok(Self { progress, issued: Cell::new(0), index, queue: Some(queue), thread: Some(thread) })
    }

    /// How many commands were sent so far.
    pub fn issued(&self) -> u64 {
        self.issued.get()
    }

    /// Queues `command`; waits while the queue is full.
    ///
    /// # Errors
    /// `ERR_KERNEL` where the thread has died.
    pub fn send(&self, command: Command) -> Result<()> {
        let sent = self.queue.as_ref().is_some_and(|queue| queue.send(command).is_ok());
        if !sent {
            return Err(Error::kernel(format!("the thread of slot {} (cpu) has ended", self.index)));
        }
        self.issued.set(self.issued.get() + 1);
        Ok(())
    }

    /// Waits until everything sent so far is done.
    pub fn wait(&self) {
        self.progress.wait_for(self.issued.get());
    }

    /// The first failure since the last call.
    ///
    /// # Errors
    /// `ERR_KERNEL` naming the kernel.
    pub fn check(&self) -> Result<()> {
        self.progress.lock().failure.take().map_or(Ok(()), Err)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // It catches every panic of a kernel; another one has nobody left to be told.
            let _ = thread.join();
        }
    }
}

/// The life of a slot's thread.
fn serve(index: usize, workers: &Workers, commands: &Receiver<Command>, progress: &Progress) {
    for command in commands {
        // After a failure the rest would only compute on garbage: it is counted, not run, until the failure was reported.
        let failed = progress.lock().failure.is_some();
        let outcome = catch_unwind(AssertUnwindSafe(|| run(&command, failed, workers)));
        let mut state = progress.lock();
        if let Err(panic) = outcome {
            state.failure.get_or_insert_with(|| failure(index, &command, &*panic));
        }
        state.done += 1;
        drop(state);
        progress.changed.notify_all();
    }
}

fn run(command: &Command, failed: bool, workers: &Workers) {
    match command {
        Command::Hold { until: (progress, done) } => progress.wait_for(*done),
        Command::Stamp(stamp) => {
            stamp.get_or_init(Instant::now);
        }
        Command::Copy { rows, after } => {
            if let Some((progress, done)) = after {
                progress.wait_for(*done);
            }
            if !failed {
                copy(rows, workers);
            }
        }
        _ if failed => {}
        Command::Launch { launch, args } => {
            let access = launch.kernel.access;
            // SAFETY: the backend resolved the arguments to live, initialised memory; `Launch::new` checked that written
            // ones overlap no other; and nobody else uses them before this command is done.
            let args = unsafe { Args::new(&args[..access.len()], access) };
            (launch.kernel.body)(launch.params(), &args, workers);
        }
        // SAFETY: `dst` is the address of `len` bytes that only this slot uses now.
        Command::Write { dst, data, len } => unsafe { ptr::copy_nonoverlapping(data.as_ptr(), *dst, *len) },
    }
}

fn copy(rows: &Rows, workers: &Workers) {
    let Rows { src, dst, rows, row_bytes, src_pitch, dst_pitch } = *rows;
    let whole = row_bytes == src_pitch && row_bytes == dst_pitch;
    let per_task = (COPY_TASK / row_bytes).max(1);
    let marker = Addresses(src, dst);
    workers.parallel(rows.div_ceil(per_task), &|task, _| {
        let Addresses(src, dst) = *marker.get();
        let first = task * per_task;
        let count = per_task.min(rows - first);
        let (runs, bytes) = if whole { (1, count * row_bytes) } else { (count, row_bytes) };
        for run in 0..runs {
            let row = first + run;
            // SAFETY: the backend checked that all rows lie inside their buffers; `copy` allows them to touch.
            unsafe { ptr::copy(src.add(row * src_pitch), dst.add(row * dst_pitch), bytes) };
        }
    });
}

/// Source and destination of a copy, for its tasks.
struct Addresses(*const u8, *mut u8);

impl Addresses {
    fn get(&self) -> &Self {
        self
    }
}

// SAFETY: the tasks of a copy write different rows.
unsafe impl Sync for Addresses {}

fn failure(slot: usize, command: &Command, panic: &(dyn std::any::Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("unknown panic");
    let what = match command {
        Command::Launch { launch, .. } => launch.kernel.name,
        Command::Write { .. } => "upload",
        Command::Copy { .. } | Command::Hold { .. } => "copy",
        Command::Stamp(_) => "stamp",
    };
    Error::kernel(format!("{what} failed on slot {slot} (cpu): {text}"))
        .hint("This is a mistake in alexnode: please report it with the command and the configuration.")
}
