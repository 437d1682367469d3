//! Runs one layer's kernels without a plan: any strides, any share of the channels, any backend. Everything that the kernels may not
//! touch is poisoned and looked at afterwards.

use crate::{
    layers::{Layer, dropout},
    lower::{Builder, DraftKind, Home, Lower, Origin, Part, Phase, Tensor, Value},
};
use alexnode_core::{Access, Backend, DeviceName, KernelDef, Launch, Shape, SlotId, StepState, View};

/// All bits set: a NaN, so that whatever is read but not written shows.
const POISON: u8 = 0xff;

/// A layer, or a tower's share of it, and how it lies in memory.
pub struct Alone<'a> {
    /// The layer.
    pub layer: &'a dyn Layer,
    /// Samples.
    pub batch: usize,
    /// What this slot sees of the layer's input.
    pub input: Shape,
    /// The pixels of the output; its channels are `part`'s.
    pub output: Shape,
    /// The output channels computed here.
    pub part: Part,
    /// Elements between two pixels of x and dx, and of y and dy.
    pub gaps: [usize; 2],
    /// Training or evaluation.
    pub train: bool,
    /// Whether the layer ends in a ReLU.
    pub fused_relu: bool,
    /// The dropout behind that.
    pub fused_dropout: dropout::Epilogue,
    /// Whether the gradient also passes a ReLU that the input comes from.
    pub passes_relu: bool,
    /// What `part` needs of the layer's parameter tensors, in the order of the kernels.
    pub parameters: Vec<Vec<f32>>,
    /// Index of the layer in its network.
    pub index: u32,
    /// What `cx.state()` holds; no rates.
    pub state: StepState,
    /// What `cx.ids()` holds.
    pub ids: Vec<u32>,
}

/// What came of it, without gaps.
#[derive(Clone, Debug, PartialEq)]
pub struct Passes {
    /// The output.
    pub y: Vec<f32>,
    /// The gradient by the input; empty in evaluation.
    pub dx: Vec<f32>,
    /// The gradient by each parameter tensor; empty in evaluation.
    pub gradients: Vec<Vec<f32>>,
}

impl<'a> Alone<'a> {
    /// The whole of `layer` in training, on dense tensors, samples numbered from 0; parameters must be set.
    ///
    /// # Panics
    /// Where the layer does not take `input`.
    pub fn new(layer: &'a dyn Layer, batch: usize, input: Shape) -> Self {
        let output = layer.output(input).unwrap_or_else(|error| panic!("{}: {error}", layer.name()));
        Self {
            layer,
            batch,
            input,
            output,
            part: Part { start: 0, channels: output.c, total: output.c },
            gaps: [0, 0],
            train: true,
            fused_relu: false,
            fused_dropout: dropout::Epilogue::NONE,
            passes_relu: false,
            parameters: Vec::new(),
            index: 0,
            state: StepState { valid: batch as u32, views: 1, ..StepState::default() },
            ids: (0..batch as u32).collect(),
        }
    }

    /// Forward from `x`, then, in training, backward from `dy`, on slot 0 of `backend`.
    ///
    /// # Panics
    /// Where a kernel writes between the pixels of its output.
    pub fn run(&self, x: &[f32], dy: &[f32], backend: &mut dyn Backend) -> Passes {
        let engine = backend.slots()[0].engine;
        let mut builder = Builder::default();
        let slot = SlotId(0);
        let mut tensor =
            |shape: Shape, gap: usize| builder.tensor(slot, self.batch, shape, shape.c + gap, gap / 2, Home::Kept);
        let output = self.output.with_channels(self.part.channels);
        let x_tensor = tensor(self.input, self.gaps[0]);
        let y_tensor = if self.layer.elementwise() { x_tensor } else { tensor(output, self.gaps[1]) };
        let dy_tensor = tensor(output, self.gaps[1]);
        let dx_tensor = if self.layer.elementwise() { dy_tensor } else { tensor(self.input, self.gaps[0]) };
        let state = builder.value(slot, size_of::<StepState>(), Home::Kept);
        let ids = builder.value(slot, self.batch * 4, Home::Kept);
        let parameters: Vec<usize> = self.parameters.iter().map(|values| size_of_val(&values[..])).collect();
        let mut values =
            || parameters.iter().map(|bytes| builder.value(slot, *bytes, Home::Kept)).collect::<Vec<Value>>();
        let (weights, gradients) = (values(), values());
        let mut saved = Vec::new();
        for phase in [Phase::Forward, Phase::Backward] {
            let mut cx = Lower {
                builder,
                slot,
                origin: Origin { layer: Some(0), phase },
                saved: &mut saved,
                next_saved: 0,
                weights: weights.clone(),
                gradients: gradients.iter().copied().map(Some).collect(),
                updates: vec![None; gradients.len()],
                dy: Some(dy_tensor),
                dx: Some(dx_tensor),
                state,
                ids,
                layer: self.index,
                train: self.train,
                engine,
                input_channels: self.input.c,
                part: self.part,
                x: x_tensor,
                y: y_tensor,
                columns: false,
                fused_relu: self.fused_relu,
                fused_dropout: self.fused_dropout,
                passes_relu: phase == Phase::Backward && self.passes_relu,
            };
            match phase {
                Phase::Forward => self.layer.forward(&mut cx),
                _ if self.train => self.layer.backward(&mut cx),
                _ => {}
            }
            builder = cx.into_builder();
        }
        let mut memory = Memory::new(backend, builder.values.iter().map(|value| value.bytes));
        memory.write(x_tensor, x);
        memory.set(memory.whole(state), bytemuck::bytes_of(&self.state));
        memory.set(memory.whole(ids), bytemuck::cast_slice(&self.ids));
        for (value, values) in weights.iter().zip(&self.parameters) {
            memory.set(memory.whole(*value), bytemuck::cast_slice(values));
        }
        if self.train {
            memory.write(dy_tensor, dy);
        }
        // An elementwise layer changes x and dy themselves, so the passes take their results away in time.
        for draft in builder.drafts.iter().filter(|draft| draft.origin.phase == Phase::Forward) {
            memory.launch(&draft.kind);
        }
        let y = memory.read(y_tensor);
        for draft in builder.drafts.iter().filter(|draft| draft.origin.phase == Phase::Backward) {
            memory.launch(&draft.kind);
        }
        if !self.train {
            return Passes { y, dx: Vec::new(), gradients: Vec::new() };
        }
        let gradients = gradients.iter().map(|value| memory.floats(memory.whole(*value))).collect();
        Passes { y, dx: memory.read(dx_tensor), gradients }
    }
}

