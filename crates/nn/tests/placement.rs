//! The mathematics does not depend on the placement: one slot, two slots, any number of threads.

mod common;

use alexnode_core::{BatchSource, ErrorCode};
use alexnode_nn::{describe::describe, network::NetworkSpec};
use common::{BATCH, HOST, Noise, losses, network, relative_l2, segment, tensors, trainer};
use std::sync::atomic::AtomicBool;

#[test]
fn two_slots_compute_what_one_does() {
    let (mut one, mut two) = (trainer(network(), 1, 2, BATCH), trainer(network(), 2, 2, BATCH));
    let begin = tensors(&mut one);
    for ((name, a), (_, b)) in begin.iter().zip(tensors(&mut two)) {
        assert_eq!(a, &b, "{name} begins differently");
    }
    let (a, b) = (losses(&mut one), losses(&mut two));
    for (step, (a, b)) in a.iter().zip(&b).enumerate() {
        assert!((a - b).abs() <= 1e-4 * b.abs(), "step {step}: {a} and {b}");
    }
    assert!(tensors(&mut one).iter().zip(&begin).all(|(end, begin)| end.1 != begin.1), "a tensor never changed");
    for ((name, a), (_, b)) in tensors(&mut one).iter().zip(tensors(&mut two)) {
        let distance = relative_l2(a, &b);
        assert!(distance <= 1e-4, "{name}: relative L2 {distance:e}");
    }
}

#[test]
fn where_only_convolutions_and_linear_layers_cross_the_bits_are_the_same() {
    let mut spec = serde_json::to_value(network()).unwrap();
    spec["layers"][9]["groups"] = 2.into(); // a norm over both towers sums its windows in another order
    let spec: NetworkSpec = serde_json::from_value(spec).unwrap();
    let [one, two] = [1, 2].map(|slots| {
        let mut trainer = trainer(spec.clone(), slots, 2, BATCH);
        (losses(&mut trainer), tensors(&mut trainer))
    });
    assert!(one == two);
}

#[test]
fn the_bits_do_not_depend_on_the_number_of_threads() {
    for slots in [1, 2] {
        let mut first = trainer(network(), slots, slots, BATCH);
        let expected = (losses(&mut first), tensors(&mut first));
        for threads in [2, 3, 5] {
            let mut other = trainer(network(), slots, threads * slots, BATCH);
            assert!((losses(&mut other), tensors(&mut other)) == expected, "{slots} slots, {threads} threads each");
        }
    }
}

#[test]
fn the_bytes_between_two_slots_are_those_of_the_shapes() {
    let one = describe(network(), BATCH, false, &HOST[..1]).unwrap().counters;
    assert_eq!((one.transfers, one.transfer_bytes), (0, 0));
    let two = describe(network(), BATCH, false, &HOST).unwrap().counters;
    // conv3 and lrn3 read both towers' maps, fc6 and fc7 both towers' vectors, fc8 one half of them; both ways.
    let (conv2, conv3, pool3) = (6 * 6 * 24, 6 * 6 * 16, 3 * 3 * 16);
    assert_eq!(two.transfer_bytes, 2 * BATCH * 4 * (conv2 + conv3 + pool3 + 32 + 32 / 2));
    assert_eq!(two.transfers, 2 * (4 * 2 + 1));
}

#[test]
fn two_slots_hold_what_one_does_between_them() {
    let (one, two) =
        (describe(network(), BATCH, false, &HOST[..1]).unwrap(), describe(network(), BATCH, false, &HOST).unwrap());
    let sum: usize = two.memory.iter().map(|slot| slot.parameter_bytes).sum();
    let exact = one.parameters * 4;
    assert!(one.memory[0].parameter_bytes == exact && sum == exact, "{exact}: {:?} {:?}", one.memory, two.memory);
    assert!(two.memory.iter().all(|slot| slot.activation_bytes < one.memory[0].activation_bytes));
}

#[test]
fn what_cannot_be_placed_is_a_usage_error() {
    for slots in [3, 4] {
        assert_eq!(describe(network(), BATCH, false, &vec![HOST[0]; slots]).unwrap_err().code(), ErrorCode::Usage);
    }
    let mut odd = serde_json::to_value(network()).unwrap();
    odd["layers"][7]["outChannels"] = 15.into();
    let error = describe(serde_json::from_value(odd).unwrap(), BATCH, false, &HOST).unwrap_err();
    assert!(error.code() == ErrorCode::Usage && error.message().starts_with("conv3 (Conv2d): 15 channels"), "{error}");
}

#[test]
fn segments_of_any_length_give_the_same_bits() {
    let cancel = AtomicBool::new(false);
    let mut outcomes = [vec![6], vec![1, 1, 1, 1, 1, 1], vec![4, 2]].map(|lengths| {
        let mut trainer = trainer(network(), 1, 2, BATCH);
        let mut source = Noise::new(BATCH);
        let mut step = 0;
        for length in lengths {
            let report = trainer.run(&mut source, &segment(0, step, step as u32, length, 0.02), &cancel).unwrap();
            assert_eq!(report.steps, length);
            step += length;
        }
        assert!(source.next().unwrap().is_none());
        tensors(&mut trainer)
    });
    assert!(outcomes.iter_mut().all(|outcome| !outcome.is_empty()));
    assert!(outcomes[0] == outcomes[1] && outcomes[0] == outcomes[2]);
}
