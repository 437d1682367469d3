//! From an instruction to a line of a source, by the tool of the compiler. Slow; only failures ask.

use std::{
    ffi::{CStr, OsStr},
    mem,
    os::unix::ffi::OsStrExt,
    path::Path,
    process::Command,
};

/// The emulator's own files: what a kernel called there says nothing.
const OWN: [&str; 3] = ["emulator.h", "check.h", "entries"];

/// The line of the instruction at `address`, then those that it was inlined into: `gemm.cuh:66, from conv2d.cu:101`. The instruction itself where
/// nobody can tell.
pub fn at(address: usize) -> String {
    // SAFETY: all zeros is a value of this plain struct.
    let mut info: libc::Dl_info = unsafe { mem::zeroed() };
    // SAFETY: only looks whose address it is.
    let found = unsafe { libc::dladdr(address as *const _, &mut info) };
    if found == 0 || info.dli_fname.is_null() {
        return format!("instruction {address:#x}");
    }
    // SAFETY: the name of a library that is loaded.
    let path = Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(info.dli_fname) }.to_bytes()));
    let offset = address - info.dli_fbase as usize;
    let lines = lines(path, offset).unwrap_or_default();
    if lines.is_empty() {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        return format!("instruction {offset:#x} of {name}");
    }
    lines.join(", from ")
}

/// The line of a call that returns to `address`.
pub fn of_call(address: usize) -> String {
    at(address - 1)
}

fn lines(library: &Path, offset: usize) -> Option<Vec<String>> {
    let output = Command::new("addr2line").arg("-ie").arg(library).arg(format!("{offset:#x}")).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let known = text.lines().filter_map(|line| {
        // Behind the number there may be more.
        let line = line.split(' ').next()?;
        let (path, number) = line.rsplit_once(':')?;
        let file = Path::new(path).file_name()?.to_str()?;
        let ours = !path.starts_with("/usr/") && !OWN.contains(&file) && file != "??";
        ours.then(|| format!("{file}:{number}"))
    });
    Some(known.collect())
}
