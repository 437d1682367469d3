//! What a plan is asked to be.

use crate::{network::Network, placement::Placement};
use alexnode_core::Engine;

/// What a plan is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Input, forward, loss, backward and update.
    Train,
    /// Input, forward, probabilities and totals.
    Eval,
    /// Input and forward up to the layer with this index, whose output is what comes of it.
    Output(usize),
    /// A headless chain: forward and backward from a given input and a given output gradient; all gradients are kept.
    Probe,
}

/// What to build.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The network.
    pub network: &'a Network,
    /// Its placement.
    pub placement: Placement,
    /// Samples per step.
    pub batch: usize,
    /// What for.
    pub mode: Mode,
    /// The optimiser's momentum (paper: 0.9).
    pub momentum: f32,
    /// Whether the gradient of the loss is weighed by the classes of the samples.
    pub class_weights: bool,
    /// Whether all gradients of parameters are to be in memory once; else a layer may use them up while it makes them.
    pub keep_gradients: bool,
    /// What computes in each slot.
    pub engines: Vec<Engine>,
}
