//! A trained network that answers: what the trainer's evaluation finds, for any number of images, on every placement; and what its layers put out.

mod common;

use alexnode_core::{Backend, Batch, BatchSource, ErrorCode};
use alexnode_cpu::CpuBackend;
use alexnode_cuda::emulated::{Flavour, Options};
use alexnode_nn::{
    checkpoint,
    describe::describe,
    model::{Model, ModelConfig},
    trainer::Trainer,
};
use common::{BATCH, CLASSES, HOST, Noise, SIZE, emulated, first_losses, network, trainer};
use std::{path::PathBuf, sync::atomic::AtomicBool};

const BYTES: usize = SIZE * SIZE * 3;
static GO_ON: AtomicBool = AtomicBool::new(false);

/// A network that has learnt a little, and the checkpoint of it.
struct Trained {
    trainer: Trainer,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

fn trained() -> Trained {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let mut trainer = trainer(network(), 1, 2, BATCH);
    first_losses(&mut trainer, 12);
    trainer.save(&path, "").unwrap();
    Trained { trainer, path, _folder: folder }
}

fn model(trained: &Trained, backend: Box<dyn Backend>) -> Model {
    let config = ModelConfig { network: network(), batch: BATCH };
    Model::new(config, &checkpoint::read(&trained.path).unwrap(), backend).unwrap()
}

fn cpu(slots: usize) -> Box<dyn Backend> {
    Box::new(CpuBackend::new(slots, Some(2)).unwrap())
}

/// Every backend that there is, with a name for messages.
fn backends() -> Vec<(String, Box<dyn Backend>)> {
    let mut all = vec![("cpu".to_owned(), cpu(1)), ("cpu,cpu".to_owned(), cpu(2))];
    for ordinals in [&[0][..], &[0, 1]] {
        all.extend(emulated(ordinals, Options::default()).map(|backend| (format!("emulated {ordinals:?}"), backend)));
    }
    all
}

/// All images of [`Noise`] that count, and their labels.
fn images() -> (Vec<u8>, Vec<i32>) {
    let (mut source, mut pixels, mut labels) = (Noise::new(BATCH), Vec::new(), Vec::new());
    while let Some(Batch { pixels: more, labels: classes, valid, .. }) = source.next().unwrap() {
        pixels.extend_from_slice(&more[..valid * BYTES]);
        labels.extend_from_slice(&classes[..valid]);
    }
    (pixels, labels)
}

fn near(what: &str, got: &[f32], want: &[f32], tolerance: f32) {
    assert_eq!(got.len(), want.len(), "{what}");
    let largest = want.iter().fold(1e-3f32, |most, v| most.max(v.abs()));
    for (i, (a, b)) in got.iter().zip(want).enumerate() {
        assert!((a - b).abs() <= tolerance * largest, "{what}: element {i}: {a} and {b}");
    }
}

#[test]
fn it_finds_what_the_trainer_finds() {
    let mut trained = trained();
    let (pixels, labels) = images();
    for views in [1, 10] {
        let want = trained.trainer.evaluate(&mut Noise::new(BATCH), views, &GO_ON).unwrap();
        for (name, backend) in backends() {
            let mut model = model(&trained, backend);
            let report = model.evaluate(&mut Noise::new(BATCH), views, &GO_ON).unwrap();
            let rows = model.probabilities(&pixels, views, &GO_ON).unwrap();
            assert_eq!((report.samples, rows.len()), (labels.len() as u64, labels.len() * CLASSES), "{name}");
            if name == "cpu" {
                assert_eq!((report.loss, report.top1_error), (want.loss, want.top1_error), "the same bits");
            }
            let (mut loss, mut errors) = (0.0, [0; 2]);
            for (row, label) in rows.chunks(CLASSES).zip(&labels) {
                let own = row[*label as usize];
                let above = row.iter().filter(|p| **p > own).count();
                loss -= f64::from(own).ln() / labels.len() as f64;
                errors[0] += usize::from(above >= 1);
                errors[1] += usize::from(above >= 5);
                assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            }
            for (got, want) in errors.iter().zip([want.top1_error, want.top5_error]) {
                assert!((*got as f64 / labels.len() as f64 - want).abs() < 1e-9, "{name}, {views} views");
            }
            assert!((loss - want.loss).abs() < 1e-5, "{name}, {views} views: {loss} and {}", want.loss);
        }
    }
}

#[test]
fn any_number_of_images_gives_the_rows_of_all_together() {
    let trained = trained();
    let (pixels, _) = images();
    let mut model = model(&trained, cpu(1));
    let all = model.probabilities(&pixels, 1, &GO_ON).unwrap();
    for count in 0..=2 * BATCH + 1 {
        let some = model.probabilities(&pixels[..count * BYTES], 1, &GO_ON).unwrap();
        near(&format!("{count} images"), &some, &all[..count * CLASSES], 1e-5);
    }
    // What came before leaves no trace.
    let last = model.probabilities(&pixels[BYTES..2 * BYTES], 1, &GO_ON).unwrap();
    near("one image", &last, &all[CLASSES..2 * CLASSES], 1e-5);
}

/// The tensor `name` as it is in files.
fn tensor(trained: &mut Trained, name: &str) -> Vec<f32> {
    trained.trainer.tensor(name).unwrap().1
}

#[test]
fn layers_put_out_what_their_formulas_say() {
    let mut trained = trained();
    let (pixels, _) = images();
    let pixels = &pixels[..(BATCH + 1) * BYTES];
    let mut model = model(&trained, cpu(1));
    let mut of = |name: &str| {
        let layer = model.layer(name).unwrap();
        let shape = model.network().output(layer);
        (model.outputs(layer, pixels, &GO_ON).unwrap(), shape)
    };
    // conv1 comes out before the ReLU, which is part of its operation elsewhere.
    let conv1 = of("conv1").0;
    assert!(conv1.iter().any(|v| *v < 0.0));
    let relu: Vec<f32> = conv1.iter().map(|v| v.max(0.0)).collect();
    assert_eq!(of("relu1").0, relu);
    // Maps of the pooling: channel after channel, row after row.
    let ((lrn1, shape), (pool1, pooled)) = (of("lrn1"), of("pool1"));
    for (map, out) in lrn1.chunks(shape.pixels()).zip(pool1.chunks(pooled.pixels())) {
        for (at, value) in out.iter().enumerate() {
            let (top, left) = (at / pooled.w * 2, at % pooled.w * 2);
            let window =
                (top..(top + 3).min(shape.h)).flat_map(|y| (left..(left + 3).min(shape.w)).map(move |x| (y, x)));
            let largest = window.map(|(y, x)| map[y * shape.w + x]).fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(*value, largest);
        }
    }
    let (relu6, drop6) = (of("relu6").0, of("drop6").0);
    assert_eq!(drop6, relu6.iter().map(|v| 0.5 * v).collect::<Vec<_>>());
    let (fc7, tanh7) = (of("fc7").0, of("tanh7").0);
    near("tanh7", &tanh7, &fc7.iter().map(|v| v.tanh()).collect::<Vec<_>>(), 1e-5);
    // The order of elements is that of the weights in files.
    let (pool3, (fc6, hidden), logits) = (of("pool3").0, of("fc6"), of("fc8").0);
    let (weight, bias) = (tensor(&mut trained, "fc6.weight"), tensor(&mut trained, "fc6.bias"));
    let inputs = weight.len() / hidden.len();
    let product = pool3.chunks(inputs).flat_map(|x| {
        let rows = weight.chunks(inputs).zip(&bias);
        rows.map(|(w, b)| w.iter().zip(x).map(|(w, x)| w * x).sum::<f32>() + b).collect::<Vec<_>>()
    });
    near("fc6", &fc6, &product.collect::<Vec<_>>(), 1e-4);
    let softmax = logits.chunks(CLASSES).flat_map(|row| {
        let sum: f32 = row.iter().map(|z| z.exp()).sum();
        row.iter().map(|z| z.exp() / sum).collect::<Vec<_>>()
    });
    near("fc8", &model.probabilities(pixels, 1, &GO_ON).unwrap(), &softmax.collect::<Vec<_>>(), 1e-5);
}

#[test]
fn layers_put_out_the_same_on_every_placement() {
    let trained = trained();
    let (pixels, _) = images();
    let pixels = &pixels[..3 * BYTES];
    let mut want: Vec<Vec<f32>> = Vec::new();
    for (name, backend) in backends() {
        let mut model = model(&trained, backend);
        for layer in 0..model.network().len() {
            let got = model.outputs(layer, pixels, &GO_ON).unwrap();
            match want.get(layer) {
                None => want.push(got),
                Some(want) => near(&format!("{name}, {}", model.network().layer(layer).name()), &got, want, 1e-4),
            }
        }
    }
}

/// No race, nothing out of bounds, nothing read that nobody wrote, a batch that is not full included.
#[test]
fn every_access_is_sound() {
    let trained = trained();
    let (pixels, _) = images();
    for ordinals in [&[0][..], &[0, 1]] {
        let options = Options { flavour: Flavour::Check, ..Options::default() };
        let Some(backend) = emulated(ordinals, options) else { return };
        let mut model = model(&trained, backend);
        model.probabilities(&pixels[..4 * BYTES], 2, &GO_ON).unwrap();
        let layer = model.layer("relu6").unwrap();
        model.outputs(layer, &pixels[..4 * BYTES], &GO_ON).unwrap();
    }
}

#[test]
fn there_is_no_momentum() {
    let trained = trained();
    let model = model(&trained, cpu(2));
    let training = describe(network(), BATCH, false, &HOST).unwrap().memory;
    for (mine, training) in model.memory().iter().zip(training) {
        assert_eq!((mine.parameter_bytes, mine.momentum_bytes), (training.parameter_bytes, 0));
        assert!(mine.total_bytes < training.total_bytes - training.momentum_bytes);
    }
}

#[test]
fn what_is_wrong_is_named() {
    let trained = trained();
    let mut model = model(&trained, cpu(1));
    let error = model.layer("fc9").unwrap_err();
    assert_eq!(error.code(), ErrorCode::Usage);
    assert!(error.remedy().unwrap().contains("fc8"));
    assert_eq!(model.probabilities(&[0; BYTES + 1], 1, &GO_ON).unwrap_err().code(), ErrorCode::Shape);
    let stopped = model.probabilities(&[0; BYTES], 1, &AtomicBool::new(true)).unwrap_err();
    assert_eq!(stopped.code(), ErrorCode::Aborted);
    let mut spec = serde_json::to_value(network()).unwrap();
    spec["classes"] = 7.into();
    spec["layers"].as_array_mut().unwrap().last_mut().unwrap()["outFeatures"] = 7.into();
    let config = ModelConfig { network: serde_json::from_value(spec).unwrap(), batch: BATCH };
    let file = checkpoint::read(&trained.path).unwrap();
    let Err(error) = Model::new(config, &file, cpu(1)) else { panic!("another network") };
    assert_eq!(error.code(), ErrorCode::Checkpoint);
    assert!(error.message().contains("fc8.weight"), "{error}");
}
