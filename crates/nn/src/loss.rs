//! Softmax and cross-entropy in one: the end of every network. Runs on slot 0.
//!
//! Errors are counted as in the 2012 code (layer_kernels.cu): a label that ties with others for the last of the k best places
//! gets its share of the credit, (places left) / (number tied), at most 1.

use alexnode_core::{
    Engine, Host, Stage, StepState, Target,
    kernel::{Access, Args, Kernel},
    state::Totals,
};
use bytemuck::{Pod, Zeroable};

/// `batch` rows of `classes` numbers; only the logits may have gaps between their rows.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct LossParams {
    /// Rows.
    pub batch: i32,
    /// Classes.
    pub classes: i32,
    /// Elements from one row of logits to the next.
    pub logits_ld: i32,
}

/// Loss, errors and gradient of a minibatch.
///
/// Rows below `state.valid`: `dlogits = (softmax - onehot) / valid`, and -ln p(label) and the errors are added to the totals. The
/// rows after them: `dlogits = 0`. Sets `state.diverged` where the loss of the batch is not finite (once); a label which is not a class
/// (the data set allows none) makes it so. Sums run in row order, in f64.
///
/// Arguments: logits, labels (i32), state, totals, dlogits (f32, batch x classes), scratch.
#[derive(Debug)]
pub struct SoftmaxCrossEntropyTrain;

/// Probabilities, loss and errors of a batch under evaluation.
///
/// View `state.view` adds softmax / `state.views` to the probabilities (view 0 overwrites them); with the last view the rows
/// below `state.valid` add -ln p(label) and their errors to the totals. The state does not change.
///
/// Arguments: logits, labels (i32), state, totals, probabilities (f32, batch x classes), scratch.
#[derive(Debug)]
pub struct SoftmaxCrossEntropyEval;

/// The softmax of a row, in f64 and relative to its largest logit, so that nothing overflows.
struct Softmax {
    max: f64,
    sum: f64,
}

impl Softmax {
    fn of(logits: &[f32]) -> Self {
        let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        Self { max, sum: logits.iter().map(|z| (f64::from(*z) - max).exp()).sum() }
    }
    fn probability(&self, logit: f32) -> f32 {
        ((f64::from(logit) - self.max).exp() / self.sum) as f32
    }
    /// -ln p, finite even where p is too small for a float.
    fn minus_log(&self, logit: f32) -> f64 {
        self.sum.ln() - (f64::from(logit) - self.max)
    }
}

/// The label as an index, if it is a class.
fn class(label: i32, classes: usize) -> Option<usize> {
    usize::try_from(label).ok().filter(|label| *label < classes)
}

/// The part of a hit that `label` earns among the `k` most probable classes: 1, 0, or a share where it ties for the last places.
/// Comparisons with a NaN fail, and earn nothing.
fn credit(probabilities: &[f32], label: usize, k: usize) -> f64 {
    let own = probabilities[label];
    let above = probabilities.iter().filter(|p| **p > own).count();
    let tied = probabilities.iter().filter(|p| **p == own).count();
    if tied == 0 { 0.0 } else { (k.saturating_sub(above) as f64 / tied as f64).min(1.0) }
}

/// Adds one sample to the totals.
fn count(totals: &mut Totals, probabilities: &[f32], label: Option<usize>, loss: f64) {
    totals.loss += loss;
    totals.top1_errors += 1.0 - label.map_or(0.0, |label| credit(probabilities, label, 1));
    totals.top5_errors += 1.0 - label.map_or(0.0, |label| credit(probabilities, label, 5));
    totals.samples += 1.0;
}

/// On a CUDA device each row leaves what it adds to the totals: loss and two errors, in f64.
fn scratch(p: &LossParams, engine: Engine) -> usize {
    match engine {
        Engine::Host { .. } => 0,
        Engine::Cuda(_) => p.batch as usize * 3 * size_of::<f64>(),
    }
}

/// A block for each row, all at once; then one that adds up what they left, in the order of the rows.
fn stages(p: &LossParams, rows: &'static str, totals: &'static str) -> Vec<Stage> {
    /// As in the `.cu`.
    const THREADS: u32 = 128;
    let stage = |entry, blocks| Stage { grid: [blocks, 1, 1], threads: THREADS, ..Stage::each(entry, 1) };
    vec![stage(rows, p.batch as u32), stage(totals, 1)]
}

