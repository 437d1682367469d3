//! Which neighbouring layers become one operation. Decided here and nowhere else.
//!
//! | what | in |
//! |---|---|
//! | ReLU | the epilogue of the layer below |
//! | its gradient | the kernel of the normalisation above |
//! | dropout | the epilogue of a linear layer, behind its ReLU |
//! | normalisation across channels | the kernel of the max pooling behind it |
//! | the update of weights and biases | the kernel that makes the gradients of a linear layer, on a processor |

use crate::{
    layers::{Layer, LayerSpec, dropout::Dropout, norm_pool::NormPool},
    lower::Lower,
    network::Network,
};
use alexnode_core::Engine;

/// The fusions of a network.
#[derive(Clone, Copy)]
pub(crate) struct Fusions<'a> {
    network: &'a Network,
    layers: usize,
}

impl<'a> Fusions<'a> {
    /// Those of the first `layers` layers of `network`.
    pub fn new(network: &'a Network, layers: usize) -> Self {
        Self { network, layers }
    }
    /// Issues what layer `index` has to do in the forward pass.
    pub fn forward(&self, index: usize, cx: &mut Lower<'_>) {
        if self.is_epilogue(index) || self.left_to_pool(index) {
            return;
        }
        cx.fused_relu = self.is_relu(index + 1) && self.is_epilogue(index + 1);
        let above = if cx.fused_relu { index + 2 } else { index + 1 };
        if let Some(dropout) = self.dropout(above) {
            cx.fused_dropout = dropout.epilogue(above as u32, cx.part, cx.train);
        }
        match self.norm_pool(index) {
            Some(both) => both.forward(cx),
            None => self.network.layer(index).forward(cx),
        }
    }
    /// Issues what layer `index` has to do in the backward pass.
    pub fn backward(&self, index: usize, cx: &mut Lower<'_>) {
        // The ReLU below a dropout stops the gradient of what was dropped, since its output became 0; what was kept is as it was.
        let stopped = |dropout: &Dropout| !dropout.inverted && self.is_relu(index - 1);
        if self.left_to_pool(index) || self.passed(index) || self.dropout(index).is_some_and(stopped) {
            return;
        }
        match self.norm_pool(index) {
            Some(both) => {
                cx.passes_relu = index > 1 && self.passed(index - 2);
                both.backward(cx);
            }
            None => {
                cx.passes_relu = index > 0 && self.passed(index - 1);
                self.network.layer(index).backward(cx);
            }
        }
    }
    /// Layer `index`, where it is a dropout in the epilogue of the layer below.
    pub fn dropout(&self, index: usize) -> Option<&'a Dropout> {
        let Some(LayerSpec::Dropout(dropout)) = self.spec(index) else { return None };
        let below = index.checked_sub(1)?;
        let base = if self.is_relu(below) && self.is_epilogue(below) { below.checked_sub(1)? } else { below };
        self.network.layer(base).fuses_dropout().then_some(dropout)
    }
    /// Whether layer `index` updates its parameters where it makes their gradients, if `engine` computes it; there is no CUDA kernel for that.
    pub fn updates(&self, index: usize, engine: Engine) -> bool {
        matches!(engine, Engine::Host { .. }) && self.network.layer(index).fuses_updates()
    }
    /// Whether layer `index` is the normalisation in the operation of the max pooling above: its output does not exist.
    pub fn left_to_pool(&self, index: usize) -> bool {
        self.norm_pool(index + 1).is_some()
    }
    /// Max pooling `index` and the normalisation below it, where they are one operation: that of the pooling.
    fn norm_pool(&self, index: usize) -> Option<NormPool<'a>> {
        match (self.spec(index.checked_sub(1)?)?, self.spec(index)?) {
            (LayerSpec::LocalResponseNorm(norm), LayerSpec::MaxPool2d(pool)) => Some(NormPool { norm, pool }),
            _ => None,
        }
    }
    /// Whether layer `index` is computed in the epilogue of the layer below.
    fn is_epilogue(&self, index: usize) -> bool {
        let relu = || index > 0 && self.is_relu(index) && self.network.layer(index - 1).fuses_relu();
        relu() || self.dropout(index).is_some()
    }
    /// Whether layer `index` is a ReLU whose gradient the kernel of the layer above passes.
    fn passed(&self, index: usize) -> bool {
        self.is_relu(index) && self.spec(index + 1).is_some_and(|above| above.layer().passes_relu())
    }
    fn is_relu(&self, index: usize) -> bool {
        matches!(self.spec(index), Some(LayerSpec::Relu(_)))
    }
    fn spec(&self, index: usize) -> Option<&'a LayerSpec> {
        (index < self.layers).then(|| self.network.spec(index))
    }
}
