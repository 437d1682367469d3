//! What stands around the layers of a step: input, loss, update. Each lowers to one kernel per slot.

use crate::{
    lower::{Builder, External, Home, Tensor, Value},
    plan::Request,
};
use alexnode_core::{SlotId, StepState};

/// The state and the sample ids of `slot`.
pub(crate) fn state_and_ids(request: &Request<'_>, builder: &mut Builder, slot: SlotId) -> (Value, Value) {
    let rates = request.network.parameters().len() * 4;
    let state = builder.value(slot, size_of::<StepState>() + rates, Home::External(External::State));
    let ids = builder.value(slot, request.batch * 4, Home::External(External::Ids));
    (state, ids)
}
pub(crate) fn input(request: &Request<'_>, builder: &mut Builder, slot: SlotId) -> Tensor {
    todo!()
}
pub(crate) fn loss(request: &Request<'_>, builder: &mut Builder, logits: Tensor) -> Tensor {
    todo!()
}
pub(crate) fn probabilities(request: &Request<'_>, builder: &mut Builder, logits: Tensor) {
    todo!()
}
pub(crate) fn update(request: &Request<'_>, builder: &mut Builder, parameter: usize, tensors: [Value; 3]) {
    todo!()
}
