//! Every kernel against its reference: odd shapes, gaps between pixels, towers, any number of workers.

mod augment;
mod class_weights;
mod convolution;
mod dropout_epilogue;
mod instructions;
mod loss;
mod machines;
mod norm_pool;
mod norms;
mod pointwise;
mod pooling;
mod programs;
mod sgd;

use alexnode_core::{Backend, Precision};
use alexnode_cpu::CpuBackend;
use alexnode_cuda::{
    CudaBackend,
    emulated::{Asynchronous, EmulatedDriver, Flavour, Options, Order},
    testing,
};
use alexnode_nn::testing::{
    alone::{Alone, Passes},
    compare, wide,
};

/// The processor with `workers` workers.
fn processor(workers: usize) -> CpuBackend {
    CpuBackend::new(1, Some(workers)).unwrap()
}

/// Backends whose results have to be the same bits, each with gaps between the pixels of x and y. The first one counts.
type Family = Vec<(String, [usize; 2], Box<dyn Backend>)>;

/// Every machine that runs kernels here: the processor with several numbers of workers, an emulated GPU with several orders of its threads, and one
/// that looks at every access, for which one order is enough; or what the environment names.
fn families() -> Vec<Family> {
    families_for(true)
}

/// Likewise; the one that looks only for `small` tasks.
fn families_for(small: bool) -> Vec<Family> {
    if let Some(named) = machines::named(Precision::Fp32) {
        return named;
    }
    let processors = [([0, 0], 1), ([5, 3], 2), ([0, 16], 3), ([7, 0], 5)];
    let processors = processors
        .map(|(gaps, workers)| (format!("{workers} workers"), gaps, Box::new(processor(workers)) as Box<dyn Backend>));
    let device = |gaps: [usize; 2], options: Options| {
        let how =
            format!("{:?} flavour, {:?} order, {:?} copies", options.flavour, options.order, options.asynchronous);
        Some((how, gaps, Box::new(emulated(options)?) as Box<dyn Backend>))
    };
    let orders =
        [([0, 0], Order::Forward), ([5, 3], Order::Reverse), ([0, 16], Order::Random(1)), ([7, 0], Order::Random(2))];
    let orders = orders.into_iter().filter_map(|(gaps, order)| device(gaps, Options { order, ..Options::default() }));
    let copies = [([0, 16], Asynchronous::Late), ([5, 3], Asynchronous::Eager)].into_iter().filter(|_| small);
    let checked = copies.filter_map(|(gaps, asynchronous)| {
        device(gaps, Options { flavour: Flavour::Check, asynchronous, ..Options::default() })
    });
    let all: [Family; 3] = [processors.into(), orders.collect(), checked.collect()];
    all.into_iter().filter(|family| !family.is_empty()).collect()
}

/// An emulated GPU; none where there is no C++ compiler, which only a developer's machine may lack.
fn emulated(options: Options) -> Option<CudaBackend> {
    emulated_in(Precision::Fp32, options)
}

/// The same, whose layers multiply in `precision`.
fn emulated_in(precision: Precision, options: Options) -> Option<CudaBackend> {
    let specialise = options.specialise;
    let driver = testing::unless_missing(EmulatedDriver::new(&[0], options), testing::CXX)?;
    Some(CudaBackend::new(Box::new(driver), precision, specialise).unwrap())
}

/// Runs `body` on every machine. Within a family it must return the same bits.
fn alike(body: impl Fn(&mut dyn Backend) -> Vec<u32>) {
    for family in families() {
        let mut first: Option<Vec<u32>> = None;
        for (machine, _, mut backend) in family {
            let bits = body(&mut *backend);
            assert!(*first.get_or_insert_with(|| bits.clone()) == bits, "other bits with {machine}");
        }
    }
}

/// Runs `alone` on every machine. Within a family the bits must be the same.
fn agree(alone: &mut Alone<'_>, x: &[f32], dy: &[f32]) -> Vec<Passes> {
    let name = name(alone);
    let mut all = Vec::new();
    // Terms of the sums of a convolution's data gradient, more or less: what takes longest.
    let terms = alone.parameters.first().map_or(0, Vec::len) / alone.input.c;
    let work = alone.batch * alone.input.h * alone.input.w * terms;
    for family in families_for(work < 500_000) {
        let mut first: Option<Passes> = None;
        for (machine, gaps, mut backend) in family {
            // Elementwise layers work in place: one tensor, one gap.
            alone.gaps = gaps;
            let passes = alone.run(x, dy, &mut *backend);
            let Some(first) = &first else {
                first = Some(passes);
                continue;
            };
            same_passes(&format!("{name}: {machine}, gaps {gaps:?}"), first, &passes);
        }
        all.extend(first);
    }
    all
}

/// An error where two results differ in a bit.
fn same_passes(name: &str, a: &Passes, b: &Passes) {
    let same = |what: &str, a: &[f32], b: &[f32]| assert!(bits(a) == bits(b), "{name}: other bits of {what}");
    same("output", &a.y, &b.y);
    same("gradient", &a.dx, &b.dx);
    for (i, (a, b)) in a.gradients.iter().zip(&b.gradients).enumerate() {
        same(&format!("gradient of parameter tensor {i}"), a, b);
    }
}

/// As [`agree`]; and output and gradient are near `want`. What the processor made.
fn check(alone: &mut Alone<'_>, x: &[f32], dy: &[f32], want: (&[f64], &[f64]), rtol: f64, atol: f64) -> Passes {
    let name = name(alone);
    let all = agree(alone, x, dy);
    for passes in &all {
        compare(&format!("{name}: output"), &passes.y, want.0, rtol, atol);
        if alone.train {
            compare(&format!("{name}: gradient"), &passes.dx, want.1, rtol, atol);
        }
    }
    all.into_iter().next().unwrap()
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
        let before = rng.normals((rows - 1) * dst_ld + c, 1.0);
        let src = rng.normals((rows - 1) * src_ld + c, 1.0);
        let mut want = wide(&before);
        for row in 0..rows {
            for i in 0..c {
                want[row * dst_ld + i] += f64::from(src[row * src_ld + i]);
            }
        }
        let params = AddParams { rows: rows as i32, c: c as i32, dst_ld: dst_ld as i32, src_ld: src_ld as i32 };
        alike(|backend| {
            let mut dst = before.clone();
            let mut read = bytemuck::cast_slice(&src).to_vec();
            let buffers: &mut [&mut [u8]] = &mut [bytemuck::cast_slice_mut(&mut dst), &mut read];
            run_kernel(define::<Add>(), params, buffers, backend);
            compare("sum", &dst, &want, 1e-6, 1e-7);
            bits(&dst)
        });
    }
}