/// Runs kernel `kernel` on `buffers`, on slot 0 of `backend`; each is copied in and, where the kernel writes it, back.
///
/// # Panics
/// Where number, length or kind of the arguments do not suit the kernel, or the device fails.
pub fn run_kernel<P: bytemuck::Pod>(
    kernel: &'static KernelDef,
    params: P,
    buffers: &mut [&mut [u8]],
    backend: &mut dyn Backend,
) {
    let mut memory = Memory::new(backend, buffers.iter().map(|bytes| bytes.len()));
    let views = memory.buffers.clone();
    for ((view, bytes), access) in views.iter().zip(buffers.iter()).zip(kernel.access) {
        if !memory.looks || matches!(access, Access::Read | Access::ReadWrite) {
            memory.set(*view, bytes);
        }
    }
    memory.run(kernel, bytemuck::bytes_of(&params), &views);
    for (i, bytes) in buffers.iter_mut().enumerate().filter(|(i, _)| kernel.access[*i].writes()) {
        bytes.copy_from_slice(&memory.get(views[i]));
    }
}

/// One buffer per value, on slot 0.
struct Memory<'a> {
    backend: &'a mut dyn Backend,
    buffers: Vec<View>,
    /// Whether the backend poisons new memory itself, and may look for reads of what nobody wrote.
    looks: bool,
}

impl<'a> Memory<'a> {
    /// Poisoned buffers of `bytes`.
    fn new(backend: &'a mut dyn Backend, bytes: impl Iterator<Item = usize>) -> Self {
        let looks = matches!(backend.slots()[0].device, DeviceName::Emulated(_));
        let mut memory = Self { backend, buffers: Vec::new(), looks };
        for bytes in bytes {
            let buffer = memory.backend.alloc(SlotId(0), bytes).expect("memory for a test");
            let view = View { buffer, offset: 0, bytes };
            memory.buffers.push(view);
            if !looks {
                memory.set(view, &vec![POISON; bytes]);
            }
        }
        memory
    }
    fn whole(&self, value: Value) -> View {
        self.buffers[value.0 as usize]
    }
    fn set(&mut self, view: View, bytes: &[u8]) {
        self.backend.upload(view, bytes).unwrap_or_else(|error| panic!("upload: {error}"));
    }
    fn get(&mut self, view: View) -> Vec<u8> {
        let mut bytes = vec![0; view.bytes];
        self.backend.download(view, &mut bytes).unwrap_or_else(|error| panic!("{error}"));
        bytes
    }
    fn floats(&mut self, view: View) -> Vec<f32> {
        self.get(view).chunks_exact(4).map(bytemuck::pod_read_unaligned).collect()
    }
    fn run(&mut self, kernel: &'static KernelDef, params: &[u8], args: &[View]) {
        let launch = Launch::new(kernel, params, args);
        self.backend.launch(SlotId(0), &launch).unwrap_or_else(|error| panic!("{}: {error}", kernel.name));
    }
    fn launch(&mut self, kind: &DraftKind) {
        let DraftKind::Launch { kernel, params, args, .. } = kind else { panic!("a layer issues launches only") };
        let views: Vec<View> = args.iter().map(|arg| self.whole(arg.value).slice(arg.offset, arg.bytes)).collect();
        self.run(kernel, params, &views);
    }
    /// Puts dense elements into `tensor`.
    fn write(&mut self, tensor: Tensor, dense: &[f32]) {
        assert_eq!(dense.len(), tensor.rows() * tensor.shape.c);
        let view = self.whole(tensor.value);
        for (row, dense) in dense.chunks_exact(tensor.shape.c).enumerate() {
            let bytes = bytemuck::cast_slice(dense);
            self.set(view.slice((tensor.offset + row * tensor.ld) * 4, bytes.len()), bytes);
        }
    }
    /// The dense elements of `tensor`; what lies between must still be poison.
    fn read(&mut self, tensor: Tensor) -> Vec<f32> {
        let data = self.floats(self.whole(tensor.value));
        let mut dense = Vec::new();
        for (row, pixel) in data[..tensor.rows() * tensor.ld].chunks_exact(tensor.ld).enumerate() {
            for (i, v) in pixel.iter().enumerate() {
                if (tensor.offset..tensor.offset + tensor.shape.c).contains(&i) {
                    dense.push(*v);
                } else {
                    assert_eq!(v.to_bits().to_ne_bytes(), [POISON; 4], "row {row}: wrote between the pixels");
                }
            }
        }
        dense
    }
}

impl Drop for Memory<'_> {
    fn drop(&mut self) {
        for view in &self.buffers {
            self.backend.free(view.buffer);
        }
    }
}
