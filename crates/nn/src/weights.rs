//! A network's tensors between its slots and files: parameters, momentum, and the statistics of the training images, without which a network is
//! not right, whatever it is tested on later.

use crate::{
    checkpoint::{self, Checkpoint},
    lower::External,
    network::Network,
    parameter,
    placement::Placement,
    resident::{Kind, Resident},
};
use alexnode_core::{Result, SlotId};
use std::{collections::BTreeMap, path::Path};

/// A network that resides on slots.
pub(crate) struct Weights<'a> {
    pub network: &'a Network,
    pub placement: Placement,
    pub resident: &'a mut Resident,
}

impl Weights<'_> {
    /// A tensor by its name in files (`conv1.weight`, `momentum.conv1.weight`), in the order of files (weights of convolutions: OIHW), with its shape.
    ///
    /// # Errors
    /// `ERR_USAGE` where there is no such tensor.
    pub fn tensor(&mut self, name: &str) -> Result<(Vec<usize>, Vec<f32>)> {
        let (kind, index) = Kind::find(self.network, name)?;
        let values = self.resident.get(self.network, self.placement, index, kind)?;
        let parameter = &self.network.parameters()[index];
        Ok((parameter.spec.border_shape.clone(), parameter::to_border(&values, parameter)))
    }

    /// What the input subtracts and adds, under its names in files.
    fn inputs(&self) -> [(&'static str, External, Vec<usize>); 2] {
        let crop = self.network.input(0);
        [("input.mean", External::Mean, vec![crop.h, crop.w, crop.c]), ("input.colour", External::Colour, vec![4, 3])]
    }

    /// Writes weights, momentum, statistics and `metadata` to `path`; see [`checkpoint`].
    ///
    /// # Errors
    /// As [`checkpoint::write`].
    pub fn save(&mut self, path: &Path, metadata: &str) -> Result<checkpoint::Saved> {
        let mut tensors = BTreeMap::new();
        for kind in [Kind::Weight, Kind::Momentum] {
            for parameter in self.network.parameters() {
                let name = kind.name(&parameter.name);
                let tensor = self.tensor(&name)?;
                tensors.insert(name, tensor);
            }
        }
        for (name, what, shape) in self.inputs() {
            let mut values = vec![0.0f32; shape.iter().product()];
            self.resident.read(SlotId(0), what, &mut values)?;
            tensors.insert(name.to_owned(), (shape, values));
        }
        checkpoint::write(path, &tensors, metadata)
    }

    /// Takes over the statistics and, of every parameter, what `kinds` names.
    ///
    /// # Errors
    /// `ERR_CHECKPOINT` where `file` belongs to another network; nothing has changed then.
    pub fn load(&mut self, file: &Checkpoint, kinds: &[Kind]) -> Result<()> {
        let mut loaded = Vec::new();
        for &kind in kinds {
            for (index, parameter) in self.network.parameters().iter().enumerate() {
                let values = file.tensor(&kind.name(&parameter.name), &parameter.spec.border_shape)?;
                loaded.push((kind, index, parameter::from_border(&values, parameter)));
            }
        }
        let mut inputs = Vec::new();
        for (name, what, shape) in self.inputs() {
            inputs.push((what, file.tensor(name, &shape)?));
        }
        for (what, values) in inputs {
            for slot in self.resident.slots() {
                self.resident.write(slot, what, &values)?;
            }
        }
        for (kind, index, values) in loaded {
            self.resident.put(self.network, self.placement, index, kind, &values)?;
        }
        Ok(())
    }
}
