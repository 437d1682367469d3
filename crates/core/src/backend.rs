//! The seam between the plan and a device.

use crate::{
    device::{BufferId, DeviceName, Engine, SlotId, View},
    error::{Error, Result},
    kernel::KernelDef,
};
use std::{
    sync::{Arc, OnceLock},
    time::Instant,
};

/// What describes a slot to the plan and to the user.
#[derive(Clone, Debug)]
pub struct SlotInfo {
    /// The device that fills the slot.
    pub device: DeviceName,
    /// For the banner: "AMD EPYC, 2 threads".
    pub description: String,
    /// What computes there; kernels scale their workspace with it, never their results.
    pub engine: Engine,
    /// Bytes of the device's memory that were free when it was opened, where that is known. Slots on one device share them.
    pub free: Option<usize>,
}

/// A copy of `rows` rows of `row_bytes` bytes, within a slot or between two.
/// Row `i` begins `i * pitch` bytes after the beginning of its view: a tower's half of an NHWC tensor is such a set of rows.
#[derive(Clone, Copy, Debug)]
pub struct Copy2d {
    /// Where the rows come from.
    pub src: View,
    /// Where they go.
    pub dst: View,
    /// Number of rows.
    pub rows: usize,
    /// Bytes of a row.
    pub row_bytes: usize,
    /// Bytes from the beginning of a source row to the next one.
    pub src_pitch: usize,
    /// Bytes from the beginning of a destination row to the next one.
    pub dst_pitch: usize,
}

/// The most bytes that the `Params` of a kernel may have.
pub const MAX_PARAMS: usize = 256;
/// The most arguments that a kernel may have.
pub const MAX_ARGS: usize = 12;

/// A kernel with its constants and its buffers: what the plan stores and a backend runs. Plain data; making or sending
/// one allocates nothing.
#[derive(Clone, Copy, Debug)]
pub struct Launch {
    /// Which operation.
    pub kernel: &'static KernelDef,
    params: [u64; MAX_PARAMS / 8],
    args: [Option<View>; MAX_ARGS],
}

impl Launch {
    /// A launch of `kernel`. `params` are the bytes of its `Params` struct, `args` its buffers in the kernel's order.
    ///
    /// # Panics
    /// Where the sizes are not those that the kernel declares, or an argument that is written overlaps another one: both are
    /// mistakes of the layer's code, found when the plan is built.
    pub fn new(kernel: &'static KernelDef, params: &[u8], args: &[View]) -> Self {
        assert_eq!(params.len(), kernel.params_bytes, "{}: size of Params", kernel.name);
        assert_eq!(args.len(), kernel.access.len(), "{}: number of arguments", kernel.name);
        for (i, a) in args.iter().enumerate() {
            for (j, b) in args.iter().enumerate() {
                let written = kernel.access[i].writes() || kernel.access[j].writes();
                assert!(i == j || !written || !a.overlaps(b), "{}: arguments {i} and {j} overlap", kernel.name);
            }
        }
        let mut launch = Self { kernel, params: [0; MAX_PARAMS / 8], args: [None; MAX_ARGS] };
        bytemuck::cast_slice_mut::<u64, u8>(&mut launch.params)[..params.len()].copy_from_slice(params);
        for (slot, view) in launch.args.iter_mut().zip(args) {
            *slot = Some(*view);
        }
        launch
    }
    /// The bytes of the kernel's `Params`, aligned to 8.
    pub fn params(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.params)[..self.kernel.params_bytes]
    }
    /// The buffers, in the kernel's order.
    pub fn args(&self) -> impl Iterator<Item = View> + '_ {
        self.args.iter().map_while(|a| *a)
    }
}

/// What [`Backend::record`] recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordingId(pub usize);

/// A moment of a slot, told once it has come.
pub type Stamp = Arc<OnceLock<Instant>>;

/// A set of slots that compute: the processor, CUDA devices, emulated ones.
///
/// Commands of one slot run in the order in which they were issued, each as if it were done when the call returns; a real
/// device only starts them. A copy between slots runs after everything issued before it on both, and before everything
/// issued after it on both. Errors of commands that only started surface in [`synchronize`](Self::synchronize) or
/// [`download`](Self::download). The same launches in the same order give the same bits.
pub trait Backend: Send {
    /// The slots, in the order of the user's `devices`.
    fn slots(&self) -> &[SlotInfo];
    /// How data gets from one device to another, and how fast, in words; `None` where there is nothing to tell.
    fn link(&self) -> Option<String> {
        None
    }
    /// Reserves `bytes` bytes (content undefined) on `slot`.
    ///
    /// # Errors
    /// `ERR_DEVICE` where there is not enough memory.
    fn alloc(&mut self, slot: SlotId, bytes: usize) -> Result<BufferId>;
    /// Gives a buffer back, after what uses it is done.
    fn free(&mut self, buffer: BufferId);
    /// Writes `src` to `dst`; `src` may be reused at once.
    ///
    /// # Errors
    /// `ERR_KERNEL` where the device failed.
    fn upload(&mut self, dst: View, src: &[u8]) -> Result<()>;
    /// Reads `src` into `dst`, after everything issued before on that slot.
    ///
    /// # Errors
    /// `ERR_KERNEL` where the device failed, now or in an earlier command.
    fn download(&mut self, src: View, dst: &mut [u8]) -> Result<()>;
    /// Copies rows, within a slot or between two.
    ///
    /// # Errors
    /// `ERR_KERNEL` where the device failed.
    fn copy(&mut self, copy: &Copy2d) -> Result<()>;
    /// Makes what `launches` need, such as compiled kernels, so that the first of them does not wait for it.
    ///
    /// # Errors
    /// `ERR_DEVICE` or `ERR_KERNEL` where that cannot be had.
    fn prepare(&mut self, launches: &mut dyn Iterator<Item = (SlotId, &Launch)>) -> Result<()> {
        let _ = launches;
        Ok(())
    }
    /// Starts a kernel on `slot`; all its arguments live there.
    ///
    /// # Errors
    /// `ERR_KERNEL` where the device failed.
    fn launch(&mut self, slot: SlotId, launch: &Launch) -> Result<()>;
    /// Issues what `issue` issues, as something that [`replay`](Self::replay) can run again in one go: the same launches and copies on the same
    /// memory, after everything issued before on all slots. `None` where the devices have nothing of the kind: then nothing has been
    /// issued. Nothing but launches and copies may be issued, and their kernels have run before.
    ///
    /// # Errors
    /// `ERR_KERNEL` where a device refuses; those of `issue`.
    fn record(&mut self, issue: &mut dyn FnMut(&mut dyn Backend) -> Result<()>) -> Result<Option<RecordingId>> {
        let _ = issue;
        Ok(None)
    }
    /// Runs what was recorded.
    ///
    /// # Errors
    /// `ERR_KERNEL` where the device failed, or nothing was recorded under this number.
    fn replay(&mut self, recording: RecordingId) -> Result<()> {
        Err(Error::kernel(format!("recording {} does not exist", recording.0)))
    }
    /// `stamp` becomes the moment at which everything issued so far on `slot` is done. Where the device cannot tell, all slots are waited for here and now.
    ///
    /// # Errors
    /// `ERR_KERNEL` where the device failed.
    fn stamp(&mut self, slot: SlotId, stamp: &Stamp) -> Result<()> {
        let _ = slot;
        self.synchronize()?;
        stamp.get_or_init(Instant::now);
        Ok(())
    }
    /// Waits until everything issued is done.
    ///
    /// # Errors
    /// `ERR_KERNEL` with the first failure since the last wait.
    fn synchronize(&mut self) -> Result<()>;
}
