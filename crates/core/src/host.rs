//! What the Rust body of a kernel may use: workers. Implemented by the CPU backend.

use std::marker::PhantomData;

/// The machine that runs a Rust body.
pub trait Host: Sync {
    /// How many tasks run at once; workers are numbered `0..workers()`. For sizing scratch memory, never for splitting sums.
    fn workers(&self) -> usize;
    /// Calls `task(i, worker)` for every `i` in `0..tasks` and returns when all are done. No two tasks with the same `worker` run
    /// at the same time.
    fn parallel(&self, tasks: usize, task: &(dyn Fn(usize, usize) + Sync));
}

/// A slice of which several tasks write different parts.
pub struct Shared<'a, T> {
    pointer: *mut T,
    len: usize,
    marker: PhantomData<&'a mut [T]>,
}

// SAFETY: `Shared` only gives out slices through the unsafe `range`, whose caller promises that they are disjoint.
unsafe impl<T: Send> Sync for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    /// Shares `slice` among tasks.
    pub fn new(slice: &'a mut [T]) -> Self {
        Self { pointer: slice.as_mut_ptr(), len: slice.len(), marker: PhantomData }
    }
    /// Where element `at` lies, or would lie: for a prefetch.
    pub fn address(&self, at: usize) -> *const T {
        self.pointer.wrapping_add(at)
    }
    /// The elements `start..start + len`.
    ///
    /// # Safety
    /// While the result lives, no other range that overlaps it may exist.
    ///
    /// # Panics
    /// Where the range does not lie inside the slice.
    #[expect(clippy::mut_from_ref, reason = "the caller promises disjoint ranges")]
    pub unsafe fn range(&self, start: usize, len: usize) -> &mut [T] {
        assert!(start <= self.len && len <= self.len - start, "range {start}+{len} outside of {}", self.len);
        // SAFETY: inside the slice (checked), and disjoint from every other live range (the caller's promise).
        unsafe { std::slice::from_raw_parts_mut(self.pointer.add(start), len) }
    }
}

/// Splits `data` into chunks of `chunk` elements and calls `task(i, chunk_i)` on the workers.
pub fn parallel_chunks<T: Send>(host: &dyn Host, data: &mut [T], chunk: usize, task: impl Fn(usize, &mut [T]) + Sync) {
    let len = data.len();
    let shared = Shared::new(data);
    host.parallel(len.div_ceil(chunk), &|i, _| {
        let start = i * chunk;
        // SAFETY: chunks of different tasks do not overlap.
        task(i, unsafe { shared.range(start, chunk.min(len - start)) });
    });
}
