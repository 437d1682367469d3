//! Every kernel against its reference: odd shapes, gaps between pixels, towers, any number of workers.

mod augment;
mod convolution;
mod loss;
mod norms;
mod pointwise;
mod pooling;
mod sgd;

use alexnode_cpu::CpuBackend;
use alexnode_nn::testing::{
    alone::{Alone, Passes},
    compare, wide,
};

/// The processor with `workers` workers.
fn processor(workers: usize) -> CpuBackend {
    CpuBackend::new(1, Some(workers)).unwrap()
}

/// Runs `alone` with several gaps and numbers of workers: the bits must be the same.
fn agree(alone: &mut Alone<'_>, x: &[f32], dy: &[f32]) -> Passes {
    let name = name(alone);
    let mut first: Option<Passes> = None;
    for (gaps, workers) in [([0, 0], 1), ([5, 3], 2), ([0, 16], 3), ([7, 0], 5)] {
        // Elementwise layers work in place: one tensor, one gap.
        alone.gaps = gaps;
        let passes = alone.run(x, dy, &mut processor(workers));
        let Some(first) = &first else {
            first = Some(passes);
            continue;
        };
        let same = |what: &str, a: &[f32], b: &[f32]| {
            assert!(bits(a) == bits(b), "{name}: other bits of {what} with {workers} workers, gaps {gaps:?}");
        };
        same("output", &first.y, &passes.y);
        same("gradient", &first.dx, &passes.dx);
        for (i, (a, b)) in first.gradients.iter().zip(&passes.gradients).enumerate() {
            same(&format!("gradient of parameter tensor {i}"), a, b);
        }
    }
    first.unwrap()
}

/// As [`agree`]; and output and gradient are near `want`.
fn check(alone: &mut Alone<'_>, x: &[f32], dy: &[f32], want: (&[f64], &[f64]), rtol: f64, atol: f64) -> Passes {
    let (name, passes) = (name(alone), agree(alone, x, dy));
    compare(&format!("{name}: output"), &passes.y, want.0, rtol, atol);
    if alone.train {
        compare(&format!("{name}: gradient"), &passes.dx, want.1, rtol, atol);
    }
    passes
}

/// For messages.
fn name(alone: &Alone<'_>) -> String {
    format!("{} of {}x{} to {}", alone.layer.kind(), alone.batch, alone.input, alone.output)
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// Channels `start..start + count` of each pixel of `c` channels.
fn channels<T: Copy>(values: &[T], c: usize, start: usize, count: usize) -> Vec<T> {
    values.chunks_exact(c).flat_map(|pixel| pixel[start..start + count].iter().copied()).collect()
}

/// The sum of two gradients, as the plan adds them.
fn sum(a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

#[test]
fn gradients_are_added_between_gaps() {
    use alexnode_core::kernel::define;
    use alexnode_nn::{
        ops::{Add, AddParams},
        testing::{Rng, alone::run_kernel},
    };
    for (rows, c, dst_ld, src_ld) in [(1, 1, 1, 1), (700, 48, 48, 48), (3, 5, 9, 5), (9000, 7, 8, 14)] {
        let mut rng = Rng::new(1);
        let mut dst = rng.normals((rows - 1) * dst_ld + c, 1.0);
        let src = rng.normals((rows - 1) * src_ld + c, 1.0);
        let mut want = wide(&dst);
        for row in 0..rows {
            for i in 0..c {
                want[row * dst_ld + i] += f64::from(src[row * src_ld + i]);
            }
        }
        let params = AddParams { rows: rows as i32, c: c as i32, dst_ld: dst_ld as i32, src_ld: src_ld as i32 };
        let mut read = bytemuck::cast_slice(&src).to_vec();
        let buffers: &mut [&mut [u8]] = &mut [bytemuck::cast_slice_mut(&mut dst), &mut read];
        run_kernel(define::<Add>(), params, buffers, &mut processor(3));
        compare("sum", &dst, &want, 1e-6, 1e-7);
    }
}
