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
        Ok((parameter.spec.border_shape.clone(), parameter::to_border(values, parameter)))
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
        let parameters = || self.network.parameters().iter();
        let named = |kind: Kind| parameters().map(move |p| (kind.name(&p.name), p.spec.border_shape.clone()));
        let inputs: BTreeMap<_, _> = self.inputs().map(|(name, what, shape)| (name, (what, shape))).collect();
        let statistics = inputs.iter().map(|(name, (_, shape))| ((*name).to_owned(), shape.clone()));
        let shapes = named(Kind::Weight).chain(named(Kind::Momentum)).chain(statistics).collect();
        let mut values = |name: &str| match inputs.get(name) {
            Some((what, shape)) => {
                let mut values = vec![0.0f32; shape.iter().product()];
                self.resident.read(SlotId(0), *what, &mut values)?;
                Ok(values)
            }
            None => Ok(self.tensor(name)?.1),
        };
        checkpoint::write(path, &shapes, &mut values, metadata)
    }

    /// Takes over the statistics and, of every parameter, what `kinds` names, one tensor after the other.
    ///
    /// # Errors
    /// `ERR_CHECKPOINT` where `file` belongs to another network; nothing has changed then. The same where it cannot be read.
    pub fn load(&mut self, file: &dyn Source, kinds: &[Kind]) -> Result<()> {
        let parameters: Vec<(Kind, usize)> =
            kinds.iter().flat_map(|kind| (0..self.network.parameters().len()).map(|index| (*kind, index))).collect();
        self.take(file, &parameters, |_| true)
    }

    /// Takes over the parameters named (`conv1.weight`), and with `mean` the mean image, so that training starts from what another network has learnt.
    ///
    /// # Errors
    /// `ERR_USAGE` where the network has no such parameter, `ERR_CHECKPOINT` where `file` has none of its shape; nothing has changed then. `ERR_CHECKPOINT`
    /// where it cannot be read.
    pub fn adopt(&mut self, file: &dyn Source, names: &[String], mean: bool) -> Result<()> {
        let parameters = names.iter().map(|name| Kind::find(self.network, name)).collect::<Result<Vec<_>>>()?;
        self.take(file, &parameters, |what| mean && what == External::Mean)
    }

    /// Takes over `parameters` and the statistics that are `wanted`.
    fn take(
        &mut self,
        file: &dyn Source,
        parameters: &[(Kind, usize)],
        wanted: impl Fn(External) -> bool,
    ) -> Result<()> {
        let network = self.network;
        let parameters = || parameters.iter().map(|&(kind, index)| (kind, index, &network.parameters()[index]));
        let inputs: Vec<_> = self.inputs().filter(|(_, what, _)| wanted(*what)).collect();
        // All of them before anything changes.
        for (kind, _, parameter) in parameters() {
            file.check(&kind.name(&parameter.name), &parameter.spec.border_shape)?;
        }
        inputs.iter().try_for_each(|(name, _, shape)| file.check(name, shape))?;
        for (name, what, shape) in &inputs {
            self.put_input(*what, &file.tensor(name, shape)?)?;
        }
        for (kind, index, parameter) in parameters() {
            let values = file.tensor(&kind.name(&parameter.name), &parameter.spec.border_shape)?;
            self.resident.put(network, self.placement, index, kind, &parameter::from_border(values, parameter))?;
        }
        Ok(())
    }

    fn put_input(&mut self, what: External, values: &[f32]) -> Result<()> {
        self.resident.slots().try_for_each(|slot| self.resident.write(slot, what, values))
    }
}
