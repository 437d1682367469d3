//! A loss that is weighed by the classes: in whole trainings, on the processor and on emulated devices.

mod common;

use alexnode_core::{Backend, ErrorCode};
use alexnode_cpu::CpuBackend;
use alexnode_cuda::emulated::{Flavour, Options, Streams};
use alexnode_nn::{describe::describe, trainer::Trainer};
use common::{
    BATCH, CLASSES, HOST, Noise, emulated, first_losses, network, relative_l2, tensors, trainer_on, weighed_trainer,
};
use std::sync::atomic::AtomicBool;

fn processor(slots: usize) -> Box<dyn Backend> {
    Box::new(CpuBackend::new(slots, Some(2)).unwrap())
}

fn weights() -> Vec<f32> {
    (0..CLASSES).map(|class| 0.25 + class as f32 / 4.0).collect()
}

fn weighed(backend: Box<dyn Backend>, weights: Vec<f32>) -> Trainer {
    weighed_trainer(backend, network(), BATCH, 120.0, Some(weights)).unwrap()
}

/// Losses of some steps, and what was learnt in them.
type Outcome = (Vec<f64>, Vec<(String, Vec<f32>)>);

fn train(mut trainer: Trainer) -> Outcome {
    (first_losses(&mut trainer, 5), tensors(&mut trainer))
}

#[test]
fn weights_of_1_are_none() {
    for slots in [1, 2] {
        let plain = train(trainer_on(processor(slots), network(), BATCH, 120.0));
        assert!(train(weighed(processor(slots), vec![1.0; CLASSES])) == plain, "{slots} slots");
        assert!(train(weighed(processor(slots), weights())).1 != plain.1, "{slots} slots");
    }
}

#[test]
fn processor_and_emulated_devices_agree() {
    let want = train(weighed(processor(1), weights()));
    let mut others = vec![processor(2)];
    let late = Options { streams: Streams::Late, ..Options::default() };
    let checked = Options { flavour: Flavour::Check, ..late.clone() };
    others.extend(
        [(&[0][..], late.clone()), (&[0, 1], late), (&[0, 1], checked)]
            .into_iter()
            .filter_map(|(on, how)| emulated(on, how)),
    );
    for backend in others {
        let got = train(weighed(backend, weights()));
        assert!(got.0.iter().zip(&want.0).all(|(a, b)| (a - b).abs() <= 1e-4 * b.abs()), "{:?} {:?}", got.0, want.0);
        for ((name, a), (_, b)) in got.1.iter().zip(&want.1) {
            assert!(relative_l2(a, b) <= 1e-4, "{name}");
        }
    }
}

/// With the weights of all classes but one at 0 only the images of that one teach anything: the first bias gradient of the last layer says so.
#[test]
fn a_class_of_weight_0_teaches_nothing() {
    let mut only = vec![0.0; CLASSES];
    only[3] = 1.0;
    let mut trainer = weighed(processor(1), only);
    let before = trainer.tensor("fc8.bias").unwrap().1;
    // Classes 0 to 5: one image of class 3.
    let segment = common::segment(0, 0, 0, 1, 0.1);
    trainer.run(&mut Noise::new(BATCH), &segment, &AtomicBool::new(false)).unwrap();
    let moved: Vec<f32> = trainer.tensor("fc8.bias").unwrap().1.iter().zip(before).map(|(a, b)| a - b).collect();
    for (class, by) in moved.iter().enumerate() {
        assert!(if class == 3 { *by > 0.0 } else { *by < 0.0 }, "{moved:?}");
    }
    let sum: f32 = moved.iter().sum();
    assert!(sum.abs() < 1e-6, "p - onehot sums to 0: {moved:?}");
}

#[test]
fn what_a_loss_with_weights_takes_is_known_beforehand() {
    let [plain, weighed] = [false, true].map(|weighed| describe(network(), BATCH, weighed, &HOST[..1]).unwrap());
    assert_eq!(weighed.counters.launches, plain.counters.launches + 1);
    let more = weighed.memory[0].total_bytes - plain.memory[0].total_bytes;
    assert!((CLASSES * 4..=CLASSES * 4 + 256).contains(&more), "{more}");
}

#[test]
fn impossible_weights_are_refused() {
    let refused =
        |weights| weighed_trainer(processor(1), network(), BATCH, 120.0, Some(weights)).map(|_| ()).unwrap_err();
    let error = refused(vec![1.0; CLASSES - 1]);
    assert_eq!((error.code(), error.message()), (ErrorCode::Shape, "mini: expected 10 class weights, got 9"));
    for bad in [f32::NAN, f32::INFINITY, -1.0] {
        let error = refused([vec![1.0; 4], vec![bad; CLASSES - 4]].concat());
        assert!(error.code() == ErrorCode::Usage && error.message().contains("class 4"), "{error}");
    }
}
