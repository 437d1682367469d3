//! The Rust bodies of the kernels, one by one, on one thread: `npm run bench -- kernels [filter]`. Layers as in the paper's network, 16 images.
//!
//! Content does not matter to their time, but for numbers that are hardly any: everything is 0, which is as fast as any other.

use alexnode_core::Shape;
use alexnode_cpu::CpuBackend;
use alexnode_nn::{layers::LayerSpec, testing::probe::Probe};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde_json::{Value, json};
use std::{cell::RefCell, time::Duration};

const BATCH: usize = 16;

fn layers() -> Vec<(Value, Shape)> {
    let he = json!({ "type": "he" });
    let conv = |name: &str, out: usize, kernel: usize, stride: usize, padding: usize, groups: usize| {
        json!({
            "type": "conv2d", "name": name, "outChannels": out, "kernelSize": kernel, "stride": stride,
            "padding": padding, "groups": groups, "weightInit": he,
        })
    };
    let linear =
        |name: &str, out: usize| json!({ "type": "linear", "name": name, "outFeatures": out, "weightInit": he });
    let across =
        json!({ "type": "localResponseNorm", "name": "lrn1", "size": 5, "k": 2.0, "alpha": 1e-4, "beta": 0.75 });
    let within =
        json!({ "type": "mapResponseNorm", "name": "cnorm2", "size": 5, "k": 1.0, "alpha": 1e-3, "beta": 0.75 });
    let pool = |kind: &str, name: &str| json!({ "type": kind, "name": name, "kernelSize": 3, "stride": 2 });
    vec![
        (conv("conv1", 96, 11, 4, 0, 1), Shape::new(224, 224, 3)),
        (across, Shape::new(55, 55, 96)),
        (pool("maxPool2d", "pool1"), Shape::new(55, 55, 96)),
        (conv("conv2", 256, 5, 1, 2, 2), Shape::new(27, 27, 96)),
        (within, Shape::new(27, 27, 256)),
        (pool("avgPool2d", "mean2"), Shape::new(27, 27, 256)),
        (conv("conv3", 384, 3, 1, 1, 1), Shape::new(13, 13, 256)),
        (conv("conv4", 384, 3, 1, 1, 2), Shape::new(13, 13, 384)),
        (linear("fc6", 4096), Shape::new(6, 6, 256)),
        (json!({ "type": "relu", "name": "relu6" }), Shape::vector(4096)),
        (json!({ "type": "tanh", "name": "tanh6" }), Shape::vector(4096)),
        (json!({ "type": "dropout", "name": "drop6", "p": 0.5 }), Shape::vector(4096)),
    ]
}

fn bodies(criterion: &mut Criterion) {
    for (layer, input) in layers() {
        let name = layer["name"].as_str().expect("a name").to_owned();
        let spec: LayerSpec = serde_json::from_value(layer).expect("a layer");
        let backend = CpuBackend::new(1, Some(1)).expect("a backend");
        let probe = RefCell::new(Probe::new(vec![spec], input, BATCH, Box::new(backend)).expect("a plan"));
        let launches = probe.borrow().launches();
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(BATCH as u64)).sample_size(10);
        group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
        for (at, (index, kernel)) in launches.iter().enumerate() {
            // A kernel may run forward and backward.
            let id = match launches[..at].iter().filter(|(_, earlier)| earlier == kernel).count() {
                0 => (*kernel).to_owned(),
                before => format!("{kernel}-{}", before + 1),
            };
            group.bench_function(id, |bencher| {
                bencher.iter(|| probe.borrow_mut().repeat(*index, 1).expect("a run"));
            });
        }
    }
}

criterion_group!(benches, bodies);
criterion_main!(benches);
