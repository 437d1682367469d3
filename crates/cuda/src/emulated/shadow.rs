//! Who touched a byte, and whether anything orders that before what a thread does now. Exact, except where [`Set`] says otherwise.
//!
//! What a thread did before a barrier of its block comes before what any thread of the block does after it. Within a warp, what a lane did before a
//! collective comes before what the lanes that took part do after it. Nothing orders two blocks of a launch; launches are ordered.

/// Lanes of a warp.
const WARP: usize = 32;

/// The time in a block.
#[derive(Debug, Default)]
pub struct Clock {
    /// Blocks have running numbers, from 1 on, over all launches.
    block: u32,
    /// The first of this launch.
    launch: u32,
    /// Barriers that the block has passed.
    barrier: u32,
    warps: Vec<Warp>,
}

#[derive(Debug)]
struct Warp {
    /// Collectives so far.
    events: u32,
    /// For each lane, of each lane: the collective before which all that it did is known to have been done.
    known: [[u32; WARP]; WARP],
}

impl Clock {
    /// A launch begins.
    pub fn begin_launch(&mut self) {
        self.launch = self.block + 1;
    }
    /// The next block of it begins.
    pub fn begin_block(&mut self, threads: usize) {
        self.block += 1;
        self.barrier = 0;
        self.warps.clear();
        self.warps.resize_with(threads.div_ceil(WARP), || Warp { events: 0, known: [[0; WARP]; WARP] });
    }
    /// All threads of the block have met.
    pub fn barrier(&mut self) {
        self.barrier += 1;
    }
    /// The lanes of `mask` of a warp have met.
    pub fn meet(&mut self, warp: usize, mask: u32) {
        let warp = &mut self.warps[warp];
        warp.events += 1;
        let lanes = || (0..WARP).filter(|lane| mask >> lane & 1 == 1);
        let mut all = [0; WARP];
        for lane in lanes() {
            for (all, known) in all.iter_mut().zip(&warp.known[lane]) {
                *all = (*all).max(*known);
            }
        }
        for lane in lanes() {
            all[lane] = warp.events;
        }
        for lane in lanes() {
            warp.known[lane] = all;
        }
    }
    /// The first block whose accesses still matter: this one for its shared memory, the first of the launch for global memory.
    fn since(&self, shared: bool) -> u32 {
        if shared { self.block } else { self.launch }
    }
    /// How many blocks of this launch came before block `number`.
    pub fn place(&self, number: u32) -> usize {
        (number - self.launch) as usize
    }
    /// Whether `thread` comes after what `lane` of its warp did after collective `event`.
    fn follows(&self, thread: u16, lane: usize, event: u32) -> bool {
        self.warps[thread as usize / WARP].known[thread as usize % WARP][lane] > event
    }
    fn events(&self, thread: u16) -> u32 {
        self.warps[thread as usize / WARP].events
    }
}

/// What a thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It reads.
    Read,
    /// It writes.
    Write,
    /// It reads and writes, and nobody comes between.
    Atomic,
}

impl Kind {
    /// For messages: what it does, and what somebody else did.
    pub fn verb(self) -> &'static str {
        match self {
            Self::Read => "reads",
            Self::Write => "writes",
            Self::Atomic => "changes",
        }
    }
}

/// Another access to the same memory, and nothing says which of them comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// What the other one did.
    pub kind: Kind,
    /// The running number of its block, where that is another one.
    pub block: Option<u32>,
    /// Its thread; of another block's only one of those that did so may be known.
    pub thread: Option<u16>,
    /// Where.
    pub site: u32,
}

/// Accesses of one kind, all to the same memory: enough of them to find a conflict with any.
///
/// Of blocks that were before, one is kept; of the running one since its last barrier: lanes of one warp, and a thread of another. The lanes share the
/// time of the oldest. So a conflict can be missed where lanes of one warp meet in several groups; none is made up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
struct Set {
    /// Running number of the block; 0: there were none.
    block: u32,
    barrier: u32,
    event: u32,
    lanes: u32,
    warp: u16,
    /// A thread of another warp, plus 1.
    other: u16,
    site: u32,
    other_site: u32,
    /// Another block, if it is of this launch.
    earlier: u32,
}

// SAFETY: numbers only; all zeros is the default.
unsafe impl bytemuck::Zeroable for Set {}

impl Set {
    fn of(clock: &Clock, thread: u16, site: u32) -> Self {
        Self {
            block: clock.block,
            barrier: clock.barrier,
            event: clock.events(thread),
            lanes: 1 << (thread % WARP as u16),
            warp: thread / WARP as u16,
            site,
            ..Self::default()
        }
    }

