//! What of a network resides on the slots between steps: weights, momentum, the step's state, the staged batch; and the arenas of its plans.

use crate::{
    lower::External,
    memory::ALIGNMENT,
    network::Network,
    parameter,
    placement::Placement,
    plan::{Need, Plan},
    request::{Mode, Request},
};
use alexnode_core::{Backend, Batch, BufferId, Engine, Error, Result, SlotId, StepState, View, state::Totals};
use serde::Serialize;
use std::collections::BTreeMap;

/// The bytes that a network takes on one slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MemoryUse {
    /// Weights and biases.
    pub parameter_bytes: usize,
    /// Their momentum.
    pub momentum_bytes: usize,
    /// Activations, gradients, scratch, the staged batch and the state.
    pub activation_bytes: usize,
    /// All of it.
    pub total_bytes: usize,
}

/// Where everything lies that outlives a step, before it is allocated: one buffer per slot, and one arena.
#[derive(Clone, Debug)]
pub struct Layout {
    offsets: BTreeMap<(SlotId, External), (usize, usize)>,
    resident: Vec<usize>,
    arena: Vec<usize>,
}

impl Layout {
    /// Room for all of `plans`, which never run at the same time. Their batches may differ.
    pub fn new(plans: &[&Plan]) -> Self {
        let slots = plans.iter().map(|plan| plan.arena().len()).max().unwrap_or(0);
        let mut sizes = BTreeMap::new();
        for Need { slot, what, bytes } in plans.iter().flat_map(|plan| plan.needs()) {
            let known: &mut usize = sizes.entry((slot, what)).or_insert(bytes);
            assert!(*known == bytes || what.of_batch(), "{what:?} has two sizes");
            *known = bytes.max(*known);
        }
        let mut resident = vec![0; slots];
        let place = |((slot, what), bytes): ((SlotId, External), usize)| {
            let end = &mut resident[slot.index()];
            let offset = *end;
            *end += bytes.next_multiple_of(ALIGNMENT);
            ((slot, what), (offset, bytes))
        };
        let offsets = sizes.into_iter().map(place).collect();
        let arena = (0..slots).map(|s| plans.iter().map(|plan| plan.arena()[s]).max().unwrap_or(0)).collect();
        Self { offsets, resident, arena }
    }
    /// The bytes of the arena of each slot.
    pub fn arena(&self) -> &[usize] {
        &self.arena
    }
    /// What each slot needs.
    pub fn memory(&self) -> Vec<MemoryUse> {
        let sum = |slot: usize, wanted: fn(&External) -> bool| {
            self.offsets
                .iter()
                .filter(|((s, what), _)| s.index() == slot && wanted(what))
                .map(|(_, (_, bytes))| bytes)
                .sum()
        };
        (0..self.arena.len())
            .map(|slot| {
                let parameter_bytes: usize = sum(slot, |what| matches!(what, External::Weight(_)));
                let momentum_bytes: usize = sum(slot, |what| matches!(what, External::Momentum(_)));
                let total_bytes = self.resident[slot] + self.arena[slot];
                let activation_bytes = total_bytes - parameter_bytes - momentum_bytes;
                MemoryUse { parameter_bytes, momentum_bytes, activation_bytes, total_bytes }
            })
            .collect()
    }
}

/// The plans of a network in training; they share weights and arenas.
#[derive(Debug)]
pub struct Plans {
    /// A training step.
    pub train: Plan,
    /// The evaluation of a batch.
    pub eval: Plan,
}

impl Plans {
    /// Lowers `network` for both. `class_weights`: whether the loss of a training step is weighed. `engines`: one entry per slot.
    ///
    /// # Errors
    /// As [`Plan::build`]; `ERR_USAGE` for an empty batch.
    pub fn build(
        network: &Network,
        placement: Placement,
        batch: usize,
        momentum: f32,
        class_weights: bool,
        engines: &[Engine],
    ) -> Result<Self> {
        let plan = |mode| {
            let engines = engines.to_vec();
            let keep_gradients = false;
            Plan::build(&Request { network, placement, batch, mode, momentum, class_weights, keep_gradients, engines })
        };
        Ok(Self { train: plan(Mode::Train)?, eval: plan(Mode::Eval)? })
    }
    /// Room for both.
    pub fn layout(&self) -> Layout {
        Layout::new(&[&self.train, &self.eval])
    }
}

