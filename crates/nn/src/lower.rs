//! What a layer lowers itself with: tensors on planned memory, saved values, scratch, launches.
//!
//! Nothing here has an address yet. A [`Value`] is a piece of memory whose lifetime the plan derives from the operations that
//! name it; a [`Tensor`] is a value seen as images, channels last.

use crate::{layers::dropout, ops, sgd::SgdParams};
use alexnode_core::{
    Engine, Shape, SlotId,
    kernel::{Kernel, KernelDef, define},
};

/// A piece of memory of one slot, placed when the plan is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Value(pub(crate) u32);

/// A range of bytes of a value: what a launch names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arg {
    /// The value.
    pub value: Value,
    /// First byte.
    pub offset: usize,
    /// Length in bytes.
    pub bytes: usize,
}

/// f32 activations: element (n, pixel, channel) lies at `offset + (n * pixels + pixel) * ld + channel`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tensor {
    /// The memory.
    pub value: Value,
    /// First element.
    pub offset: usize,
    /// Samples.
    pub batch: usize,
    /// One sample; `shape.c` are the channels seen here, which may be fewer than `ld`.
    pub shape: Shape,
    /// Elements from one pixel to the next.
    pub ld: usize,
}

impl Tensor {
    /// Pixels of all samples.
    pub fn rows(&self) -> usize {
        self.batch * self.shape.pixels()
    }
    /// The bytes from the first to the last element.
    pub fn arg(&self) -> Arg {
        Arg { value: self.value, offset: self.offset * 4, bytes: ((self.rows() - 1) * self.ld + self.shape.c) * 4 }
    }
    /// The channels `start..start + count` of every pixel.
    #[must_use]
    pub fn channels(&self, start: usize, count: usize) -> Self {
        assert!(start + count <= self.shape.c, "channels {start}+{count} of {}", self.shape.c);
        Self { offset: self.offset + start, shape: self.shape.with_channels(count), ..*self }
    }
    /// Whether every element of a sample follows the one before.
    pub fn is_contiguous(&self) -> bool {
        self.ld == self.shape.c
    }
}

/// Which of a layer's output channels a slot computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// First channel.
    pub start: usize,
    /// How many.
    pub channels: usize,
    /// How many the layer has.
    pub total: usize,
}

/// Memory that outlives a step, bound to real buffers by the owner of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum External {
    /// The slot's share of parameter tensor `.0`.
    Weight(u32),
    /// Its momentum.
    Momentum(u32),
    /// [`StepState`](alexnode_core::StepState), followed by one rate per parameter tensor.
    State,
    /// [`Totals`](alexnode_core::state::Totals); slot 0.
    Totals,
    /// Images as bytes.
    Pixels,
    /// u32 sample ids.
    Ids,
    /// i32 classes; slot 0.
    Labels,
    /// One f32 per class, with which the loss is weighed; slot 0.
    ClassWeights,
    /// The central crop of the mean image.
    Mean,
    /// Colour statistics: 3 standard deviations, then 3 eigenvectors.
    Colour,
    /// Class probabilities of the evaluated batch; slot 0.
    Probabilities,
}

impl External {
    /// Whether its size is that of the batch.
    pub(crate) fn of_batch(self) -> bool {
        matches!(self, Self::Pixels | Self::Ids | Self::Labels | Self::Probabilities)
    }
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Home {
    /// In the arena, from the first operation that names it to the last.
    Arena,
    /// In the arena for the whole plan: its inputs and outputs.
    Kept,
    /// Elsewhere.
    External(External),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct ValueInfo {
    pub slot: SlotId,
    pub bytes: usize,
    pub home: Home,
}

/// The part of a step that an operation belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// Crop, flip, mean, noise.
    Input,
    /// Forward.
    Forward,
    /// Softmax and cross-entropy.
    Loss,
    /// Gradients.
    Backward,
    /// The optimiser.
    Update,
}

/// Where an operation comes from: for profiles and diagnoses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Index of the layer; `None` for the input.
    pub layer: Option<usize>,
    /// Part of the step.
    pub phase: Phase,
}

