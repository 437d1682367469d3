//! What a kernel asks of the emulator: the twin of `Runtime` and `Context` in `emulator.h`.

use super::block::{AsyncCopy, Worker};
use std::{
    ffi::{CStr, c_char, c_void},
    fmt,
};

/// Twin of `emulator::Combine`.
pub type Combine = unsafe extern "C" fn(operands: *const *mut c_void, mask: u32);

/// How an entry is called: `EMULATED_ENTRY`.
pub type Run = unsafe extern "C" fn(*mut Context, *const *mut c_void);

/// Twin of `emulator::Runtime`.
#[repr(C)]
pub struct Runtime {
    barrier: unsafe extern "C" fn(*mut Context, *const c_char, u32),
    shared: unsafe extern "C" fn(*mut Context, usize, *const c_char, u32) -> *mut c_void,
    warp: unsafe extern "C" fn(*mut Context, u32, *const c_char, u32, *mut c_void, Combine),
    copy_async: unsafe extern "C" fn(*mut Context, *mut c_void, *const c_void, u32, u32, *const c_void),
    commit_async: unsafe extern "C" fn(*mut Context),
    wait_async: unsafe extern "C" fn(*mut Context, u32),
    access: unsafe extern "C" fn(*mut Context, *const c_void, usize, u32, *const c_void),
    fail: unsafe extern "C" fn(*mut Context, *const c_char, *const c_char, u32),
}

/// The callbacks.
pub static RUNTIME: Runtime = Runtime { barrier, shared, warp, copy_async, commit_async, wait_async, access, fail };

/// Twin of `emulator::Context`: what the running fiber sees.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Context {
    /// Its thread.
    pub thread: [u32; 3],
    /// Its block.
    pub block: [u32; 3],
    /// Threads of a block.
    pub threads: [u32; 3],
    /// Blocks of the grid.
    pub blocks: [u32; 3],
    /// [`RUNTIME`].
    pub runtime: *const Runtime,
    /// Beginning and end of its stack.
    pub stack: [usize; 2],
}

/// A line of a source.
#[derive(Clone, Copy)]
pub struct Place {
    file: *const c_char,
    line: u32,
}

impl Place {
    fn file(&self) -> &CStr {
        // SAFETY: `__FILE__` of a kernel, whose library stays loaded while it runs.
        unsafe { CStr::from_ptr(self.file) }
    }
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        self.line == other.line && (self.file == other.file || self.file() == other.file())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file().to_string_lossy(), self.line)
    }
}

/// The worker whose context this is.
///
/// # Safety
/// `context` must be the one that the worker handed to the entry.
unsafe fn worker<'a>(context: *mut Context) -> &'a Worker {
    // SAFETY: `Context` is the first field of a `#[repr(C)]` worker (the caller's promise).
    unsafe { &*context.cast::<Worker>() }
}

unsafe extern "C" fn barrier(context: *mut Context, file: *const c_char, line: u32) {
    // SAFETY: called by the running fiber with the context it was started with.
    unsafe { worker(context) }.barrier(Place { file, line });
}

unsafe extern "C" fn shared(context: *mut Context, bytes: usize, file: *const c_char, line: u32) -> *mut c_void {
    // SAFETY: as in `barrier`.
    unsafe { worker(context) }.shared(bytes, Place { file, line })
}

unsafe extern "C" fn warp(
    context: *mut Context,
    mask: u32,
    file: *const c_char,
    line: u32,
    operands: *mut c_void,
    combine: Combine,
) {
    // SAFETY: as in `barrier`.
    unsafe { worker(context) }.warp(mask, Place { file, line }, operands, combine);
}

unsafe extern "C" fn copy_async(
    context: *mut Context,
    to: *mut c_void,
    from: *const c_void,
    bytes: u32,
    valid: u32,
    site: *const c_void,
) {
    let (bytes, valid) = (bytes as usize, valid as usize);
    let copy = AsyncCopy { to: to as usize, from: from as usize, bytes, valid, site: site as usize, done: false };
    // SAFETY: as in `barrier`.
    unsafe { worker(context) }.copy_async(copy);
}

unsafe extern "C" fn commit_async(context: *mut Context) {
    // SAFETY: as in `barrier`.
    unsafe { worker(context) }.commit_async();
}

unsafe extern "C" fn wait_async(context: *mut Context, pending: u32) {
    // SAFETY: as in `barrier`.
    unsafe { worker(context) }.wait_async(pending as usize);
}

unsafe extern "C" fn access(
    context: *mut Context,
    address: *const c_void,
    bytes: usize,
    kind: u32,
    site: *const c_void,
) {
    // SAFETY: as in `barrier`.
    unsafe { worker(context) }.access(address as usize, bytes, kind, site as usize);
}

unsafe extern "C" fn fail(context: *mut Context, what: *const c_char, file: *const c_char, line: u32) {
    // SAFETY: a string on the stack of the fiber that calls.
    let what = unsafe { CStr::from_ptr(what) }.to_string_lossy().into_owned();
    // SAFETY: as in `barrier`.
    unsafe { worker(context) }.report(&what, Place { file, line });
}
