//! The measurement: every operation in turn, again and again.

use super::{
    OperationTiming, PartTiming, Pass, SlotName, Spread, TimingOptions, Timings,
    operation::Operation,
    passes::passes,
    runs::{Runs, sample},
};
use crate::{
    memory::ALIGNMENT,
    network::Network,
    plan::{Op, Plan},
    program::issue_op,
};
use alexnode_core::{Access, Backend, BufferId, Copy2d, Error, ErrorCode, Result, SlotId, View};
use std::sync::atomic::{AtomicBool, Ordering};

/// So many samples of an operation's length make one of the step.
const STEP_SAMPLE: f64 = 10.0;

/// What is measured.
pub struct Step<'a> {
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
        let in_place = op.launch().map_or_else(Vec::new, |(_, launch)| {
            let arguments = launch.args().zip(launch.kernel.access);
            let changed = arguments.filter(|(_, access)| **access == Access::ReadWrite);
            changed.map(|(view, _)| view).collect()
        });
        Self { op, pass, slot: Operation::of(op).slot, in_place, samples: Vec::new() }
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
        let Operation { name, slot, bytes } = Operation::of(self.op);
        OperationTiming { name, slot: slot.0, repeats, seconds: Spread::of(&self.samples), bytes }
    }
}

/// Times `step`, whose minibatch lies on the slots. Weights, momentum and state change.
///
/// # Errors
/// `ERR_USAGE` for options that make no sense, `ERR_ABORTED` where `cancel` is set, `ERR_DEVICE` where there is no memory to keep aside what operations change
/// in place.
pub fn measure(
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
