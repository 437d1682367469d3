//! The seam between the backend and what drives devices: a real CUDA driver, or the emulator. Small, in the terms of CUDA.

use crate::program::Program;
use alexnode_core::{DeviceName, Error, Result};

/// A device, by its place among those that a driver was opened with.
pub type DeviceIndex = usize;

/// An address in a device's memory.
pub type Address = u64;

/// What a device is.
#[derive(Clone, Debug)]
pub struct Properties {
    /// Its name in `devices`.
    pub device: DeviceName,
    /// Its product name.
    pub description: String,
    /// Compute capability, times ten: 90 for sm_90.
    pub compute: u32,
    /// Bytes that can be allocated now, and in all.
    pub memory: (usize, usize),
}

/// A queue of commands of one device: they run in order, and beside those of other streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stream {
    /// Whose queue.
    pub device: DeviceIndex,
    /// The driver's own number for it.
    pub index: usize,
}

/// A moment of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event(pub usize);

/// A compiled kernel, loaded on a device: the driver's own number for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function(pub usize);

/// Commands that were recorded: the driver's own number for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recording(pub usize);

/// Rows to be copied, within a device or between two: the last row of `dst` and `src` is `row_bytes` long, not a pitch.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    /// Whose memory `src` is.
    pub from: DeviceIndex,
    /// First byte.
    pub src: Address,
    /// Bytes from one source row to the next.
    pub src_pitch: usize,
    /// Whose memory `dst` is.
    pub to: DeviceIndex,
    /// First byte.
    pub dst: Address,
    /// Bytes from one destination row to the next.
    pub dst_pitch: usize,
    /// Bytes of a row.
    pub row_bytes: usize,
    /// Number of rows.
    pub rows: usize,
}

/// A launch: `params` by value, then the addresses.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// What to run.
    pub function: Function,
    /// Blocks in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub threads: u32,
    /// The bytes of the struct of parameters, aligned to 8.
    pub params: &'a [u8],
    /// The buffers; 0 for one without bytes.
    pub buffers: &'a [Address],
}

/// Drives one or more devices. Commands of a stream run in order; a call that returns has only issued its command, except where it says
/// that it waits. Errors of issued commands surface in [`synchronize`](Self::synchronize) and [`download`](Self::download), if not before.
pub trait Driver: Send {
    /// The devices, in the order in which they were asked for.
    fn devices(&self) -> &[Properties];
    /// A new stream.
    ///
    /// # Errors
    /// `ERR_DEVICE`.
    fn stream(&mut self, device: DeviceIndex) -> Result<Stream>;
    /// Reserves memory; its content is undefined. Aligned to 16 bytes at least.
    ///
    /// # Errors
    /// `ERR_DEVICE` where there is not enough.
    fn alloc(&mut self, device: DeviceIndex, bytes: usize) -> Result<Address>;
    /// Gives memory back, after everything issued is done.
    ///
    /// # Errors
    /// `ERR_KERNEL` where a command failed.
    fn free(&mut self, device: DeviceIndex, address: Address) -> Result<()>;
    /// Writes `src` to `dst`; `src` may be reused at once.
    ///
    /// # Errors
    /// `ERR_KERNEL`.
    fn upload(&mut self, stream: Stream, dst: Address, src: &[u8]) -> Result<()>;
    /// Reads `src` into `dst`, after everything issued before on `stream`; waits for it.
    ///
    /// # Errors
    /// `ERR_KERNEL`, also of an earlier command.
    fn download(&mut self, stream: Stream, src: Address, dst: &mut [u8]) -> Result<()>;
    /// Copies rows.
    ///
    /// # Errors
    /// `ERR_KERNEL`.
    fn copy(&mut self, stream: Stream, rows: &Rows) -> Result<()>;
    /// Compiles `programs`, where that has not been done before, and loads them on `device`.
    ///
    /// # Errors
    /// `ERR_DEVICE` where there is no compiler, `ERR_KERNEL` where it refuses a program.
    fn load(&mut self, device: DeviceIndex, programs: &[Program]) -> Result<Vec<Function>>;
    /// Starts a kernel.
    ///
    /// # Errors
    /// `ERR_KERNEL`.
    fn launch(&mut self, stream: Stream, call: &Call<'_>) -> Result<()>;
    /// A new event of `device`.
    ///
    /// # Errors
    /// `ERR_DEVICE`.
    fn event(&mut self, device: DeviceIndex) -> Result<Event>;
    /// `event` becomes the moment at which everything issued so far on `stream`, of the same device, is done.
    ///
    /// # Errors
    /// `ERR_KERNEL`.
    fn record(&mut self, event: Event, stream: Stream) -> Result<()>;
    /// Holds everything that is issued on `stream` from now on back until `event`, as it was recorded last.
    ///
    /// # Errors
    /// `ERR_KERNEL`.
    fn wait(&mut self, stream: Stream, event: Event) -> Result<()>;
    /// Waits until everything issued on `stream` is done.
    ///
    /// # Errors
    /// `ERR_KERNEL` with the first failure.
    fn synchronize(&mut self, stream: Stream) -> Result<()>;
    /// Whether commands can be recorded and replayed.
    fn records(&self) -> bool;
    /// From now on commands on `stream`, and on every stream that waits for an event recorded there since, are recorded instead of run. Nothing may be
    /// under way, allocated, uploaded or downloaded until [`stop_recording`](Self::stop_recording).
    ///
    /// # Errors
    /// `ERR_KERNEL`.
    fn start_recording(&mut self, stream: Stream) -> Result<()>;
    /// Ends the recording; `stream` waits for the last events of all other streams that took part.
    ///
    /// # Errors
    /// `ERR_KERNEL`, also where a command could not be recorded.
    fn stop_recording(&mut self, stream: Stream) -> Result<Recording>;
    /// What becomes of a recording that failed with `error`, though the device goes on: the error, unless whoever uses the driver had better go on with
    /// commands issued one by one.
    ///
    /// # Errors
    /// `error`.
    fn unrecorded(&mut self, error: Error) -> Result<()> {
        Err(error)
    }
    /// Runs what was recorded, after everything issued on `stream`; what is issued there later runs after all of it.
    ///
    /// # Errors
    /// `ERR_KERNEL`.
    fn replay(&mut self, stream: Stream, recording: Recording) -> Result<()>;
    /// How two devices exchange data, for the banner; `None` where it is one device.
    fn link(&self) -> Option<String> {
        None
    }
}
