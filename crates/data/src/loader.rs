//! Minibatches of one epoch, prepared ahead by threads. What comes out depends on the options only: not on how many threads there
//! are, nor on which of them was fast.

use crate::{
    dataset::Dataset,
    options::{LoaderOptions, Split},
    source::Worker,
};
use alexnode_core::{Batch, BatchSource, Error, ErrorCode, Result};
use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Instant,
};

/// Minibatches that may be under way or waiting at once, beside the one in use.
const RING: usize = 3;

/// A source of the minibatches of one epoch: see [`LoaderOptions`]. Dropping it stops its threads.
pub struct Loader {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    failed: bool,
}

struct Shared {
    dataset: Arc<Dataset>,
    split: Split,
    order: Vec<u32>,
    batch: usize,
    /// Images that a thread takes at once.
    grain: usize,
    state: Mutex<State>,
    /// Told when there is room for threads to go on, or to stop.
    room: Condvar,
    /// Told when a minibatch is complete.
    complete: Condvar,
    /// Minibatch `b` is built in place `b % RING`.
    places: [Mutex<Batch>; RING],
}

struct State {
    /// The first position of the order that no thread has taken.
    taken: usize,
    /// Minibatches handed out, counted from the beginning of the epoch.
    consumed: usize,
    /// Images that are still missing in each place; `None` while no minibatch is built there.
    missing: [Option<usize>; RING],
    /// The first image of each place that failed.
    errors: [Option<(usize, Error)>; RING],
    spare: Vec<Batch>,
    stop: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Dataset {
    /// Minibatches of one epoch, prepared ahead on threads of their own.
    ///
    /// # Errors
    /// `ERR_USAGE` for a batch or limit of 0; `ERR_DATA` where no thread can be started.
    pub fn loader(self: &Arc<Self>, options: &LoaderOptions) -> Result<Loader> {
        Loader::start(Arc::clone(self), options)
    }

    /// Reads `images` training images as a training does, minibatch by minibatch of shuffled epochs from `epoch` on, and does nothing with
    /// them: how many seconds that takes.
    ///
    /// # Errors
    /// As the [`loader`](Self::loader) and its minibatches; `ERR_ABORTED` where `cancel` is set.
    pub fn read(self: &Arc<Self>, batch: usize, mut epoch: u32, mut images: usize, cancel: &AtomicBool) -> Result<f64> {
        let start = Instant::now();
        while images > 0 {
            let options = LoaderOptions {
                split: Split::Train,
                batch,
                seed: 1,
                epoch,
                first_batch: 0,
                shuffle: true,
                limit: None,
            };
            let mut loader = self.loader(&options)?;
            while images > 0
                && let Some(batch) = loader.next()?
            {
                if cancel.load(Ordering::Relaxed) {
                    return Err(Error::new(ErrorCode::Aborted, "the reading was stopped"));
                }
                images = images.saturating_sub(batch.valid);
                loader.recycle(batch);
            }
            epoch += 1;
        }
        Ok(start.elapsed().as_secs_f64())
    }
}

impl Loader {
    fn start(dataset: Arc<Dataset>, options: &LoaderOptions) -> Result<Self> {
        if options.batch == 0 || options.limit == Some(0) {
            let name = if options.batch == 0 { "batch" } else { "limit" };
            return Err(Error::usage(format!("{name}: expected at least 1 image, got 0")));
        }
        let (order, threads) = (dataset.order(options), dataset.threads());
        let first = options.first_batch.saturating_mul(options.batch).min(order.len());
        // Small images are taken several at once, so that locks cost nothing beside them.
        let grain = (65_536 / dataset.image_bytes()).clamp(1, 32);
        let shared = Arc::new(Shared {
            split: options.split,
            batch: options.batch,
            grain,
            state: Mutex::new(State {
                taken: first,
                consumed: options.first_batch,
                missing: [None; RING],
                errors: [const { None }; RING],
                spare: Vec::new(),
                stop: false,
            }),
            room: Condvar::new(),
            complete: Condvar::new(),
            places: Default::default(),
            dataset,
            order,
        });
        let mut loader = Self { shared: Arc::clone(&shared), threads: Vec::new(), failed: false };
        let pieces = (shared.order.len() - first).div_ceil(grain);
        for _ in 0..threads.min(pieces) {
            let shared = Arc::clone(&shared);
            let thread = std::thread::Builder::new()
                .name("alexnode-data".into())
                .spawn(move || shared.work())
                .map_err(|e| Error::data(format!("cannot start a thread that reads images: {e}")).caused_by(e))?;
            loader.threads.push(thread);
        }
        Ok(loader)
    }

