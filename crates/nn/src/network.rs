//! The specification of a network, checked: every shape and every parameter tensor is known before anything is allocated.

use crate::layers::{Layer, LayerSpec, ParameterSpec, check_elements};
use alexnode_core::{Error, Result, Shape};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// How a stored image becomes the network's input (paper sections 2 and 4.1).
///
/// The stored image is cropped and flipped; the central crop of the mean image is subtracted, wherever the crop lies (2012 code); in training the
/// colour noise is added and the sum divided by `noiseDivisor`; at last it is multiplied by `scale`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InputSpec {
    /// Height and width of the stored images in pixels.
    pub image_size: usize,
    /// Height and width of a crop in pixels.
    pub crop_size: usize,
    /// Whether training mirrors every second image.
    pub flip: bool,
    /// What an image with colour noise is divided by (2012 code: 1.1).
    #[serde(default = "one")]
    pub noise_divisor: f32,
    /// What every element is multiplied by at last (2012 code: 1, pixels stay in 0..255).
    #[serde(default = "one")]
    pub scale: f32,
}

fn one() -> f32 {
    1.0
}

/// A network as a user writes it: a chain of layers that ends in a linear layer with one output per class; softmax and
/// cross-entropy follow by themselves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkSpec {
    /// For messages and files.
    pub name: String,
    /// Number of classes.
    pub classes: usize,
    /// The way from a stored image to the first layer.
    pub input: InputSpec,
    /// The layers, bottom to top.
    pub layers: Vec<LayerSpec>,
}

/// A parameter tensor of a network.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// `conv1.weight`.
    pub name: String,
    /// Index of its layer.
    pub layer: usize,
    /// What the layer says of it.
    pub spec: ParameterSpec,
}

