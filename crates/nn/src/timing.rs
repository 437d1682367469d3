//! How long a training step takes, as a whole and operation by operation, on whatever backend runs it.
//!
//! Nothing inside a device is asked for the time: an operation runs several times between two waits, as a recording where the backend has such a thing, so
//! that launching hides behind computing. Each sample of every operation is taken in turn before the next one of any ("interleaved"), so that a device which changes its
//! clock changes it for all of them. What is issued again and again finds its arguments in the caches where they fit: the sum over the
//! operations may be less than the step.

use crate::{
    lower::{Arg, Draft, DraftKind, Home, Phase, Value},
    memory::ALIGNMENT,
    network::Network,
    plan::{Op, OpKind, Plan},
    trainer::issue_op,
};
use alexnode_core::{
    Access, Backend, BufferId, Copy2d, Error, ErrorCode, Result, SlotId, SlotInfo, View, backend::RecordingId,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

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
    /// The gradient by its parameters.
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

/// The most that an operation is repeated in a sample.
const MOST_REPEATS: usize = 512;
/// So many samples of an operation's length make one of the step.
const STEP_SAMPLE: f64 = 10.0;

/// Seconds of one of `repeats` runs of what `issue` issues.
pub(crate) fn sample(
    backend: &mut dyn Backend,
    repeats: usize,
    mut issue: impl FnMut(&mut dyn Backend) -> Result<()>,
) -> Result<f64> {
    backend.synchronize()?;
    let begin = Instant::now();
    for _ in 0..repeats {
        issue(backend)?;
    }
    backend.synchronize()?;
    Ok(begin.elapsed().as_secs_f64() / repeats as f64)
}

/// The most runs that one recording holds.
const BLOCK: usize = 20;

/// Runs of something between two waits.
struct Runs {
    /// How many are issued at once.
    block: usize,
    /// They, where the backend records.
    recording: Option<RecordingId>,
    /// How often.
    times: usize,
}

impl Runs {
    /// So many runs of what took `seconds` that they take `wanted`.
    fn new(
        backend: &mut dyn Backend,
        seconds: f64,
        wanted: f64,
        issue: impl Fn(&mut dyn Backend) -> Result<()>,
    ) -> Result<Self> {
        let runs = repeats(seconds, wanted);
        let block = runs.min(BLOCK);
        let recording = backend.record(&mut |backend| (0..block).try_for_each(|_| issue(backend)))?;
        Ok(Self { block, recording, times: runs.div_ceil(block) })
    }
    fn count(&self) -> usize {
        self.block * self.times
    }
    /// Seconds of one.
    fn sample(&self, backend: &mut dyn Backend, issue: impl Fn(&mut dyn Backend) -> Result<()>) -> Result<f64> {
        let seconds = sample(backend, self.times, |backend| match self.recording {
            Some(recording) => backend.replay(recording),
            None => (0..self.block).try_for_each(|_| issue(backend)),
        })?;
        Ok(seconds / self.block as f64)
    }
}

/// How often what took `seconds` has to run to take `wanted`.
pub(crate) fn repeats(seconds: f64, wanted: f64) -> usize {
    ((wanted / seconds.max(1e-9)).ceil() as usize).clamp(1, MOST_REPEATS)
}

/// Whether what an argument of this kind names has another content afterwards.
fn results(access: Access) -> bool {
    matches!(access, Access::Write | Access::ReadWrite)
}

/// The pass that each operation of `plan` belongs to.
pub(crate) fn passes(plan: &Plan) -> Vec<Pass> {
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

/// What is measured.
pub(crate) struct Step<'a> {
    /// The network.
    pub network: &'a Network,
    /// Samples of a minibatch.
    pub batch: usize,
    /// Its training step.
    pub plan: &'a Plan,
    /// The same on real memory.
    pub ops: &'a [Op],
}

/// An operation under measurement.
struct Probe<'a> {
    op: &'a Op,
    pass: Pass,
    slot: SlotId,
    /// What it changes in place: repeating it must not change that again and again.
    in_place: Vec<View>,
    samples: Vec<f64>,
}

