//! The kernels that tell what a device can do: they do what they are counted to do. No rate is judged.

mod common;

use alexnode_core::{Backend, Engine, ErrorCode, KernelDef, Precision, Target, kernel::define};
use alexnode_cpu::CpuBackend;
use alexnode_cuda::{
    compile::{Architecture, Job, Nvrtc, REMEDY},
    emulated::{Options, Order},
    program::Program,
    testing,
};
use alexnode_nn::{
    ceilings::{
        self, CopyCeiling, CopyCeilingParams, MultiplyCeiling, MultiplyCeilingParams, TensorCeiling,
        TensorCeilingParams,
    },
    testing::{Rng, alone::run_kernel, compare},
    timing::TimingOptions,
};
use bytemuck::{bytes_of, cast_slice_mut};
use common::{emulated, emulated_in};
use std::sync::atomic::AtomicBool;

fn backends() -> Vec<Box<dyn Backend>> {
    let mut backends: Vec<Box<dyn Backend>> = Vec::new();
    for workers in [1, 3] {
        backends.push(Box::new(CpuBackend::new(1, Some(workers)).unwrap()));
    }
    for order in [Order::Forward, Order::Random(1)] {
        backends.extend(emulated(&[0], Options { order, ..Options::default() }));
    }
    backends
}

#[test]
fn a_copy_is_a_copy() {
    for vectors in [1, 1023, 70_001] {
        let mut rng = Rng::new(7);
        // More room than is copied: the rest stays poison, which an emulated device puts there itself.
        let from: Vec<u32> = (0..vectors * 4 + 8).map(|_| rng.word()).collect();
        for mut backend in backends() {
            let (mut read, mut to) = (from.clone(), vec![u32::MAX; from.len()]);
            let buffers: &mut [&mut [u8]] = &mut [cast_slice_mut(&mut read), cast_slice_mut(&mut to)];
            run_kernel(define::<CopyCeiling>(), CopyCeilingParams { vectors: vectors as u32 }, buffers, &mut *backend);
            assert!(to[..vectors * 4] == from[..vectors * 4] && to[vectors * 4..].iter().all(|word| *word == u32::MAX));
        }
    }
}

#[test]
fn every_multiply_add_is_done() {
    let (factors, terms) = ceilings::factors_and_terms();
    for (items, rounds) in [(1, 1), (777, 40), (300, 0)] {
        let want: Vec<f64> = (0..items)
            .map(|i| {
                let chain = |start: usize| {
                    let step = |x: f64, _| x * f64::from(factors[i % 8]) + f64::from(terms[i % 8]);
                    (0..rounds).fold(1.0 + start as f64, step)
                };
                (0..8).map(chain).sum()
            })
            .collect();
        let params = MultiplyCeilingParams { items: items as u32, rounds };
        for mut backend in backends() {
            let mut y = vec![f32::NAN; items];
            run_kernel(define::<MultiplyCeiling>(), params, &mut [cast_slice_mut(&mut y)], &mut *backend);
            compare("sums", &y, &want, 2e-6, 0.0);
        }
    }
    assert_eq!(MultiplyCeilingParams { items: 3, rounds: 5 }.flops(), 240.0);
}

/// Every product adds the same: what comes out tells how many there were, to the bit.
fn products_are_done<const BF16: bool>(precision: Precision) {
    for order in [Order::Forward, Order::Random(1)] {
        let Some(mut backend) = emulated_in(precision, &[0], Options { order, ..Options::default() }) else { return };
        for (warps, rounds) in [(1, 1), (9, 3), (2, 0)] {
            let mut y = vec![f32::NAN; warps * 32 + 5];
            let params = TensorCeilingParams { warps: warps as u32, rounds };
            run_kernel(define::<TensorCeiling<BF16>>(), params, &mut [cast_slice_mut(&mut y)], &mut *backend);
            let (done, rest) = y.split_at(warps * 32);
            assert!(done.iter().all(|y| *y == TensorCeiling::<BF16>::result(rounds)), "{precision}: {done:?}");
            assert!(rest.iter().all(|y| y.is_nan()));
        }
    }
}

