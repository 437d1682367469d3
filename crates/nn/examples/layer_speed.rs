//! Speed of the layers of the paper's network that multiply, forward and backward.
//! `cargo run -p alexnode-nn --example layer_speed [batch [threads [layer]]]`.
//!
//! On one thread, times are those that the thread really ran, so that other programs disturb them little.

use alexnode_core::Shape;
use alexnode_cpu::CpuBackend;
use alexnode_nn::{layers::LayerSpec, testing::probe::Probe};
use std::{fs, time::Instant};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: usize| arguments.next().map_or(default, |a| a.parse().expect("a number"));
    let (batch, threads) = (number(128), number(2));
    let repetitions = (512 / batch).clamp(3, 50);
    let only = std::env::args().nth(3);
    let conv = |out: usize, kernel: usize, stride: usize, padding: usize, groups: usize| {
        format!(
            r#""type": "conv2d", "outChannels": {out}, "kernelSize": {kernel}, "stride": {stride}, "padding": {padding}, "groups": {groups}"#
        )
    };
    let linear = |out: usize| format!(r#""type": "linear", "outFeatures": {out}"#);
    let layers = [
        ("conv1", Shape::new(224, 224, 3), conv(96, 11, 4, 0, 1)),
        ("conv2", Shape::new(27, 27, 96), conv(256, 5, 1, 2, 2)),
        ("conv3", Shape::new(13, 13, 256), conv(384, 3, 1, 1, 1)),
        ("conv4", Shape::new(13, 13, 384), conv(384, 3, 1, 1, 2)),
        ("conv5", Shape::new(13, 13, 384), conv(256, 3, 1, 1, 2)),
        ("fc6", Shape::new(6, 6, 256), linear(4096)),
        ("fc7", Shape::vector(4096), linear(4096)),
        ("fc8", Shape::vector(4096), linear(1000)),
    ];
    for (name, input, text) in layers {
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let text = format!(r#"{{{text}, "name": "{name}", "weightInit": {{"type": "he"}}}}"#);
        let spec: LayerSpec = serde_json::from_str(&text).expect("a layer");
        let flops = 2.0 * (spec.layer().macs(input) * batch as u64) as f64;
        let backend = CpuBackend::new(1, Some(threads)).expect("a backend");
        let mut probe = Probe::new(vec![spec], input, batch, Box::new(backend)).expect("a plan");
        for (kernel, seconds) in probe.profile(repetitions, &|| clock(threads)).expect("a run") {
            println!("{name} {kernel:24} {:8.2} ms {:6.1} GFLOP/s", seconds * 1e3, flops / seconds / 1e9);
        }
    }
}

/// Seconds: of the processor for one thread where the system tells, else of the wall.
fn clock(threads: usize) -> f64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let wall = || START.get_or_init(Instant::now).elapsed().as_secs_f64();
    let tasks = if threads == 1 { fs::read_dir("/proc/self/task").ok() } else { None };
    let nanoseconds = |path| fs::read_to_string(path).ok()?.split_whitespace().next()?.parse::<u64>().ok();
    let times: Option<Vec<u64>> =
        tasks.and_then(|tasks| tasks.flatten().map(|task| nanoseconds(task.path().join("schedstat"))).collect());
    times.map_or_else(wall, |times| times.iter().sum::<u64>() as f64 / 1e9)
}
