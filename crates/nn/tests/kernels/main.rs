//! Every kernel against its reference: odd shapes, gaps between pixels, towers, any number of workers.

mod augment;
mod loss;
mod norms;
mod pointwise;
mod pooling;
mod sgd;

use alexnode_cpu::Workers;
use alexnode_nn::testing::{
    alone::{Alone, Passes},
    compare, wide,
};

/// Runs `alone` with several gaps and numbers of workers: the bits must be the same, and near `want` (output and gradient).
fn check(alone: &mut Alone<'_>, x: &[f32], dy: &[f32], want: (&[f64], &[f64]), rtol: f64, atol: f64) -> Passes {
    let name = format!("{} of {}x{}", alone.layer.kind(), alone.batch, alone.input);
    let mut first: Option<Passes> = None;
    for (gaps, workers) in [([0, 0], 1), ([5, 3], 2), ([0, 16], 3), ([7, 0], 2)] {
        // Elementwise layers work in place: one tensor, one gap.
        alone.gaps = gaps;
        let passes = alone.run(x, dy, &Workers::new(workers).unwrap());
        if let Some(first) = &first {
            assert_eq!(bits(&first.y), bits(&passes.y), "{name}: output, {workers} workers, gaps {gaps:?}");
            assert_eq!(bits(&first.dx), bits(&passes.dx), "{name}: gradient, {workers} workers, gaps {gaps:?}");
        } else {
            compare(&format!("{name}: output"), &passes.y, want.0, rtol, atol);
            if alone.train {
                compare(&format!("{name}: gradient"), &passes.dx, want.1, rtol, atol);
            }
            first = Some(passes);
        }
    }
    first.unwrap()
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
        run_kernel(define::<Add>(), params, buffers, &Workers::new(3).unwrap());
        compare("sum", &dst, &want, 1e-6, 1e-7);
    }
}
