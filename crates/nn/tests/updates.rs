//! A plan in which layers update their weights where they make the gradients, against one with all gradients in memory: the same bits, with every kind of vectors that
//! this processor has. One test on its own: what is used is the same for the whole process.

mod common;

use alexnode_core::{Backend, Batch, BatchSource, StepState};
use alexnode_cpu::CpuBackend;
use alexnode_nn::{
    lower::External,
    network::Network,
    parameter,
    placement::Placement,
    plan::{Op, OpKind, Plan},
    request::{Mode, Request},
    resident::{Kind, Layout, Resident},
    tile::Vectors,
};
use common::Noise;
use serde_json::json;

const BATCH: usize = 7;

/// Linear layers of several tasks, none of whose extents is a multiple of a block's; fc7 never changes.
fn network() -> Network {
    let mut spec = serde_json::to_value(common::network()).unwrap();
    let he = json!({ "type": "he" });
    let linear = |name: &str, out: usize, frozen: bool| json!({ "type": "linear", "name": name, "outFeatures": out, "weightInit": he, "weightDecay": 5e-4, "frozen": frozen });
    let layers = spec["layers"].as_array_mut().unwrap();
    layers.truncate(11);
    layers[7]["outChannels"] = 70.into();
    layers.extend([
        linear("fc6", 2 * 197, false),
        json!({ "type": "relu", "name": "relu6" }),
        json!({ "type": "dropout", "name": "drop6", "p": 0.5 }),
        linear("fc7", 2 * 27, true),
        linear("fc7b", 38, false),
        json!({ "type": "tanh", "name": "tanh7" }),
        linear("fc8", common::CLASSES, false),
    ]);
    Network::new(serde_json::from_value(spec).unwrap()).unwrap()
}

/// A network and its training step on the processor.
struct Training<'a> {
    network: &'a Network,
    placement: Placement,
    resident: Resident,
    ops: Vec<Op>,
}

impl<'a> Training<'a> {
    fn new(network: &'a Network, slots: usize, threads: usize, keep_gradients: bool) -> Self {
        let backend = CpuBackend::new(slots, Some(slots * threads)).unwrap();
        let engines = backend.slots().iter().map(|slot| slot.engine).collect();
        let placement = Placement::new(slots).unwrap();
        let plan = Plan::build(&Request {
            network,
            placement,
            batch: BATCH,
            mode: Mode::Train,
            momentum: 0.9,
            class_weights: false,
            keep_gradients,
            engines,
        })
        .unwrap();
        let mut resident = Resident::new(Box::new(backend), Layout::new(&[&plan])).unwrap();
        let ops = plan.bind(resident.arenas(), &|slot, what| resident.view(slot, what));
        for (index, parameter) in network.parameters().iter().enumerate() {
            let values = parameter::initial(parameter, index, 3);
            resident.put(network, placement, index, Kind::Weight, &values).unwrap();
            resident.clear(Kind::Momentum, index).unwrap();
        }
        for slot in resident.slots() {
            let mean = resident.view(slot, External::Mean).bytes / 4;
            resident.write(slot, External::Mean, &vec![120.0f32; mean]).unwrap();
            resident.write(slot, External::Colour, &[0.1f32; 12]).unwrap();
        }
        resident.clear_totals().unwrap();
        Self { network, placement, resident, ops }
    }

    fn names(&self) -> Vec<&'static str> {
        self.ops.iter().filter_map(Op::launch).map(|(_, launch)| launch.kernel.name).collect()
    }

    /// A step at `rates`, one per parameter tensor.
    fn step(&mut self, batch: &Batch, diverged: u32, rates: &[f32]) {
        let state = StepState { seed_low: 5, valid: BATCH as u32, views: 1, diverged, ..StepState::default() };
        let bytes = [bytemuck::bytes_of(&state), bytemuck::cast_slice(rates)].concat();
        for slot in self.resident.slots() {
            self.resident.write(slot, External::State, &bytes).unwrap();
        }
        self.resident.stage(batch).unwrap();
        let backend = self.resident.backend();
        for op in &self.ops {
            match &op.kind {
                OpKind::Launch(slot, launch) => backend.launch(*slot, launch),
                OpKind::Copy(copy) => backend.copy(copy),
            }
            .unwrap();
        }
        backend.synchronize().unwrap();
    }

    /// The bits of all weights, then of all momentum, by parameter tensor.
    fn bits(&mut self) -> Vec<Vec<u32>> {
        let both = [Kind::Weight, Kind::Momentum].into_iter();
        both.flat_map(|kind| (0..self.network.parameters().len()).map(move |index| (kind, index)))
            .map(|(kind, index)| {
                let values = self.resident.get(self.network, self.placement, index, kind).unwrap();
                values.into_iter().map(f32::to_bits).collect()
            })
            .collect()
    }
}

#[test]
fn an_update_where_the_gradient_is_made_gives_the_same_bits() {
    let network = network();
    let parameter = |name: &str| network.parameters().iter().position(|p| p.name == name).unwrap();
    let (fc6, fc7) = (parameter("fc6.weight"), parameter("fc7.weight"));
    let count = network.parameters().len();
    // Weights and biases learn at rates of their own, which change; once the weights of fc6 rest, once all.
    let rates = |step: usize| -> Vec<f32> {
        let rate =
            |i: usize| if (step == 2 && i == fc6) || step == 3 { 0.0 } else { 0.002 * (1 + (i + step) % 4) as f32 };
        (0..count).map(rate).collect()
    };
    for vectors in Vectors::ALL.into_iter().filter(|vectors| vectors.present()) {
        vectors.limit();
        for slots in [1, 2] {
            let name = format!("{vectors:?}, {slots} slots");
            let [mut fused, mut apart] =
                [(3, false), (2, true)].map(|(threads, keep)| Training::new(&network, slots, threads, keep));
            let times = |training: &Training<'_>, name: &str| training.names().iter().filter(|n| **n == name).count();
            // fc6 and fc7b on each slot, fc8 on the first.
            assert_eq!(times(&fused, "linear_update"), 2 * slots + 1, "{name}");
            assert_eq!(times(&fused, "linear_weight_gradient"), 0, "{name}");
            assert_eq!(times(&apart, "linear_update"), 0, "{name}");
            assert_eq!(times(&apart, "linear_weight_gradient"), 2 * slots + 1, "{name}");
            assert_eq!(times(&apart, "sgd") - times(&fused, "sgd"), 2 * (2 * slots + 1), "{name}");
            let mut before = fused.bits();
            assert!(before == apart.bits(), "{name}: they begin differently");
            let mut source = Noise::new(BATCH);
            for step in 0..5 {
                let batch = source.next().unwrap().unwrap();
                let diverged = u32::from(step == 4);
                for training in [&mut fused, &mut apart] {
                    training.step(&batch, diverged, &rates(step));
                }
                let after = fused.bits();
                for (i, (one, other)) in after.iter().zip(apart.bits()).enumerate() {
                    assert!(
                        *one == other,
                        "{name}, step {step}: other bits of {}",
                        network.parameters()[i % count].name
                    );
                }
                let changes = |i: usize| before[i] != after[i];
                for i in 0..count {
                    let learns = diverged == 0 && rates(step)[i] != 0.0 && i / 2 != fc7 / 2;
                    assert_eq!(changes(i), learns, "{name}, step {step}: {}", network.parameters()[i].name);
                    assert_eq!(changes(count + i), learns, "{name}, step {step}: its momentum");
                }
                before = after;
            }
        }
    }
}