#[derive(Clone, Debug)]
pub(crate) enum DraftKind {
    Launch { slot: SlotId, kernel: &'static KernelDef, params: Vec<u8>, args: Vec<Arg> },
    Copy { src: Arg, dst: Arg, rows: usize, row_bytes: usize, src_pitch: usize, dst_pitch: usize },
}

#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub origin: Origin,
    pub kind: DraftKind,
}

/// Collects values and operations while a plan is built.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    pub values: Vec<ValueInfo>,
    pub drafts: Vec<Draft>,
}

impl Builder {
    pub fn value(&mut self, slot: SlotId, bytes: usize, home: Home) -> Value {
        if let Home::External(_) = home
            && let Some(known) = self.values.iter().position(|v| v.slot == slot && v.home == home)
        {
            assert_eq!(self.values[known].bytes, bytes, "{home:?} has two sizes");
            return Value(known as u32);
        }
        self.values.push(ValueInfo { slot, bytes, home });
        Value(self.values.len() as u32 - 1)
    }
    /// A tensor with room for `ld` channels per pixel, of which `shape.c` from `first` on are seen.
    pub fn tensor(&mut self, slot: SlotId, batch: usize, shape: Shape, ld: usize, first: usize, home: Home) -> Tensor {
        let value = self.value(slot, batch * shape.pixels() * ld * 4, home);
        Tensor { value, offset: first, batch, shape, ld }
    }
    pub fn whole(&self, value: Value) -> Arg {
        Arg { value, offset: 0, bytes: self.values[value.0 as usize].bytes }
    }
    pub fn slot(&self, value: Value) -> SlotId {
        self.values[value.0 as usize].slot
    }
    pub fn launch<K: Kernel>(&mut self, origin: Origin, slot: SlotId, params: K::Params, args: &[Arg]) {
        let kernel = define::<K>();
        for arg in args {
            assert_eq!(self.slot(arg.value), slot, "{}: an argument lives on another slot", kernel.name);
        }
        let params = bytemuck::bytes_of(&params).to_vec();
        self.drafts.push(Draft { origin, kind: DraftKind::Launch { slot, kernel, params, args: args.to_vec() } });
    }
    /// Copies the channels seen through `src` to those seen through `dst`, within a slot or between two.
    pub fn copy(&mut self, origin: Origin, src: Tensor, dst: Tensor) {
        assert_eq!((src.batch, src.shape), (dst.batch, dst.shape), "copy between different shapes");
        let kind = DraftKind::Copy {
            src: src.arg(),
            dst: dst.arg(),
            rows: src.rows(),
            row_bytes: src.shape.c * 4,
            src_pitch: src.ld * 4,
            dst_pitch: dst.ld * 4,
        };
        self.drafts.push(Draft { origin, kind });
    }
}

/// One layer on one slot, while it lowers itself.
pub struct Lower<'b> {
    pub(crate) builder: Builder,
    pub(crate) slot: SlotId,
    pub(crate) origin: Origin,
    pub(crate) saved: &'b mut Vec<Value>,
    pub(crate) next_saved: usize,
    pub(crate) weights: Vec<Value>,
    pub(crate) gradients: Vec<Option<Value>>,
    pub(crate) updates: Vec<Option<(SgdParams, Value)>>,
    pub(crate) dy: Option<Tensor>,
    pub(crate) dx: Option<Tensor>,
    pub(crate) state: Value,
    pub(crate) ids: Value,
    /// Index of the layer in the network: tells apart the random streams of layers.
    pub layer: u32,
    /// Training (dropout drops, pooling remembers) or evaluation.
    pub train: bool,
    /// What computes in the slot: sizes scratch memory.
    pub engine: Engine,
    /// Channels of the layer's whole input, over all slots.
    pub input_channels: usize,
    /// The output channels computed here.
    pub part: Part,
    /// The input: the slot's own channels, or all of them ([`Reads`](crate::layers::Reads)).
    pub x: Tensor,
    /// The output: `part.channels` channels.
    pub y: Tensor,
    /// Whether the gradient by `x` is summed column by column, as two slots would ([`by_column`](Self::by_column)).
    pub(crate) columns: bool,
    /// Whether to apply max(0, .) to the output ([`Layer::fuses_relu`](crate::layers::Layer::fuses_relu)).
    pub fused_relu: bool,
    /// The dropout to apply to the output after that ([`Layer::fuses_dropout`](crate::layers::Layer::fuses_dropout)).
    pub fused_dropout: dropout::Epilogue,
    /// Whether `dx` is also to pass the ReLU that `x` comes from ([`Layer::passes_relu`](crate::layers::Layer::passes_relu)).
    pub passes_relu: bool,
}

