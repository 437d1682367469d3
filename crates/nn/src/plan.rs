//! The plan: a network, placed on slots and lowered to a list of operations on memory whose every byte is known.
//!
//! Only the plan knows the placement. With two slots the channels of every layer are split in two, except the last linear layer, which
//! lives whole on slot 0 with softmax and loss (paper section 3.2, 2012 code). A layer which reads the channels of both
//! towers gets them gathered: forward copies the other half over, backward sends the gradient of the other half back, where it is added.

use crate::{
    fusions::Fusions,
    layers::{Layer, Reads, dropout},
    lower::{Arg, Builder, Draft, DraftKind, External, Home, Lower, Origin, Part, Phase, Tensor, Value},
    memory, ops,
    request::{Mode, Request},
    sgd::SgdParams,
    stages,
};
use alexnode_core::{BufferId, Copy2d, Error, Launch, Result, SlotId, View};
use serde::Serialize;
use std::collections::BTreeMap;

/// What a step does, counted exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counters {
    /// Kernels started.
    pub launches: usize,
    /// Copies of activations and gradients between slots.
    pub transfers: usize,
    /// Their bytes. The flag that tells the second slot of a loss which is not finite (4 bytes) is not among them.
    pub transfer_bytes: usize,
}

/// One operation, ready to be issued.
#[derive(Clone, Debug)]
pub struct Op {
    /// Where it comes from.
    pub origin: Origin,
    /// What it does.
    pub kind: OpKind,
}

impl Op {
    /// The launch and its slot, where it is one.
    pub fn launch(&self) -> Option<(SlotId, &Launch)> {
        match &self.kind {
            OpKind::Launch(slot, launch) => Some((*slot, launch)),
            OpKind::Copy(_) => None,
        }
    }
}

/// A launch or a copy.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "a launch carries its parameters by value; there are few copies")]
pub enum OpKind {
    /// A kernel on a slot.
    Launch(SlotId, Launch),
    /// Rows within a slot or between two.
    Copy(Copy2d),
}

/// Memory that a plan expects from its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// On which slot.
    pub slot: SlotId,
    /// What.
    pub what: External,
    /// How many bytes.
    pub bytes: usize,
}

/// A network lowered to operations.
#[derive(Debug)]
pub struct Plan {
    pub(crate) drafts: Vec<Draft>,
    pub(crate) values: Vec<crate::lower::ValueInfo>,
    offsets: Vec<usize>,
    arena: Vec<usize>,
    /// The output of every layer on every slot that computes it, alive right after the layer's last forward operation; none for a layer whose
    /// output exists inside of another's operation only.
    pub outputs: Vec<(usize, SlotId, Tensor)>,
    /// [`Mode::Probe`]: input, output, gradient of the output, gradient of the input.
    pub probe: Option<[Tensor; 4]>,
    /// [`Mode::Probe`]: the gradient of each parameter tensor.
    pub probe_gradients: Vec<Option<Arg>>,
}

