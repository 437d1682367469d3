//! Stops kernels that do not end.

use super::fault::{self, Thread};
use std::{
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

/// How many times it looks at a block before the limit is over.
const LOOKS: u32 = 8;
/// How often it tries to stop a block.
const AGAIN: Duration = Duration::from_millis(5);

/// Looks after workers.
#[derive(Debug)]
pub struct Watchdog {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    pulses: Vec<Arc<Pulse>>,
    ended: Mutex<bool>,
    end: Condvar,
}

/// A sign of life of one worker.
#[derive(Debug, Default)]
pub struct Pulse {
    /// The thread that runs a block, and what it had computed when that was first looked at: not the time of a clock, as the process may have been
    /// halted, or have had no processor.
    running: Mutex<Option<(Thread, Option<Duration>)>>,
    stop: AtomicBool,
}

impl Pulse {
    /// A block begins on this thread; it ends when the result is dropped.
    pub fn block(&self) -> impl Drop + use<'_> {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some((fault::this_thread(), None));
        Running(self)
    }
    /// Set where the block has to stop.
    pub fn stop(&self) -> &AtomicBool {
        &self.stop
    }
    /// True where it has run for longer than `limit`: then it has to be looked at again soon.
    fn look(&self, limit: Duration) -> bool {
        // Held until the signal is sent, so that the thread lives.
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((thread, begun)) = &mut *running else { return false };
        let now = fault::computed(*thread);
        let over = now.saturating_sub(*begun.get_or_insert(now)) > limit;
        if over {
            self.stop.store(true, Ordering::Relaxed);
            fault::interrupt(*thread);
        }
        over
    }
}

struct Running<'a>(&'a Pulse);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        *self.0.running.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.0.stop.store(false, Ordering::Relaxed);
    }
}

impl Watchdog {
    /// Stops every block of `pulses` that runs longer than `limit`.
    ///
    /// # Errors
    /// Where there is no thread for it.
    pub fn new(pulses: Vec<Arc<Pulse>>, limit: Duration) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { pulses, ended: Mutex::new(false), end: Condvar::new() });
        let own = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("emulated-watchdog".into()).spawn(move || own.watch(limit))?;
        Ok(Self { shared, thread: Some(thread) })
    }
}

impl Shared {
    fn watch(&self, limit: Duration) {
        let mut pause = limit / LOOKS;
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        while !*ended {
            (ended, _) = self.end.wait_timeout(ended, pause).unwrap_or_else(PoisonError::into_inner);
            // Each of them: `any` would stop at the first.
            let over = self.pulses.iter().filter(|pulse| pulse.look(limit)).count();
            pause = if over > 0 { AGAIN } else { limit / LOOKS };
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        *self.shared.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.end.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
