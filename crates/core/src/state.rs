//! The one buffer of a slot that changes between steps. Kernels read from it what is not constant, so that the launches of a plan
//! never change and a step can be captured, fused and counted exactly.

use bytemuck::{Pod, Zeroable};

/// The head of the state buffer of a slot. After it follow the learning rates: one f32 per parameter tensor, in the network's
/// order (weight and bias are two). `#[repr(C)]`, mirrored in `cuda/common.cuh`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct StepState {
    /// The run's seed, low word.
    pub seed_low: u32,
    /// The run's seed, high word.
    pub seed_high: u32,
    /// The epoch, from 0: with a sample's id it addresses that sample's random numbers.
    pub epoch: u32,
    /// The optimiser step of the run, from 0.
    pub step: u32,
    /// Samples of this minibatch that count; the rest of the batch is padding.
    pub valid: u32,
    /// Which of `views` views of the image this pass sees (ten-crop test); 0 in training.
    pub view: u32,
    /// Views whose probabilities are averaged; 1 in training and for the centre crop. In training 0 switches augmentation off:
    /// centre crop, no flip, no colour noise.
    pub views: u32,
    /// Standard deviation factor of the colour noise (the paper: 0.1); 0 switches it off.
    pub colour_noise: f32,
    /// 1 + the step whose loss was the first that is not finite, or 0: from then on the update kernels change nothing.
    pub diverged: u32,
    /// Fills the head up to 64 bytes.
    pub reserved: [u32; 7],
}

impl StepState {
    /// The head of a state buffer.
    ///
    /// # Panics
    /// Where the buffer is shorter than the head.
    pub fn of(buffer: &[u8]) -> Self {
        bytemuck::pod_read_unaligned(&buffer[..size_of::<Self>()])
    }
    /// The learning rate of parameter tensor `index`, from behind the head of a state buffer.
    ///
    /// # Panics
    /// Where the buffer has no such rate.
    pub fn rate(buffer: &[u8], index: usize) -> f32 {
        bytemuck::pod_read_unaligned(&buffer[size_of::<Self>() + 4 * index..][..4])
    }
    /// The run's seed.
    pub fn seed(&self) -> u64 {
        u64::from(self.seed_high) << 32 | u64::from(self.seed_low)
    }
}

/// Sums over samples since they were last cleared. Lives on slot 0, is added to by the loss kernel and read once per report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct Totals {
    /// Sum of -ln p(label).
    pub loss: f64,
    /// Samples whose label is not the most probable class; ties share the credit (2012 code: 1 / number tied).
    pub top1_errors: f64,
    /// Samples whose label is not among the five most probable classes; ties share the credit.
    pub top5_errors: f64,
    /// Samples.
    pub samples: f64,
}

const _: () = assert!(size_of::<StepState>() == 64);
const _: () = assert!(size_of::<Totals>() == 32);
