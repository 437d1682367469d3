//! What a plan fuses changes the list of operations and the memory, not the mathematics.

mod common;

use alexnode_core::{BufferId, Engine, Precision, SlotId, Target, View};
use alexnode_cuda::emulated::Options;
use alexnode_nn::{
    lower::External,
    network::{Network, NetworkSpec},
    placement::Placement,
    plan::{Op, Plan},
    request::{Mode, Request},
    trainer::Trainer,
};
use common::{BATCH, HOST, Noise, emulated, network, relative_l2, segment, tensors, trainer, trainer_on};
use serde_json::json;
use std::{collections::BTreeMap, sync::atomic::AtomicBool};

const CUDA: [Engine; 2] = [Engine::Cuda(Target { compute: 80, precision: Precision::Fp32 }); 2];

/// The network of the other tests with everything that fuses: normalisations before a max pooling within the towers and over both, a dropout behind a
/// ReLU and one right behind a linear layer.
fn fusible() -> NetworkSpec {
    arranged(false)
}

/// The same mathematics with nothing to fuse.
fn apart() -> NetworkSpec {
    arranged(true)
}

/// Has layers that do nothing; with `apart` they stand between those that would become one, else beside them, so that every layer with random numbers has the
/// same place in both networks.
fn arranged(apart: bool) -> NetworkSpec {
    let mut spec = serde_json::to_value(network()).unwrap();
    spec["layers"][10]["type"] = "maxPool2d".into();
    spec["layers"][15] = json!({ "type": "dropout", "name": "drop7", "p": 0.3, "inverted": true });
    let layers = spec["layers"].as_array_mut().unwrap();
    for (name, behind) in [("pool1", !apart), ("pool3", !apart), ("fc6", apart), ("fc7", apart)] {
        let place = layers.iter().position(|layer| layer["name"] == name).unwrap() + usize::from(behind);
        layers.insert(place, json!({ "type": "dropout", "name": format!("idle beside {name}"), "p": 0.0 }));
    }
    serde_json::from_value(spec).unwrap()
}

fn plan(network: &Network, mode: Mode, engines: &[Engine]) -> Plan {
    plan_with(network, mode, engines, false)
}

fn plan_with(network: &Network, mode: Mode, engines: &[Engine], keep_gradients: bool) -> Plan {
    let placement = Placement::new(engines.len()).unwrap();
    let (batch, momentum, class_weights, engines) = (BATCH, 0.9, false, engines.to_vec());
    Plan::build(&Request { network, placement, batch, mode, momentum, class_weights, keep_gradients, engines }).unwrap()
}

/// The operations of slot 0, by name.
fn names(plan: &Plan) -> Vec<&'static str> {
    let mut places: BTreeMap<(SlotId, External), View> = BTreeMap::new();
    for (index, need) in plan.needs().into_iter().enumerate() {
        let buffer = BufferId { slot: need.slot, index: 100 + index as u32 };
        places.insert((need.slot, need.what), View { buffer, offset: 0, bytes: need.bytes });
    }
    let arenas = [0, 1].map(|slot| BufferId { slot: SlotId(slot), index: 0 });
    let ops = plan.bind(&arenas, &|slot, what| places[&(slot, what)]);
    ops.iter().filter_map(Op::launch).filter(|(slot, _)| slot.0 == 0).map(|(_, launch)| launch.kernel.name).collect()
}

