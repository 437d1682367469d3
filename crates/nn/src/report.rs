//! What is told of steps and evaluations.

use alexnode_core::state::Totals;
use serde::Serialize;
use std::time::Instant;

/// What came of some steps or of an evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Steps (minibatches) done.
    pub steps: usize,
    /// Samples seen.
    pub samples: u64,
    /// Mean of -ln p(label).
    pub loss: f64,
    /// Fraction of the samples whose label is not the most probable class.
    pub top1_error: f64,
    /// Fraction of the samples whose label is not among the five most probable classes.
    pub top5_error: f64,
    /// Time in seconds.
    pub seconds: f64,
    /// Of which the trainer waited for data.
    pub wait_seconds: f64,
}

impl Report {
    /// The report of what began at `begin` and added up to `totals`.
    pub(crate) fn new(steps: usize, totals: Totals, begin: Instant, wait_seconds: f64) -> Self {
        let mean = |sum: f64| if totals.samples > 0.0 { sum / totals.samples } else { 0.0 };
        Self {
            steps,
            samples: totals.samples as u64,
            loss: mean(totals.loss),
            top1_error: mean(totals.top1_errors),
            top5_error: mean(totals.top5_errors),
            seconds: begin.elapsed().as_secs_f64(),
            wait_seconds,
        }
    }
}
