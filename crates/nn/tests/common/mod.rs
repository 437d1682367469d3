//! A small two-tower network and a data set of noise that can be learnt by heart.
#![allow(dead_code, reason = "each test file uses a part of it")]

use alexnode_core::{
    Backend, Batch, BatchSource, Engine, Precision, Result,
    rng::{Purpose, Stream},
};
use alexnode_cpu::CpuBackend;
use alexnode_cuda::{
    CudaBackend,
    emulated::{EmulatedDriver, Options},
    testing,
};
use alexnode_nn::{
    network::NetworkSpec,
    trainer::{ImageStatistics, Segment, Trainer, TrainerConfig},
};
use serde_json::json;
use std::sync::atomic::AtomicBool;

pub const SIZE: usize = 20;
pub const CLASSES: usize = 10;
/// Samples of a minibatch in [`losses`].
pub const BATCH: usize = 6;

/// The paper's kinds of layers in small: towers that meet at conv3, at a norm over all channels, and at the linear layers.
pub fn network() -> NetworkSpec {
    let he = json!({ "type": "he" });
    let spec = json!({
        "name": "mini", "classes": CLASSES,
        "input": { "imageSize": SIZE, "cropSize": 16, "flip": true, "noiseDivisor": 1.1, "scale": 0.02 },
        "layers": [
            { "type": "conv2d", "name": "conv1", "outChannels": 16, "kernelSize": 5, "stride": 1, "padding": 0, "weightInit": he, "weightDecay": 5e-4 },
            { "type": "relu", "name": "relu1" },
            { "type": "localResponseNorm", "name": "lrn1", "size": 5, "k": 2.0, "alpha": 0.01, "beta": 0.75, "groups": 2 },
            { "type": "maxPool2d", "name": "pool1", "kernelSize": 3, "stride": 2 },
            { "type": "conv2d", "name": "conv2", "outChannels": 24, "kernelSize": 3, "padding": 1, "groups": 2, "weightInit": he, "biasInit": 0.1 },
            { "type": "relu", "name": "relu2" },
            { "type": "mapResponseNorm", "name": "norm2", "size": 3, "k": 1.0, "alpha": 0.01, "beta": 0.75 },
            { "type": "conv2d", "name": "conv3", "outChannels": 16, "kernelSize": 3, "padding": 1, "weightInit": he },
            { "type": "relu", "name": "relu3" },
            { "type": "localResponseNorm", "name": "lrn3", "size": 5, "k": 2.0, "alpha": 0.01, "beta": 0.75, "groups": 1 },
            { "type": "avgPool2d", "name": "pool3", "kernelSize": 3, "stride": 2 },
            { "type": "linear", "name": "fc6", "outFeatures": 32, "weightInit": he },
            { "type": "relu", "name": "relu6" },
            { "type": "dropout", "name": "drop6", "p": 0.5 },
            { "type": "linear", "name": "fc7", "outFeatures": 32, "weightInit": he },
            { "type": "tanh", "name": "tanh7" },
            { "type": "linear", "name": "fc8", "outFeatures": CLASSES, "weightInit": { "type": "normal", "std": 0.1 } },
        ],
    });
    serde_json::from_value(spec).unwrap()
}

/// `batches` minibatches of random images, the last one short.
pub struct Noise {
    pub batch: usize,
    pub next: usize,
    pub batches: usize,
}

impl Noise {
    pub fn new(batch: usize) -> Self {
        Self { batch, next: 0, batches: 6 }
    }
}

impl BatchSource for Noise {
    fn next(&mut self) -> Result<Option<Batch>> {
        if self.next == self.batches {
            return Ok(None);
        }
        let valid = if self.next + 1 == self.batches { self.batch - 1 } else { self.batch };
        let ids: Vec<u32> = (0..self.batch).map(|i| (self.next * self.batch + i) as u32).collect();
        self.next += 1;
        let stream = Stream::new(99, Purpose::Generate, 0);
        let pixels = ids
            .iter()
            .flat_map(|&id| (0..SIZE * SIZE * 3).map(move |i| stream.words(i as u32 / 16, id, 0)[0] as u8))
            .collect();
        Ok(Some(Batch { pixels, labels: ids.iter().map(|id| (id % CLASSES as u32) as i32).collect(), ids, valid }))
    }
    fn recycle(&mut self, _: Batch) {}
}

