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

/// v = m v - decay lr w - lr g; w = w + v.
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
        let lr = StepState::rate(state, p.rate as usize);
        if lr == 0.0 || StepState::of(state).diverged != 0 {
            return;
        }
        let (weight, momentum) = (args.write::<f32>(0), args.write::<f32>(2));
        let gradient = args.read::<f32>(1);
        let (n, decay, m) = (p.count as usize, p.decay * lr, p.momentum);
        let (weight, momentum) = (Shared::new(weight), Shared::new(momentum));
        rows(host, n, 1, true, |start, len| {
            // SAFETY: every element is visited once.
            let (weight, momentum) = unsafe { (weight.range(start, len), momentum.range(start, len)) };
            for ((w, v), g) in weight.iter_mut().zip(momentum).zip(&gradient[start..][..len]) {
                *v = m * *v - decay * *w - lr * g;
                *w += *v;
            }
        });
    }
    fn stages(p: &SgdParams, _: &Target) -> Vec<Stage> {
        // Four elements a thread.
        vec![Stage::each(Self::NAME, p.count.div_ceil(4) as usize)]
    }
}
