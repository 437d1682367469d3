//! Many independent pieces of work on some threads. What comes out never depends on the number of threads.

use alexnode_core::{Error, ErrorCode, Result};
use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};

/// The threads that may be used, and the flag that stops them.
#[derive(Clone, Copy)]
pub(crate) struct Workers<'a> {
    pub threads: usize,
    pub cancel: &'a AtomicBool,
}

impl Workers<'_> {
    /// Calls `work(state, i)` once for every `i` below `n`, `grain` of them in a row on one thread, with a state per thread, and gives
    /// the states back in no particular order. Stops early when the flag is set.
    ///
    /// # Errors
    /// The error of the smallest `i` that failed; `ERR_ABORTED` after a cancel.
    pub fn fold<S: Send>(
        &self,
        grain: usize,
        n: usize,
        init: impl Fn() -> S + Sync,
        work: impl Fn(&mut S, usize) -> Result<()> + Sync,
    ) -> Result<Vec<S>> {
        let next = AtomicUsize::new(0);
        let failed: Mutex<Option<(usize, Error)>> = Mutex::new(None);
        // Pieces are taken in order, so all before a failed one are already taken and will be finished.
        let stop = AtomicBool::new(false);
        let run = || {
            let mut state = init();
            while !stop.load(Relaxed) && !self.cancel.load(Relaxed) {
                let first = next.fetch_add(grain, Relaxed);
                if first >= n {
                    break;
                }
                for i in first..(first + grain).min(n) {
                    if let Err(error) = work(&mut state, i) {
                        stop.store(true, Relaxed);
                        let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                        if failed.as_ref().is_none_or(|(j, _)| i < *j) {
                            *failed = Some((i, error));
                        }
                        break;
                    }
                }
            }
            state
        };
        let threads = self.threads.clamp(1, n.div_ceil(grain).max(1));
        let states = std::thread::scope(|scope| {
            let helpers: Vec<_> = (1..threads).map(|_| scope.spawn(run)).collect();
            let mut states = vec![run()];
            for helper in helpers {
                match helper.join() {
                    Ok(state) => states.push(state),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            states
        });
        if self.cancel.load(Relaxed) {
            return Err(Error::new(ErrorCode::Aborted, "the work on the data set was stopped"));
        }
        match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some((_, error)) => Err(error),
            None => Ok(states),
        }
    }

    /// `work(state, i)` for every `i` below `n`, in the order of `i`.
    ///
    /// # Errors
    /// As [`fold`](Self::fold).
    pub fn map<S: Send, T: Send>(
        &self,
        grain: usize,
        n: usize,
        init: impl Fn() -> S + Sync,
        work: impl Fn(&mut S, usize) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        let parts = self.fold(
            grain,
            n,
            || (init(), Vec::new()),
            |(state, results), i| {
                results.push((i, work(state, i)?));
                Ok(())
            },
        )?;
        let mut all: Vec<(usize, T)> = parts.into_iter().flat_map(|(_, results)| results).collect();
        all.sort_unstable_by_key(|(i, _)| *i);
        Ok(all.into_iter().map(|(_, result)| result).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order() {
        let cancel = AtomicBool::new(false);
        for threads in [1, 3, 8] {
            let workers = Workers { threads, cancel: &cancel };
            let squares = workers.map(16, 1000, || (), |(), i| Ok(i * i)).unwrap();
            assert_eq!(squares, (0..1000).map(|i| i * i).collect::<Vec<_>>());
            assert!(workers.map(1, 0, || (), |(), i| Ok(i)).unwrap().is_empty());
        }
    }

    #[test]
    fn the_first_error_wins() {
        let cancel = AtomicBool::new(false);
        for threads in [1, 4] {
            let work = |(): &mut (), i| if i % 100 == 57 { Err(Error::data(format!("piece {i}"))) } else { Ok(()) };
            let error = Workers { threads, cancel: &cancel }.map(16, 1000, || (), work).unwrap_err();
            assert_eq!(error.message(), "piece 57");
        }
    }

    #[test]
    fn a_cancel_is_an_error() {
        let workers = Workers { threads: 2, cancel: &AtomicBool::new(true) };
        assert_eq!(workers.map(1, 100, || (), |(), i| Ok(i)).unwrap_err().code(), ErrorCode::Aborted);
    }
}
