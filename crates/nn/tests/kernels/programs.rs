//! The programs that these tests launch on a device, for whoever compiles them beforehand: `ALEXNODE_TEST_PROGRAMS=FILE` adds each to the file, a line of
//! JSON, for every architecture.

use alexnode_core::{Launch, Precision, Target};
use alexnode_cuda::program::Program;
use std::{
    collections::BTreeSet,
    env,
    fs::File,
    io::Write,
    sync::{Mutex, PoisonError},
};

const VARIABLE: &str = "ALEXNODE_TEST_PROGRAMS";
/// Compute capabilities, times ten.
const COMPUTES: [u32; 7] = [75, 80, 86, 89, 90, 100, 120];

static NOTED: Mutex<BTreeSet<(u32, Program)>> = Mutex::new(BTreeSet::new());

/// Notes what `launch` runs in `precision`.
///
/// # Panics
/// Where the file cannot be written.
pub fn note(launch: &Launch, precision: Precision) {
    let Some(path) = env::var_os(VARIABLE) else { return };
    let computes = COMPUTES.into_iter().filter(|compute| precision == Precision::Fp32 || *compute >= 80);
    for compute in computes {
        for (_, program) in Program::of(launch, &Target { compute, precision }, false).unwrap() {
            // Under the lock: lines of several threads would mix.
            let mut noted = NOTED.lock().unwrap_or_else(PoisonError::into_inner);
            if !noted.insert((compute, program.clone())) {
                continue;
            }
            let Program { source, entry, defines, params_bytes, buffers, .. } = program;
            let line = serde_json::json!({
                "compute": compute, "source": source, "entry": entry, "defines": defines,
                "paramsBytes": params_bytes, "buffers": buffers,
            });
            let file = File::options().create(true).append(true).open(&path);
            file.and_then(|mut file| writeln!(file, "{line}")).unwrap_or_else(|error| panic!("{VARIABLE}: {error}"));
        }
    }
}