    /// Minibatches from the first one of the options to the end of the epoch.
    pub fn remaining(&self) -> usize {
        let consumed = lock(&self.shared.state).consumed;
        self.shared.order.len().div_ceil(self.shared.batch).saturating_sub(consumed)
    }
}

impl BatchSource for Loader {
    fn next(&mut self) -> Result<Option<Batch>> {
        if self.failed {
            return Err(Error::data("the loader stopped at an image that it reported before"));
        }
        let shared = &*self.shared;
        let mut state = lock(&shared.state);
        if state.consumed >= shared.order.len().div_ceil(shared.batch) {
            return Ok(None);
        }
        let place = state.consumed % RING;
        while state.missing[place] != Some(0) {
            state = shared.complete.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.missing[place] = None;
        state.consumed += 1;
        let batch = std::mem::take(&mut *lock(&shared.places[place]));
        shared.room.notify_all();
        match state.errors[place].take() {
            None => Ok(Some(batch)),
            Some((_, error)) => {
                self.failed = true;
                state.stop = true;
                Err(error)
            }
        }
    }

    fn recycle(&mut self, batch: Batch) {
        let mut state = lock(&self.shared.state);
        if state.spare.len() < RING {
            state.spare.push(batch);
        }
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        lock(&self.shared.state).stop = true;
        self.shared.room.notify_all();
        for thread in self.threads.drain(..) {
            // A thread catches the panics of its work, so there is nothing to learn from how it ended.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn work(&self) {
        let bytes = self.dataset.image_bytes();
        let mut worker = Worker::new(self.dataset.info().image_size);
        let mut pixels = vec![0; self.grain * bytes];
        let mut labels = vec![0; self.grain];
        while let Some((first, end)) = self.take() {
            let mut failure = None;
            for (i, position) in (first..end).enumerate() {
                // What comes several times in an epoch has an id of its own each time.
                let id = self.order[position] % self.dataset.ids(self.split);
                let out = &mut pixels[i * bytes..][..bytes];
                // A panic must not leave the consumer waiting for ever.
                let prepared = std::panic::catch_unwind(AssertUnwindSafe(|| {
                    self.dataset.prepare(self.split, id, &mut worker, out)
                }));
                let prepared = prepared.unwrap_or_else(|_| {
                    worker = Worker::new(self.dataset.info().image_size);
                    Err(Error::data(format!("{} image {id}: preparing it failed unexpectedly", self.split.name())))
                });
                match prepared {
                    Ok(label) => labels[i] = label,
                    Err(error) => {
                        failure = Some((position, error));
                        break;
                    }
                }
            }
            let (place, count) = (first / self.batch % RING, end - first);
            let at = first % self.batch;
            {
                let mut batch = lock(&self.places[place]);
                batch.pixels[at * bytes..][..count * bytes].copy_from_slice(&pixels[..count * bytes]);
                batch.labels[at..][..count].copy_from_slice(&labels[..count]);
                batch.ids[at..][..count].copy_from_slice(&self.order[first..end]);
            }
            let mut state = lock(&self.state);
            if let Some((position, error)) = failure
                && state.errors[place].as_ref().is_none_or(|(p, _)| position < *p)
            {
                state.errors[place] = Some((position, error));
            }
            if let Some(missing) = &mut state.missing[place] {
                *missing -= count;
                if *missing == 0 {
                    self.complete.notify_all();
                }
            }
        }
    }

    /// Takes the next positions of the order, all of one minibatch; waits for room; `None` when there is nothing left to do.
    fn take(&self) -> Option<(usize, usize)> {
        let mut state = lock(&self.state);
        loop {
            if state.stop || state.taken >= self.order.len() {
                return None;
            }
            if state.taken / self.batch < state.consumed + RING {
                break;
            }
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let first = state.taken;
        let b = first / self.batch;
        let last = ((b + 1) * self.batch).min(self.order.len());
        let end = (first + self.grain).min(last);
        if first.is_multiple_of(self.batch) {
            let valid = last - first;
            let batch = state.spare.pop().unwrap_or_default();
            *lock(&self.places[b % RING]) = self.blank(batch, valid);
            state.missing[b % RING] = Some(valid);
        }
        state.taken = end;
        Some((first, end))
    }

    /// A minibatch of the right size in the memory of `batch`. Only what comes after the `valid` images is cleared: the rest will be
    /// written.
    fn blank(&self, mut batch: Batch, valid: usize) -> Batch {
        let bytes = self.dataset.image_bytes();
        if batch.pixels.is_empty() {
            // Zeros from the system, not written once more.
            batch.pixels = vec![0; self.batch * bytes];
        }
        batch.pixels.resize(self.batch * bytes, 0);
        batch.labels.resize(self.batch, 0);
        batch.ids.resize(self.batch, 0);
        batch.pixels[valid * bytes..].fill(0);
        batch.labels[valid..].fill(0);
        batch.ids[valid..].fill(0);
        batch.valid = valid;
        batch
    }
}