/// Rates for every layer of [`network`] that has some.
pub fn segment(epoch: u32, batch: usize, step: u32, steps: usize, rate: f32) -> Segment {
    let rates = ["conv1", "conv2", "conv3", "fc6", "fc7", "fc8"].map(|name| (name.to_owned(), [rate, 2.0 * rate]));
    Segment { epoch, batch, step, steps, rates: rates.into(), colour_noise: 0.1, augment: true }
}

/// A trainer of `spec` on `slots` slots with `threads` threads in all.
pub fn trainer(spec: NetworkSpec, slots: usize, threads: usize, batch: usize) -> Trainer {
    trainer_of_images(spec, slots, threads, batch, 120.0)
}

/// A trainer whose mean image is `mean` everywhere.
pub fn trainer_of_images(spec: NetworkSpec, slots: usize, threads: usize, batch: usize, mean: f32) -> Trainer {
    trainer_on(Box::new(CpuBackend::new(slots, Some(threads)).unwrap()), spec, batch, mean)
}

/// Likewise, on the slots of `backend`.
pub fn trainer_on(backend: Box<dyn Backend>, spec: NetworkSpec, batch: usize, mean: f32) -> Trainer {
    weighed_trainer(backend, spec, batch, mean, None).unwrap()
}

/// Likewise, with a loss that is weighed by the classes.
///
/// # Errors
/// Those of [`Trainer::new`].
pub fn weighed_trainer(
    backend: Box<dyn Backend>,
    spec: NetworkSpec,
    batch: usize,
    mean: f32,
    class_weights: Option<Vec<f32>>,
) -> Result<Trainer> {
    let mean = vec![mean; SIZE * SIZE * 3];
    let components = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
    let images = ImageStatistics { mean: &mean, deviations: [10.0, 20.0, 30.0], components };
    let config = TrainerConfig { network: spec, batch, seed: 5, momentum: 0.9, class_weights };
    Trainer::new(config, images, backend)
}

/// Emulated devices; none where there is no C++ compiler, which only a developer's machine may lack.
pub fn emulated(ordinals: &[usize], options: Options) -> Option<Box<dyn Backend>> {
    emulated_in(Precision::Fp32, ordinals, options)
}

/// The same, whose layers multiply in `precision`.
pub fn emulated_in(precision: Precision, ordinals: &[usize], options: Options) -> Option<Box<dyn Backend>> {
    let driver = testing::unless_missing(EmulatedDriver::new(ordinals, options), testing::CXX)?;
    Some(Box::new(CudaBackend::new(Box::new(driver), precision, false).unwrap()))
}

/// 20 steps in epochs of six minibatches; the loss of every step.
pub fn losses(trainer: &mut Trainer) -> Vec<f64> {
    first_losses(trainer, 20)
}

/// Likewise, of the first `steps` steps.
pub fn first_losses(trainer: &mut Trainer, steps: usize) -> Vec<f64> {
    let mut losses = Vec::new();
    for step in 0..steps {
        let mut source = Noise { next: step % 6, ..Noise::new(BATCH) };
        let report = trainer
            .run(&mut source, &segment(step as u32 / 6, step % 6, step as u32, 1, 0.02), &AtomicBool::new(false))
            .unwrap();
        losses.push(report.loss);
    }
    losses
}

/// All tensors of a trainer, momentum too, by name.
pub fn tensors(trainer: &mut Trainer) -> Vec<(String, Vec<f32>)> {
    let names: Vec<String> = trainer.network().parameters().iter().map(|p| p.name.clone()).collect();
    let both = names.iter().flat_map(|name| [name.clone(), format!("momentum.{name}")]);
    both.map(|name| (name.clone(), trainer.tensor(&name).unwrap().1)).collect()
}

/// |a - b| / |b|.
pub fn relative_l2(a: &[f32], b: &[f32]) -> f64 {
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let difference = square(&mut a.iter().zip(b).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    (difference / square(&mut b.iter().map(|b| f64::from(*b))).max(1e-30)).sqrt()
}

/// Two slots on the processor with a worker each, as a plan on paper wants them.
pub const HOST: [Engine; 2] = [Engine::Host { workers: 1 }; 2];
