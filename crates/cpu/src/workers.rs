//! The host of kernel bodies: workers that share out tasks.

use alexnode_core::{Error, Host, Result};
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread::JoinHandle,
};

/// A fixed number of workers. Tasks are handed out one by one, so that uneven ones balance; which worker gets which is not
/// fixed, and nothing may depend on it.
pub struct Workers {
    count: usize,
    // None: a single worker, the caller.
    pool: Option<ThreadPool>,
    threads: Vec<JoinHandle<()>>,
    busy: AtomicBool,
}

impl Workers {
    /// `count` workers for callers of any thread: for tests and tools. (A slot's own thread is one of its workers.)
    ///
    /// # Errors
    /// `ERR_DEVICE` where the system refuses threads.
    pub fn new(count: usize) -> Result<Self> {
        Self::build(count, "alexnode worker", ThreadPoolBuilder::new())
    }

    /// `count` workers, the first of which is the calling thread; only it may use them.
    pub(crate) fn with_current_thread(count: usize, name: &str) -> Result<Self> {
        Self::build(count, name, ThreadPoolBuilder::new().use_current_thread())
    }

    fn build(count: usize, name: &str, builder: ThreadPoolBuilder) -> Result<Self> {
        let count = count.max(1);
        let mut threads = Vec::new();
        let pool = match count {
            1 => None,
            _ => Some(
                builder
                    .num_threads(count)
                    .spawn_handler(|worker| {
                        let named = std::thread::Builder::new().name(format!("{name}.{}", worker.index()));
                        threads.push(named.spawn(|| worker.run())?);
                        Ok(())
                    })
                    .build()
                    .map_err(|e| Error::device(format!("cpu: cannot start {count} threads")).caused_by(e))?,
            ),
        };
        Ok(Self { count, pool, threads, busy: AtomicBool::new(false) })
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        drop(self.pool.take());
        for thread in self.threads.drain(..) {
            // A worker's panic was already passed on to whoever waited for the task.
            let _ = thread.join();
        }
    }
}

/// Runs `work` on up to `count` workers of the current pool at once; those that nobody takes run here afterwards.
fn spread(count: usize, work: &(dyn Fn() + Sync)) {
    if count == 1 {
        work();
    } else {
        rayon::join(|| spread(count / 2, work), || spread(count - count / 2, work));
    }
}

impl Host for Workers {
    fn workers(&self) -> usize {
        self.count
    }

    fn parallel(&self, tasks: usize, task: &(dyn Fn(usize, usize) + Sync)) {
        assert!(!self.busy.swap(true, Ordering::Acquire), "a task asked for workers that are all taken");
        let _idle = Idle(&self.busy);
        let Some(pool) = self.pool.as_ref().filter(|_| tasks > 1) else {
            return (0..tasks).for_each(|i| task(i, 0));
        };
        let next = AtomicUsize::new(0);
        let work = || {
            let worker = rayon::current_thread_index().expect("runs on a worker");
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= tasks {
                    break;
                }
                task(i, worker);
            }
        };
        let lanes = self.count.min(tasks);
        match pool.current_thread_index() {
            // `install` would take a detour through the heap.
            Some(_) => spread(lanes, &work),
            None => pool.install(|| spread(lanes, &work)),
        }
    }
}

/// Marks the workers as free again, also after a panic.
struct Idle<'a>(&'a AtomicBool);

impl Drop for Idle<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn every_task_runs_once_and_no_worker_does_two_at_a_time() {
        for count in [1, 2, 3, 5] {
            let workers = Workers::new(count).unwrap();
            for tasks in [0, 1, 2, 100] {
                let done: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                let held: Vec<Mutex<()>> = (0..count).map(|_| Mutex::new(())).collect();
                workers.parallel(tasks, &|i, worker| {
                    let _guard = held[worker].try_lock().expect("two tasks on one worker");
                    std::thread::sleep(std::time::Duration::from_micros(20));
                    done[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(done.iter().all(|d| d.load(Ordering::Relaxed) == 1));
            }
        }
    }
}
