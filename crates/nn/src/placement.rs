//! How a network lies on the slots: which channels, and which share of a parameter tensor, a slot holds.

use crate::{lower::Part, network::Network};
use alexnode_core::{Error, Result, SlotId};

/// How a network lies on the slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Slots that share the channels of a layer.
    pub towers: usize,
}

impl Placement {
    /// One device, or two with equal towers.
    ///
    /// # Errors
    /// `ERR_USAGE` for any other number.
    pub fn new(devices: usize) -> Result<Self> {
        match devices {
            1 | 2 => Ok(Self { towers: devices }),
            n => {
                Err(Error::usage(format!("a network runs on one device or on two with equal towers, got {n} devices"))
                    .hint("E.g. `--devices cpu` or `--devices cpu,cpu`."))
            }
        }
    }
    /// The channels of `total` that `slot` holds where they are split.
    pub fn part(&self, slot: SlotId, total: usize) -> Part {
        let channels = total / self.towers;
        Part { start: slot.index() * channels, channels, total }
    }
    /// Whether the channels of layer `index` are split: everything from the first parameters up to, not including, the last layer.
    pub fn splits(&self, network: &Network, index: usize) -> bool {
        let first = network.parameters().first().map_or(usize::MAX, |p| p.layer);
        self.towers > 1 && index >= first && index + 1 < network.len()
    }
    /// The slots that compute layer `index`.
    pub fn slots(&self, network: &Network, index: usize) -> impl Iterator<Item = SlotId> + use<> {
        let count = if index + 1 == network.len() { 1 } else { self.towers };
        (0..count).map(|s| SlotId(s as u8))
    }
    /// The share of parameter tensor `index` that `slot` holds, if any.
    pub fn share(&self, network: &Network, index: usize, slot: SlotId) -> Option<Part> {
        let parameter = &network.parameters()[index];
        let total = parameter.spec.dims[parameter.spec.output_axis];
        if self.splits(network, parameter.layer) {
            Some(self.part(slot, total))
        } else {
            (slot.0 == 0).then_some(Part { start: 0, channels: total, total })
        }
    }
}
