//! The promises of `Backend`, kept by the processor: order, copies, determinism, failures.

use alexnode_core::{
    Access, Args, Backend, BufferId, Copy2d, ErrorCode, Host, Kernel, Launch, SlotId, Stage, Target, View,
    host::Shared, kernel::define,
};
use alexnode_cpu::CpuBackend;
use bytemuck::{Pod, Zeroable, bytes_of, cast_slice, cast_slice_mut};
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct AddParams {
    amount: f32,
    /// Microseconds to sleep before, so that a missing wait shows.
    delay: u32,
}

/// x += amount.
struct Add;

impl Kernel for Add {
    type Params = AddParams;
    const NAME: &'static str = "test_add";
    const SOURCE: &'static str = "";
    const ACCESS: &'static [Access] = &[Access::ReadWrite];
    fn run(p: &AddParams, args: &Args<'_>, _host: &dyn Host) {
        std::thread::sleep(Duration::from_micros(u64::from(p.delay)));
        for x in args.write::<f32>(0) {
            *x += p.amount;
        }
    }
    fn stages(_: &AddParams, _: &Target) -> Vec<Stage> {
        Vec::new()
    }
}

/// Panics in a task.
struct Broken;

impl Kernel for Broken {
    type Params = u32;
    const NAME: &'static str = "test_broken";
    const SOURCE: &'static str = "";
    const ACCESS: &'static [Access] = &[];
    fn run(_p: &u32, _args: &Args<'_>, host: &dyn Host) {
        host.parallel(8, &|i, _| assert!(i != 5, "task five is broken"));
    }
    fn stages(_: &u32, _: &Target) -> Vec<Stage> {
        Vec::new()
    }
}

/// c = a b^T, 64 x 64 x 300, in blocks of rows; then c[0] = the sum of everything in fixed chunks.
struct Product;

impl Kernel for Product {
    type Params = u32;
    const NAME: &'static str = "test_product";
    const SOURCE: &'static str = "";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Read, Access::Write];
    fn run(_p: &u32, args: &Args<'_>, host: &dyn Host) {
        let (a, b) = (args.read::<f32>(0), args.read::<f32>(1));
        let c = Shared::new(args.write::<f32>(2));
        host.parallel(8, &|i, _| {
            // SAFETY: eight rows of c belong to each task.
            let c = unsafe { c.range(i * 8 * 64, 8 * 64) };
            for (row, c) in c.chunks_mut(64).enumerate() {
                let a = &a[(i * 8 + row) * 300..][..300];
                for (b, c) in b.chunks(300).zip(c) {
                    *c = a.iter().zip(b).map(|(a, b)| a * b).sum();
                }
            }
        });
    }
    fn stages(_: &u32, _: &Target) -> Vec<Stage> {
        Vec::new()
    }
}

fn whole(buffer: BufferId, bytes: usize) -> View {
    View { buffer, offset: 0, bytes }
}

fn add(backend: &mut CpuBackend, view: View, amount: f32, delay: u32) {
    let launch = Launch::new(define::<Add>(), bytes_of(&AddParams { amount, delay }), &[view]);
    backend.launch(view.buffer.slot, &launch).unwrap();
}

fn read(backend: &mut CpuBackend, view: View) -> Vec<f32> {
    let mut data = vec![0.0f32; view.bytes / 4];
    backend.download(view, cast_slice_mut(&mut data)).unwrap();
    data
}

#[test]
fn slots_run_in_order_and_copies_order_them_among_each_other() {
    for threads in [1, 2, 4] {
        let mut backend = CpuBackend::new(2, Some(threads)).unwrap();
        let bytes = 4096;
        let views = [0, 1].map(|i| whole(backend.alloc(SlotId(i), bytes).unwrap(), bytes));
        let mut expected = [0.0f64; 2];
        for view in views {
            backend.upload(view, &vec![0; bytes]).unwrap();
        }
        // A fixed pseudo-random sequence of additions and copies both ways, with uneven delays.
        let mut seed = 12_345u32;
        for _ in 0..2000 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let slot = (seed >> 31) as usize;
            if (seed >> 28) & 3 == 0 {
                let (src, dst) = (views[slot], views[1 - slot]);
                let copy = Copy2d { src, dst, rows: 1, row_bytes: bytes, src_pitch: bytes, dst_pitch: bytes };
                backend.copy(&copy).unwrap();
                expected[1 - slot] = expected[slot];
            } else {
                add(&mut backend, views[slot], 1.0, (seed >> 16) & 31);
                expected[slot] += 1.0;
            }
        }
        for (view, expected) in views.into_iter().zip(expected) {
            assert!(read(&mut backend, view).iter().all(|x| f64::from(*x) == expected));
        }
        backend.synchronize().unwrap();
    }
}

#[test]
fn two_slots_run_at_the_same_time() {
    let mut backend = CpuBackend::new(2, Some(2)).unwrap();
    let views = [0, 1].map(|i| whole(backend.alloc(SlotId(i), 4).unwrap(), 4));
    let start = Instant::now();
    for view in views {
        add(&mut backend, view, 1.0, 500_000);
    }
    assert!(start.elapsed() < Duration::from_millis(400), "a launch waits for its kernel");
    backend.synchronize().unwrap();
    let elapsed = start.elapsed();
    assert!(elapsed >= Duration::from_millis(500), "synchronize does not wait: {elapsed:?}");
    assert!(elapsed < Duration::from_millis(990), "the slots wait for each other: {elapsed:?}");
}