#[test]
fn the_list_of_operations_shows_what_is_fused() {
    let [network, apart] = [fusible(), apart()].map(|spec| Network::new(spec).unwrap());
    for engines in [1, 2] {
        let forward = |mode, engines: &[Engine]| -> Vec<&'static str> {
            let until = |name: &&&str| !name.starts_with("softmax");
            names(&plan(&network, mode, engines)).iter().take_while(until).copied().collect()
        };
        let with = |norm_pool| {
            let mut names = vec!["augment", "conv2d_forward", norm_pool, "conv2d_forward", "map_response_norm_forward"];
            names.extend(["conv2d_forward", norm_pool, "linear_forward", "linear_forward", "linear_forward"]);
            names
        };
        assert_eq!(forward(Mode::Train, &CUDA[..engines]), with("norm_pool_forward"));
        assert_eq!(forward(Mode::Eval, &CUDA[..engines]), with("norm_pool_inference"));
        let cuda = names(&plan(&network, Mode::Train, &CUDA[..engines]));
        let host = names(&plan(&network, Mode::Train, &HOST[..engines]));
        let count = |names: &[&str], name: &str| names.iter().filter(|n| **n == name).count();
        // A device and a processor differ only in who updates the weights of linear layers.
        assert_eq!(cuda, names(&plan_with(&network, Mode::Train, &HOST[..engines], true)));
        for (name, on_cuda, on_host) in [
            ("linear_weight_gradient", 3, 0),
            ("linear_update", 0, 3),
            ("linear_data_gradient", count(&host, "linear_data_gradient"), count(&cuda, "linear_data_gradient")),
            ("sgd", 12, 6),
        ] {
            assert_eq!((count(&cuda, name), count(&host, name)), (on_cuda, on_host), "{name}");
        }
        // relu6 and relu2 remain: below a dropout, and below a normalisation within maps.
        for (name, times) in [
            ("norm_pool_backward", 2),
            ("local_response_norm_backward", 0),
            ("max_pool2d_backward", 0),
            ("relu_backward", 2),
            // Only an inverted dropout has something to do in the backward pass that the ReLU below does not do.
            ("dropout_mask", 1),
        ] {
            assert_eq!(count(&host, name), times, "{name}");
        }
        let apart = names(&plan(&apart, Mode::Train, &HOST[..engines]));
        for (name, times) in [
            ("norm_pool_backward", 0),
            ("local_response_norm_backward", 2),
            ("max_pool2d_backward", 2),
            ("relu_backward", 2),
            ("dropout_mask", 4),
        ] {
            assert_eq!(count(&apart, name), times, "{name}");
        }
    }
}

#[test]
fn what_lies_between_normalisation_and_pooling_takes_no_memory() {
    // The largest tensors by far are what lies around the normalisation.
    let layers = json!([
        { "type": "conv2d", "name": "conv1", "outChannels": 64, "kernelSize": 1, "weightInit": { "type": "he" } },
        { "type": "relu", "name": "relu1" },
        { "type": "localResponseNorm", "name": "lrn1", "size": 5, "k": 2.0, "alpha": 0.01, "beta": 0.75 },
        { "type": "maxPool2d", "name": "pool1", "kernelSize": 3, "stride": 2 },
        { "type": "linear", "name": "fc2", "outFeatures": 10, "weightInit": { "type": "he" } },
    ]);
    let mut spec = serde_json::to_value(network()).unwrap();
    spec["layers"] = layers;
    let network = Network::new(serde_json::from_value(spec).unwrap()).unwrap();
    let bytes = BATCH * network.output(2).len() * 4;
    for engines in [CUDA, HOST] {
        let plan = plan(&network, Mode::Eval, &engines[..1]);
        assert!(plan.arena()[0] < 2 * bytes, "{:?}", plan.arena());
        let layers: Vec<usize> = plan.outputs.iter().map(|(layer, ..)| *layer).collect();
        assert_eq!(layers, [0, 1, 3, 4]);
    }
}

