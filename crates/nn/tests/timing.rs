//! Times of a training step: what is counted is what the plan does, and a measurement leaves no trace. No time itself is judged.

mod common;

use alexnode_core::{Backend, ErrorCode};
use alexnode_cpu::CpuBackend;
use alexnode_cuda::emulated::Options;
use alexnode_nn::{
    timing::{PartTiming, Pass, Spread, TimingOptions, Timings},
    trainer::Trainer,
};
use common::{BATCH, Noise, emulated, losses, network, tensors, trainer_on};
use std::sync::atomic::AtomicBool;

const OPTIONS: TimingOptions = TimingOptions { rounds: 3, sample_seconds: 0.0 };

fn measure(trainer: &mut Trainer, options: TimingOptions) -> alexnode_core::Result<Timings> {
    use alexnode_core::BatchSource;
    let batch = Noise::new(BATCH).next().unwrap().unwrap();
    trainer.timings(&batch, &options, &AtomicBool::new(false))
}

fn on(backend: Box<dyn Backend>) -> Trainer {
    trainer_on(backend, network(), BATCH, 120.0)
}

/// One slot and two of every kind that there is here.
fn backends() -> Vec<(String, Box<dyn Backend>)> {
    let mut backends: Vec<(String, Box<dyn Backend>)> = Vec::new();
    for slots in [1, 2] {
        backends.push((format!("cpu x {slots}"), Box::new(CpuBackend::new(slots, Some(2)).unwrap())));
    }
    for ordinals in [&[0][..], &[0, 1]] {
        if let Some(backend) = emulated(ordinals, Options::default()) {
            backends.push((format!("emulated {ordinals:?}"), backend));
        }
    }
    backends
}

#[test]
fn every_operation_is_timed_and_counted() {
    for (name, backend) in backends() {
        let slots = backend.slots().len();
        let mut trainer = on(backend);
        let timings = measure(&mut trainer, OPTIONS).unwrap();
        let counters = trainer.counters();
        assert_eq!((timings.slots.len(), timings.batch, timings.rounds), (slots, BATCH, 3), "{name}");
        let positive =
            |spread: &Spread| 0.0 < spread.least && spread.least <= spread.median && spread.median <= spread.most;
        assert!(positive(&timings.step) && positive(&timings.images_per_second), "{name}: {timings:?}");
        assert!((timings.images_per_second.median * timings.step.median / BATCH as f64 - 1.0).abs() < 1e-9);
        let of = |pass: Pass| timings.parts.iter().filter(move |part| part.pass == pass);
        let operations = || timings.parts.iter().flat_map(|part| &part.operations);
        assert!(timings.parts.iter().all(|part| positive(&part.seconds)), "{name}: {timings:?}");
        assert!(operations().all(|op| positive(&op.seconds) && op.bytes > 0 && op.repeats == 1), "{name}: {timings:?}");
        assert_eq!(operations().filter(|op| op.name != "copy").count(), counters.launches, "{name}");
        // The bytes of a transfer are read there and written here.
        let transfers: Vec<_> = of(Pass::Transfer).flat_map(|part| &part.operations).collect();
        let bytes: u64 = transfers.iter().map(|op| op.bytes / 2).sum();
        assert_eq!((transfers.len(), bytes as usize), (counters.transfers, counters.transfer_bytes), "{name}");
    }
}

#[test]
fn the_parts_of_a_layer_know_its_work() {
    for (name, backend) in backends() {
        let mut trainer = on(backend);
        let timings = measure(&mut trainer, OPTIONS).unwrap();
        let part = |layer: &str, pass: Pass| {
            let mut found = timings.parts.iter().filter(|p| p.pass == pass && p.layer.as_deref() == Some(layer));
            let part: Option<&PartTiming> = found.next();
            assert!(found.next().is_none(), "{name}: {layer} {pass:?} twice");
            part
        };
        let network = trainer.network();
        for index in 0..network.len() {
            let layer = network.layer(index);
            let flops = 2 * layer.macs(network.input(index)) * BATCH as u64;
            if flops == 0 {
                continue;
            }
            for pass in [Pass::Forward, Pass::DataGradient, Pass::WeightGradient] {
                let found = part(layer.name(), pass).map(|part| part.flops);
                // Nobody wants the gradient by the image.
                let wanted = (layer.name() != "conv1" || pass != Pass::DataGradient).then_some(flops);
                assert_eq!(found, wanted, "{name}: {} {pass:?}", layer.name());
            }
            // On a processor linear layers learn while they make the gradient.
            let learns_at_once = name.starts_with("cpu") && layer.kind() == "Linear";
            let update = part(layer.name(), Pass::Update).map(|part| part.flops);
            assert_eq!(update, (!learns_at_once).then_some(0), "{name}: {}", layer.name());
            let gradient = &part(layer.name(), Pass::WeightGradient).unwrap().operations;
            let kernel = if learns_at_once { "linear_update" } else { "weight_gradient" };
            assert!(gradient.iter().all(|op| op.name.ends_with(kernel)), "{name}: {gradient:?}");
        }
        assert!(part("fc8", Pass::Loss).is_some(), "{name}");
        assert!(timings.parts.iter().any(|part| part.layer.is_none() && part.pass == Pass::Input), "{name}");
    }
}

#[test]
fn a_measurement_leaves_no_trace() {
    for ((name, backend), (_, other)) in backends().into_iter().zip(backends()) {
        let (mut plain, mut timed) = (on(other), on(backend));
        measure(&mut timed, TimingOptions { rounds: 2, sample_seconds: 1e-4 }).unwrap();
        assert!(tensors(&mut timed) == tensors(&mut plain), "{name}: other weights after a measurement");
        assert!(losses(&mut timed) == losses(&mut plain), "{name}: other losses after a measurement");
    }
}

#[test]
fn what_cannot_be_measured_is_told() {
    let mut trainer = on(Box::new(CpuBackend::new(1, Some(1)).unwrap()));
    let code = |result: alexnode_core::Result<Timings>| result.unwrap_err().code();
    assert_eq!(code(measure(&mut trainer, TimingOptions { rounds: 0, ..OPTIONS })), ErrorCode::Usage);
    assert_eq!(code(measure(&mut trainer, TimingOptions { sample_seconds: f64::NAN, ..OPTIONS })), ErrorCode::Usage);
    let batch = alexnode_core::BatchSource::next(&mut Noise::new(BATCH)).unwrap().unwrap();
    assert_eq!(code(trainer.timings(&batch, &OPTIONS, &AtomicBool::new(true))), ErrorCode::Aborted);
    assert!(measure(&mut trainer, OPTIONS).is_ok());
}

#[test]
fn a_spread_is_the_middle_and_the_ends() {
    let spread = |samples: &[f64]| Spread::of(samples);
    assert_eq!(spread(&[3.0, 1.0, 2.0]), Spread { median: 2.0, least: 1.0, most: 3.0 });
    assert_eq!(spread(&[4.0, 1.0, 2.0, 3.0]).median, 2.5);
    assert_eq!(spread(&[2.0, 4.0]).rate(12.0), Spread { median: 4.0, least: 3.0, most: 6.0 });
}