    /// One of them that nothing orders before what `thread` does now. They are of `kind`; blocks before `since` do not matter.
    fn conflict(&self, kind: Kind, clock: &Clock, since: u32, thread: u16) -> Option<Conflict> {
        if self.block < since {
            return None;
        }
        let lowest = || self.warp * WARP as u16 + self.lanes.trailing_zeros() as u16;
        let of = |block, thread, site| Some(Conflict { kind, block, thread, site });
        if self.block != clock.block {
            return of(Some(self.block), Some(lowest()), self.site);
        }
        if self.earlier >= since {
            return of(Some(self.earlier), None, self.site);
        }
        if self.barrier != clock.barrier {
            return None;
        }
        if self.warp != thread / WARP as u16 {
            return of(None, Some(lowest()), self.site);
        }
        if self.other > 0 {
            return of(None, Some(self.other - 1), self.other_site);
        }
        let others = self.lanes & !(1 << (thread % WARP as u16));
        let lane = (0..WARP).find(|lane| others >> lane & 1 == 1 && !clock.follows(thread, *lane, self.event))?;
        of(None, Some(self.warp * WARP as u16 + lane as u16), self.site)
    }

    /// Adds one.
    fn add(&mut self, clock: &Clock, since: u32, thread: u16, site: u32) {
        if self.block != clock.block {
            let earlier = if self.block >= since { self.block } else { 0 };
            *self = Self { earlier, ..Self::of(clock, thread, site) };
        } else if self.barrier != clock.barrier {
            *self = Self { earlier: self.earlier, ..Self::of(clock, thread, site) };
        } else if self.warp != thread / WARP as u16 {
            (self.other, self.other_site) = (thread + 1, site);
        } else {
            let (own, now) = (1 << (thread % WARP as u16), clock.events(thread));
            // Whatever conflicts with a lane that this one comes after conflicts with this one.
            if self.event != now {
                let before = (0..WARP).filter(|lane| clock.follows(thread, *lane, self.event));
                self.lanes &= !before.fold(0, |lanes, lane| lanes | 1 << lane);
            }
            if self.lanes & !own == 0 {
                self.event = now;
            }
            self.lanes |= own;
            self.site = site;
        }
    }
}

/// What was done to a piece of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Zeroable)]
#[repr(C)]
struct Cell {
    reads: Set,
    writes: Set,
    atomics: Set,
    /// Where its bytes have cells of their own, plus 1.
    split: u32,
}

impl Cell {
    fn touch(&mut self, kind: Kind, clock: &Clock, since: u32, thread: u16, site: u32) -> Option<Conflict> {
        let writes = self.writes.conflict(Kind::Write, clock, since, thread);
        let reads = || self.reads.conflict(Kind::Read, clock, since, thread);
        let atomics = || self.atomics.conflict(Kind::Atomic, clock, since, thread);
        let conflict = match kind {
            Kind::Read => writes.or_else(atomics),
            Kind::Write => writes.or_else(atomics).or_else(reads),
            Kind::Atomic => writes.or_else(reads),
        };
        match kind {
            Kind::Read => self.reads.add(clock, since, thread, site),
            // All that was before comes before this one, too, or there is a conflict.
            Kind::Write => self.writes = Set::of(clock, thread, site),
            Kind::Atomic => self.atomics.add(clock, since, thread, site),
        }
        conflict
    }
}

/// Bytes of a cell, unless something smaller was touched.
const WORD: usize = 4;

/// What is known of a range of memory. Takes memory of its own only for what is touched.
#[derive(Debug)]
pub struct Shadow {
    /// Whether every block has its own.
    shared: bool,
    cells: Box<[Cell]>,
    split: Vec<[Cell; WORD]>,
}

impl Shadow {
    /// Of `bytes` bytes that nobody has touched. `shared`: whether every block has its own.
    pub fn new(bytes: usize, shared: bool) -> Self {
        Self { shared, cells: bytemuck::zeroed_slice_box(bytes.div_ceil(WORD)), split: Vec::new() }
    }

