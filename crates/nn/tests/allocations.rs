//! A training step allocates nothing, whatever its layers, and beside the plan's memory a checkpoint takes that of one tensor. What is counted is the process's:
//! the tests take turns.

mod common;

use alexnode_core::{Batch, BatchSource, Result};
use alexnode_cpu::CpuBackend;
use alexnode_nn::{
    network::NetworkSpec,
    trainer::{ImageStatistics, Segment, Trainer, TrainerConfig},
};
use common::{Noise, network, segment, trainer};
use serde_json::Value;
use std::{
    alloc::{GlobalAlloc, Layout, System},
    fs,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

struct Counting;

static COUNT: AtomicUsize = AtomicUsize::new(0);
/// Bytes held, and the most so far.
static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);
static TURN: Mutex<()> = Mutex::new(());

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(held, Ordering::Relaxed);
        // SAFETY: the caller's promises are the same.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are the same.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Gives the same minibatch again and again.
struct Same(Option<Batch>);

impl BatchSource for Same {
    fn next(&mut self) -> Result<Option<Batch>> {
        Ok(self.0.take())
    }
    fn recycle(&mut self, batch: Batch) {
        self.0 = Some(batch);
    }
}

/// The presets' networks as bench/networks.json has them, each with the allocations of a step as bench/counters.json has them. Linear layers are narrower
/// here: what a step allocates does not depend on their size, but how long the test takes does.
fn presets() -> Vec<(NetworkSpec, u64)> {
    let read = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bench").join(name);
        serde_json::from_str::<Value>(&fs::read_to_string(path).unwrap()).unwrap()
    };
    let (networks, counters) = (read("networks.json"), read("counters.json"));
    let narrower = |network: &Value| {
        let mut network = network.clone();
        for layer in network["layers"].as_array_mut().unwrap() {
            if layer["outFeatures"] == 4096 {
                layer["outFeatures"] = 64.into();
            }
        }
        let placements = &counters[network["name"].as_str().unwrap()];
        let allocations = ["cpu", "cpu,cpu"].map(|slots| placements[slots]["allocations"].as_u64().unwrap());
        (serde_json::from_value(network).unwrap(), allocations.into_iter().max().unwrap())
    };
    networks.as_array().unwrap().iter().map(narrower).collect()
}

/// One image, again and again.
fn image(size: usize) -> Batch {
    let pixels = (0..size * size * 3).map(|i| (i * 31 % 251) as u8).collect();
    Batch { pixels, labels: vec![0], ids: vec![0], valid: 1 }
}

fn of_preset(spec: NetworkSpec, slots: usize) -> (Trainer, Same) {
    let size = spec.input.image_size;
    let mean = vec![120.0; size * size * 3];
    let components = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
    let images = ImageStatistics { mean: &mean, deviations: [10.0, 20.0, 30.0], components };
    let backend = Box::new(CpuBackend::new(slots, Some(2 * slots)).unwrap());
    let config = TrainerConfig { network: spec, batch: 1, seed: 5, momentum: 0.9, class_weights: None };
    (Trainer::new(config, images, backend).unwrap(), Same(Some(image(size))))
}

/// Allocations of a step of `trainer`, from runs of which one has `more` steps more.
fn per_step(trainer: &mut Trainer, source: &mut Same, segment: &Segment, more: usize) -> usize {
    let mut allocations = |steps: usize| {
        let before = COUNT.load(Ordering::Relaxed);
        let report = trainer.run(source, &Segment { steps, ..segment.clone() }, &AtomicBool::new(false)).unwrap();
        assert_eq!(report.steps, steps);
        COUNT.load(Ordering::Relaxed) - before
    };
    // Queues, parkers and the pools' own lists reach their sizes.
    allocations(2 * more);
    // A thread that waits at a place for the first time still allocates once there; what a step allocates, it always does.
    let mut least = usize::MAX;
    for _ in 0..10 {
        least = least.min(allocations(2 + more).abs_diff(allocations(2)));
        if least == 0 {
            break;
        }
    }
    least.div_ceil(more)
}

#[test]
fn steps_allocate_what_the_counters_say() {
    let _turn = TURN.lock().unwrap();
    for slots in [1, 2] {
        let mut trainer = trainer(network(), slots, 2 * slots, 6);
        let mut source = Same(Noise::new(6).next().unwrap());
        let found = per_step(&mut trainer, &mut source, &segment(0, 0, 0, 1, 0.01), 10);
        assert_eq!(found, 0, "{slots} slots");
    }
    for (spec, wanted) in presets() {
        let name = spec.name.clone();
        let (mut trainer, mut source) = of_preset(spec, 1);
        let layers = trainer.network().parameters().iter().map(|p| trainer.network().layer(p.layer).name().to_owned());
        let rates = layers.map(|layer| (layer, [1e-6, 1e-6])).collect();
        let segment = Segment { rates, ..segment(0, 0, 0, 1, 0.0) };
        let found = per_step(&mut trainer, &mut source, &segment, 2);
        assert_eq!(found as u64, wanted, "{name}");
    }
}

/// The most bytes that `work` holds at a time beyond those held before.
fn most<T>(work: impl FnOnce() -> T) -> (usize, T) {
    let before = HELD.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    let result = work();
    (MOST.load(Ordering::Relaxed).saturating_sub(before), result)
}

#[test]
fn tensors_are_made_written_and_read_one_at_a_time() {
    const WIDTH: usize = 1536;
    /// Statistics, headers, and what is read from a file at a time.
    const REST: usize = 2 << 20;
    let _turn = TURN.lock().unwrap();
    let mut wide = serde_json::to_value(network()).unwrap();
    for layer in wide["layers"].as_array_mut().unwrap() {
        if ["fc6", "fc7"].map(Value::from).contains(&layer["name"]) {
            layer["outFeatures"] = WIDTH.into();
        }
    }
    let wide: NetworkSpec = serde_json::from_value(wide).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let mut sums = Vec::new();
    for slots in [1, 2] {
        // A slot's half of a tensor is cut out of it.
        let largest = WIDTH * WIDTH * 4;
        let most_at_once = largest + (slots - 1) * largest / 2 + REST;
        let (made, mut trainer) = most(|| trainer(wide.clone(), slots, slots, 1));
        let (written, saved) = most(|| trainer.save(&path, "").unwrap());
        let (read, loaded) = most(|| trainer.load(&path));
        loaded.unwrap();
        for held in [made, written, read] {
            assert!((largest..most_at_once).contains(&held), "{slots} slots: {made}, {written} and {read} bytes");
        }
        assert!(saved.bytes as usize > 2 * largest);
        sums.push(saved.sha256);
    }
    assert_eq!(sums[0], sums[1], "the same file from one slot and from two");
}
