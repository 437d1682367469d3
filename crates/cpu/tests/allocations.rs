//! A step allocates nothing: neither issuing commands nor running them. One test, since the count is the process's.

use alexnode_core::{Access, Args, Backend, Copy2d, Host, Kernel, Launch, SlotId, Stage, Target, View, kernel::define};
use alexnode_cpu::CpuBackend;
use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering},
};

struct Counting;

static COUNT: AtomicUsize = AtomicUsize::new(0);

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are the same.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are the same.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Calls many small tasks.
struct Tasks;

impl Kernel for Tasks {
    type Params = u32;
    const NAME: &'static str = "test_tasks";
    const SOURCE: &'static str = "";
    const ACCESS: &'static [Access] = &[Access::ReadWrite];
    fn run(tasks: &u32, args: &Args<'_>, host: &dyn Host) {
        alexnode_core::host::parallel_chunks(host, args.write::<f32>(0), *tasks as usize, |i, chunk| {
            for x in chunk {
                *x += i as f32;
            }
        });
    }
    fn stages(_: &u32, _: &Target) -> Vec<Stage> {
        Vec::new()
    }
}

#[test]
fn commands_allocate_nothing() {
    let mut backend = CpuBackend::new(2, Some(4)).unwrap();
    let bytes = 1 << 16;
    let views = [0, 1].map(|i| View { buffer: backend.alloc(SlotId(i), bytes).unwrap(), offset: 0, bytes });
    let launch = views.map(|view| Launch::new(define::<Tasks>(), &64u32.to_ne_bytes(), &[view]));
    let mut down = vec![0; bytes];
    let mut step = || {
        for _ in 0..50 {
            for i in 0..2 {
                backend.upload(views[i].slice(0, 64), &[0; 64]).unwrap();
                backend.launch(SlotId(i as u8), &launch[i]).unwrap();
                let (src, dst) = (views[i], views[1 - i]);
                let copy = Copy2d { src, dst, rows: 64, row_bytes: 512, src_pitch: 1024, dst_pitch: 1024 };
                backend.copy(&copy).unwrap();
            }
        }
        backend.download(views[0], &mut down).unwrap();
        backend.upload(views[0], &down).unwrap();
        backend.synchronize().unwrap();
    };
    // Queues, parkers and the pools' own lists reach their sizes.
    for _ in 0..20 {
        step();
    }
    let mut allocations = || {
        let before = COUNT.load(Ordering::Relaxed);
        step();
        COUNT.load(Ordering::Relaxed) - before
    };
    // A thread that waits at a place for the first time still allocates once there; what a step allocates, it always does.
    assert_eq!((0..20).map(|_| allocations()).min(), Some(0));
}