#[test]
fn every_product_on_tensor_cores_is_done() {
    products_are_done::<false>(Precision::Tf32);
    products_are_done::<true>(Precision::Bf16);
    // Words 0 to 3 of a row with those of a column, in double precision; each stands for two factors of tf32, four of bf16.
    let words = [(1.0, 1.0), (1.125, -0.9375), (1.25, 1.5), (1.375, -1.3125)];
    let once: f64 = words.iter().map(|(a, b)| a * b / 4096.0).sum();
    assert_eq!(f64::from(TensorCeiling::<false>::result(3)), 64.0 * 3.0 * 2.0 * once);
    assert_eq!(f64::from(TensorCeiling::<true>::result(3)), 64.0 * 3.0 * 4.0 * once);
    let params = TensorCeilingParams { warps: 3, rounds: 5 };
    assert_eq!(TensorCeiling::<true>::flops(&params), 3.0 * 5.0 * 2.0 * 32.0 * 64.0 * 16.0);
}

#[test]
fn precisions_have_ceilings_of_their_own() {
    let options = TimingOptions { rounds: 1, sample_seconds: 0.0 };
    for precision in [Precision::Tf32, Precision::Bf16] {
        let Some(mut backend) = emulated_in(precision, &[0], Options::default()) else { return };
        let found = ceilings::measure(&mut *backend, &options, &AtomicBool::new(false)).unwrap();
        let mut names: Vec<String> = vec!["fp32".into(), precision.to_string()];
        names.sort();
        assert_eq!(found.multiply.keys().cloned().collect::<Vec<_>>(), names);
        assert!(found.multiply.values().all(|rate| rate.least > 0.0));
    }
}

/// For real devices: everything in registers, or it would be memory that is measured.
#[test]
fn the_compiler_keeps_them_in_registers() {
    let nvrtc = testing::unless_missing(Nvrtc::find(None).map_err(|e| e.hint(REMEDY)), testing::NVRTC);
    let Some(nvrtc) = nvrtc else { return };
    for compute in [75, 80, 86, 90, 120].into_iter().filter(|compute| nvrtc.supported().contains(compute)) {
        let compile = |kernel: &'static KernelDef, params: &[u8]| {
            for stage in (kernel.stages)(params, &Target { compute, precision: Precision::Fp32 }) {
                let program = Program::new(kernel, &stage, params, true);
                let log = nvrtc.compile(&Job::new(&program, Architecture { compute }).unwrap()).unwrap().log;
                let all = "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads";
                assert!(log.contains(all), "{} for sm_{compute}: {log}", kernel.name);
            }
        };
        let copy = CopyCeilingParams { vectors: 5 };
        let multiply = MultiplyCeilingParams { items: 5, rounds: 5 };
        let tensor = TensorCeilingParams { warps: 5, rounds: 5 };
        compile(define::<CopyCeiling>(), bytes_of(&copy));
        compile(define::<MultiplyCeiling>(), bytes_of(&multiply));
        if compute >= 80 {
            compile(define::<TensorCeiling<false>>(), bytes_of(&tensor));
            compile(define::<TensorCeiling<true>>(), bytes_of(&tensor));
        }
    }
}

#[test]
fn ceilings_are_positive() {
    let options = TimingOptions { rounds: 2, sample_seconds: 0.0 };
    for mut backend in backends() {
        let found = ceilings::measure(&mut *backend, &options, &AtomicBool::new(false)).unwrap();
        assert_eq!(found.slot.device, backend.slots()[0].device.to_string());
        assert!(found.copy.least > 0.0 && found.copy.least <= found.copy.most && found.copy.most.is_finite());
        assert_eq!(found.multiply.keys().collect::<Vec<_>>(), ["fp32"]);
        assert!(found.multiply["fp32"].least > 0.0);
        let processor = matches!(backend.slots()[0].engine, Engine::Host { .. });
        assert_eq!(found.gemm.map(|rate| rate.least > 0.0), processor.then_some(true));
        let stopped = ceilings::measure(&mut *backend, &options, &AtomicBool::new(true));
        assert_eq!(stopped.unwrap_err().code(), ErrorCode::Aborted);
    }
}
