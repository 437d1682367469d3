//! What is told of weights, updates, units and single images agrees with what the network and its checkpoint say, on every placement.

mod common;

use alexnode_core::{Backend, BatchSource};
use alexnode_cpu::CpuBackend;
use alexnode_cuda::emulated::Options;
use alexnode_nn::{
    checkpoint,
    model::{Model, ModelConfig},
    statistics::Statistics,
    trainer::Trainer,
};
use common::{BATCH, CLASSES, Noise, SIZE, emulated, first_losses, network, trainer, trainer_on};
use std::sync::atomic::AtomicBool;

static GO_ON: AtomicBool = AtomicBool::new(false);

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-4 * a.abs().max(b.abs()).max(1e-9)
}

fn pixels() -> Vec<u8> {
    let (mut source, mut all) = (Noise::new(BATCH), Vec::new());
    while let Some(batch) = source.next().unwrap() {
        all.extend_from_slice(&batch.pixels[..batch.valid * SIZE * SIZE * 3]);
    }
    all
}

/// What a model of the trainer's checkpoint puts out at `layer`, per image.
fn outputs(trainer: &mut Trainer, layer: &str) -> Vec<f32> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    trainer.save(&path, "").unwrap();
    let config = ModelConfig { network: network(), batch: BATCH };
    let backend = Box::new(CpuBackend::new(1, Some(2)).unwrap());
    let mut model = Model::new(config, &checkpoint::read(&path).unwrap(), backend).unwrap();
    let index = model.layer(layer).unwrap();
    model.outputs(index, &pixels(), &GO_ON).unwrap()
}

/// Dead units and the share of positive outputs, of rows of `units` maps of `pixels` numbers.
fn dead(rows: &[f32], units: usize, pixels: usize) -> (usize, f64) {
    let alive = |unit: usize| {
        rows.chunks(units * pixels).any(|row| row[unit * pixels..][..pixels].iter().any(|value| *value > 0.0))
    };
    let positive = rows.iter().filter(|value| **value > 0.0).count();
    ((0..units).filter(|unit| !alive(*unit)).count(), positive as f64 / rows.len() as f64)
}

#[test]
fn units_and_updates_are_those_of_the_network() {
    let mut trainer = trainer(network(), 1, 2, BATCH);
    first_losses(&mut trainer, 12);
    let before = trainer.tensor("conv1.weight").unwrap();
    let found = trainer.statistics(&mut Noise::new(BATCH), &GO_ON).unwrap();
    assert_eq!(found.images, 6 * BATCH - 1);
    assert_eq!(trainer.tensor("conv1.weight").unwrap(), before, "nothing is learnt by looking");
    for statistics in &found.parameters {
        let (_, weights) = trainer.tensor(&statistics.name).unwrap();
        let (_, updates) = trainer.tensor(&format!("momentum.{}", statistics.name)).unwrap();
        let mean = |f: &dyn Fn(f64, f64) -> f64| {
            weights.iter().zip(&updates).map(|(w, v)| f(f64::from(*w), f64::from(*v))).sum::<f64>()
                / weights.len() as f64
        };
        assert!(close(statistics.weight, mean(&|w, _| w * w).sqrt()), "{statistics:?}");
        assert!(close(statistics.update, mean(&|_, v| v * v).sqrt()), "{statistics:?}");
        assert!((statistics.product - mean(&|w, v| w * v)).abs() < 1e-9, "{statistics:?}");
        assert!(statistics.update > 0.0, "{statistics:?}");
    }
    let names: Vec<&str> = found.relus.iter().map(|relu| relu.layer.as_str()).collect();
    assert_eq!(names, ["relu1", "relu2", "relu3", "relu6"]);
    for relu in &found.relus {
        let rows = outputs(&mut trainer, &relu.layer);
        let map = rows.len() / found.images / relu.units;
        let (count, active) = dead(&rows, relu.units, map);
        assert_eq!(relu.dead, count, "{relu:?}");
        assert!((relu.active - active).abs() < 1e-3, "{relu:?} and {active}");
    }
}

#[test]
fn a_bias_far_below_zero_kills_a_layer() {
    let mut spec = network();
    let value = serde_json::to_value(&spec.layers[4]).unwrap();
    let mut layer = value.as_object().unwrap().clone();
    layer.insert("biasInit".into(), serde_json::json!(-1000.0));
    spec.layers[4] = serde_json::from_value(layer.into()).unwrap();
    let mut trainer = trainer(spec, 1, 2, BATCH);
    let found = trainer.statistics(&mut Noise::new(BATCH), &GO_ON).unwrap();
    let relu2 = &found.relus[1];
    assert_eq!((relu2.layer.as_str(), relu2.units, relu2.dead, relu2.active), ("relu2", 24, 24, 0.0));
    assert!(found.relus[0].dead < found.relus[0].units);
}

#[test]
fn every_placement_finds_the_same() {
    let look = |mut trainer: Trainer| -> Statistics { trainer.statistics(&mut Noise::new(BATCH), &GO_ON).unwrap() };
    let want = look(trainer(network(), 1, 2, BATCH));
    let mut others: Vec<(&str, Box<dyn Backend>)> = vec![("cpu,cpu", Box::new(CpuBackend::new(2, Some(2)).unwrap()))];
    others.extend(emulated(&[0, 1], Options::default()).map(|backend| ("emulated", backend)));
    for (name, backend) in others {
        let got = look(trainer_on(backend, network(), BATCH, 120.0));
        for (a, b) in got.parameters.iter().zip(&want.parameters) {
            assert!(a.name == b.name && close(a.weight, b.weight), "{name}: {a:?} and {b:?}");
        }
        for (a, b) in got.relus.iter().zip(&want.relus) {
            assert_eq!((&a.layer, a.units, a.dead), (&b.layer, b.units, b.dead), "{name}");
            assert!((a.active - b.active).abs() < 1e-2, "{name}: {a:?} and {b:?}");
        }
    }
}

#[test]
fn each_image_of_an_evaluation_is_told() {
    let mut trainer = trainer(network(), 1, 2, BATCH);
    first_losses(&mut trainer, 12);
    for views in [1, 10] {
        let plain = trainer.evaluate(&mut Noise::new(BATCH), views, &GO_ON).unwrap();
        let (report, outcomes) = trainer.judge(&mut Noise::new(BATCH), views, &GO_ON).unwrap();
        assert_eq!((report.loss, report.top1_error, report.samples), (plain.loss, plain.top1_error, plain.samples));
        let images = 6 * BATCH - 1;
        assert_eq!(outcomes.ids, (0..images as u32).collect::<Vec<_>>());
        assert_eq!(outcomes.classes.len(), 5 * images);
        let wrong = (0..images).filter(|i| outcomes.classes[5 * i] != outcomes.labels[*i]).count();
        assert!(close(report.top1_error, wrong as f64 / images as f64));
        let loss: f64 = outcomes.own.iter().map(|p| -f64::from(*p).ln()).sum::<f64>() / images as f64;
        assert!((loss - report.loss).abs() < 1e-4, "{loss} and {}", report.loss);
        assert!(outcomes.labels.iter().all(|label| (*label as usize) < CLASSES));
    }
}
