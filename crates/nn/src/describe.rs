//! A network on paper: the layer table, the exact memory and the counters, without allocating any of it.

use crate::{
    network::{Network, NetworkSpec, Parameter},
    placement::Placement,
    plan::Counters,
    resident::{MemoryUse, Plans},
};
use alexnode_core::{Engine, Result};
use serde::Serialize;
use std::collections::BTreeMap;

/// A network as [`describe`] tells it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Description {
    /// One row per layer.
    pub layers: Vec<LayerDescription>,
    /// Trained numbers.
    pub parameters: usize,
    /// Multiply-accumulates of a forward pass for one image.
    pub macs: u64,
    /// What each slot needs.
    pub memory: Vec<MemoryUse>,
    /// What a training step does.
    pub counters: Counters,
}

/// One row of the layer table.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerDescription {
    /// Its name.
    pub name: String,
    /// Its kind: "Conv2d".
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Output height, width, channels.
    pub shape: [usize; 3],
    /// Trained numbers.
    pub parameters: usize,
    /// Shapes of its tensors in files, by their names: `conv1.weight`.
    pub tensors: BTreeMap<String, Vec<usize>>,
    /// Multiply-accumulates for one image.
    pub macs: u64,
}

/// The layer table, the exact memory and the counters of a network, without allocating any of it. `class_weights`:
/// whether its loss is weighed. `engines`: one entry per slot.
///
/// # Errors
/// As [`Network::new`] and [`Plan::build`](crate::plan::Plan::build).
pub fn describe(spec: NetworkSpec, batch: usize, class_weights: bool, engines: &[Engine]) -> Result<Description> {
    let network = Network::new(spec)?;
    let plans = Plans::build(&network, Placement::new(engines.len())?, batch, 0.9, class_weights, engines)?;
    let layers = (0..network.len())
        .map(|i| {
            let (layer, shape) = (network.layer(i), network.output(i));
            let parameters = || network.parameters_of(i).map(|p| &network.parameters()[p]);
            LayerDescription {
                name: layer.name().to_owned(),
                kind: layer.kind(),
                shape: [shape.h, shape.w, shape.c],
                parameters: parameters().map(Parameter::len).sum(),
                tensors: parameters().map(|p| (p.name.clone(), p.spec.border_shape.clone())).collect(),
                macs: layer.macs(network.input(i)),
            }
        })
        .collect();
    Ok(Description {
        layers,
        parameters: network.parameter_count(),
        macs: network.macs(),
        memory: plans.layout().memory(),
        counters: plans.train.counters(),
    })
}
