//! Native threads. Each runs jobs one after the other and settles a promise with the outcome of each; JavaScript only waits for
//! promises. All threads of an environment (the main thread's, or a worker's) end with it.

use crate::error::{guard, to_js};
use alexnode_core::{Error, Result};
use napi::{
    Env, JsDeferred,
    bindgen_prelude::{Object, ToNapiValue},
};
use std::{
    cell::RefCell,
    collections::HashMap,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// How long the end of an environment waits for its threads: they see their cancel flags between two steps. One that is slower goes on
/// alone until then; it no longer touches JavaScript.
const PATIENCE: Duration = Duration::from_millis(500);
/// Room for deep recursion in decoders; reserved, not used.
const STACK: usize = 8 << 20;

type Settle<T> = Box<dyn FnOnce(Env) -> napi::Result<T> + Send>;
/// The two ends of a promise: one for a native thread, one for JavaScript.
type Deferred<T> = JsDeferred<T, Settle<T>>;
type Job = Box<dyn FnOnce() + Send>;

/// The thread of a [`Task`], as the environment knows it.
struct Worker {
    queue: Mutex<Option<Sender<Job>>>,
    cancel: Mutex<Arc<AtomicBool>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Worker {
    fn cancel(&self) {
        mem::take(&mut *lock(&self.cancel)).store(true, Ordering::Relaxed);
    }
    fn stop(&self, last: impl FnOnce() + Send + 'static) {
        self.cancel();
        if let Some(queue) = lock(&self.queue).take() {
            send(&queue, last);
        }
    }
    fn is_finished(&self) -> bool {
        lock(&self.thread).as_ref().is_none_or(JoinHandle::is_finished)
    }
    fn join(&self) {
        if let Some(thread) = lock(&self.thread).take() {
            // Every job is guarded: the thread itself does not panic.
            let _ = thread.join();
        }
    }
}

/// A thread with a queue of jobs. Letting it go cancels them and lets the thread end.
pub struct Task {
    name: &'static str,
    worker: Arc<Worker>,
}

impl Task {
    /// Starts the thread `alexnode-<name>`, which waits for jobs. It ends with the task, at the latest with `env`.
    ///
    /// # Errors
    /// `ERR_DEVICE` where the system refuses a thread.
    pub fn start(env: Env, name: &'static str) -> Result<Arc<Self>> {
        let (sender, receiver): (Sender<Job>, Receiver<Job>) = channel();
        let run = move || {
            for job in receiver {
                // What a job returns goes to its promise; this is for what it drops.
                let _ = guard(|| {
                    job();
                    Ok(())
                });
            }
        };
        let refused = |e: std::io::Error| Error::device(format!("{name}: the system gives no thread: {e}"));
        let thread =
            thread::Builder::new().name(format!("alexnode-{name}")).stack_size(STACK).spawn(run).map_err(refused)?;
        let worker = Arc::new(Worker {
            queue: Mutex::new(Some(sender)),
            cancel: Mutex::default(),
            thread: Mutex::new(Some(thread)),
        });
        register(env, &worker)?;
        Ok(Arc::new(Self { name, worker }))
    }

    /// Queues `work`, and returns a promise of what it returns, made into a JavaScript value by `convert` on the JavaScript thread. `work` is given
    /// a flag that [`cancel`](Self::cancel) sets.
    ///
    /// # Errors
    /// Where no promise can be made. A task that has been stopped is a rejected promise.
    pub fn submit<'env, T: Send + 'static, J: ToNapiValue + 'static>(
        &self,
        env: &'env Env,
        work: impl FnOnce(&AtomicBool) -> Result<T> + Send + 'static,
        convert: impl FnOnce(Env, T) -> napi::Result<J> + Send + 'static,
    ) -> napi::Result<Object<'env>> {
        let (settle, promise) = promise(env, convert)?;
        let cancel = lock(&self.worker.cancel).clone();
        match lock(&self.worker.queue).as_ref() {
            Some(queue) => send(queue, move || settle(guard(|| work(&cancel)))),
            None => settle(Err(Error::usage(format!("the {} has been disposed", self.name)).hint("Create a new one."))),
        }
        Ok(promise)
    }

    /// Asks the jobs that are queued or running now to end early.
    pub fn cancel(&self) {
        self.worker.cancel();
    }

    /// Cancels everything and lets the thread end; `last` runs there as the last job. Does not wait. After the first time it does nothing.
    pub fn stop(&self, last: impl FnOnce() + Send + 'static) {
        self.worker.stop(last);
    }

    /// As [`stop`](Self::stop), with a promise that is resolved after `last`; at once if the task has been stopped before.
    ///
    /// # Errors
    /// Where no promise can be made.
    pub fn finish<'env>(&self, env: &'env Env, last: impl FnOnce() + Send + 'static) -> napi::Result<Object<'env>> {
        let (settle, promise) = promise(env, |_, ()| Ok(()))?;
        self.cancel();
        match lock(&self.worker.queue).take() {
            Some(queue) => send(&queue, move || {
                settle(guard(|| {
                    last();
                    Ok(())
                }));
            }),
            None => settle(Ok(())),
        }
        Ok(promise)
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.worker.stop(|| ());
    }
}

