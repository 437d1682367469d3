//! How a network is doing inside: how large its weights and their last updates are, and which of its units never answer.

use crate::{
    evaluate::check_batch,
    lower::{External, Phase},
    network::Network,
    placement::Placement,
    plan::{Op, Plan},
    program::{Program, issue_op},
    resident::{Kind, Resident},
};
use alexnode_core::{Batch, BatchSource, Error, ErrorCode, Result, SlotId, StepState, View};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
};

/// A parameter tensor and its last update, which is its momentum (the learning rate is inside of it).
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ParameterStatistics {
    /// `conv1.weight`.
    pub name: String,
    /// Root mean square of the elements.
    pub weight: f64,
    /// Root mean square of the last update.
    pub update: f64,
    /// Mean product of an element and its update: how far the update only shrinks or grows what is there.
    pub product: f64,
}

/// What a ReLU layer puts out for some images. A unit is a map of a convolution or an output of a linear layer.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UnitStatistics {
    /// Name of the ReLU layer.
    pub layer: String,
    /// How many there are.
    pub units: usize,
    /// How many of them are 0 everywhere on every image.
    pub dead: usize,
    /// Mean share of outputs above 0.
    pub active: f64,
}

/// How a network is doing inside.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Statistics {
    /// In the order of the network.
    pub parameters: Vec<ParameterStatistics>,
    /// In the order of the network.
    pub relus: Vec<UnitStatistics>,
    /// Images that the units were looked at with.
    pub images: usize,
}

/// A network that resides on slots, with the plan that evaluates `batch` images.
pub(crate) struct Observer<'a> {
    pub network: &'a Network,
    pub placement: Placement,
    pub batch: usize,
    pub resident: &'a mut Resident,
    pub plan: &'a Plan,
    pub program: &'a Program,
}

/// Of one ReLU layer on one slot.
struct Seen {
    alive: Vec<bool>,
    positive: u64,
    looked_at: u64,
}

impl Observer<'_> {
    /// Looks at the parameters, and at the units with all images of `source`.
    ///
    /// # Errors
    /// `ERR_ABORTED` where `cancel` is set, `ERR_DATA` from the source.
    pub fn run(mut self, source: &mut dyn BatchSource, cancel: &AtomicBool) -> Result<Statistics> {
        let parameters = self.parameters()?;
        let mut seen = BTreeMap::new();
        let mut images = 0;
        while let Some(batch) = source.next()? {
            if cancel.load(Ordering::Relaxed) {
                return Err(Error::new(ErrorCode::Aborted, "the look at the units was stopped"));
            }
            self.look(&batch, &mut seen)?;
            images += batch.valid;
            source.recycle(batch);
        }
        let mut relus: BTreeMap<usize, UnitStatistics> = BTreeMap::new();
        let mut totals: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
        for ((layer, _), Seen { alive, positive, looked_at }) in seen {
            let name = || self.network.layer(layer).name().to_owned();
            let found =
                relus.entry(layer).or_insert_with(|| UnitStatistics { layer: name(), units: 0, dead: 0, active: 0.0 });
            found.units += alive.len();
            found.dead += alive.iter().filter(|alive| !**alive).count();
            let (above, all) = totals.entry(layer).or_default();
            *above += positive;
            *all += looked_at;
            found.active = *above as f64 / (*all).max(1) as f64;
        }
        Ok(Statistics { parameters, relus: relus.into_values().collect(), images })
    }

    fn parameters(&mut self) -> Result<Vec<ParameterStatistics>> {
        let mut all = Vec::new();
        for (index, parameter) in self.network.parameters().iter().enumerate() {
            let weights = self.resident.get(self.network, self.placement, index, Kind::Weight)?;
            let updates = self.resident.get(self.network, self.placement, index, Kind::Momentum)?;
            let mean = |pair: fn(f64, f64) -> f64| {
                let sum: f64 = weights.iter().zip(&updates).map(|(w, v)| pair(f64::from(*w), f64::from(*v))).sum();
                sum / weights.len().max(1) as f64
            };
            all.push(ParameterStatistics {
                name: parameter.name.clone(),
                weight: mean(|w, _| w * w).sqrt(),
                update: mean(|_, v| v * v).sqrt(),
                product: mean(|w, v| w * v),
            });
        }
        Ok(all)
    }

    /// Evaluates a minibatch operation by operation: an output may be overwritten by the next layer.
    fn look(&mut self, batch: &Batch, seen: &mut BTreeMap<(usize, SlotId), Seen>) -> Result<()> {
        check_batch(self.network, self.batch, batch)?;
        self.resident.stage(batch)?;
        self.resident.write_state(&StepState { valid: batch.valid as u32, views: 1, ..StepState::default() })?;
        let mut done = 0;
        for &(layer, slot, tensor) in &self.plan.outputs {
            if self.network.layer(layer).kind() != "Relu" {
                continue;
            }
            let belongs = |op: &Op| op.origin.phase <= Phase::Forward && op.origin.layer.is_none_or(|l| l <= layer);
            let end = self.program.ops().iter().rposition(belongs).map_or(0, |last| last + 1).max(done);
            for op in &self.program.ops()[done..end] {
                issue_op(self.resident.backend(), op)?;
            }
            done = end;
            let external = |s: SlotId, what: External| -> View { self.resident.view(s, what) };
            let view = self.plan.view(tensor.arg(), self.resident.arenas(), &external);
            let rows = batch.valid * self.network.output(layer).pixels();
            let channels = tensor.shape.c;
            if rows == 0 {
                continue;
            }
            let mut values = vec![0.0f32; (rows - 1) * tensor.ld + channels];
            let used = view.slice(0, values.len() * 4);
            self.resident.backend().download(used, bytemuck::cast_slice_mut(&mut values))?;
            let found = seen.entry((layer, slot)).or_insert_with(|| Seen {
                alive: vec![false; channels],
                positive: 0,
                looked_at: 0,
            });
            for row in values.chunks(tensor.ld) {
                for (alive, value) in found.alive.iter_mut().zip(&row[..channels]) {
                    *alive |= *value > 0.0;
                    found.positive += u64::from(*value > 0.0);
                }
            }
            found.looked_at += (rows * channels) as u64;
        }
        Ok(())
    }
}