impl Parameter {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.spec.dims.iter().product()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A network whose shapes fit.
#[derive(Clone, Debug)]
pub struct Network {
    name: String,
    classes: usize,
    image: Option<InputSpec>,
    input: Shape,
    layers: Vec<LayerSpec>,
    shapes: Vec<Shape>,
    parameters: Vec<Parameter>,
}

impl Network {
    /// Checks `spec`.
    ///
    /// # Errors
    /// `ERR_USAGE` for numbers or names that make no sense, `ERR_SHAPE` for layers that do not fit each other; the message names the layer.
    pub fn new(spec: NetworkSpec) -> Result<Self> {
        let NetworkSpec { name, classes, input: image, layers } = spec;
        let InputSpec { image_size, crop_size, noise_divisor, scale, .. } = image;
        let wrong = |what: String| Err(Error::usage(format!("{name}: {what}")));
        if crop_size == 0 || crop_size > image_size {
            return wrong(format!("cropSize {crop_size} must lie between 1 and imageSize {image_size}"));
        }
        if !(noise_divisor.is_finite() && noise_divisor > 0.0 && scale.is_finite() && scale != 0.0) {
            return wrong(format!("noiseDivisor {noise_divisor} must be positive and scale {scale} not 0"));
        }
        check_elements("numbers of an image", &[image_size, image_size, 3]).map_err(|e| e.context(&name))?;
        if classes < 2 {
            return wrong(format!("a classifier needs at least 2 classes, got {classes}"));
        }
        let headless = Self::headless(layers, Shape::new(crop_size, crop_size, 3)).map_err(|e| e.context(&name))?;
        let head = headless.len().checked_sub(1);
        if head.is_none_or(|i| headless.layer(i).kind() != "Linear" || headless.output(i) != Shape::vector(classes)) {
            return wrong(format!("the last layer must be linear with {classes} outputs, one per class"));
        }
        Ok(Self { name, classes, image: Some(image), ..headless })
    }
    /// A chain of layers on its own, without images below and a loss above: for tests and measurements of single layers.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn headless(layers: Vec<LayerSpec>, input: Shape) -> Result<Self> {
        check_elements("inputs", &[input.h, input.w, input.c])?;
        let (mut shapes, mut parameters, mut names) = (Vec::new(), Vec::new(), HashSet::new());
        let mut shape = input;
        for (index, layer) in layers.iter().map(LayerSpec::layer).enumerate() {
            let (name, kind) = (layer.name(), layer.kind());
            if name.is_empty() || name.contains(['.', '/']) || !names.insert(name) {
                return Err(Error::usage(format!(
                    "layer {index} ({kind}): the name '{name}' is empty, taken or has a dot or slash in it"
                )));
            }
            let output = layer.output(shape).map_err(|e| e.context(format!("{name} ({kind})")))?;
            check_elements("outputs", &[output.h, output.w, output.c])
                .map_err(|e| e.context(format!("{name} ({kind})")))?;
            for spec in layer.parameters(shape) {
                parameters.push(Parameter { name: format!("{name}.{}", spec.name), layer: index, spec });
            }
            shapes.push(output);
            shape = output;
        }
        Ok(Self { name: "layers".into(), classes: shape.c, image: None, input, layers, shapes, parameters })
    }
    /// Checks that `batch` samples can be computed at a time.
    ///
    /// # Errors
    /// `ERR_USAGE` for none, `ERR_SHAPE` for so many that a tensor has too many elements; the message names the layer.
    pub fn check_batch(&self, batch: usize) -> Result<()> {
        if batch == 0 {
            return Err(Error::usage("the batch must have at least one image"));
        }
        let smaller = |e: Error| e.hint("Use a smaller batch.");
        let image = self.image.as_ref().map_or(self.input, |image| Shape::new(image.image_size, image.image_size, 3));
        check_elements("numbers of images", &[batch, image.h, image.w, image.c]).map_err(smaller)?;
        for (layer, shape) in self.layers.iter().map(LayerSpec::layer).zip(&self.shapes) {
            check_elements("outputs", &[batch, shape.h, shape.w, shape.c])
                .map_err(|e| smaller(e.context(format!("{} ({})", layer.name(), layer.kind()))))?;
        }
        Ok(())
    }
    /// The network's name.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }
    /// The way from a stored image to the first layer; `None` for [`headless`](Self::headless) chains.
    pub fn image(&self) -> Option<&InputSpec> {
        self.image.as_ref()
    }
    /// The number of layers.
    pub fn len(&self) -> usize {
        self.layers.len()
    }
    /// Whether there are no layers.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }
    /// The specification of layer `index`.
    pub fn spec(&self, index: usize) -> &LayerSpec {
        &self.layers[index]
    }
    /// Layer `index`.
    pub fn layer(&self, index: usize) -> &dyn Layer {
        self.layers[index].layer()
    }
    /// Shape of the input of layer `index`.
    pub fn input(&self, index: usize) -> Shape {
        if index == 0 { self.input } else { self.shapes[index - 1] }
    }
    /// Shape of the output of layer `index`.
    pub fn output(&self, index: usize) -> Shape {
        self.shapes[index]
    }
    /// All parameter tensors, bottom to top, weight before bias.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }
    /// Indices of the parameter tensors of layer `index`.
    pub fn parameters_of(&self, index: usize) -> impl Iterator<Item = usize> + '_ {
        self.parameters.iter().enumerate().filter(move |(_, p)| p.layer == index).map(|(i, _)| i)
    }
    /// What the input subtracts and adds, under its names in files: the central crop of the mean image, height x width x RGB; three standard deviations of
    /// colours, then three principal components as rows.
    pub fn input_tensors(&self) -> impl Iterator<Item = (&'static str, Vec<usize>)> + use<> {
        let Shape { h, w, c } = self.input;
        [("input.mean", vec![h, w, c]), ("input.colour", vec![4, 3])].into_iter()
    }
    /// Number of trained numbers.
    pub fn parameter_count(&self) -> usize {
        self.parameters.iter().map(Parameter::len).sum()
    }
    /// Multiply-accumulates of a forward pass for one image.
    pub fn macs(&self) -> u64 {
        (0..self.len()).map(|i| self.layer(i).macs(self.input(i))).sum()
    }
}