impl Kernel for SoftmaxCrossEntropyTrain {
    type Params = LossParams;
    const NAME: &'static str = "softmax_cross_entropy_train";
    const SOURCE: &'static str = "softmax_cross_entropy.cu";
    const ACCESS: &'static [Access] =
        &[Access::Read, Access::Read, Access::ReadWrite, Access::ReadWrite, Access::Write, Access::Scratch];
    // A row costs microseconds: the calling thread alone keeps the order of the sums.
    fn run(p: &LossParams, args: &Args<'_>, _: &dyn Host) {
        let (batch, classes, ld) = (p.batch as usize, p.classes as usize, p.logits_ld as usize);
        let (logits, labels) = (args.read::<f32>(0), args.read::<i32>(1));
        let state_bytes = args.write::<u8>(2);
        let mut state = StepState::of(state_bytes);
        let totals = &mut args.write::<Totals>(3)[0];
        let valid = (state.valid as usize).min(batch);
        let mut batch_loss = 0.0;
        for (row, dlogits) in args.write::<f32>(4)[..batch * classes].chunks_exact_mut(classes).enumerate() {
            if row >= valid {
                dlogits.fill(0.0);
                continue;
            }
            let logits = &logits[row * ld..][..classes];
            let softmax = Softmax::of(logits);
            for (p, z) in dlogits.iter_mut().zip(logits) {
                *p = softmax.probability(*z);
            }
            let label = class(labels[row], classes);
            let loss = label.map_or(f64::NAN, |label| softmax.minus_log(logits[label]));
            count(totals, dlogits, label, loss);
            batch_loss += loss;
            if let Some(label) = label {
                dlogits[label] -= 1.0;
            }
            for d in dlogits {
                *d /= valid as f32;
            }
        }
        if !f64::is_finite(batch_loss) && state.diverged == 0 {
            state.diverged = state.step + 1;
            state_bytes[..size_of::<StepState>()].copy_from_slice(bytemuck::bytes_of(&state));
        }
    }
    fn scratch(p: &LossParams, engine: Engine) -> usize {
        scratch(p, engine)
    }
    fn stages(p: &LossParams, _: &Target) -> Vec<Stage> {
        stages(p, Self::NAME, "softmax_cross_entropy_train_totals")
    }
}

impl Kernel for SoftmaxCrossEntropyEval {
    type Params = LossParams;
    const NAME: &'static str = "softmax_cross_entropy_eval";
    const SOURCE: &'static str = "softmax_cross_entropy.cu";
    const ACCESS: &'static [Access] =
        &[Access::Read, Access::Read, Access::Read, Access::ReadWrite, Access::ReadWrite, Access::Scratch];
    fn run(p: &LossParams, args: &Args<'_>, _: &dyn Host) {
        let (batch, classes, ld) = (p.batch as usize, p.classes as usize, p.logits_ld as usize);
        let (logits, labels) = (args.read::<f32>(0), args.read::<i32>(1));
        let state = StepState::of(args.read(2));
        let totals = &mut args.write::<Totals>(3)[0];
        let (valid, views) = ((state.valid as usize).min(batch), state.views.max(1));
        for (row, mean) in args.write::<f32>(4)[..batch * classes].chunks_exact_mut(classes).enumerate() {
            let logits = &logits[row * ld..][..classes];
            let softmax = Softmax::of(logits);
            for (mean, z) in mean.iter_mut().zip(logits) {
                let share = softmax.probability(*z) / views as f32;
                *mean = if state.view == 0 { share } else { *mean + share };
            }
            if row < valid && state.view + 1 >= views {
                let label = class(labels[row], classes);
                let loss = label.map_or(f64::NAN, |label| match views {
                    // Of one view the logits tell even where the probability is too small for a float.
                    1 => softmax.minus_log(logits[label]),
                    _ => -f64::from(mean[label]).ln(),
                });
                count(totals, mean, label, loss);
            }
        }
    }
    fn scratch(p: &LossParams, engine: Engine) -> usize {
        scratch(p, engine)
    }
    fn stages(p: &LossParams, _: &Target) -> Vec<Stage> {
        stages(p, Self::NAME, "softmax_cross_entropy_eval_totals")
    }
}
