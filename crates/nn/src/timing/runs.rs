//! Runs of something between two waits.

use alexnode_core::{Backend, Result, backend::RecordingId};
use std::time::Instant;

/// The most that an operation is repeated in a sample.
const MOST_REPEATS: usize = 512;
/// Seconds of one of `repeats` runs of what `issue` issues.
pub fn sample(
    backend: &mut dyn Backend,
    repeats: usize,
    mut issue: impl FnMut(&mut dyn Backend) -> Result<()>,
) -> Result<f64> {
    backend.synchronize()?;
    let begin = Instant::now();
    for _ in 0..repeats {
        issue(backend)?;
    }
    backend.synchronize()?;
    Ok(begin.elapsed().as_secs_f64() / repeats as f64)
}

/// The most runs that one recording holds.
const BLOCK: usize = 20;

/// Runs of something between two waits.
pub struct Runs {
    /// How many are issued at once.
    block: usize,
    /// They, where the backend records.
    recording: Option<RecordingId>,
    /// How often.
    times: usize,
}

impl Runs {
    /// So many runs of what took `seconds` that they take `wanted`.
    pub fn new(
        backend: &mut dyn Backend,
        seconds: f64,
        wanted: f64,
        issue: impl Fn(&mut dyn Backend) -> Result<()>,
    ) -> Result<Self> {
        let runs = repeats(seconds, wanted);
        let block = runs.min(BLOCK);
        let recording = backend.record(&mut |backend| (0..block).try_for_each(|_| issue(backend)))?;
        Ok(Self { block, recording, times: runs.div_ceil(block) })
    }
    pub fn count(&self) -> usize {
        self.block * self.times
    }
    /// Seconds of one.
    pub fn sample(&self, backend: &mut dyn Backend, issue: impl Fn(&mut dyn Backend) -> Result<()>) -> Result<f64> {
        let seconds = sample(backend, self.times, |backend| match self.recording {
            Some(recording) => backend.replay(recording),
            None => (0..self.block).try_for_each(|_| issue(backend)),
        })?;
        Ok(seconds / self.block as f64)
    }
}

/// How often what took `seconds` has to run to take `wanted`.
pub fn repeats(seconds: f64, wanted: f64) -> usize {
    ((wanted / seconds.max(1e-9)).ceil() as usize).clamp(1, MOST_REPEATS)
}