#[test]
fn rows_of_a_copy_are_strided_on_both_sides() {
    let mut backend = CpuBackend::new(2, Some(2)).unwrap();
    let (rows, channels) = (50_000, 3);
    let (src, dst) = (rows * 5 * 4, rows * 7 * 4);
    let from = whole(backend.alloc(SlotId(0), src).unwrap(), src);
    let into = [0, 1].map(|i| whole(backend.alloc(SlotId(i), dst).unwrap(), dst));
    let data: Vec<f32> = (0..rows * 5).map(|i| i as f32).collect();
    backend.upload(from, cast_slice(&data)).unwrap();
    for into in into {
        backend.upload(into, cast_slice(&vec![-1.0f32; rows * 7])).unwrap();
        // Channels 1..4 of 5 become channels 2..5 of 7.
        let copy = Copy2d {
            src: from.slice(4, src - 4),
            dst: into.slice(8, dst - 8),
            rows,
            row_bytes: channels * 4,
            src_pitch: 20,
            dst_pitch: 28,
        };
        backend.copy(&copy).unwrap();
        for (i, row) in read(&mut backend, into).chunks(7).enumerate() {
            let [x, y, z] = [1, 2, 3].map(|c| (i * 5 + c) as f32);
            assert_eq!(row, [-1.0, -1.0, x, y, z, -1.0, -1.0]);
        }
    }
    let outside = Copy2d { src: from, dst: into[0], rows, row_bytes: 24, src_pitch: 20, dst_pitch: 28 };
    assert_eq!(backend.copy(&outside).unwrap_err().code(), ErrorCode::Kernel);
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let results = [1, 2, 3].map(|threads| {
        let mut backend = CpuBackend::new(1, Some(threads)).unwrap();
        let operand = 64 * 300 * 4;
        let views = [operand, operand, 64 * 64 * 4].map(|b| whole(backend.alloc(SlotId(0), b).unwrap(), b));
        let data: Vec<f32> = (0..64 * 300).map(|i| (i as f32 * 0.37).sin()).collect();
        backend.upload(views[0], cast_slice(&data)).unwrap();
        backend.upload(views[1], cast_slice(&data)).unwrap();
        backend.launch(SlotId(0), &Launch::new(define::<Product>(), bytes_of(&0u32), &views)).unwrap();
        read(&mut backend, views[2]).iter().map(|x| x.to_bits()).collect::<Vec<u32>>()
    });
    assert_eq!(results[0], results[1]);
    assert_eq!(results[0], results[2]);
}

#[test]
fn a_panicking_kernel_is_an_error_that_names_it_and_the_backend_lives_on() {
    for threads in [1, 3] {
        let mut backend = CpuBackend::new(1, Some(threads)).unwrap();
        let view = whole(backend.alloc(SlotId(0), 4).unwrap(), 4);
        for _ in 0..2 {
            backend.launch(SlotId(0), &Launch::new(define::<Broken>(), bytes_of(&0u32), &[])).unwrap();
            add(&mut backend, view, 1.0, 0);
            let error = backend.synchronize().unwrap_err();
            assert_eq!(error.code(), ErrorCode::Kernel);
            assert!(error.message().contains("test_broken") && error.message().contains("task five"), "{error}");
            backend.synchronize().unwrap();
        }
        // What followed the failure did not run; what follows the report does.
        add(&mut backend, view, 1.0, 0);
        assert_eq!(read(&mut backend, view), [1.0]);
    }
}

#[test]
fn mistakes_are_errors() {
    let mut backend = CpuBackend::new(1, Some(1)).unwrap();
    let buffer = backend.alloc(SlotId(0), 64).unwrap();
    let view = whole(buffer, 64);
    assert!(backend.upload(view, &[0; 63]).is_err());
    assert!(backend.download(View { buffer, offset: 32, bytes: 64 }, &mut [0; 64]).is_err());
    assert!(backend.alloc(SlotId(1), 4).is_err());
    assert_eq!(backend.alloc(SlotId(0), 1 << 50).unwrap_err().code(), ErrorCode::Device);
    backend.free(buffer);
    assert!(backend.upload(view, &[0; 64]).is_err());
    assert_eq!(CpuBackend::new(0, None).err().unwrap().code(), ErrorCode::Usage);
    for threads in [0, 1025, usize::MAX] {
        let error = CpuBackend::new(1, Some(threads)).err().unwrap();
        assert_eq!(error.code(), ErrorCode::Usage);
        assert!(error.message().contains(&format!("got {threads}")), "{error}");
    }
}

#[test]
fn freed_numbers_serve_again() {
    let mut backend = CpuBackend::new(1, Some(1)).unwrap();
    let first = backend.alloc(SlotId(0), 64).unwrap();
    let second = backend.alloc(SlotId(0), 64).unwrap();
    backend.free(first);
    assert_eq!(backend.alloc(SlotId(0), 128).unwrap().index, first.index);
    assert_ne!(first.index, second.index);
}
