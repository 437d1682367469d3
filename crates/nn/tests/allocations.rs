//! A training step allocates nothing, whatever its layers. One test, since the count is the process's.

mod common;

use alexnode_core::{Batch, BatchSource, Result};
use common::{Noise, network, segment, trainer};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
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

/// Gives the same minibatch again and again.
struct Same(Option<Batch>);

impl BatchSource for Same {
    fn next(&mut self) -> Result<Option<Batch>> {
        Ok(self.0.take())
    }
    fn recycle(&mut self, batch: Batch) {
        self.0 = Some(batch);
    }
}

#[test]
fn ten_steps_more_allocate_no_more() {
    for slots in [1, 2] {
        let mut trainer = trainer(network(), slots, 2 * slots, 6);
        let mut source = Same(Noise::new(6).next().unwrap());
        let mut allocations = |steps: usize| {
            let segment = segment(0, 0, 0, steps, 0.01);
            let before = COUNT.load(Ordering::Relaxed);
            let report = trainer.run(&mut source, &segment, &AtomicBool::new(false)).unwrap();
            assert_eq!(report.steps, steps);
            COUNT.load(Ordering::Relaxed) - before
        };
        // Queues, parkers and the pools' own lists reach their sizes.
        allocations(20);
        // A thread that waits at a place for the first time still allocates once there; what a step allocates, it always does.
        let more = (0..10).map(|_| allocations(12).abs_diff(allocations(2))).min();
        assert_eq!(more, Some(0), "{slots} slots");
    }
}