impl<'a> Probe<'a> {
    fn new(op: &'a Op, pass: Pass) -> Self {
        let (slot, in_place) = match &op.kind {
            OpKind::Launch(slot, launch) => {
                let arguments = launch.args().zip(launch.kernel.access);
                let changed = arguments.filter(|(_, access)| **access == Access::ReadWrite);
                (*slot, changed.map(|(view, _)| view).collect())
            }
            OpKind::Copy(copy) => (copy.dst.buffer.slot, Vec::new()),
        };
        Self { op, pass, slot, in_place, samples: Vec::new() }
    }
    fn name(&self) -> &'static str {
        self.op.launch().map_or("copy", |(_, launch)| launch.kernel.name)
    }
    fn bytes(&self) -> u64 {
        let count = |(view, access): (View, &Access)| match access {
            Access::Read | Access::Write => view.bytes,
            Access::ReadWrite => 2 * view.bytes,
            Access::Scratch => 0,
        };
        let bytes = match &self.op.kind {
            OpKind::Launch(_, launch) => launch.args().zip(launch.kernel.access).map(count).sum(),
            OpKind::Copy(copy) => 2 * copy.rows * copy.row_bytes,
        };
        bytes as u64
    }
    /// Where each view of what is changed in place is kept in the spare memory, and the bytes of them all.
    fn places(&self) -> (Vec<usize>, usize) {
        let mut end = 0;
        let place = |view: &View| {
            let offset = end;
            end += view.bytes.next_multiple_of(ALIGNMENT);
            offset
        };
        (self.in_place.iter().map(place).collect(), end)
    }
    /// Copies what is changed in place to the spare memory, or back.
    fn keep(&self, backend: &mut dyn Backend, spare: BufferId, back: bool) -> Result<()> {
        for (view, offset) in self.in_place.iter().zip(self.places().0) {
            let kept = View { buffer: spare, offset, bytes: view.bytes };
            let (src, dst) = if back { (kept, *view) } else { (*view, kept) };
            let bytes = view.bytes;
            backend.copy(&Copy2d { src, dst, rows: 1, row_bytes: bytes, src_pitch: bytes, dst_pitch: bytes })?;
        }
        Ok(())
    }
    /// What `run` returns, which runs the operation any number of times. Afterwards memory is as one run leaves it; but for an update, which leaves what
    /// was there.
    fn aside<T>(
        &self,
        backend: &mut dyn Backend,
        spares: &[BufferId],
        run: impl FnOnce(&mut dyn Backend) -> Result<T>,
    ) -> Result<T> {
        let spare = spares[self.slot.index()];
        self.keep(backend, spare, false)?;
        let outcome = run(backend)?;
        self.keep(backend, spare, true)?;
        if !self.in_place.is_empty() && self.pass != Pass::Update {
            issue_op(backend, self.op)?;
        }
        Ok(outcome)
    }
    /// So many runs that they take `wanted` seconds.
    fn runs(&self, backend: &mut dyn Backend, spares: &[BufferId], wanted: f64) -> Result<Runs> {
        let issue = |backend: &mut dyn Backend| issue_op(backend, self.op);
        let seconds = self.aside(backend, spares, |backend| sample(backend, 1, issue))?;
        Runs::new(backend, seconds, wanted, issue)
    }
    fn sample(&mut self, backend: &mut dyn Backend, spares: &[BufferId], runs: &Runs) -> Result<()> {
        let issue = |backend: &mut dyn Backend| issue_op(backend, self.op);
        let seconds = self.aside(backend, spares, |backend| runs.sample(backend, issue))?;
        self.samples.push(seconds);
        Ok(())
    }
    fn timing(&self, repeats: usize) -> OperationTiming {
        let (name, slot) = (self.name(), self.slot.0);
        OperationTiming { name, slot, repeats, seconds: Spread::of(&self.samples), bytes: self.bytes() }
    }
}

