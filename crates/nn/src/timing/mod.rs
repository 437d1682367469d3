//! How long a training step takes, as a whole and operation by operation, on whatever backend runs it.
//!
//! [`profile`] puts stamps between the operations of whole steps. `measure` repeats single ones: nothing inside a device is asked for the time: an operation runs several times between two waits, as a recording where the backend has such a thing, so
//! that launching hides behind computing. Each sample of every operation is taken in turn before the next one of any ("interleaved"), so that a device which changes its
//! clock changes it for all of them. What is issued again and again finds its arguments in the caches where they fit: the sum over the
//! operations may be less than the step.
//!
//! | module | about |
//! |---|---|
//! | `measure` | the measurement |
//! | `operation` | what an operation is called, where it runs, its bytes |
//! | `passes` | which operation belongs to what |
//! | [`profile`] | steps with stamps between their operations |
//! | `runs` | runs between two waits |

mod measure;
mod operation;
mod passes;
pub mod profile;
mod runs;

use alexnode_core::{Backend, Error, Result, SlotInfo};
pub(crate) use measure::{Step, measure};
pub(crate) use runs::{repeats, sample};
use serde::{Deserialize, Serialize};

/// How carefully to measure.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TimingOptions {
    /// Samples of every operation and of the step.
    pub rounds: usize,
    /// Seconds that a sample shall last at least: an operation is repeated until it does.
    pub sample_seconds: f64,
}

impl Default for TimingOptions {
    fn default() -> Self {
        Self { rounds: 7, sample_seconds: 0.002 }
    }
}

impl TimingOptions {
    /// Refuses what makes no sense.
    ///
    /// # Errors
    /// `ERR_USAGE`.
    pub fn check(&self) -> Result<()> {
        if self.rounds == 0 {
            return Err(Error::usage("rounds must be at least 1"));
        }
        if !(0.0..=1.0).contains(&self.sample_seconds) {
            return Err(Error::usage(format!("sampleSeconds must lie between 0 and 1, got {}", self.sample_seconds)));
        }
        Ok(())
    }
}

/// A part of a step, finer than a [`Phase`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Pass {
    /// Crop, flip, mean, noise.
    Input,
    /// Forward.
    Forward,
    /// Softmax and cross-entropy, with their gradient, and the word to the other slot whether the loss was finite.
    Loss,
    /// The gradient by a layer's input.
    DataGradient,
    /// The gradient by its parameters; with their update, where the same operation does it.
    WeightGradient,
    /// The optimiser.
    Update,
    /// Copies of activations and gradients between slots.
    Transfer,
}

/// The middle of several samples, and how far they reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Spread {
    /// Half of the samples are not larger.
    pub median: f64,
    /// The smallest.
    pub least: f64,
    /// The largest.
    pub most: f64,
}

impl Spread {
    /// That of `samples`.
    ///
    /// # Panics
    /// Where there are none.
    pub fn of(samples: &[f64]) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Self { median: (low + high) / 2.0, least: sorted[0], most: sorted[sorted.len() - 1] }
    }
    /// `of / self`, for a rate from times.
    #[must_use]
    pub fn rate(&self, of: f64) -> Self {
        Self { median: of / self.median, least: of / self.most, most: of / self.least }
    }
    fn plus(&self, other: &Self) -> Self {
        Self { median: self.median + other.median, least: self.least + other.least, most: self.most + other.most }
    }
}

/// The time of one operation.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OperationTiming {
    /// The kernel's name; `copy` for a copy.
    pub name: &'static str,
    /// Where it runs; of a copy between slots, where it arrives.
    pub slot: u8,
    /// How often it ran in a sample.
    pub repeats: usize,
    /// Of one run.
    pub seconds: Spread,
    /// The bytes of its arguments, from their first to their last: once for what is read, once for what is written. No scratch memory.
    pub bytes: u64,
}

/// The time of one pass of one layer.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PartTiming {
    /// The layer; none for the input.
    pub layer: Option<String>,
    /// The pass.
    pub pass: Pass,
    /// The sum over its operations, on the slot that takes longest.
    pub seconds: Spread,
    /// Multiply-adds of the whole layer and batch, times two. 0 for what multiplies no matrices.
    pub flops: u64,
    /// The sum over all its operations.
    pub bytes: u64,
    /// They, in their order.
    pub operations: Vec<OperationTiming>,
}

/// What a slot is.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SlotName {
    /// The device's name.
    pub device: String,
    /// What it says of itself.
    pub description: String,
}

impl SlotName {
    /// The slots of `backend`.
    pub fn all(backend: &dyn Backend) -> Vec<Self> {
        let name = |slot: &SlotInfo| Self { device: slot.device.to_string(), description: slot.description.clone() };
        backend.slots().iter().map(name).collect()
    }
}

/// A training step, timed.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Timings {
    /// What computed.
    pub slots: Vec<SlotName>,
    /// Samples of a minibatch.
    pub batch: usize,
    /// Samples of every time below.
    pub rounds: usize,
    /// The whole step on a minibatch that lies on the devices, issued again and again.
    pub step: Spread,
    /// Images per second in such steps.
    pub images_per_second: Spread,
    /// Its parts, in the order of their first operations.
    pub parts: Vec<PartTiming>,
}
