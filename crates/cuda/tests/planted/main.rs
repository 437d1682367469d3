//! Bugs of every kind that the emulator looks for, planted in small kernels, each beside a twin without it. That is how we know that the checker checks,
//! and that it raises no false alarm.
//!
//! Every kernel runs in the checking flavour, once per kind of asynchronous copies, where its bug has to be named; and in the fast flavour in several
//! orders of its threads and with both kinds of copies, as the kernels of the project do. [`Shows`] is how a bug shows there; the tables below tell it
//! of each, so that nobody takes the fast flavour for more than it is.

use Shows::{Fails, InOrders, InResult, Nowhere};
use alexnode_core::Error;
use alexnode_cuda::{
    Driver,
    driver::{Address, Call},
    emulated::{Asynchronous, EmulatedDriver, Flavour, Options, Order},
    program::Program,
    testing,
};
use std::time::Duration;

const SOURCES: [(&str, &str); 8] = [
    ("async.cuh", include_str!("../../../../cuda/async.cuh")),
    ("fixture.cuh", include_str!("fixture.cuh")),
    ("block.cu", include_str!("block.cu")),
    ("copy.cu", include_str!("copy.cu")),
    ("fault.cu", include_str!("fault.cu")),
    ("grid.cu", include_str!("grid.cu")),
    ("memory.cu", include_str!("memory.cu")),
    ("warp.cu", include_str!("warp.cu")),
];

/// How a bug shows in the fast flavour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shows {
    /// The kernel fails.
    Fails,
    /// The result is wrong, whatever the order: a comparison with a reference finds it.
    InResult,
    /// The result is right in some order of the threads, or with one kind of asynchronous copies, and wrong in another.
    InOrders,
    /// It does not show.
    Nowhere,
}