    /// `thread` touches `bytes` bytes from byte `first` on. What it conflicts with.
    pub fn touch(
        &mut self,
        first: usize,
        bytes: usize,
        kind: Kind,
        clock: &Clock,
        thread: u16,
        site: u32,
    ) -> Option<Conflict> {
        let (mut at, end, mut found, since) = (first, first + bytes, None, clock.since(self.shared));
        while at < end {
            let (word, next) = (at / WORD, (at / WORD + 1) * WORD);
            let cell = &mut self.cells[word];
            if cell.split == 0 && at % WORD == 0 && next <= end {
                found = found.or(cell.touch(kind, clock, since, thread, site));
            } else {
                if cell.split == 0 {
                    self.split.push([*cell; WORD]);
                    cell.split = self.split.len() as u32;
                }
                let bytes = &mut self.split[cell.split as usize - 1];
                for cell in &mut bytes[at % WORD..(end - word * WORD).min(WORD)] {
                    found = found.or(cell.touch(kind, clock, since, thread, site));
                }
            }
            at = next;
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Kind::{Atomic, Read, Write};

    /// A launch with memory of 64 bytes.
    struct Bench {
        clock: Clock,
        shadow: Shadow,
    }

    impl Bench {
        fn new(shared: bool) -> Self {
            let mut bench = Self { clock: Clock::default(), shadow: Shadow::new(64, shared) };
            bench.clock.begin_launch();
            bench.clock.begin_block(64);
            bench
        }
        /// The first word.
        fn touch(&mut self, thread: u16, kind: Kind) -> Option<Conflict> {
            self.bytes(0..4, thread, kind)
        }
        fn bytes(&mut self, bytes: std::ops::Range<usize>, thread: u16, kind: Kind) -> Option<Conflict> {
            self.shadow.touch(bytes.start, bytes.len(), kind, &self.clock, thread, u32::from(thread))
        }
    }

    fn with(kind: Kind, thread: u16) -> Option<Conflict> {
        Some(Conflict { kind, block: None, thread: Some(thread), site: u32::from(thread) })
    }

    #[test]
    fn a_barrier_orders_all_threads() {
        let mut bench = Bench::new(true);
        assert_eq!([bench.touch(0, Write), bench.touch(0, Read)], [None; 2]);
        assert_eq!(bench.touch(40, Read), with(Write, 0));
        bench.clock.barrier();
        assert_eq!([bench.touch(40, Read), bench.touch(0, Read), bench.touch(1, Read)], [None; 3]);
        assert_eq!(bench.touch(1, Write), with(Read, 40));
        bench.clock.barrier();
        assert_eq!(bench.touch(1, Write), None);
    }

    #[test]
    fn a_collective_orders_the_lanes_that_take_part() {
        let mut bench = Bench::new(true);
        assert_eq!(bench.touch(3, Write), None);
        bench.clock.meet(0, 0b1010);
        assert_eq!(bench.touch(1, Read), None);
        // Lane 0 learns of it through lane 1.
        bench.clock.meet(0, 0b0011);
        assert_eq!(bench.touch(0, Read), None);
        assert_eq!(bench.touch(2, Read), with(Write, 3));
        // A collective of one warp says nothing of another.
        bench.clock.meet(1, u32::MAX);
        assert_eq!(bench.touch(35, Read), with(Write, 3));
    }

    #[test]
    fn every_reader_counts() {
        for readers in [[5, 6, 7], [5, 6, 40], [40, 41, 5]] {
            for writer in [5, 6, 9, 40, 50] {
                let mut bench = Bench::new(true);
                for reader in readers {
                    assert_eq!(bench.touch(reader, Read), None);
                }
                assert!(bench.touch(writer, Write).is_some(), "{readers:?}, then {writer}");
            }
        }
        // The lanes that have met its writer do not count any more, the other one does.
        let mut bench = Bench::new(true);
        assert_eq!([bench.touch(5, Read), bench.touch(6, Read), bench.touch(7, Read)], [None; 3]);
        bench.clock.meet(0, 0b0110_0000);
        assert_eq!(bench.touch(5, Write), with(Read, 7));
    }

    #[test]
    fn atomic_accesses_conflict_with_others_only() {
        let mut bench = Bench::new(false);
        assert_eq!([bench.touch(0, Atomic), bench.touch(1, Atomic), bench.touch(40, Atomic)], [None; 3]);
        assert!(bench.touch(40, Read).is_some());
        let mut bench = Bench::new(false);
        assert_eq!([bench.touch(0, Write), bench.touch(0, Atomic)], [None; 2]);
        assert_eq!(bench.touch(1, Atomic), with(Write, 0));
    }

    #[test]
    fn nothing_orders_blocks_but_the_end_of_their_launch() {
        let mut bench = Bench::new(false);
        assert_eq!([bench.touch(0, Read), bench.touch(1, Read)], [None; 2]);
        bench.clock.begin_block(64);
        assert_eq!(bench.touch(5, Read), None);
        bench.clock.barrier();
        let conflict = bench.touch(5, Write).unwrap();
        assert_eq!((conflict.kind, conflict.block.map(|block| bench.clock.place(block))), (Read, Some(0)));
        bench.clock.begin_launch();
        bench.clock.begin_block(64);
        assert_eq!(bench.touch(7, Write), None);
        // Shared memory is another block's own.
        let mut bench = Bench::new(true);
        bench.touch(0, Write);
        bench.clock.begin_block(64);
        assert_eq!(bench.touch(1, Write), None);
    }

    #[test]
    fn bytes_of_a_word_have_their_own_owners() {
        let mut bench = Bench::new(false);
        for thread in 0..4u16 {
            let byte = usize::from(thread);
            assert_eq!(bench.bytes(byte..byte + 1, thread, Write), None);
        }
        assert_eq!(bench.bytes(2..3, 2, Read), None);
        assert_eq!(bench.bytes(0..4, 2, Read), with(Write, 0));
        // What is known of a word is known of each of its bytes.
        assert_eq!(bench.bytes(8..12, 0, Write), None);
        assert_eq!(bench.bytes(11..13, 1, Read), with(Write, 0));
    }
}