/// A network's memory on the slots of a backend.
pub struct Resident {
    backend: Box<dyn Backend>,
    layout: Layout,
    buffers: Vec<BufferId>,
    arenas: Vec<BufferId>,
}

impl Resident {
    /// Allocates `layout`.
    ///
    /// # Errors
    /// `ERR_DEVICE` where there is not enough memory.
    pub fn new(mut backend: Box<dyn Backend>, layout: Layout) -> Result<Self> {
        let (mut buffers, mut arenas) = (Vec::new(), Vec::new());
        for slot in 0..layout.arena.len() {
            buffers.push(backend.alloc(SlotId(slot as u8), layout.resident[slot].max(ALIGNMENT))?);
            arenas.push(backend.alloc(SlotId(slot as u8), layout.arena[slot].max(ALIGNMENT))?);
        }
        Ok(Self { backend, layout, buffers, arenas })
    }
    /// The backend.
    pub fn backend(&mut self) -> &mut dyn Backend {
        &mut *self.backend
    }
    /// The arenas, one per slot.
    pub fn arenas(&self) -> &[BufferId] {
        &self.arenas
    }
    /// Number of slots.
    pub fn slots(&self) -> impl Iterator<Item = SlotId> + use<> {
        (0..self.arenas.len()).map(|s| SlotId(s as u8))
    }
    /// Where `what` lies on `slot`, if it is there.
    pub fn find(&self, slot: SlotId, what: External) -> Option<View> {
        let &(offset, bytes) = self.layout.offsets.get(&(slot, what))?;
        Some(View { buffer: self.buffers[slot.index()], offset, bytes })
    }
    /// Where `what` lies on `slot`.
    ///
    /// # Panics
    /// Where no plan of the layout named it.
    pub fn view(&self, slot: SlotId, what: External) -> View {
        self.find(slot, what).unwrap_or_else(|| panic!("{what:?} does not reside on slot {}", slot.0))
    }
    /// Overwrites the beginning of `what` on `slot`.
    ///
    /// # Errors
    /// `ERR_KERNEL` where the device failed.
    pub fn write<T: bytemuck::Pod>(&mut self, slot: SlotId, what: External, values: &[T]) -> Result<()> {
        let bytes = bytemuck::cast_slice(values);
        let view = self.view(slot, what).slice(0, bytes.len());
        self.backend.upload(view, bytes)
    }
    /// Reads the beginning of `what` on `slot`.
    ///
    /// # Errors
    /// `ERR_KERNEL` where the device failed.
    pub fn read<T: bytemuck::Pod>(&mut self, slot: SlotId, what: External, values: &mut [T]) -> Result<()> {
        let bytes = bytemuck::cast_slice_mut(values);
        let view = self.view(slot, what).slice(0, bytes.len());
        self.backend.download(view, bytes)
    }
    /// Everything that outlives a step, one entry per slot.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn snapshot(&mut self) -> Result<Vec<Vec<u8>>> {
        let mut slots = Vec::new();
        for view in self.whole() {
            slots.push(vec![0; view.bytes]);
            self.backend.download(view, slots.last_mut().expect("the slot's"))?;
        }
        Ok(slots)
    }
    /// Puts a [`snapshot`](Self::snapshot) back.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn restore(&mut self, snapshot: &[Vec<u8>]) -> Result<()> {
        self.whole().into_iter().zip(snapshot).try_for_each(|(view, bytes)| self.backend.upload(view, bytes))
    }
    fn whole(&self) -> Vec<View> {
        let views = self.buffers.iter().zip(&self.layout.resident);
        views.map(|(buffer, bytes)| View { buffer: *buffer, offset: 0, bytes: *bytes }).collect()
    }
    /// Sets the sums to 0.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn clear_totals(&mut self) -> Result<()> {
        self.write(SlotId(0), External::Totals, &[Totals::default()])
    }
    /// The sums since they were last cleared.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn totals(&mut self) -> Result<Totals> {
        let mut totals = [Totals::default()];
        self.read(SlotId(0), External::Totals, &mut totals)?;
        Ok(totals[0])
    }
    /// The state of slot 0.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn state(&mut self) -> Result<StepState> {
        let mut state = [StepState::default()];
        self.read(SlotId(0), External::State, &mut state)?;
        Ok(state[0])
    }
    /// Writes the head of the state up to, not including, `diverged`: only the loss sets that.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_state(&mut self, state: &StepState) -> Result<()> {
        let head = &bytemuck::bytes_of(state)[..std::mem::offset_of!(StepState, diverged)];
        for slot in self.slots() {
            self.write(slot, External::State, head)?;
        }
        Ok(())
    }
    /// Uploads a minibatch to every slot.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn stage(&mut self, batch: &Batch) -> Result<()> {
        for slot in self.slots() {
            self.write(slot, External::Pixels, &batch.pixels)?;
            self.write(slot, External::Ids, &batch.ids)?;
        }
        self.write(SlotId(0), External::Labels, &batch.labels)
    }
    /// Writes a whole parameter tensor (or its momentum) to the slots that hold shares of it.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn put(
        &mut self,
        network: &Network,
        placement: Placement,
        index: usize,
        kind: Kind,
        values: &[f32],
    ) -> Result<()> {
        let spec = &network.parameters()[index].spec;
        for slot in self.slots() {
            let Some(part) = placement.share(network, index, slot) else { continue };
            if self.find(slot, kind.of(index)).is_none() {
                continue; // frozen: it has no momentum
            }
            if part.channels == part.total {
                self.write(slot, kind.of(index), values)?;
            } else {
                let share = parameter::take(values, &spec.dims, spec.output_axis, part.start, part.channels);
                self.write(slot, kind.of(index), &share)?;
            }
        }
        Ok(())
    }
    /// Sets a parameter tensor (or its momentum) to 0 on all slots.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn clear(&mut self, kind: Kind, index: usize) -> Result<()> {
        const PIECE: usize = 1 << 20;
        static ZEROS: [u8; PIECE] = [0; PIECE];
        for slot in self.slots() {
            let Some(view) = self.find(slot, kind.of(index)) else { continue };
            for offset in (0..view.bytes).step_by(PIECE) {
                let bytes = PIECE.min(view.bytes - offset);
                self.backend.upload(view.slice(offset, bytes), &ZEROS[..bytes])?;
            }
        }
        Ok(())
    }
    /// Reads a whole parameter tensor (or its momentum) from the slots that hold shares of it. The momentum of a frozen one is 0.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn get(&mut self, network: &Network, placement: Placement, index: usize, kind: Kind) -> Result<Vec<f32>> {
        let parameter = &network.parameters()[index];
        let spec = &parameter.spec;
        let mut values = vec![0.0; parameter.len()];
        for slot in self.slots() {
            let Some(part) = placement.share(network, index, slot) else { continue };
            if self.find(slot, kind.of(index)).is_none() {
                continue;
            }
            if part.channels == part.total {
                self.read(slot, kind.of(index), &mut values)?;
            } else {
                let mut share = vec![0.0f32; parameter.len() / part.total * part.channels];
                self.read(slot, kind.of(index), &mut share)?;
                parameter::put(&mut values, &spec.dims, spec.output_axis, part.start, part.channels, &share);
            }
        }
        Ok(values)
    }
}

