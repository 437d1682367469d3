//! The kernels that tell what a device can do: they do what they are counted to do. No rate is judged.

mod common;

use alexnode_core::{Backend, ErrorCode, kernel::define};
use alexnode_cpu::CpuBackend;
use alexnode_cuda::emulated::{Options, Order};
use alexnode_nn::{
    ceilings::{self, CopyCeiling, CopyCeilingParams, MultiplyCeiling, MultiplyCeilingParams},
    testing::{Rng, alone::run_kernel, compare},
    timing::TimingOptions,
};
use bytemuck::cast_slice_mut;
use common::emulated;
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

#[test]
fn ceilings_are_positive() {
    let options = TimingOptions { rounds: 2, sample_seconds: 0.0 };
    for mut backend in backends() {
        let found = ceilings::measure(&mut *backend, &options, &AtomicBool::new(false)).unwrap();
        assert_eq!(found.slot.device, backend.slots()[0].device.to_string());
        assert!(found.copy.least > 0.0 && found.copy.least <= found.copy.most && found.copy.most.is_finite());
        assert_eq!(found.multiply.keys().collect::<Vec<_>>(), ["fp32"]);
        assert!(found.multiply["fp32"].least > 0.0);
        let stopped = ceilings::measure(&mut *backend, &options, &AtomicBool::new(true));
        assert_eq!(stopped.unwrap_err().code(), ErrorCode::Aborted);
    }
}
