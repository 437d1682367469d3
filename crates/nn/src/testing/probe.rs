//! Runs a chain of layers on its own, forward and backward, through the real plan and a real backend.

use crate::{
    layers::LayerSpec,
    lower::External,
    network::Network,
    placement::Placement,
    plan::{Op, Plan},
    program::issue_op,
    request::{Mode, Request},
    resident::{Kind, Layout, Resident},
};
use alexnode_core::{Backend, Result, Shape, SlotId, StepState, View};
use std::collections::BTreeMap;

/// A chain of layers on one slot.
pub struct Probe {
    network: Network,
    plan: Plan,
    resident: Resident,
    ops: Vec<Op>,
    batch: usize,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Output of the last layer.
    pub y: Vec<f32>,
    /// Gradient by the input of the first one.
    pub dx: Vec<f32>,
    /// Gradient by each parameter tensor, by name, in the order of the kernels.
    pub gradients: BTreeMap<String, Vec<f32>>,
}

impl Probe {
    /// Plans and allocates `layers` for `batch` samples of shape `input` on slot 0 of `backend`. Parameters are as their specifications say,
    /// drawn with seed 0.
    ///
    /// # Errors
    /// As [`Network::headless`] and [`Resident::new`].
    pub fn new(layers: Vec<LayerSpec>, input: Shape, batch: usize, backend: Box<dyn Backend>) -> Result<Self> {
        let network = Network::headless(layers, input)?;
        let engines = vec![backend.slots()[0].engine];
        let placement = Placement::new(1)?;
        let plan = Plan::build(&Request {
            network: &network,
            placement,
            batch,
            mode: Mode::Probe,
            momentum: 0.0,
            class_weights: false,
            keep_gradients: true,
            engines,
        })?;
        let resident = Resident::new(backend, Layout::new(&[&plan]))?;
        let ops = plan.bind(resident.arenas(), &|slot, what| resident.view(slot, what));
        let mut probe = Self { network, plan, resident, ops, batch };
        for (index, parameter) in probe.network.parameters().to_vec().iter().enumerate() {
            probe.set(index, &crate::parameter::initial(parameter, index, 0))?;
        }
        probe.set_state(StepState { valid: batch as u32, ..StepState::default() })?;
        probe.set_ids(&(0..batch as u32).collect::<Vec<_>>())?;
        Ok(probe)
    }
    /// The chain.
    pub fn network(&self) -> &Network {
        &self.network
    }
    fn set(&mut self, index: usize, values: &[f32]) -> Result<()> {
        self.resident.put(&self.network, Placement { towers: 1 }, index, Kind::Weight, values)
    }
    /// Sets parameter tensor `name`, in the order of the kernels.
    ///
    /// # Errors
    /// `ERR_USAGE` where there is no such tensor.
    pub fn set_parameter(&mut self, name: &str, values: &[f32]) -> Result<()> {
        let (_, index) = Kind::find(&self.network, name)?;
        self.set(index, values)
    }
    /// Sets the step's state; does nothing where no layer reads it.
    ///
    /// # Errors
    /// `ERR_KERNEL` where the device failed.
    pub fn set_state(&mut self, state: StepState) -> Result<()> {
        match self.resident.find(SlotId(0), External::State) {
            Some(_) => self.resident.write(SlotId(0), External::State, &[state]),
            None => Ok(()),
        }
    }
    /// Sets the sample ids; does nothing where no layer reads them.
    ///
    /// # Errors
    /// `ERR_KERNEL` where the device failed.
    pub fn set_ids(&mut self, ids: &[u32]) -> Result<()> {
        assert_eq!(ids.len(), self.batch);
        match self.resident.find(SlotId(0), External::Ids) {
            Some(_) => self.resident.write(SlotId(0), External::Ids, ids),
            None => Ok(()),
        }
    }
    /// Poisons the arena with NaN, then runs forward from `x` and backward from `dy` (both NHWC).
    ///
    /// # Errors
    /// `ERR_KERNEL` where the device failed.
    pub fn run(&mut self, x: &[f32], dy: &[f32]) -> Result<Outcome> {
        let arena = View { buffer: self.resident.arenas()[0], offset: 0, bytes: self.plan.arena()[0] };
        self.resident.backend().upload(arena, &vec![0xff; arena.bytes])?;
        let [input, output, given, below] =
            self.plan.probe.expect("a plan for a probe").map(|tensor| self.place(tensor.arg()));
        self.resident.backend().upload(input, bytemuck::cast_slice(x))?;
        self.resident.backend().upload(given, bytemuck::cast_slice(dy))?;
        for op in &self.ops {
            issue_op(self.resident.backend(), op)?;
        }
        let mut gradients = BTreeMap::new();
        for (index, arg) in self.plan.probe_gradients.clone().into_iter().enumerate() {
            if let Some(arg) = arg {
                let view = self.place(arg);
                gradients.insert(self.network.parameters()[index].name.clone(), self.download(view)?);
            }
        }
        Ok(Outcome { y: self.download(output)?, dx: self.download(below)?, gradients })
    }
    /// Runs every operation `times` times, alone; its name and the least time by `clock`, in seconds. Content does not matter.
    ///
    /// # Errors
    /// `ERR_KERNEL` where the device failed.
    pub fn profile(&mut self, times: usize, clock: &dyn Fn() -> f64) -> Result<Vec<(&'static str, f64)>> {
        let mut profile = Vec::new();
        for (index, name) in self.launches() {
            let mut least = f64::INFINITY;
            for _ in 0..times {
                let start = clock();
                self.repeat(index, 1)?;
                least = least.min(clock() - start);
            }
            profile.push((name, least));
        }
        Ok(profile)
    }
    /// Which operations are launches, and their names.
    pub fn launches(&self) -> Vec<(usize, &'static str)> {
        let name = |(index, op): (usize, &Op)| op.launch().map(|(_, launch)| (index, launch.kernel.name));
        self.ops.iter().enumerate().filter_map(name).collect()
    }
    /// Runs operation `index` `times` times, each after the one before is done. Content does not matter.
    ///
    /// # Errors
    /// `ERR_KERNEL` where the device failed.
    pub fn repeat(&mut self, index: usize, times: u64) -> Result<()> {
        for _ in 0..times {
            issue_op(self.resident.backend(), &self.ops[index])?;
            self.resident.backend().synchronize()?;
        }
        Ok(())
    }
    fn place(&self, arg: crate::lower::Arg) -> View {
        self.plan.view(arg, self.resident.arenas(), &|slot, what| self.resident.view(slot, what))
    }
    fn download(&mut self, view: View) -> Result<Vec<f32>> {
        let mut values = vec![0.0f32; view.bytes / 4];
        self.resident.backend().download(view, bytemuck::cast_slice_mut(&mut values))?;
        Ok(values)
    }
}
