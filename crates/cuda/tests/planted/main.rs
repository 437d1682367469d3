//! Bugs of every kind that the emulator looks for, planted in small kernels, each beside a twin without it. That is how we know that the checker checks,
//! and that it raises no false alarm.
//!
//! Every kernel runs in the checking flavour, once, where its bug has to be named; and in the fast flavour in several orders of its threads and with
//! both kinds of asynchronous copies, as the kernels of the project do. [`Fast`] says what shows there; [`CASES`] is the table.

use Fast::{Fails, Missed, Order as ByOrder, Result as ByResult};
use alexnode_core::Error;
use alexnode_cuda::{
    Driver,
    driver::{Address, Call},
    emulated::{Asynchronous, EmulatedDriver, Flavour, Options, Order},
    program::Program,
};
use std::time::Duration;

const SOURCES: [(&str, &str); 7] = [
    ("async.cuh", include_str!("../../../../cuda/async.cuh")),
    ("fixture.cuh", include_str!("fixture.cuh")),
    ("block.cu", include_str!("block.cu")),
    ("copy.cu", include_str!("copy.cu")),
    ("fault.cu", include_str!("fault.cu")),
    ("memory.cu", include_str!("memory.cu")),
    ("warp.cu", include_str!("warp.cu")),
];

/// How a bug shows in the fast flavour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fast {
    /// The kernel fails.
    Fails,
    /// The result is wrong, whatever the order: a comparison with a reference finds it.
    Result,
    /// The result is right in some order of the threads, or with one kind of asynchronous copies, and wrong in another.
    Order,
    /// It does not show.
    Missed,
}

/// Source, entry, blocks, threads, the elements of x and y; what the checker's message says; how it shows in the fast flavour.
type Case = (&'static str, &'static str, u32, u32, usize, &'static [&'static str], Fast);

const CASES: &[Case] = &[
    ("block.cu", "no_barrier_after_a_write", 1, 64, 64, &["block.cu:11", "thread 0", "uninitialised", "__syncthreads"], ByResult),
];

fn options(flavour: Flavour, order: Order, asynchronous: Asynchronous) -> Options {
    let (threads, limit) = (Some(1), Some(Duration::from_millis(400)));
    Options { flavour, order, asynchronous, threads, limit, sources: SOURCES.to_vec(), ..Options::default() }
}

/// Two devices; none where there is no C++ compiler, which only a developer's machine may lack.
fn driver(options: Options) -> Option<EmulatedDriver> {
    match EmulatedDriver::new(&[0, 1], options) {
        Ok(driver) => Some(driver),
        Err(error) if std::env::var_os("CI").is_none() => {
            eprintln!("SKIPPED: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// What the kernel leaves in y, or why it does not.
fn run(driver: &mut EmulatedDriver, case: &Case, planted: bool) -> Result<Vec<u32>, Error> {
    let (source, entry, blocks, threads, count, ..) = *case;
    let streams = [driver.stream(0)?, driver.stream(1)?];
    let mut upload = |device: usize, values: &[f32]| -> Result<Address, Error> {
        let address = driver.alloc(device, size_of_val(values))?;
        driver.upload(streams[device], address, bytemuck::cast_slice(values))?;
        Ok(address)
    };
    let x: Vec<f32> = (0..count).map(|i| (i * i % 97) as f32).collect();
    let (on_host, x) = ([1.0f32; 4], upload(0, &x)?);
    let (own, other, freed) = (upload(0, &[0.0; 4])?, upload(1, &[1.0; 4])?, upload(0, &[1.0; 4])?);
    driver.free(0, freed)?;
    let y = driver.alloc(0, count * 4)?;
    let places = driver.alloc(0, 40)?;
    driver.upload(streams[0], places, bytemuck::bytes_of(&[own, other, on_host.as_ptr() as Address, freed, 0]))?;
    let program = Program {
        source,
        entry,
        defines: if planted { vec![("PLANTED", 1)] } else { Vec::new() },
        constants: None,
        params_bytes: 4,
        buffers: 3,
    };
    let function = driver.load(0, &[program])?[0];
    let params = (count as i32).to_le_bytes();
    driver.launch(
        streams[0],
        &Call { function, grid: [blocks, 1, 1], threads, params: &params, buffers: &[x, y, places] },
    )?;
    let mut result = vec![0u32; count];
    driver.download(streams[0], y, bytemuck::cast_slice_mut(&mut result))?;
    let mut sums = [0u32; 4];
    driver.download(streams[0], own, bytemuck::cast_slice_mut(&mut sums))?;
    for address in [x, y, places, own] {
        driver.free(0, address)?;
    }
    driver.free(1, other)?;
    Ok([result, sums.to_vec()].concat())
}

#[test]
fn dump() {
    let Some(mut driver) = driver(options(Flavour::Check, Order::Forward, Asynchronous::Late)) else { return };
    let mut fast = Vec::new();
    for order in [Order::Forward, Order::Reverse, Order::Random(1), Order::Random(2)] {
        for asynchronous in [Asynchronous::Late, Asynchronous::Eager] {
            fast.push(self::driver(options(Flavour::Fast, order, asynchronous)).unwrap());
        }
    }
    for (source, text) in &SOURCES[2..] {
        for (no, line) in text.lines().enumerate() {
            let Some(entry) = line.strip_prefix("KERNEL(256) ").and_then(|l| l.split('(').next()) else { continue };
            let _ = no;
            let n = if *source == "copy.cu" { 128 } else if *source == "memory.cu" { 125 } else { 64 };
            let blocks = if entry.contains("block") || entry == "a_write_behind_the_end" { 3 } else { 1 };
            let threads = if *source == "memory.cu" { 128 } else { 64 };
            let case: Case = (source, entry, blocks, threads, n, &[], Missed);
            eprintln!("== {source} {entry}");
            match run(&mut driver, &case, false) {
                Ok(_) => {}
                Err(e) => eprintln!("  TWIN FAILS {e} // {:?}", e.remedy()),
            }
            match run(&mut driver, &case, true) {
                Ok(_) => eprintln!("  NOT FOUND"),
                Err(e) => eprintln!("  {e} // {:?}", e.remedy()),
            }
            let want = run(&mut fast[0], &case, false);
            let want = match want { Ok(w) => w, Err(e) => { eprintln!("  FAST TWIN {e}"); continue } };
            let mut out = Vec::new();
            for d in &mut fast {
                let twin = run(d, &case, false).unwrap();
                assert!(twin == want);
                out.push(match run(d, &case, true) { Ok(r) if r == want => "ok".to_owned(), Ok(_) => "wrong".to_owned(), Err(e) => e.to_string() });
            }
            out.dedup();
            eprintln!("  FAST {out:?}");
        }
    }
}
