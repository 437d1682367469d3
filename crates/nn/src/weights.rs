//! A network's tensors between its slots and files: parameters, momentum, and the statistics of the training images, without which a network is
//! not right, whatever it is tested on later.

use crate::{
    checkpoint,
    lower::External,
    network::Network,
    parameter,
    placement::Placement,
    resident::{Kind, Resident},
    tensors::Source,
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

    /// The statistics of the training images, with their names and shapes in files.
    fn inputs(&self) -> impl Iterator<Item = (&'static str, External, Vec<usize>)> + use<> {
        let place = |name| if name == "input.mean" { External::Mean } else { External::Colour };
        self.network.input_tensors().map(move |(name, shape)| (name, place(name), shape))
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
    pub fn load(&mut self, file: &dyn Source, kinds: &[Kind]) -> Result<()> {
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
            self.put_input(what, &values)?;
        }
        for (kind, index, values) in loaded {
            self.resident.put(self.network, self.placement, index, kind, &values)?;
        }
        Ok(())
    }

    /// Takes over the parameters named (`conv1.weight`), and with `mean` the mean image, so that training starts from what another network has learnt.
    ///
    /// # Errors
    /// `ERR_USAGE` where the network has no such parameter, `ERR_CHECKPOINT` where `file` has none of its shape; nothing has changed then.
    pub fn adopt(&mut self, file: &dyn Source, names: &[String], mean: bool) -> Result<()> {
        let mut loaded = Vec::new();
        for name in names {
            let (kind, index) = Kind::find(self.network, name)?;
            let parameter = &self.network.parameters()[index];
            let values = file.tensor(name, &parameter.spec.border_shape)?;
            loaded.push((kind, index, parameter::from_border(&values, parameter)));
        }
        if mean {
            for (name, what, shape) in self.inputs().filter(|(_, what, _)| *what == External::Mean) {
                self.put_input(what, &file.tensor(name, &shape)?)?;
            }
        }
        for (kind, index, values) in loaded {
            self.resident.put(self.network, self.placement, index, kind, &values)?;
        }
        Ok(())
    }

    fn put_input(&mut self, what: External, values: &[f32]) -> Result<()> {
        self.resident.slots().try_for_each(|slot| self.resident.write(slot, what, values))
    }
}