impl Plan {
    /// Lowers `request.network`. Allocates nothing on a device.
    ///
    /// # Errors
    /// `ERR_USAGE` where the network cannot be split over the slots, and as [`check_batch`](crate::network::Network::check_batch); the message names the layer.
    pub fn build(request: &Request<'_>) -> Result<Self> {
        request.network.check_batch(request.batch)?;
        let mut pass = Pass::new(request)?;
        match request.mode {
            Mode::Probe => pass.probe(),
            Mode::Train | Mode::Eval | Mode::Output(_) => pass.network(),
        }?;
        let Pass { builder: Builder { values, drafts }, outputs, probe, probe_gradients, .. } = pass;
        let (offsets, arena) = memory::arrange(&values, &drafts, request.placement.towers);
        Ok(Self { drafts, values, offsets, arena, outputs, probe, probe_gradients })
    }
    /// Bytes of the arena of each slot.
    pub fn arena(&self) -> &[usize] {
        &self.arena
    }
    /// The memory outside of the arena.
    pub fn needs(&self) -> Vec<Need> {
        let external = |v: &crate::lower::ValueInfo| match v.home {
            Home::External(what) => Some(Need { slot: v.slot, what, bytes: v.bytes }),
            _ => None,
        };
        self.values.iter().filter_map(external).collect()
    }
    /// What one step does.
    pub fn counters(&self) -> Counters {
        let mut counters = Counters::default();
        for draft in &self.drafts {
            match &draft.kind {
                DraftKind::Launch { .. } => counters.launches += 1,
                DraftKind::Copy { src, dst, rows, row_bytes, .. } => {
                    if self.slot(src.value) != self.slot(dst.value) && draft.origin.phase != Phase::Loss {
                        counters.transfers += 1;
                        counters.transfer_bytes += rows * row_bytes;
                    }
                }
            }
        }
        counters
    }
    pub(crate) fn slot(&self, value: Value) -> SlotId {
        self.values[value.0 as usize].slot
    }
    /// The place of `arg` when the arenas and the rest are where the arguments say.
    pub fn view(&self, arg: Arg, arenas: &[BufferId], external: &dyn Fn(SlotId, External) -> View) -> View {
        let info = &self.values[arg.value.0 as usize];
        match info.home {
            Home::External(what) => external(info.slot, what).slice(arg.offset, arg.bytes),
            Home::Arena | Home::Kept => {
                let offset = self.offsets[arg.value.0 as usize];
                View { buffer: arenas[info.slot.index()], offset: offset + arg.offset, bytes: arg.bytes }
            }
        }
    }
    /// The operations on real memory.
    pub fn bind(&self, arenas: &[BufferId], external: &dyn Fn(SlotId, External) -> View) -> Vec<Op> {
        let place = |arg: &Arg| self.view(*arg, arenas, external);
        self.drafts
            .iter()
            .map(|draft| {
                let kind = match &draft.kind {
                    DraftKind::Launch { slot, kernel, params, args } => {
                        let views: Vec<View> = args.iter().map(place).collect();
                        OpKind::Launch(*slot, Launch::new(kernel, params, &views))
                    }
                    &DraftKind::Copy { ref src, ref dst, rows, row_bytes, src_pitch, dst_pitch } => {
                        OpKind::Copy(Copy2d { src: place(src), dst: place(dst), rows, row_bytes, src_pitch, dst_pitch })
                    }
                };
                Op { origin: draft.origin, kind }
            })
            .collect()
    }
}

/// What a layer's output looks like on one slot.
#[derive(Clone, Copy)]
struct Held {
    /// The channels that the slot computes.
    own: Tensor,
    /// Room for the channels of both towers, `own` among them, where the next layer reads them all.
    all: Option<Tensor>,
}

/// One walk over the network.
struct Pass<'a> {
    request: &'a Request<'a>,
    builder: Builder,
    /// Per layer: which channels of its input a slot reads, where that input is split.
    reads: Vec<Reads>,
    /// Per layer and slot: its output.
    held: Vec<BTreeMap<SlotId, Held>>,
    /// Per layer and slot: what forward saved for backward.
    saved: Vec<BTreeMap<SlotId, Vec<Value>>>,
    /// The first layer that has something to learn: below it no gradient is computed.
    first_trained: usize,
    outputs: Vec<(usize, SlotId, Tensor)>,
    probe: Option<[Tensor; 4]>,
    probe_gradients: Vec<Option<Arg>>,
}

impl<'a> Pass<'a> {
    fn new(request: &'a Request<'a>) -> Result<Self> {
        let Request { network, placement, .. } = request;
        assert_eq!(request.engines.len(), placement.towers, "one entry per slot");
        let mut reads = Vec::new();
        for index in 0..network.len() {
            let (layer, channels) = (network.layer(index), network.output(index).c);
            let name = || format!("{} ({})", layer.name(), layer.kind());
            if placement.splits(network, index) && channels % placement.towers != 0 {
                return Err(Error::usage(format!(
                    "{}: {channels} channels cannot be split into {} equal towers",
                    name(),
                    placement.towers
                ))
                .hint("Use one device or an even number of channels."));
            }
            reads.push(if index + 1 == network.len() && placement.towers > 1 {
                Reads::All
            } else {
                layer.reads(placement.towers).map_err(|e| e.context(name()))?
            });
        }
        let first_trained = network.parameters().iter().find(|p| !p.spec.frozen).map_or(usize::MAX, |p| p.layer);
        Ok(Self {
            request,
            builder: Builder::default(),
            reads,
            held: Vec::new(),
            saved: vec![BTreeMap::new(); network.len()],
            first_trained: if request.mode == Mode::Probe { 0 } else { first_trained },
            outputs: Vec::new(),
            probe: None,
            probe_gradients: vec![None; network.parameters().len()],
        })
    }

