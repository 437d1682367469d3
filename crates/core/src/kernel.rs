//! One operation on one slot: a `.cu` entry, a Rust body and a `Params` struct that both share.

use crate::{
    device::{Engine, Target},
    host::Host,
};
use bytemuck::Pod;
use std::{cell::Cell, fmt, marker::PhantomData};

/// How a kernel uses an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only reads it.
    Read,
    /// Overwrites every element that it is responsible for; never reads what was there.
    Write,
    /// Reads and writes it.
    ReadWrite,
    /// Scratch memory: content undefined before and after.
    Scratch,
}

impl Access {
    /// Whether the argument may change.
    pub const fn writes(self) -> bool {
        !matches!(self, Self::Read)
    }
}

/// One operation. Implemented by a unit struct beside the layer that uses it; [`define`] turns it into the plain-data
/// [`KernelDef`] which plans and backends handle.
pub trait Kernel: 'static {
    /// The constants of a launch: `#[repr(C)]`, i32/u32/f32 fields, mirrored in the `.cu`. Nothing in it changes between steps.
    type Params: Pod;
    /// Entry point in the `.cu`, e.g. `local_response_norm_forward`; also the name in profiles and errors.
    const NAME: &'static str;
    /// The file in `cuda/`, e.g. `local_response_norm.cu`.
    const SOURCE: &'static str;
    /// One entry per buffer argument.
    const ACCESS: &'static [Access];
    /// The body that the CPU backend runs. Must not depend on `host.workers()` in its results, nor allocate.
    fn run(params: &Self::Params, args: &Args<'_>, host: &dyn Host);
    /// Bytes of the argument that is [`Access::Scratch`], where there is one.
    fn scratch(params: &Self::Params, engine: Engine) -> usize {
        let _ = (params, engine);
        0
    }
    /// What a CUDA device runs instead: entries of [`SOURCE`](Self::SOURCE), one after the other. Each takes `Params` and then every
    /// buffer, whether it uses it or not. None at all: only the processor can run it.
    fn stages(params: &Self::Params, target: &Target) -> Vec<Stage>;
}

/// One CUDA kernel among those that make up an operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    /// The entry: `extern "C" __global__ void entry(Params, pointers ...)`.
    pub entry: &'static str,
    /// Macros that the source is compiled with, such as the size of a tile.
    pub defines: Vec<(&'static str, i32)>,
    /// Whether a real device gets the parameters as constants of its code: shapes that index arithmetic divides by. Costs a compilation per
    /// set of parameters.
    pub constant: bool,
    /// Blocks in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block, in x.
    pub threads: u32,
}

impl Stage {
    /// Threads of a block where nothing speaks for another number.
    pub const THREADS: u32 = 256;

    /// `entry` with one thread for each of `items` items; a thread beyond the last has nothing to do.
    ///
    /// # Panics
    /// Where there are more items than a grid has threads.
    pub fn each(entry: &'static str, items: usize) -> Self {
        let blocks = u32::try_from(items.div_ceil(Self::THREADS as usize)).expect("a grid of at most 2^32 blocks");
        Self { entry, defines: Vec::new(), constant: false, grid: [blocks.max(1), 1, 1], threads: Self::THREADS }
    }
}

/// A [`Kernel`] as plain data.
pub struct KernelDef {
    /// [`Kernel::NAME`].
    pub name: &'static str,
    /// [`Kernel::SOURCE`].
    pub source: &'static str,
    /// [`Kernel::ACCESS`].
    pub access: &'static [Access],
    /// Size of [`Kernel::Params`].
    pub params_bytes: usize,
    /// [`Kernel::run`] with its parameters as bytes (8-byte aligned).
    pub body: fn(&[u8], &Args<'_>, &dyn Host),
    /// [`Kernel::stages`], likewise.
    pub stages: fn(&[u8], &Target) -> Vec<Stage>,
}

impl fmt::Debug for KernelDef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

struct Definition<K>(PhantomData<K>);

impl<K: Kernel> Definition<K> {
    const DEF: KernelDef = KernelDef {
        name: K::NAME,
        source: K::SOURCE,
        access: K::ACCESS,
        params_bytes: size_of::<K::Params>(),
        body: |params, args, host| K::run(bytemuck::from_bytes(params), args, host),
        stages: |params, target| K::stages(bytemuck::from_bytes(params), target),
    };
    const REF: &'static KernelDef = &Self::DEF;
}

/// The definition of `K`, for the lifetime of the program.
pub fn define<K: Kernel>() -> &'static KernelDef {
    Definition::<K>::REF
}

/// The buffers of a launch, as a Rust body sees them.
pub struct Args<'a> {
    raw: &'a [RawArg],
    access: &'a [Access],
    taken: Cell<u32>,
}

/// Address and length of one argument.
#[derive(Clone, Copy, Debug)]
pub struct RawArg {
    /// First byte.
    pub pointer: *mut u8,
    /// Length in bytes.
    pub bytes: usize,
}

impl<'a> Args<'a> {
    /// Wraps the arguments of one launch.
    ///
    /// # Safety
    /// Each `RawArg` must point to initialised memory which nobody else writes for `'a`, and which nobody else reads where
    /// `access` says that it is written; written arguments must not overlap any other.
    pub unsafe fn new(raw: &'a [RawArg], access: &'a [Access]) -> Self {
        assert_eq!(raw.len(), access.len());
        Self { raw, access, taken: Cell::new(0) }
    }
    /// Argument `i`, read only.
    ///
    /// # Panics
    /// Where the argument was declared as written, or its address or length does not suit `T`.
    pub fn read<T: Pod>(&self, i: usize) -> &'a [T] {
        assert_eq!(self.access[i], Access::Read, "argument {i} is not read only");
        let RawArg { pointer, bytes } = self.raw[i];
        // SAFETY: `new` promises initialised memory without a writer for 'a.
        bytemuck::cast_slice(unsafe { std::slice::from_raw_parts(pointer, bytes) })
    }
    /// Argument `i`, to be written. Each may be taken once.
    ///
    /// # Panics
    /// Where the argument was declared as read only or is taken already, or its address or length does not suit `T`.
    pub fn write<T: Pod>(&self, i: usize) -> &'a mut [T] {
        assert!(self.access[i].writes(), "argument {i} is read only");
        assert_eq!(self.taken.get() & (1 << i), 0, "argument {i} is taken already");
        self.taken.set(self.taken.get() | (1 << i));
        let RawArg { pointer, bytes } = self.raw[i];
        // SAFETY: `new` promises exclusive, initialised memory for 'a, and `taken` that this is its only slice.
        bytemuck::cast_slice_mut(unsafe { std::slice::from_raw_parts_mut(pointer, bytes) })
    }
}
