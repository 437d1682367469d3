//! Steps with stamps between their operations: every operation is there, and nothing of a step is counted twice. No time itself is judged.

mod common;

use alexnode_core::{Backend, BatchSource, ErrorCode};
use alexnode_cpu::CpuBackend;
use alexnode_cuda::emulated::Options;
use alexnode_nn::{
    timing::{
        Pass,
        profile::{Mode, Profile, ProfileOptions},
    },
    trainer::Trainer,
};
use common::{BATCH, Noise, emulated, losses, network, trainer_on};
use std::sync::atomic::AtomicBool;

fn profile(trainer: &mut Trainer, mode: Mode, steps: usize) -> alexnode_core::Result<Profile> {
    let batch = Noise::new(BATCH).next().unwrap().unwrap();
    trainer.profile(&batch, &ProfileOptions { mode, steps }, &AtomicBool::new(false))
}

fn on(backend: Box<dyn Backend>) -> Trainer {
    trainer_on(backend, network(), BATCH, 120.0)
}

fn cpu(slots: usize) -> Box<dyn Backend> {
    Box::new(CpuBackend::new(slots, Some(2)).unwrap())
}

#[test]
fn the_intervals_of_a_slot_are_a_part_of_the_step() {
    let emulated = [&[0][..], &[0, 1]].into_iter().filter_map(|ordinals| emulated(ordinals, Options::default()));
    for backend in [1, 2].map(cpu).into_iter().chain(emulated) {
        let (slots, name) = (backend.slots().len(), backend.slots()[0].device.to_string());
        let mut trainer = on(backend);
        let counters = trainer.counters();
        for mode in [Mode::Train, Mode::Evaluate] {
            let found = profile(&mut trainer, mode, 2).unwrap();
            assert_eq!((found.slots.len(), found.batch, found.steps.len()), (slots, BATCH, 2), "{name}");
            for step in &found.steps {
                assert_eq!(step.intervals.len(), found.intervals.len(), "{name}");
                for slot in 0..slots {
                    let own = found.intervals.iter().zip(&step.intervals).filter(|(i, _)| usize::from(i.slot) == slot);
                    let sum: f64 = own.map(|(_, seconds)| seconds).sum();
                    assert!(step.upload > 0.0 && sum > 0.0, "{name} x {slots}: {step:?}");
                    assert!(step.upload + sum <= step.seconds, "{name} x {slots}: {sum} + {step:?}");
                }
            }
            let copies = found.intervals.iter().filter(|i| i.name == "copy" && i.pass == Pass::Transfer);
            let waits = found.intervals.iter().filter(|i| i.name == "wait");
            assert!(waits.clone().all(|i| i.pass == Pass::Transfer || i.pass == Pass::Loss), "{name}");
            if mode == Mode::Train {
                let launches = found.intervals.iter().filter(|i| !["copy", "wait"].contains(&i.name)).count();
                assert_eq!((launches, copies.clone().count()), (counters.launches, counters.transfers), "{name}");
                assert_eq!(copies.map(|i| i.bytes / 2).sum::<u64>() as usize, counters.transfer_bytes, "{name}");
                assert!(waits.count() >= counters.transfers);
            } else {
                let trained = [Pass::DataGradient, Pass::WeightGradient, Pass::Update];
                assert!(found.intervals.iter().all(|i| !trained.contains(&i.pass)), "{name}: {found:?}");
            }
        }
    }
}

#[test]
fn a_trainer_goes_on_after_a_profile() {
    let mut trainer = on(cpu(1));
    profile(&mut trainer, Mode::Train, 1).unwrap();
    assert!(losses(&mut trainer).iter().all(|loss| loss.is_finite()));
}

#[test]
fn what_cannot_be_profiled_is_told() {
    let mut trainer = on(cpu(1));
    assert_eq!(profile(&mut trainer, Mode::Train, 0).unwrap_err().code(), ErrorCode::Usage);
    let batch = Noise::new(BATCH).next().unwrap().unwrap();
    let options = ProfileOptions { mode: Mode::Evaluate, steps: 1 };
    let stopped = trainer.profile(&batch, &options, &AtomicBool::new(true));
    assert_eq!(stopped.unwrap_err().code(), ErrorCode::Aborted);
    let small = Noise::new(BATCH - 1).next().unwrap().unwrap();
    assert_eq!(trainer.profile(&small, &options, &AtomicBool::new(false)).unwrap_err().code(), ErrorCode::Shape);
}