impl Lower<'_> {
    /// Gradient of the loss by `y`. Backward only.
    pub fn dy(&self) -> Tensor {
        self.dy.expect("dy exists in the backward pass")
    }
    /// Where the gradient by `x` goes (same channels as `x`), or `None` where nobody below wants it.
    pub fn dx(&self) -> Option<Tensor> {
        self.dx
    }
    /// The slot's share of the layer's parameter tensor `i`.
    pub fn weight(&self, i: usize) -> Arg {
        self.builder.whole(self.weights[i])
    }
    /// Where the gradient of parameter tensor `i` goes, or `None` where it never changes or has an [`update`](Self::update).
    pub fn gradient(&self, i: usize) -> Option<Arg> {
        self.gradients[i].map(|value| self.builder.whole(value))
    }
    /// How parameter tensor `i` is to be updated by the layer itself, after the gradient by `x` is made: constants and momentum. `None` where it never changes or
    /// its gradient goes elsewhere ([`Layer::fuses_updates`](crate::layers::Layer::fuses_updates)).
    pub fn update(&self, i: usize) -> Option<(SgdParams, Arg)> {
        self.updates[i].map(|(params, momentum)| (params, self.builder.whole(momentum)))
    }
    /// How many of the layer's `groups` lie on this slot.
    pub fn local_groups(&self, groups: usize) -> usize {
        if groups == 1 { 1 } else { groups * self.part.channels / self.part.total }
    }
    /// Memory that the forward pass fills and the backward pass reads. The same calls in the same order give the same
    /// values in both.
    pub fn saved(&mut self, bytes: usize) -> Arg {
        if self.next_saved == self.saved.len() {
            self.saved.push(self.builder.value(self.slot, bytes, Home::Arena));
        }
        let value = self.saved[self.next_saved];
        self.next_saved += 1;
        self.builder.whole(value)
    }
    /// The scratch memory of a launch of `K`.
    pub fn scratch<K: Kernel>(&mut self, params: &K::Params) -> Arg {
        let value = self.builder.value(self.slot, K::scratch(params, self.engine), Home::Arena);
        self.builder.whole(value)
    }
    /// The step's state: [`StepState`](alexnode_core::StepState) and the rates.
    pub fn state(&self) -> Arg {
        self.builder.whole(self.state)
    }
    /// One u32 id per sample of the batch.
    pub fn ids(&self) -> Arg {
        self.builder.whole(self.ids)
    }
    /// Issues the gradient by `x`, a sum over output channels, through `issue(cx, dy, weight, dx)`: at once, or, where two slots would share the
    /// layer out, for the output channels of each column apart, then added. So one slot rounds as two do, and the bits are the same.
    pub fn by_column(&mut self, dx: Tensor, issue: impl Fn(&mut Self, Tensor, Arg, Tensor)) {
        let (dy, weight) = (self.dy(), self.weight(0));
        if !self.columns {
            return issue(self, dy, weight, dx);
        }
        let (channels, bytes) = (dy.shape.c / 2, weight.bytes / 2);
        let second = self.builder.tensor(self.slot, dx.batch, dx.shape, dx.shape.c, 0, Home::Arena);
        for (column, sum) in [dx, second].into_iter().enumerate() {
            let share = Arg { offset: weight.offset + column * bytes, bytes, ..weight };
            issue(self, dy.channels(column * channels, channels), share, sum);
        }
        ops::add(&mut self.builder, self.origin, self.slot, second, dx);
    }
    /// Gives the builder back to the plan.
    pub(crate) fn into_builder(self) -> Builder {
        self.builder
    }
    /// Issues kernel `K`.
    pub fn launch<K: Kernel>(&mut self, params: K::Params, args: &[Arg]) {
        self.builder.launch::<K>(self.origin, self.slot, params, args);
    }
}