/// The two tensors that the optimiser keeps of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Its value.
    Weight,
    /// Its momentum.
    Momentum,
}

impl Kind {
    fn of(self, index: usize) -> External {
        match self {
            Self::Weight => External::Weight(index as u32),
            Self::Momentum => External::Momentum(index as u32),
        }
    }
    /// The name in files of the tensor of `parameter`: `conv1.weight`, `momentum.conv1.weight`.
    pub fn name(self, parameter: &str) -> String {
        match self {
            Self::Weight => parameter.to_owned(),
            Self::Momentum => format!("momentum.{parameter}"),
        }
    }
    /// The kind and the parameter of a tensor's name in files.
    ///
    /// # Errors
    /// `ERR_USAGE` where the network has no such tensor.
    pub fn find(network: &Network, name: &str) -> Result<(Self, usize)> {
        let (kind, parameter) =
            name.strip_prefix("momentum.").map_or((Self::Weight, name), |rest| (Self::Momentum, rest));
        let index = network.parameters().iter().position(|p| p.name == parameter);
        index.map(|index| (kind, index)).ok_or_else(|| {
            let names: Vec<&str> = network.parameters().iter().map(|p| p.name.as_str()).collect();
            Error::usage(format!("{} has no tensor '{name}'", network.name()))
                .hint(format!("It has {}.", names.join(", ")))
        })
    }
}