    fn training(&self) -> bool {
        matches!(self.request.mode, Mode::Train | Mode::Probe)
    }
    fn layer(&self, index: usize) -> &'a dyn Layer {
        self.request.network.layer(index)
    }
    fn last(&self) -> usize {
        self.request.network.len() - 1
    }
    /// The layers that are computed.
    fn computed(&self) -> usize {
        if let Mode::Output(layer) = self.request.mode { layer + 1 } else { self.request.network.len() }
    }
    fn logits(&self) -> Tensor {
        self.held[self.last()][&SlotId(0)].own
    }
    fn splits(&self, index: usize) -> bool {
        self.request.mode != Mode::Probe && self.request.placement.splits(self.request.network, index)
    }
    fn slots(&self, index: usize) -> impl Iterator<Item = SlotId> + use<> {
        self.request.placement.slots(self.request.network, index)
    }
    fn part(&self, index: usize, slot: SlotId) -> Part {
        let total = self.request.network.output(index).c;
        if self.splits(index) {
            self.request.placement.part(slot, total)
        } else {
            Part { start: 0, channels: total, total }
        }
    }
    fn external(&mut self, slot: SlotId, what: External, bytes: usize) -> Value {
        self.builder.value(slot, bytes, Home::External(what))
    }
    fn fusions(&self) -> Fusions<'a> {
        Fusions::new(self.request.network, self.computed())
    }
    /// Whether layer `index` overwrites its input: elementwise, and nobody needs that input again.
    fn in_place(&self, index: usize) -> bool {
        // A ReLU below a dropout in the same epilogue makes do with that one's output.
        let overwritten_is_needed = self.training()
            && index > 0
            && self.layer(index - 1).needs().output
            && self.fusions().dropout(index).is_none();
        let input_is_kept = self.request.mode == Mode::Probe && index == 0;
        self.layer(index).elementwise() && !overwritten_is_needed && !input_is_kept
    }
    /// Whether one slot sums the gradient by the input of layer `index` as two would: the network has columns, and the layer would read both.
    fn sums_by_column(&self, index: usize) -> bool {
        let network = self.request.network;
        let reads = |i: usize| network.layer(i).reads(2).ok();
        let has_columns =
            || (0..network.len()).any(|i| network.parameters_of(i).next().is_some() && reads(i) == Some(Reads::Own));
        let whole = self.request.placement.towers == 1 && self.request.mode == Mode::Train && index < self.last();
        whole && network.output(index).c.is_multiple_of(2) && reads(index) == Some(Reads::All) && has_columns()
    }
    /// Whether the output of layer `index` on `slot` needs room for the channels of both towers.
    fn gathered(&self, index: usize, slot: SlotId) -> bool {
        if index == self.last() || !self.splits(index) || !self.slots(index + 1).any(|s| s == slot) {
            return false;
        }
        if self.in_place(index + 1) { self.gathered(index + 1, slot) } else { self.reads[index + 1] == Reads::All }
    }

    /// Image to the loss and back, or as far as is asked for.
    fn network(&mut self) -> Result<()> {
        let images: BTreeMap<SlotId, Tensor> = (0..self.request.placement.towers)
            .map(|s| (SlotId(s as u8), stages::input(self.request, &mut self.builder, SlotId(s as u8))))
            .collect();
        for index in 0..self.computed() {
            self.forward(index, &images);
        }
        match self.request.mode {
            Mode::Train => {
                let logits = self.logits();
                let dlogits = stages::loss(self.request, &mut self.builder, logits);
                self.backward(BTreeMap::from([(SlotId(0), dlogits)]), &images);
            }
            Mode::Eval => {
                let logits = self.logits();
                stages::probabilities(self.request, &mut self.builder, logits);
            }
            Mode::Output(_) | Mode::Probe => {}
        }
        Ok(())
    }

    /// A headless chain on one slot, with its gradients.
    fn probe(&mut self) -> Result<()> {
        let Request { network, batch, placement, .. } = *self.request;
        if placement.towers != 1 || network.is_empty() {
            return Err(Error::usage("a probe is a chain of at least one layer on one device"));
        }
        let (slot, input, output) = (SlotId(0), network.input(0), network.output(self.last()));
        let x = self.builder.tensor(slot, batch, input, input.c, 0, Home::Kept);
        let images = BTreeMap::from([(slot, x)]);
        for index in 0..network.len() {
            self.forward(index, &images);
        }
        let origin = Origin { layer: None, phase: Phase::Loss };
        let y = self.builder.tensor(slot, batch, output, output.c, 0, Home::Kept);
        self.builder.copy(origin, self.held[self.last()][&slot].own, y);
        let given = self.builder.tensor(slot, batch, output, output.c, 0, Home::Kept);
        let dy = self.builder.tensor(slot, batch, output, output.c, 0, Home::Arena);
        self.builder.copy(origin, given, dy);
        let below = self.backward(BTreeMap::from([(slot, dy)]), &images);
        let dx = self.builder.tensor(slot, batch, input, input.c, 0, Home::Kept);
        self.builder.copy(origin, below[&slot], dx);
        self.probe = Some([x, y, given, dx]);
        Ok(())
    }

    /// The input of layer `index` on `slot`, gathered where it must be.
    fn input(&self, index: usize, slot: SlotId, images: &BTreeMap<SlotId, Tensor>) -> Tensor {
        if index == 0 {
            return images[&slot];
        }
        let held = self.held[index - 1][&slot];
        if !self.splits(index - 1) && self.splits(index) && self.reads[index] == Reads::Own {
            let part = self.request.placement.part(slot, self.request.network.input(index).c);
            return held.own.channels(part.start, part.channels);
        }
        if self.splits(index - 1) && self.reads[index] == Reads::All { held.all.unwrap_or(held.own) } else { held.own }
    }

    fn forward(&mut self, index: usize, images: &BTreeMap<SlotId, Tensor>) {
        let origin = Origin { layer: Some(index), phase: Phase::Forward };
        if index > 0 && self.splits(index - 1) && self.reads[index] == Reads::All {
            self.gather(index, origin);
        }
        let mut held = BTreeMap::new();
        for slot in self.slots(index) {
            let x = self.input(index, slot, images);
            let fusions = self.fusions();
            let out = if self.in_place(index) || fusions.left_to_pool(index) {
                let below = if index == 0 { None } else { self.held[index - 1].get(&slot).copied() };
                Held { own: x, all: below.and_then(|held| held.all) }
            } else {
                let (part, shape) = (self.part(index, slot), self.request.network.output(index));
                let own_shape = shape.with_channels(part.channels);
                if self.gathered(index, slot) {
                    let all = self.builder.tensor(slot, self.request.batch, shape, shape.c, 0, Home::Arena);
                    Held { own: all.channels(part.start, part.channels), all: Some(all) }
                } else {
                    let own = self.builder.tensor(slot, self.request.batch, own_shape, part.channels, 0, Home::Arena);
                    Held { own, all: None }
                }
            };
            if self.layer(index).elementwise() && !self.in_place(index) {
                self.builder.copy(origin, x, out.own);
            }
            let mut saved = Vec::new();
            let mut cx = self.lower(index, slot, origin, x, out.own, &mut saved);
            fusions.forward(index, &mut cx);
            self.builder = cx.into_builder();
            self.saved[index].insert(slot, saved);
            if !fusions.left_to_pool(index) {
                self.outputs.push((index, slot, out.own));
            }
            held.insert(slot, out);
        }
        self.held.push(held);
    }

    /// Copies to every slot that computes layer `index` the channels of its input that the other slot computed.
    fn gather(&mut self, index: usize, origin: Origin) {
        for slot in self.slots(index) {
            let all = self.held[index - 1][&slot].all.expect("room for the channels of both towers");
            for (&other, held) in self.held[index - 1].iter().filter(|(other, _)| **other != slot) {
                let part = self.request.placement.part(other, all.shape.c);
                self.builder.copy(origin, held.own, all.channels(part.start, part.channels));
            }
        }
    }

    /// Walks down from the gradients `dy` of the last layer's output. Returns the gradients of the input of the lowest layer
    /// reached.
    fn backward(
        &mut self,
        mut dy: BTreeMap<SlotId, Tensor>,
        images: &BTreeMap<SlotId, Tensor>,
    ) -> BTreeMap<SlotId, Tensor> {
        let lowest = if self.request.mode == Mode::Probe { 0 } else { self.first_trained };
        for index in (lowest..=self.last()).rev() {
            let origin = Origin { layer: Some(index), phase: Phase::Backward };
            let wanted = index > lowest || self.request.mode == Mode::Probe;
            let mut dx = BTreeMap::new();
            for slot in self.slots(index) {
                let x = self.input(index, slot, images);
                let fusions = self.fusions();
                let below = match wanted {
                    true if self.layer(index).elementwise() || fusions.left_to_pool(index) => Some(dy[&slot]),
                    true => Some(self.builder.tensor(slot, x.batch, x.shape, x.shape.c, 0, Home::Arena)),
                    false => None,
                };
                let mut saved = self.saved[index][&slot].clone();
                let y = self.held[index][&slot].own;
                let updates = self.updates(index, slot);
                let fused = self.fuses_updates(index, slot);
                let gradients = if fused { vec![None; updates.len()] } else { self.gradients(index, slot) };
                let mut cx = self.lower(index, slot, origin, x, y, &mut saved);
                (cx.dy, cx.dx, cx.gradients) = (Some(dy[&slot]), below, gradients.clone());
                if fused {
                    cx.updates.clone_from(&updates);
                }
                fusions.backward(index, &mut cx);
                self.builder = cx.into_builder();
                self.learn(index, slot, &gradients, &updates);
                if let Some(below) = below {
                    dx.insert(slot, below);
                }
            }
            if wanted && index > 0 && self.splits(index - 1) && self.reads[index] == Reads::All {
                dx = self.scatter(index, origin, &dx);
            }
            dy = dx;
        }
        dy
    }

    /// The inverse of [`gather`](Self::gather): every slot gets the gradient of its own channels, summed over the slots that read them.
    fn scatter(&mut self, index: usize, origin: Origin, dx: &BTreeMap<SlotId, Tensor>) -> BTreeMap<SlotId, Tensor> {
        let total = self.request.network.input(index).c;
        let mut received = Vec::new();
        for slot in (0..self.request.placement.towers).map(|s| SlotId(s as u8)) {
            let part = self.request.placement.part(slot, total);
            for (_, all) in dx.iter().filter(|(from, _)| **from != slot) {
                let theirs = all.channels(part.start, part.channels);
                let here = self.builder.tensor(slot, theirs.batch, theirs.shape, part.channels, 0, Home::Arena);
                self.builder.copy(origin, theirs, here);
                received.push((slot, here));
            }
        }
        let mut sums = BTreeMap::new();
        for (slot, here) in received {
            let part = self.request.placement.part(slot, total);
            let sum = match dx.get(&slot) {
                Some(all) => {
                    let own = all.channels(part.start, part.channels);
                    ops::add(&mut self.builder, origin, slot, here, own);
                    own
                }
                None => here,
            };
            sums.insert(slot, sum);
        }
        for (&slot, all) in dx {
            let part = self.request.placement.part(slot, total);
            sums.entry(slot).or_insert_with(|| all.channels(part.start, part.channels));
        }
        sums
    }

    /// Memory for the gradients of the parameters of layer `index` on `slot`.
    fn gradients(&mut self, index: usize, slot: SlotId) -> Vec<Option<Value>> {
        let network = self.request.network;
        let home = if self.request.mode == Mode::Probe { Home::Kept } else { Home::Arena };
        let mut gradients = Vec::new();
        for parameter in network.parameters_of(index) {
            let share = self.weight(parameter, slot);
            let bytes = self.builder.whole(share).bytes;
            let gradient =
                (!network.parameters()[parameter].spec.frozen).then(|| self.builder.value(slot, bytes, home));
            if self.request.mode == Mode::Probe {
                self.probe_gradients[parameter] = gradient.map(|value| self.builder.whole(value));
            }
            gradients.push(gradient);
        }
        gradients
    }

    /// Whether the operations of layer `index` on `slot` update its parameters themselves.
    fn fuses_updates(&self, index: usize, slot: SlotId) -> bool {
        let Request { mode, keep_gradients, ref engines, .. } = *self.request;
        mode == Mode::Train && !keep_gradients && self.fusions().updates(index, engines[slot.index()])
    }

    /// How the parameters of layer `index` on `slot` learn, if they do: constants and momentum.
    fn updates(&mut self, index: usize, slot: SlotId) -> Vec<Option<(SgdParams, Value)>> {
        let network = self.request.network;
        let mut update = |parameter: usize| {
            let frozen = network.parameters()[parameter].spec.frozen;
            (self.request.mode == Mode::Train && !frozen).then(|| {
                let share = self.weight(parameter, slot);
                let bytes = self.builder.whole(share).bytes;
                let momentum = self.external(slot, External::Momentum(parameter as u32), bytes);
                (stages::sgd(self.request, parameter, bytes), momentum)
            })
        };
        network.parameters_of(index).map(&mut update).collect()
    }

    /// The update of the parameters of layer `index` on `slot` from those of their gradients that are in memory.
    fn learn(
        &mut self,
        index: usize,
        slot: SlotId,
        gradients: &[Option<Value>],
        updates: &[Option<(SgdParams, Value)>],
    ) {
        let origin = Origin { layer: Some(index), phase: Phase::Update };
        for (parameter, (gradient, update)) in
            self.request.network.parameters_of(index).zip(gradients.iter().zip(updates))
        {
            if let (Some(gradient), Some((params, momentum))) = (*gradient, *update) {
                let weight = self.weight(parameter, slot);
                stages::update(self.request, &mut self.builder, origin, params, [weight, gradient, momentum]);
            }
        }
    }

    /// The slot's share of parameter tensor `parameter`.
    fn weight(&mut self, parameter: usize, slot: SlotId) -> Value {
        let network = self.request.network;
        let share = self.request.placement.share(network, parameter, slot).expect("the slot computes the layer");
        let bytes = network.parameters()[parameter].len() / share.total * share.channels * 4;
        self.external(slot, External::Weight(parameter as u32), bytes)
    }

    /// The context in which layer `index` lowers itself on `slot`.
    fn lower<'s>(
        &mut self,
        index: usize,
        slot: SlotId,
        origin: Origin,
        x: Tensor,
        y: Tensor,
        saved: &'s mut Vec<Value>,
    ) -> Lower<'s> {
        let network = self.request.network;
        let parameters: Vec<usize> = network.parameters_of(index).collect();
        let weights: Vec<Value> = parameters.into_iter().map(|p| self.weight(p, slot)).collect();
        let (state, ids) = stages::state_and_ids(self.request, &mut self.builder, slot);
        Lower {
            slot,
            origin,
            next_saved: 0,
            gradients: vec![None; weights.len()],
            updates: vec![None; weights.len()],
            weights,
            dy: None,
            dx: None,
            state,
            ids,
            layer: index as u32,
            train: self.training(),
            engine: self.request.engines[slot.index()],
            input_channels: network.input(index).c,
            part: self.part(index, slot),
            x,
            y,
            columns: self.sums_by_column(index),
            fused_relu: false,
            fused_dropout: dropout::Epilogue::NONE,
            passes_relu: false,
            saved,
            builder: std::mem::take(&mut self.builder),
        }
    }
}
