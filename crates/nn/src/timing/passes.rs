//! Which part of a step an operation belongs to.

use super::Pass;
use crate::{
    lower::{Arg, Draft, DraftKind, Home, Phase, Value},
    plan::Plan,
};
use alexnode_core::Access;
use std::collections::BTreeSet;

/// Whether what an argument of this kind names has another content afterwards.
fn results(access: Access) -> bool {
    matches!(access, Access::Write | Access::ReadWrite)
}

/// The pass that each operation of `plan` belongs to.
pub fn passes(plan: &Plan) -> Vec<Pass> {
    let arguments = |draft: &Draft| match &draft.kind {
        DraftKind::Launch { kernel, args, .. } => args.iter().copied().zip(kernel.access.iter().copied()).collect(),
        DraftKind::Copy { .. } => Vec::new(),
    };
    // What an update reads of a step's own memory is a gradient of parameters; what updates on its own writes them.
    let in_arena = |value: Value| matches!(plan.values[value.0 as usize].home, Home::Arena | Home::Kept);
    let updates = plan.drafts.iter().filter(|draft| draft.origin.phase == Phase::Update);
    let gradients: BTreeSet<u32> =
        updates.flat_map(&arguments).filter(|(arg, _)| in_arena(arg.value)).map(|(arg, _)| arg.value.0).collect();
    let learns = |draft: &Draft| {
        let written = |(arg, access): &(Arg, Access)| {
            let outlives = !in_arena(arg.value);
            results(*access) && (outlives || gradients.contains(&arg.value.0))
        };
        arguments(draft).iter().any(written)
    };
    let pass = |draft: &Draft| match (&draft.kind, draft.origin.phase) {
        (_, Phase::Loss) => Pass::Loss,
        (DraftKind::Copy { src, dst, .. }, _) if plan.slot(src.value) != plan.slot(dst.value) => Pass::Transfer,
        (_, Phase::Input) => Pass::Input,
        (_, Phase::Forward) => Pass::Forward,
        (_, Phase::Backward) if learns(draft) => Pass::WeightGradient,
        (_, Phase::Backward) => Pass::DataGradient,
        (_, Phase::Update) => Pass::Update,
    };
    plan.drafts.iter().map(pass).collect()
}