/// Runs `work` on a thread of its own; see [`Task::submit`].
///
/// # Errors
/// Where no thread can be started or no promise made.
pub fn once<'env, T: Send + 'static, J: ToNapiValue + 'static>(
    env: &'env Env,
    name: &'static str,
    work: impl FnOnce(&AtomicBool) -> Result<T> + Send + 'static,
    convert: impl FnOnce(Env, T) -> napi::Result<J> + Send + 'static,
) -> napi::Result<Object<'env>> {
    let task = Task::start(*env, name).map_err(|e| to_js(*env, &e))?;
    // The job keeps its task alive: letting go of a task cancels it.
    let keep = task.clone();
    task.submit(
        env,
        move |cancel| {
            let outcome = work(cancel);
            drop(keep);
            outcome
        },
        convert,
    )
}

/// A promise, and the function by which a native thread settles it.
fn promise<'env, T: Send + 'static, J: ToNapiValue + 'static>(
    env: &'env Env,
    convert: impl FnOnce(Env, T) -> napi::Result<J> + Send + 'static,
) -> napi::Result<(impl FnOnce(Result<T>) + Send + 'static, Object<'env>)> {
    let (deferred, promise): (Deferred<J>, _) = env.create_deferred()?;
    let settle = move |outcome: Result<T>| {
        deferred.resolve(Box::new(move |env| match outcome {
            Ok(value) => convert(env, value),
            Err(error) => Err(to_js(env, &error)),
        }));
    };
    Ok((settle, promise))
}

/// The thread ends only after its queue is gone, so every job that is sent will run.
fn send(queue: &Sender<Job>, job: impl FnOnce() + Send + 'static) {
    drop(queue.send(Box::new(job)));
}

/// A lock that a panicking thread left behind still guards a value that is whole: each is replaced in one assignment.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

thread_local! {
    /// The threads of each environment that lives on this JavaScript thread.
    static WORKERS: RefCell<HashMap<usize, Vec<Arc<Worker>>>> = RefCell::default();
}

fn register(env: Env, worker: &Arc<Worker>) -> Result<()> {
    let key = env.raw() as usize;
    let first = WORKERS.with_borrow_mut(|all| {
        let first = !all.contains_key(&key);
        let workers = all.entry(key).or_default();
        workers.retain(|worker| !worker.is_finished());
        workers.push(worker.clone());
        first
    });
    if first {
        env.add_env_cleanup_hook(key, end)
            .map_err(|e| Error::kernel(format!("the end of the environment cannot be watched: {e}")))?;
    }
    Ok(())
}

/// The environment ends: stops its threads and waits for them, within reason.
fn end(key: usize) {
    let workers = WORKERS.with_borrow_mut(|all| all.remove(&key)).unwrap_or_default();
    workers.iter().for_each(|worker| worker.stop(|| ()));
    let begin = Instant::now();
    while !workers.iter().all(|worker| worker.is_finished()) && begin.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(1));
    }
    workers.iter().filter(|worker| worker.is_finished()).for_each(|worker| worker.join());
}
