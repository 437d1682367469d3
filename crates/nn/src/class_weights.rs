//! Weights of the classes in the loss, for classes of which there are unequally many images.
//!
//! A training minimises the mean over its `N` images of `weights[label] * -ln p(label)`. Only the gradient changes: what is told of a
//! training stays the mean of `-ln p(label)`, which compares with that of other runs and of validations.

use alexnode_core::{
    Stage, StepState, Target,
    host::Host,
    kernel::{Access, Args, Kernel},
};
use bytemuck::{Pod, Zeroable};

/// `batch` rows of `classes` numbers without gaps.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct ClassWeightsParams {
    /// Rows.
    pub batch: i32,
    /// Classes.
    pub classes: i32,
}

/// `dlogits[row] *= weights[label of the row]` for the rows below `state.valid`; those whose label is no class stay as they are.
///
/// Arguments: labels (i32, batch), weights (f32, classes), state, dlogits (f32, batch x classes).
#[derive(Debug)]
pub struct ClassWeights;

impl Kernel for ClassWeights {
    type Params = ClassWeightsParams;
    const NAME: &'static str = "class_weights";
    const SOURCE: &'static str = "class_weights.cu";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Read, Access::Read, Access::ReadWrite];
    // A multiplication per logit: less than waking a worker costs.
    fn run(p: &ClassWeightsParams, args: &Args<'_>, _: &dyn Host) {
        let (batch, classes) = (p.batch as usize, p.classes as usize);
        let (labels, weights) = (args.read::<i32>(0), args.read::<f32>(1));
        let valid = (StepState::of(args.read(2)).valid as usize).min(batch);
        for (row, label) in args.write::<f32>(3).chunks_exact_mut(classes).zip(labels).take(valid) {
            let Some(weight) = usize::try_from(*label).ok().and_then(|label| weights.get(label)) else { continue };
            row.iter_mut().for_each(|d| *d *= weight);
        }
    }
    fn stages(p: &ClassWeightsParams, _: &Target) -> Vec<Stage> {
        vec![Stage::each(Self::NAME, p.batch as usize * p.classes as usize)]
    }
}
