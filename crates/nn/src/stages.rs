//! What stands around the layers of a step: input, loss, update. Each lowers to one kernel per slot.

use crate::{
    augment::{Augment, AugmentParams},
    class_weights::{ClassWeights, ClassWeightsParams},
    loss::{LossParams, SoftmaxCrossEntropyEval, SoftmaxCrossEntropyTrain},
    lower::{Arg, Builder, Draft, DraftKind, External, Home, Origin, Phase, Tensor, Value},
    request::{Mode, Request},
    sgd::{Sgd, SgdParams},
};
use alexnode_core::{Kernel, Shape, SlotId, StepState, state::Totals};

const FIRST: SlotId = SlotId(0);

/// The state and the sample ids of `slot`.
pub(crate) fn state_and_ids(request: &Request<'_>, builder: &mut Builder, slot: SlotId) -> (Value, Value) {
    let rates = request.network.parameters().len() * 4;
    let state = builder.value(slot, size_of::<StepState>() + rates, Home::External(External::State));
    let ids = builder.value(slot, request.batch * 4, Home::External(External::Ids));
    (state, ids)
}

/// Bytes to crops on `slot`: every slot sees the whole image.
pub(crate) fn input(request: &Request<'_>, builder: &mut Builder, slot: SlotId) -> Tensor {
    let spec = request.network.image().expect("a network with images");
    let (batch, image, crop) = (request.batch, spec.image_size, spec.crop_size);
    let mut external = |what, bytes| {
        let value = builder.value(slot, bytes, Home::External(what));
        builder.whole(value)
    };
    let pixels = external(External::Pixels, batch * image * image * 3);
    let mean = external(External::Mean, crop * crop * 3 * 4);
    let colour = external(External::Colour, 12 * 4);
    let (state, ids) = state_and_ids(request, builder, slot);
    let out = builder.tensor(slot, batch, Shape::new(crop, crop, 3), 3, 0, Home::Arena);
    let params = AugmentParams {
        batch: batch as i32,
        image: image as i32,
        crop: crop as i32,
        train: i32::from(request.mode == Mode::Train),
        flip: i32::from(spec.flip),
        noise_divisor: spec.noise_divisor,
        scale: spec.scale,
    };
    let args = [pixels, builder.whole(ids), builder.whole(state), mean, colour, out.arg()];
    builder.launch::<Augment>(Origin { layer: None, phase: Phase::Input }, slot, params, &args);
    out
}

/// What both losses read, and their parameters.
fn loss_inputs(request: &Request<'_>, builder: &mut Builder, logits: Tensor) -> (LossParams, [Arg; 4]) {
    let labels = builder.value(FIRST, request.batch * 4, Home::External(External::Labels));
    let totals = builder.value(FIRST, size_of::<Totals>(), Home::External(External::Totals));
    let (state, _) = state_and_ids(request, builder, FIRST);
    let params =
        LossParams { batch: request.batch as i32, classes: logits.shape.c as i32, logits_ld: logits.ld as i32 };
    (params, [logits.arg(), builder.whole(labels), builder.whole(state), builder.whole(totals)])
}

/// The scratch memory of a loss.
fn scratch<K: Kernel>(request: &Request<'_>, builder: &mut Builder, params: &K::Params) -> Arg {
    let bytes = K::scratch(params, request.engines[FIRST.index()]);
    let value = builder.value(FIRST, bytes, Home::Arena);
    builder.whole(value)
}

fn loss_origin(request: &Request<'_>) -> Origin {
    Origin { layer: Some(request.network.len() - 1), phase: Phase::Loss }
}

/// Logits to their gradient, on slot 0. The other slot learns whether the loss was finite.
pub(crate) fn loss(request: &Request<'_>, builder: &mut Builder, logits: Tensor) -> Tensor {
    let (params, [logits_arg, labels, state, totals]) = loss_inputs(request, builder, logits);
    let gradient = builder.tensor(FIRST, request.batch, logits.shape, logits.shape.c, 0, Home::Arena);
    let scratch = scratch::<SoftmaxCrossEntropyTrain>(request, builder, &params);
    let args = [logits_arg, labels, state, totals, gradient.arg(), scratch];
    builder.launch::<SoftmaxCrossEntropyTrain>(loss_origin(request), FIRST, params, &args);
    if request.class_weights {
        let weights = builder.value(FIRST, logits.shape.c * 4, Home::External(External::ClassWeights));
        let params = ClassWeightsParams { batch: params.batch, classes: params.classes };
        let args = [labels, builder.whole(weights), state, gradient.arg()];
        builder.launch::<ClassWeights>(loss_origin(request), FIRST, params, &args);
    }
    let flag = |value| Arg { value, offset: std::mem::offset_of!(StepState, diverged), bytes: 4 };
    for other in 1..request.placement.towers {
        let (there, _) = state_and_ids(request, builder, SlotId(other as u8));
        let (src, dst) = (flag(state.value), flag(there));
        let kind = DraftKind::Copy { src, dst, rows: 1, row_bytes: 4, src_pitch: 4, dst_pitch: 4 };
        builder.drafts.push(Draft { origin: loss_origin(request), kind });
    }
    gradient
}

/// Logits to probabilities and totals, on slot 0.
pub(crate) fn probabilities(request: &Request<'_>, builder: &mut Builder, logits: Tensor) {
    let (params, [logits_arg, labels, state, totals]) = loss_inputs(request, builder, logits);
    let bytes = request.batch * logits.shape.c * 4;
    let probabilities = builder.value(FIRST, bytes, Home::External(External::Probabilities));
    let scratch = scratch::<SoftmaxCrossEntropyEval>(request, builder, &params);
    let args = [logits_arg, labels, state, totals, builder.whole(probabilities), scratch];
    builder.launch::<SoftmaxCrossEntropyEval>(loss_origin(request), FIRST, params, &args);
}

/// The constants of the update of parameter tensor `index`, of which a slot has `bytes`.
pub(crate) fn sgd(request: &Request<'_>, index: usize, bytes: usize) -> SgdParams {
    let decay = request.network.parameters()[index].spec.decay;
    SgdParams { rate: index as i32, count: (bytes / 4) as u32, momentum: request.momentum, decay }
}

/// Gradient to update of a parameter tensor: `[weight, gradient, momentum]` on one slot.
pub(crate) fn update(
    request: &Request<'_>,
    builder: &mut Builder,
    origin: Origin,
    params: SgdParams,
    tensors: [Value; 3],
) {
    let slot = builder.slot(tensors[0]);
    let (state, _) = state_and_ids(request, builder, slot);
    let [weight, gradient, momentum] = tensors.map(|value| builder.whole(value));
    builder.launch::<Sgd>(origin, slot, params, &[weight, gradient, momentum, builder.whole(state)]);
}
