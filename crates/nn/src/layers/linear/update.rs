//! The update of weights and biases where their gradients are made: a gradient is used while it is in the first-level cache, and never gets to memory.

use super::{
    Params,
    gradient::{Block, pack_and_sum, packed_dy, weight_gradient, weight_scratch},
};
use crate::{
    sgd::{SgdParams, Update},
    tile::for_vectors,
};
use alexnode_core::{
    Engine, Stage, Target,
    host::{Host, Shared},
    kernel::{Access, Args, Kernel},
};
use bytemuck::{Pod, Zeroable};

/// The layer, and how its weights and biases learn.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct UpdateParams {
    pub layer: Params,
    pub weight: SgdParams,
    pub bias: SgdParams,
}

/// Weights and biases from x and dy; the same bits as [`LinearWeightGradient`](super::LinearWeightGradient) and [`Sgd`](crate::sgd::Sgd) one after the other.
///
/// Arguments: x, dy, weights, their momentum, biases, their momentum, scratch, state and rates.
pub(crate) struct LinearUpdate;

impl Kernel for LinearUpdate {
    type Params = UpdateParams;
    const NAME: &'static str = "linear_update";
    const SOURCE: &'static str = "linear.cu";
    const ACCESS: &'static [Access] = &[
        Access::Read,
        Access::Read,
        Access::ReadWrite,
        Access::ReadWrite,
        Access::ReadWrite,
        Access::ReadWrite,
        Access::Scratch,
        Access::Read,
    ];
    fn scratch(p: &UpdateParams, engine: Engine) -> usize {
        match engine {
            Engine::Host { workers } => weight_scratch(&p.layer, workers),
            Engine::Cuda(_) => 0,
        }
    }
    fn run(p: &UpdateParams, args: &Args<'_>, host: &dyn Host) {
        let state = args.read::<u8>(7);
        let [weight_update, bias_update] = [&p.weight, &p.bias].map(|p| Update::new(p, state));
        if weight_update.is_none() && bias_update.is_none() {
            return;
        }
        let (x, dy) = (args.read::<f32>(0), args.read::<f32>(1));
        let [weights, momentum, biases, bias_momentum] = [2, 3, 4, 5].map(|i| Shared::new(args.write::<f32>(i)));
        let (dys, space) = args.write::<f32>(6).split_at_mut(packed_dy(&p.layer));
        pack_and_sum(&p.layer, host, dy, dys, &|first, sums| {
            if let Some(update) = bias_update {
                // SAFETY: every output comes once.
                let (b, v) = unsafe { (biases.range(first, sums.len()), bias_momentum.range(first, sums.len())) };
                update.apply(b, v, sums);
            }
        });
        if let Some(update) = weight_update {
            // SAFETY: every weight comes once.
            weight_gradient(&p.layer, host, x, dys, space, [&weights, &momentum], &|block| unsafe {
                apply(update, block, &weights, &momentum);
            });
        }
    }
    fn stages(_: &UpdateParams, _: &Target) -> Vec<Stage> {
        Vec::new()
    }
}

for_vectors!(unsafe apply, apply_any, (update: Update, block: &Block<'_>, weights: &Shared<'_, f32>, momentum: &Shared<'_, f32>));

/// Updates the weights of `block`.
///
/// # Safety
/// Nobody else uses them.
#[inline(always)]
unsafe fn apply_any(update: Update, block: &Block<'_>, weights: &Shared<'_, f32>, momentum: &Shared<'_, f32>) {
    for (at, gradient) in block.rows() {
        // SAFETY: the caller's promise.
        let (w, v) = unsafe { (weights.range(at, gradient.len()), momentum.range(at, gradient.len())) };
        update.apply(w, v, gradient);
    }
}
