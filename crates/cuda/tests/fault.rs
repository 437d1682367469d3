//! The handlers of the emulator keep to the faults of kernels: what happens elsewhere in the process happens as if they were not there.
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]

use alexnode_cuda::{
    Driver,
    driver::Call,
    emulated::{EmulatedDriver, Options},
    program::Program,
    testing,
};
use std::{
    os::unix::process::ExitStatusExt,
    process::{Command, ExitStatus},
};

/// Tells the process that a test starts what it is to do.
const TASK: &str = "ALEXNODE_FAULT_TEST";

/// A kernel that faults, at an address which is no device's.
const SOURCE: &str = "
#include \"common.cuh\"
struct Nothing { int nothing; };
KERNEL(32) fault(Nothing, float* y) { *y = 1.0f; }
";

fn kernel_faults() {
    let options = Options { sources: vec![("fault.cu", SOURCE)], ..Options::default() };
    let mut driver = EmulatedDriver::new(&[0], options).unwrap();
    let (source, entry, defines) = ("fault.cu", "fault", Vec::new());
    let program = Program { source, entry, defines, constants: None, params_bytes: 4, buffers: 1 };
    let (stream, function) = (driver.stream(0).unwrap(), driver.load(0, &[program]).unwrap()[0]);
    for _ in 0..3 {
        let call = Call { function, grid: [1, 1, 1], threads: 32, params: &[0; 4], buffers: &[0] };
        let error = driver.launch(stream, &call).unwrap_err();
        assert!(error.to_string().contains("touches what nobody may touch"), "{error}");
    }
}

fn process_faults() {
    // SAFETY: not at all; that is the point.
    unsafe { std::ptr::null_mut::<u8>().wrapping_add(8).write_volatile(0) };
}

unsafe extern "C" fn exit_42(_signal: libc::c_int) {
    // SAFETY: may be called by a handler.
    unsafe { libc::_exit(42) };
}

/// What the started process does; nothing where nobody started it for that.
#[test]
fn task() {
    let Ok(task) = std::env::var(TASK) else { return };
    let handler = exit_42 as unsafe extern "C" fn(libc::c_int) as usize;
    match task.as_str() {
        "default" => {
            // SAFETY: in place of the handler that Rust programs have.
            unsafe { libc::signal(libc::SIGSEGV, libc::SIG_DFL) };
        }
        "handler" => {
            // SAFETY: the handler does only what a handler may do.
            unsafe { libc::signal(libc::SIGSEGV, handler) };
        }
        _ => {}
    }
    kernel_faults();
    process_faults();
}

fn outcome(task: &str) -> ExitStatus {
    let program = std::env::current_exe().unwrap();
    Command::new(program).args(["--exact", "task"]).env(TASK, task).output().unwrap().status
}

#[test]
fn other_faults_go_where_they_went_before() {
    if testing::unless_missing(EmulatedDriver::new(&[0], Options::default()), testing::CXX).is_none() {
        return;
    }
    for task in ["default", "rust"] {
        assert_eq!(outcome(task).signal(), Some(libc::SIGSEGV), "{task}");
    }
    assert_eq!(outcome("handler").code(), Some(42));
}