/// Times `step`, whose minibatch lies on the slots. Weights, momentum and state change.
///
/// # Errors
/// `ERR_USAGE` for options that make no sense, `ERR_ABORTED` where `cancel` is set, `ERR_DEVICE` where there is no memory to keep aside what operations change
/// in place.
pub(crate) fn measure(
    backend: &mut dyn Backend,
    step: &Step<'_>,
    options: &TimingOptions,
    cancel: &AtomicBool,
) -> Result<Timings> {
    options.check()?;
    let mut probes: Vec<Probe<'_>> =
        step.ops.iter().zip(passes(step.plan)).map(|(op, pass)| Probe::new(op, pass)).collect();
    let mut spares = Vec::new();
    let outcome = (0..backend.slots().len())
        .try_for_each(|slot| {
            let bytes = probes.iter().filter(|probe| probe.slot.index() == slot).map(|probe| probe.places().1).max();
            spares.push(backend.alloc(SlotId(slot as u8), bytes.unwrap_or(0).max(ALIGNMENT))?);
            Ok(())
        })
        .and_then(|()| rounds(backend, step, &mut probes, &spares, options, cancel));
    for spare in spares {
        backend.free(spare);
    }
    let Samples { steps, repeats } = outcome?;
    let steps = Spread::of(&steps);
    Ok(Timings {
        slots: SlotName::all(backend),
        batch: step.batch,
        rounds: options.rounds,
        step: steps,
        images_per_second: steps.rate(step.batch as f64),
        parts: parts(step, &probes, &repeats),
    })
}

/// What [`rounds`] leaves beside the samples of every probe.
struct Samples {
    /// Seconds of the whole step.
    steps: Vec<f64>,
    /// Runs of each operation in a sample.
    repeats: Vec<usize>,
}

/// Takes all samples.
fn rounds(
    backend: &mut dyn Backend,
    step: &Step<'_>,
    probes: &mut [Probe<'_>],
    spares: &[BufferId],
    options: &TimingOptions,
    cancel: &AtomicBool,
) -> Result<Samples> {
    let go_on = || match cancel.load(Ordering::Relaxed) {
        true => Err(Error::new(ErrorCode::Aborted, "the measurement was stopped")),
        false => Ok(()),
    };
    let whole = |backend: &mut dyn Backend| step.ops.iter().try_for_each(|op| issue_op(backend, op));
    // The first time touches memory and loads code; the second one tells how long it takes.
    sample(backend, 1, whole)?;
    let seconds = sample(backend, 1, whole)?;
    let all = Runs::new(backend, seconds, STEP_SAMPLE * options.sample_seconds, whole)?;
    let mut runs = Vec::new();
    for probe in &*probes {
        go_on()?;
        runs.push(probe.runs(backend, spares, options.sample_seconds)?);
    }
    let mut steps = Vec::new();
    for _ in 0..options.rounds {
        steps.push(all.sample(backend, whole)?);
        for (probe, runs) in probes.iter_mut().zip(&runs) {
            go_on()?;
            probe.sample(backend, spares, runs)?;
        }
    }
    Ok(Samples { steps, repeats: runs.iter().map(Runs::count).collect() })
}

/// The operations by layer and pass.
fn parts(step: &Step<'_>, probes: &[Probe<'_>], repeats: &[usize]) -> Vec<PartTiming> {
    let key = |probe: &Probe<'_>| (probe.op.origin.layer, probe.pass);
    let mut keys = Vec::new();
    for probe in probes {
        if !keys.contains(&key(probe)) {
            keys.push(key(probe));
        }
    }
    keys.into_iter()
        .map(|(layer, pass)| {
            let own = probes.iter().zip(repeats).filter(|(probe, _)| key(probe) == (layer, pass));
            let operations: Vec<OperationTiming> = own.map(|(probe, repeats)| probe.timing(*repeats)).collect();
            let on_slot = |slot: u8| {
                let there = operations.iter().filter(|operation| operation.slot == slot);
                there.fold(Spread::default(), |sum, operation| sum.plus(&operation.seconds))
            };
            let slots = operations.iter().map(|operation| on_slot(operation.slot));
            let multiplies = matches!(pass, Pass::Forward | Pass::DataGradient | Pass::WeightGradient);
            let macs = |layer: usize| step.network.layer(layer).macs(step.network.input(layer));
            PartTiming {
                layer: layer.map(|layer| step.network.layer(layer).name().to_owned()),
                pass,
                seconds: slots.max_by(|a, b| a.median.total_cmp(&b.median)).unwrap_or_default(),
                flops: layer.filter(|_| multiplies).map_or(0, |layer| 2 * macs(layer) * step.batch as u64),
                bytes: operations.iter().map(|operation| operation.bytes).sum(),
                operations,
            }
        })
        .collect()
}
