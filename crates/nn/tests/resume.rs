//! A run that was stopped and resumed has the bits of one that was not; a run that diverged keeps its weights.

mod common;

use alexnode_core::{BatchSource, ErrorCode};
use common::{CLASSES, Noise, network, segment, tensors, trainer, trainer_of_images};
use std::sync::atomic::AtomicBool;

const BATCH: usize = 4;

#[test]
fn resume_gives_the_same_bits_on_any_placement_it_was_saved_from() {
    let (folder, cancel) = (tempfile::tempdir().unwrap(), AtomicBool::new(false));
    let path = folder.path().join("step-4.safetensors");
    for slots in [1, 2] {
        let mut whole = trainer(network(), slots, 2, BATCH);
        whole.run(&mut Noise::new(BATCH), &segment(0, 0, 0, 6, 0.02), &cancel).unwrap();
        whole.run(&mut Noise::new(BATCH), &segment(1, 0, 6, 3, 0.01), &cancel).unwrap();

        let mut first = trainer(network(), slots, 2, BATCH);
        first.run(&mut Noise::new(BATCH), &segment(0, 0, 0, 4, 0.02), &cancel).unwrap();
        first.save(&path, "{\"step\":4}").unwrap();
        drop(first);
        let mut second = trainer(network(), slots, 2, BATCH);
        assert_eq!(second.load(&path).unwrap(), "{\"step\":4}");
        let mut rest = Noise { next: 4, ..Noise::new(BATCH) };
        second.run(&mut rest, &segment(0, 4, 4, 2, 0.02), &cancel).unwrap();
        second.run(&mut Noise::new(BATCH), &segment(1, 0, 6, 3, 0.01), &cancel).unwrap();
        assert!(tensors(&mut whole) == tensors(&mut second), "{slots} slots");
    }
    // A checkpoint of two slots loads into one.
    let (mut one, mut two) = (trainer(network(), 1, 2, BATCH), trainer(network(), 2, 2, BATCH));
    one.load(&path).unwrap();
    two.load(&path).unwrap();
    assert!(tensors(&mut one) == tensors(&mut two));
}

#[test]
fn a_checkpoint_brings_the_mean_image_it_was_trained_with() {
    let (folder, cancel) = (tempfile::tempdir().unwrap(), AtomicBool::new(false));
    let path = folder.path().join("a.safetensors");
    let loss = |trainer: &mut alexnode_nn::trainer::Trainer| {
        trainer.evaluate(&mut Noise::new(BATCH), 1, &cancel).unwrap().loss
    };
    for slots in [1, 2] {
        let mut trained = trainer(network(), slots, 2, BATCH);
        trained.save(&path, "").unwrap();
        let mut elsewhere = trainer_of_images(network(), slots, 2, BATCH, 60.0);
        assert_ne!(loss(&mut elsewhere), loss(&mut trained));
        elsewhere.load(&path).unwrap();
        assert_eq!(loss(&mut elsewhere), loss(&mut trained));
    }
}

#[test]
fn a_checkpoint_of_another_network_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let mut other = serde_json::to_value(network()).unwrap();
    other["layers"][0]["outChannels"] = 8.into();
    trainer(serde_json::from_value(other).unwrap(), 1, 1, BATCH).save(&path, "").unwrap();
    let mut mine = trainer(network(), 1, 1, BATCH);
    let before = tensors(&mut mine);
    let error = mine.load(&path).unwrap_err();
    assert!(error.code() == ErrorCode::Checkpoint && error.message().contains("conv"), "{error}");
    assert!(tensors(&mut mine) == before);
}

#[test]
fn a_loss_that_is_not_finite_stops_all_updates_and_names_the_layer() {
    for slots in [1, 2] {
        let cancel = AtomicBool::new(false);
        let mut spec = serde_json::to_value(network()).unwrap();
        spec["layers"][15] = serde_json::json!({ "type": "relu", "name": "relu7" }); // tanh would keep everything finite
        let mut trainer = trainer(serde_json::from_value(spec).unwrap(), slots, 2, BATCH);
        trainer.run(&mut Noise::new(BATCH), &segment(0, 0, 0, 2, 0.02), &cancel).unwrap();
        let absurd = segment(0, 2, 2, 1, 1e30);
        // The step with the absurd rate still has a finite loss; it ruins the weights for the next one.
        trainer.run(&mut Noise { next: 2, ..Noise::new(BATCH) }, &absurd, &cancel).unwrap();
        let ruined = tensors(&mut trainer);
        let after = segment(0, 3, 3, 3, 0.02);
        let error = trainer.run(&mut Noise { next: 3, ..Noise::new(BATCH) }, &after, &cancel).unwrap_err();
        assert_eq!(error.code(), ErrorCode::Diverged);
        assert_eq!(trainer.diverged().unwrap(), Some(3));
        assert!(
            format!("{:?}", tensors(&mut trainer)) == format!("{ruined:?}"),
            "{slots} slots: something was learnt after the failure"
        );
        let batch = Noise { next: 3, ..Noise::new(BATCH) }.next().unwrap().unwrap();
        let error = trainer.diagnose(&after, &batch).unwrap();
        assert!(error.code() == ErrorCode::Diverged && error.message().contains("step 3"), "{error}");
        assert!(error.message().contains("is the first layer with such outputs"), "{error}");
    }
}

#[test]
fn evaluation_is_deterministic_and_leaves_the_weights_alone() {
    let cancel = AtomicBool::new(false);
    let mut trainer = trainer(network(), 1, 2, BATCH);
    let before = tensors(&mut trainer);
    for views in [1, 10] {
        let first = trainer.evaluate(&mut Noise::new(BATCH), views, &cancel).unwrap();
        let second = trainer.evaluate(&mut Noise::new(BATCH), views, &cancel).unwrap();
        assert_eq!((first.loss, first.samples), (second.loss, (6 * BATCH - 1) as u64));
        assert!((first.loss - (CLASSES as f64).ln()).abs() < 2.0, "{first:?}");
    }
    assert!(tensors(&mut trainer) == before);
    let stopped = trainer.evaluate(&mut Noise::new(BATCH), 1, &AtomicBool::new(true)).unwrap_err();
    assert_eq!(stopped.code(), ErrorCode::Aborted);
}

#[test]
fn a_short_batch_learns_from_its_valid_samples_only() {
    let cancel = AtomicBool::new(false);
    let outcomes = [0u8, 255].map(|padding| {
        let mut trainer = trainer(network(), 1, 2, BATCH);
        let mut batch = Noise::new(BATCH).next().unwrap().unwrap();
        batch.valid = 2;
        let image = batch.pixels.len() / BATCH;
        batch.pixels[2 * image..].fill(padding);
        struct Once(Option<alexnode_core::Batch>);
        impl BatchSource for Once {
            fn next(&mut self) -> alexnode_core::Result<Option<alexnode_core::Batch>> {
                Ok(self.0.take())
            }
            fn recycle(&mut self, _: alexnode_core::Batch) {}
        }
        let report = trainer.run(&mut Once(Some(batch)), &segment(0, 0, 0, 5, 0.02), &cancel).unwrap();
        assert_eq!((report.steps, report.samples), (1, 2));
        tensors(&mut trainer)
    });
    assert!(outcomes[0] == outcomes[1]);
}