/// Entry, what the checker's message says beside the lines, and how the bug shows in the fast flavour.
type Case = (&'static str, &'static [&'static str], Shows);

/// How the kernels of a source run.
#[derive(Clone, Copy)]
struct Source {
    name: &'static str,
    blocks: u32,
    threads: u32,
    /// Elements of x and y.
    count: usize,
}

#[test]
fn threads_of_a_block() {
    let source = Source { name: "block.cu", blocks: 1, threads: 64, count: 64 };
    let cases: &[Case] = &[
        ("no_barrier_after_a_write", &["thread 0", "uninitialised", "byte 4 of the 1024"], InResult),
        ("no_barrier_before_the_next_write", &["thread 1", "race", "that thread 0 reads"], InOrders),
        ("no_barrier_in_a_reduction", &["thread 1", "race", "that thread 0 reads"], InOrders),
        ("no_barrier_around_a_flag", &["uninitialised"], InOrders),
        ("shared_memory_that_nobody_wrote", &["uninitialised", "byte 252"], InResult),
        ("different_barriers", &["deadlock", "32 wait"], Fails),
        ("threads_that_end_before_a_barrier", &["deadlock", "57 wait", "7 have ended"], Fails),
        ("a_sum_by_all_threads", &["race", "argument 1"], Nowhere),
        ("a_sum_that_begins_too_late", &["race", "changes 4 bytes that thread 0 writes"], InOrders),
    ];
    check(source, cases);
}

#[test]
fn lanes_of_a_warp() {
    let source = Source { name: "warp.cu", blocks: 1, threads: 64, count: 64 };
    let cases: &[Case] = &[
        ("no_sync_of_the_warp", &["uninitialised", "sync_warp"], InResult),
        ("no_sync_of_the_warp_before_the_next_write", &["race", "sync_warp"], InResult),
        ("a_sync_of_the_warp_for_the_block", &["uninitialised"], InOrders),
        ("lanes_in_different_collectives", &["of which thread"], Fails),
        ("lanes_that_end_before_a_collective", &["deadlock", "29 wait for the lanes 0xffffffff"], Fails),
    ];
    check(source, cases);
}

#[test]
fn asynchronous_copies() {
    let source = Source { name: "copy.cu", blocks: 1, threads: 64, count: 128 };
    let cases: &[Case] = &[
        ("no_wait_for_a_copy", &["not waited for"], InOrders),
        ("a_wait_for_the_wrong_copy", &["not waited for", "byte 256"], InOrders),
        ("no_barrier_behind_the_wait", &["uninitialised"], InResult),
        ("no_barrier_before_the_next_copy", &["race", "__syncthreads"], InResult),
        ("a_copy_from_a_misaligned_address", &["misaligned", "no multiple of 16"], Nowhere),
        ("a_copy_from_behind_the_end", &["out of bounds", "right behind the end of argument 0"], Fails),
    ];
    check(source, cases);
}

#[test]
fn blocks_of_a_grid() {
    let source = Source { name: "grid.cu", blocks: 3, threads: 128, count: 250 };
    let cases: &[Case] = &[
        ("a_write_behind_the_end", &["out of bounds", "writes", "right behind the end of argument 1"], Fails),
        ("a_sum_by_all_blocks", &["race", "of block [0, 0, 0]", "two launches"], Nowhere),
        ("a_block_that_reads_what_another_writes", &["race", "of block [0, 0, 0]", "argument 1"], InOrders),
    ];
    check(source, cases);
}

#[test]
fn memory() {
    // A count whose bytes are no multiple of what allocations are aligned to.
    let source = Source { name: "memory.cu", blocks: 1, threads: 128, count: 125 };
    let cases: &[Case] = &[
        ("a_read_just_behind_the_end", &["out of bounds", "right behind the end of argument 0"], Nowhere),
        ("a_wild_offset", &["out of bounds", "not allocated"], Fails),
        ("memory_that_nobody_wrote", &["uninitialised", "byte 0 of argument 1"], Nowhere),
        ("a_misaligned_vector", &["misaligned", "float4"], Nowhere),
        ("memory_of_another_device", &["in the memory of emulated:1"], InResult),
        ("memory_of_the_host", &["no address of a device"], InResult),
        ("memory_that_was_given_back", &["not allocated"], Fails),
        ("a_null_pointer", &["0x0, which is no address"], Fails),
        ("an_index_behind_a_shared_array", &["out of bounds", "index 64 of float [64]"], InResult),
        ("an_index_behind_a_local_array", &["out of bounds", "index 4 of float [4]"], InResult),
        ("an_index_behind_all_of_shared_memory", &["out of bounds", "byte 512 of the 512"], InResult),
        ("a_variable_of_the_whole_program", &["neither local nor shared"], Nowhere),
        ("a_shift_by_too_much", &["shift of unsigned int 1 by 32 bits"], Nowhere),
        ("a_division_by_zero", &["125 / 0"], Fails),
        ("an_index_that_is_too_large_for_its_type", &["17 * 131072000 is no int"], InResult),
    ];
    check(source, cases);
}

/// Neither a fault nor a kernel without end takes the process along.
#[test]
fn kernels_that_do_not_end() {
    let source = Source { name: "fault.cu", blocks: 1, threads: 64, count: 64 };
    let cases: &[Case] = &[
        ("a_loop_without_end", &["does not end"], Fails),
        ("barriers_without_end", &["does not end"], Fails),
        ("a_thread_that_spins_on_another", &["does not end", "thread 0"], Fails),
        ("a_stack_that_is_full", &["fault.cu", "stack are full"], Fails),
    ];
    check(source, cases);
}

fn check(source: Source, cases: &[Case]) {
    let (_, text) = SOURCES.iter().find(|(name, _)| *name == source.name).unwrap();
    assert_eq!(text.matches("(ARGUMENTS) {").count(), cases.len(), "{}: entries", source.name);
    let copies = [Asynchronous::Late, Asynchronous::Eager];
    let checking = copies.map(|copies| driver(Flavour::Check, Order::Forward, copies));
    let orders = [Order::Forward, Order::Reverse, Order::Random(1), Order::Random(2)];
    let fast = orders.map(|order| copies.map(|copies| driver(Flavour::Fast, order, copies)));
    for mut driver in checking.into_iter().flatten() {
        for (entry, said, _) in cases {
            right(&mut driver, source, entry);
            let error = run(&mut driver, source, entry, true).expect_err(entry);
            let message = format!("{error}; {}", error.remedy().unwrap_or_else(|| panic!("{error}: what to do?")));
            let lines = lines(source.name, text, entry);
            for part in lines.iter().map(String::as_str).chain(said.iter().copied()) {
                assert!(message.contains(part), "{message}\ndoes not say {part}");
            }
        }
    }
    let mut fast: Vec<EmulatedDriver> = fast.into_iter().flatten().flatten().collect();
    if fast.is_empty() {
        return;
    }
    for (entry, _, shows) in cases {
        let want = right(&mut fast[0], source, entry);
        let mut seen = Vec::new();
        for driver in &mut fast {
            assert_eq!(right(driver, source, entry), want, "{entry}: depends on the order");
            // Not all of them: to wait for what does not end takes a while.
            if *shows != Fails || seen.is_empty() {
                seen.push(run(driver, source, entry, true).map_err(|error| error.to_string()));
            }
        }
        let wrong = seen.iter().filter(|result| result.as_ref().is_ok_and(|result| *result != want)).count();
        let found = match wrong {
            _ if seen.iter().any(Result::is_err) => Fails,
            0 => Nowhere,
            wrong if wrong == seen.len() => InResult,
            _ => InOrders,
        };
        assert_eq!(found, *shows, "{entry}: {seen:?}");
    }
}

/// The lines of `entry` that say `here`.
fn lines(source: &str, text: &str, entry: &str) -> Vec<String> {
    let entry = format!(" {entry}(ARGUMENTS) {{");
    let lines = text.lines().enumerate().skip_while(|(_, line)| !line.ends_with(&entry));
    let lines = lines.take_while(|(_, line)| *line != "}").filter(|(_, line)| line.ends_with("// here"));
    lines.map(|(i, _)| format!("{source}:{}", i + 1)).collect()
}

/// Two devices; none where there is no C++ compiler, which only a developer's machine may lack.
fn driver(flavour: Flavour, order: Order, asynchronous: Asynchronous) -> Option<EmulatedDriver> {
    let (threads, limit, sources) = (Some(1), Some(Duration::from_secs(1)), SOURCES.to_vec());
    let options = Options { flavour, order, asynchronous, threads, limit, sources, ..Options::default() };
    testing::unless_missing(EmulatedDriver::new(&[0, 1], options), testing::CXX)
}

/// What the twin without the bug leaves.
fn right(driver: &mut EmulatedDriver, source: Source, entry: &'static str) -> Vec<u32> {
    run(driver, source, entry, false).unwrap_or_else(|error| panic!("without its bug: {error}"))
}

/// What the kernel leaves in y and in memory of its own, or why it fails.
fn run(driver: &mut EmulatedDriver, source: Source, entry: &'static str, planted: bool) -> Result<Vec<u32>, Error> {
    let streams = [driver.stream(0)?, driver.stream(1)?];
    let mut upload = |device: usize, values: &[f32]| -> Result<Address, Error> {
        let address = driver.alloc(device, size_of_val(values))?;
        driver.upload(streams[device], address, bytemuck::cast_slice(values))?;
        Ok(address)
    };
    let x: Vec<f32> = (0..source.count).map(|i| (i * i % 97) as f32).collect();
    let (on_host, x) = ([1.0f32; 4], upload(0, &x)?);
    let (own, other, freed) = (upload(0, &[0.0; 4])?, upload(1, &[1.0; 4])?, upload(0, &[1.0; 4])?);
    driver.free(0, freed)?;
    let places = [own, other, on_host.as_ptr() as Address, freed, 0];
    let (y, table) = (driver.alloc(0, source.count * 4)?, driver.alloc(0, size_of_val(&places))?);
    driver.upload(streams[0], table, bytemuck::bytes_of(&places))?;
    let defines = if planted { vec![("PLANTED", 1)] } else { Vec::new() };
    let program = Program { source: source.name, entry, defines, constants: None, params_bytes: 4, buffers: 3 };
    let function = driver.load(0, &[program])?[0];
    let (params, buffers) = ((source.count as i32).to_le_bytes(), [x, y, table]);
    let grid = [source.blocks, 1, 1];
    let launched = driver
        .launch(streams[0], &Call { function, grid, threads: source.threads, params: &params, buffers: &buffers });
    let mut results = (vec![0u32; source.count], [0u32; 4]);
    driver.download(streams[0], y, bytemuck::cast_slice_mut(&mut results.0))?;
    driver.download(streams[0], own, bytemuck::cast_slice_mut(&mut results.1))?;
    for address in [x, y, table, own] {
        driver.free(0, address)?;
    }
    driver.free(1, other)?;
    launched.map(|()| [results.0, results.1.to_vec()].concat())
}
