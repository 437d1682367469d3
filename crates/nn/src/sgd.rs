//! Stochastic gradient descent with momentum and weight decay (paper section 5; 2012 code: weights.cu).

use crate::layers::rows::rows;
use alexnode_core::{
    Stage, StepState, Target,
    host::{Host, Shared},
    kernel::{Access, Args, Kernel},
};
use bytemuck::{Pod, Zeroable};

/// The constants of one parameter tensor.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct SgdParams {
    /// Which of the rates behind the [`StepState`] is this tensor's.
    pub rate: i32,
    /// Number of its elements.
    pub count: u32,
    /// Momentum m; the paper: 0.9.
    pub momentum: f32,
    /// Weight decay; the paper: 0.0005, 0 for biases.
    pub decay: f32,
}

/// What a step does with the elements of a tensor: v = m v - decay lr w - lr g; w = w + v.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Update {
    rate: f32,
    /// Times the rate.
    decay: f32,
    momentum: f32,
}

impl Update {
    /// `state`: [`StepState`] and rates. None where nothing is to change: at a rate of 0, and after a loss that was not finite.
    pub fn new(p: &SgdParams, state: &[u8]) -> Option<Self> {
        let rate = StepState::rate(state, p.rate as usize);
        let changes = rate != 0.0 && StepState::of(state).diverged == 0;
        changes.then_some(Self { rate, decay: p.decay * rate, momentum: p.momentum })
    }
    /// Updates some elements. Every product and sum is rounded, so that the bits are the same with any vectors.
    #[inline(always)]
    pub fn apply(self, weight: &mut [f32], momentum: &mut [f32], gradient: &[f32]) {
        let Self { rate, decay, momentum: m } = self;
        for ((w, v), g) in weight.iter_mut().zip(momentum).zip(gradient) {
            *v = m * *v - decay * *w - rate * g;
            *w += *v;
        }
    }
}

/// [`Update`] of a tensor.
///
/// The learning rate is inside the velocity, and so is the decay. Where lr is 0 the tensor is frozen: neither w nor v change. The
/// same after a loss that was not finite (`state.diverged`).
///
/// Arguments: weight, gradient, momentum (v), state and rates.
#[derive(Debug)]
pub struct Sgd;

impl Kernel for Sgd {
    type Params = SgdParams;
    const NAME: &'static str = "sgd";
    const SOURCE: &'static str = "sgd.cu";
    const ACCESS: &'static [Access] = &[Access::ReadWrite, Access::Read, Access::ReadWrite, Access::Read];
    fn run(p: &SgdParams, args: &Args<'_>, host: &dyn Host) {
        let state = args.read::<u8>(3);
        let Some(update) = Update::new(p, state) else { return };
        let (weight, momentum) = (args.write::<f32>(0), args.write::<f32>(2));
        let gradient = args.read::<f32>(1);
        let (weight, momentum) = (Shared::new(weight), Shared::new(momentum));
        rows(host, p.count as usize, 1, true, |start, len| {
            // SAFETY: every element is visited once.
            let (weight, momentum) = unsafe { (weight.range(start, len), momentum.range(start, len)) };
            update.apply(weight, momentum, &gradient[start..][..len]);
        });
    }
    fn stages(p: &SgdParams, _: &Target) -> Vec<Stage> {
        // Four elements a thread.
        vec![Stage::each(Self::NAME, p.count.div_ceil(4) as usize)]
    }
}