#[test]
fn a_gradient_that_is_used_up_takes_no_memory() {
    const WIDTH: usize = 2048;
    let mut spec = serde_json::to_value(network()).unwrap();
    for layer in ["fc6", "fc7"] {
        let layers = spec["layers"].as_array_mut().unwrap();
        layers.iter_mut().find(|spec| spec["name"] == layer).unwrap()["outFeatures"] = WIDTH.into();
    }
    let network = Network::new(serde_json::from_value(spec).unwrap()).unwrap();
    for slots in [1, 2] {
        let bytes = WIDTH * WIDTH / slots * 4;
        let arena =
            |engines: &[Engine], keep| plan_with(&network, Mode::Train, &engines[..slots], keep).arena().to_vec();
        for (held, kept) in arena(&HOST, false).into_iter().zip(arena(&HOST, true)) {
            assert!(held < bytes && bytes < kept, "{slots} slots: {held} and {kept} bytes");
        }
        assert_eq!(arena(&CUDA, false), arena(&CUDA, true), "{slots} slots");
    }
}

/// Steps `from..to` of one epoch; the loss of each, and that of an evaluation.
fn train(trainer: &mut Trainer, from: usize, to: usize) -> Vec<f64> {
    let cancel = AtomicBool::new(false);
    let mut losses = Vec::new();
    for step in from..to {
        let mut source = Noise { next: step, ..Noise::new(BATCH) };
        let report = trainer.run(&mut source, &segment(0, step, step as u32, 1, 0.02), &cancel).unwrap();
        losses.push(report.loss);
    }
    losses.push(trainer.evaluate(&mut Noise { batches: 2, ..Noise::new(BATCH) }, 1, &cancel).unwrap().loss);
    losses
}

#[track_caller]
fn near(a: &[f64], b: &[f64]) {
    assert!(a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-4 * b.abs()), "{a:?} and {b:?}");
}

#[test]
fn a_network_with_fusions_learns_what_one_without_learns() {
    let mut host = trainer(apart(), 1, 2, BATCH);
    let expected = train(&mut host, 0, 6);
    let tensors_of_host = tensors(&mut host);
    for slots in [1, 2] {
        let [mut fused, mut apart] = [fusible(), apart()].map(|spec| trainer(spec, slots, 2, BATCH));
        assert!(train(&mut fused, 0, 6) == train(&mut apart, 0, 6), "other losses on {slots} slots of the processor");
        assert!(tensors(&mut fused) == tensors(&mut apart), "other bits on {slots} slots of the processor");
    }
    for ordinals in [&[0][..], &[0, 1]] {
        let Some(backend) = emulated(ordinals, Options::default()) else { return };
        let mut trainer = trainer_on(backend, fusible(), BATCH, 120.0);
        near(&train(&mut trainer, 0, 6), &expected);
        for ((name, a), (_, b)) in tensors(&mut trainer).iter().zip(&tensors_of_host) {
            let distance = relative_l2(a, b);
            assert!(distance <= 1e-4, "{ordinals:?}: {name}: relative L2 {distance:e}");
        }
    }
}

#[test]
fn checkpoints_know_nothing_of_fusions() {
    let folder = tempfile::tempdir().unwrap();
    let [on_host, on_cuda] = ["host", "cuda"].map(|name| folder.path().join(name));
    let Some(backend) = emulated(&[0], Options::default()) else { return };
    let mut whole = trainer_on(backend, fusible(), BATCH, 120.0);
    train(&mut whole, 0, 3);
    whole.save(&on_cuda, "").unwrap();
    let expected = train(&mut whole, 3, 6);

    let Some(backend) = emulated(&[0], Options::default()) else { return };
    let mut resumed = trainer_on(backend, fusible(), BATCH, 120.0);
    resumed.load(&on_cuda).unwrap();
    assert!(train(&mut resumed, 3, 6) == expected && tensors(&mut resumed) == tensors(&mut whole));

    // From a device to another, whose network does not fuse, and back.
    let mut host = trainer(apart(), 1, 2, BATCH);
    host.load(&on_cuda).unwrap();
    host.save(&on_host, "").unwrap();
    near(&train(&mut host, 3, 6), &expected);
    resumed.load(&on_host).unwrap();
    assert!(train(&mut resumed, 3, 6) == expected && tensors(&mut resumed) == tensors(&mut whole));
}
