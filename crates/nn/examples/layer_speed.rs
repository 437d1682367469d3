//! Speed of the layers of the paper's network that multiply, and of normalisation with pooling, forward and backward, and of every operation of the whole network (`paper`; with
//! the gradient by the image, which training does not need; without loss, update and augmentation). Likewise the normalisation within maps of `code2012`, and the convolutions of the CIFAR nets (`cifar1` to `cifar3`; `cifar4` is
//! the wider second one of the nets with unshared convolutions).
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
    let only = std::env::args().nth(3);
    let conv = |out: usize, kernel: usize, stride: usize, padding: usize, groups: usize| {
        format!(
            r#""type": "conv2d", "outChannels": {out}, "kernelSize": {kernel}, "stride": {stride}, "padding": {padding}, "groups": {groups}"#
        )
    };
    let linear = |out: usize| format!(r#""type": "linear", "outFeatures": {out}"#);
    let norm = r#""type": "localResponseNorm", "size": 5, "k": 2, "alpha": 0.0001, "beta": 0.75"#;
    let pool = r#""type": "maxPool2d", "kernelSize": 3, "stride": 2"#;
    let (relu, dropout) = (r#""type": "relu""#, r#""type": "dropout", "p": 0.5"#);
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
    let behind = |name: &str| -> Vec<&str> {
        match name {
            "conv1" | "conv2" => vec![relu, norm, pool],
            "conv5" => vec![relu, pool],
            "fc6" | "fc7" => vec![relu, dropout],
            "fc8" => vec![],
            _ => vec![relu],
        }
    };
    let network: Vec<String> = layers
        .iter()
        .flat_map(|(name, _, text)| {
            let rest = behind(name).into_iter().enumerate().map(move |(i, text)| named(&format!("{name}{i}"), text));
            std::iter::once(multiplies(name, text)).chain(rest)
        })
        .collect();
    let cifar = [
        ("cifar1", Shape::new(32, 32, 3), conv(32, 5, 1, 2, 1)),
        ("cifar2", Shape::new(16, 16, 32), conv(32, 5, 1, 2, 1)),
        ("cifar3", Shape::new(8, 8, 32), conv(64, 5, 1, 2, 1)),
        ("cifar4", Shape::new(12, 12, 64), conv(64, 5, 1, 2, 1)),
    ];
    let alone = layers.iter().chain(&cifar).map(|(name, input, text)| (*name, *input, vec![multiplies(name, text)]));
    let norms = [("norm1", Shape::new(55, 55, 96)), ("norm2", Shape::new(27, 27, 256))];
    let norms = norms.map(|(name, input)| (name, input, vec![named("norm", norm), named("pool", pool)]));
    let within = r#""type": "mapResponseNorm", "size": 5, "k": 1, "alpha": 0.001, "beta": 0.75"#;
    let within = ("within2", Shape::new(27, 27, 256), vec![named("norm", within)]);
    for (name, input, texts) in alone.chain(norms).chain([within]).chain([("paper", Shape::new(224, 224, 3), network)])
    {
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let specs: Vec<LayerSpec> = texts.iter().map(|text| serde_json::from_str(text).expect("a layer")).collect();
        let flops = (specs[0].layer().macs(input) > 0 && specs.len() == 1)
            .then(|| 2.0 * (specs[0].layer().macs(input) * batch as u64) as f64);
        let least = (512 / batch).clamp(3, 50);
        // Small layers more often: a second for each pass.
        let repetitions = flops.map_or(least, |flops| ((2e11 / flops) as usize).clamp(least, 200));
        let backend = CpuBackend::new(1, Some(threads)).expect("a backend");
        let mut probe = Probe::new(specs, input, batch, Box::new(backend)).expect("a plan");
        let profile = probe.profile(repetitions, &|| clock(threads)).expect("a run");
        for (kernel, seconds) in &profile {
            let rate = flops.map_or(String::new(), |flops| format!(" {:6.1} GFLOP/s", flops / seconds / 1e9));
            println!("{name} {kernel:28} {:8.2} ms{rate}", seconds * 1e3);
        }
        println!("{name} {:28} {:8.2} ms", "sum", profile.iter().map(|(_, seconds)| seconds).sum::<f64>() * 1e3);
    }
}

fn named(name: &str, text: &str) -> String {
    format!(r#"{{{text}, "name": "{name}"}}"#)
}

fn multiplies(name: &str, text: &str) -> String {
    named(name, &format!(r#"{text}, "weightInit": {{"type": "he"}}"#))
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
