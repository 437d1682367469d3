//! Whole steps with stamps between their operations: where the time of one and the same step goes.
//!
//! Between two stamps of a slot lies one operation, on the data and with the caches that a step leaves to it. So the intervals of a slot and what lies
//! before the first and behind the last stamp add up to the step, by construction.

use super::{Pass, SlotName, operation::Operation, passes::passes};
use crate::{
    network::Network,
    plan::{Op, OpKind, Plan},
    program::issue_op,
    resident::Resident,
};
use alexnode_core::{Error, ErrorCode, Result, SlotId, backend::Stamp};
use serde::{Deserialize, Serialize};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

/// What is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Mode {
    /// Training steps.
    Train,
    /// Evaluations of one view.
    Evaluate,
}

/// What to run, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProfileOptions {
    /// Which program.
    pub mode: Mode,
    /// How often, at least once.
    pub steps: usize,
}

/// What lies between two stamps of a slot.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Interval {
    /// The layer; none for the input.
    pub layer: Option<String>,
    /// Which part of the step it belongs to.
    pub pass: Pass,
    /// The kernel's name; `copy` for a copy; `wait` for the time in which a slot is held back by a copy that another one makes of its memory.
    pub name: &'static str,
    /// Where.
    pub slot: u8,
    /// The bytes of its arguments, as [`OperationTiming`](super::OperationTiming) counts them.
    pub bytes: u64,
}

/// One step, in seconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProfiledStep {
    /// From before the upload of the minibatch until the last slot is done.
    pub seconds: f64,
    /// The upload of the minibatch, of its labels and of the state.
    pub upload: f64,
    /// Each interval.
    pub intervals: Vec<f64>,
}

/// Some steps.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    /// What computed.
    pub slots: Vec<SlotName>,
    /// Samples of a minibatch.
    pub batch: usize,
    /// The intervals of a step, in the order in which they were issued.
    pub intervals: Vec<Interval>,
    /// The steps.
    pub steps: Vec<ProfiledStep>,
}

/// A program under the clock.
pub(crate) struct Program<'a> {
    pub network: &'a Network,
    pub batch: usize,
    pub plan: &'a Plan,
    pub ops: &'a [Op],
}

impl Program<'_> {
    /// The intervals, each with its slot; of a copy between slots two.
    fn intervals(&self) -> Vec<Vec<Interval>> {
        let of = |(op, pass): (&Op, Pass)| {
            let Operation { name, slot, bytes } = Operation::of(op);
            let layer = op.origin.layer.map(|layer| self.network.layer(layer).name().to_owned());
            let interval = Interval { layer, pass, name, slot: slot.0, bytes };
            match &op.kind {
                OpKind::Copy(copy) if copy.src.buffer.slot != slot => {
                    let wait = Interval { name: "wait", slot: copy.src.buffer.slot.0, bytes: 0, ..interval.clone() };
                    vec![interval, wait]
                }
                _ => vec![interval],
            }
        };
        self.ops.iter().zip(passes(self.plan)).map(of).collect()
    }

    /// Runs it `steps` times, each time after `upload`.
    ///
    /// # Errors
    /// `ERR_USAGE` for no steps, `ERR_ABORTED` where `cancel` is set; those of the operations.
    pub fn run(
        &self,
        resident: &mut Resident,
        steps: usize,
        upload: &mut dyn FnMut(&mut Resident) -> Result<()>,
        cancel: &AtomicBool,
    ) -> Result<Profile> {
        if steps == 0 {
            return Err(Error::usage("steps must be at least 1"));
        }
        let intervals = self.intervals();
        let mut profiled = Vec::new();
        for _ in 0..steps {
            if cancel.load(Ordering::Relaxed) {
                return Err(Error::new(ErrorCode::Aborted, "the measurement was stopped"));
            }
            profiled.push(self.step(resident, &intervals, upload)?);
        }
        let intervals = intervals.into_iter().flatten().collect();
        Ok(Profile { slots: SlotName::all(resident.backend()), batch: self.batch, intervals, steps: profiled })
    }

    fn step(
        &self,
        resident: &mut Resident,
        intervals: &[Vec<Interval>],
        upload: &mut dyn FnMut(&mut Resident) -> Result<()>,
    ) -> Result<ProfiledStep> {
        let slots = resident.backend().slots().len();
        let firsts: Vec<Stamp> = (0..slots).map(|_| Stamp::default()).collect();
        let mut stamps: Vec<(u8, Stamp)> = Vec::with_capacity(2 * self.ops.len());
        resident.backend().synchronize()?;
        let begin = Instant::now();
        upload(resident)?;
        let uploaded = begin.elapsed().as_secs_f64();
        let backend = resident.backend();
        for (slot, first) in firsts.iter().enumerate() {
            backend.stamp(SlotId(slot as u8), first)?;
        }
        for (op, intervals) in self.ops.iter().zip(intervals) {
            issue_op(backend, op)?;
            for Interval { slot, .. } in intervals {
                let stamp = Stamp::default();
                backend.stamp(SlotId(*slot), &stamp)?;
                stamps.push((*slot, stamp));
            }
        }
        backend.synchronize()?;
        let seconds = begin.elapsed().as_secs_f64();
        let moment = |stamp: &Stamp| stamp.get().copied().ok_or_else(|| Error::kernel("a stamp was never reached"));
        let mut last = firsts.iter().map(moment).collect::<Result<Vec<_>>>()?;
        let mut length = |(slot, stamp): &(u8, Stamp)| {
            let (now, before) = (moment(stamp)?, &mut last[usize::from(*slot)]);
            let length = now.duration_since(*before).as_secs_f64();
            *before = now;
            Ok(length)
        };
        let intervals = stamps.iter().map(&mut length).collect::<Result<_>>()?;
        Ok(ProfiledStep { seconds, upload: uploaded, intervals })
    }
}
