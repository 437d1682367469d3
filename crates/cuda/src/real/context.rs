//! A device's primary context, and the memory of the host that it may read and write by itself.

use super::failure::{self, cuda};
use crate::driver::Address;
use alexnode_core::{DeviceName, Error, Result};
use cudarc::driver::sys::{
    self, CUcontext, CUdevice, CUdevice_attribute, CUevent, CUevent_flags, CUresult, CUstream, CUstream_flags,
};
use std::{
    ffi::{c_char, c_void},
    ptr,
};

/// A device and its primary context, which every user of the device in this process shares. The driver counts them.
#[derive(Debug)]
pub(super) struct Context {
    pub name: DeviceName,
    pub device: CUdevice,
    pub raw: CUcontext,
}

impl Context {
    /// Retains the primary context of the device with this ordinal. The driver must be initialised.
    pub fn retain(ordinal: usize) -> Result<Self> {
        let name = DeviceName::Cuda(ordinal);
        let (mut device, mut raw) = (0, ptr::null_mut());
        // SAFETY: both outlive the calls.
        unsafe {
            cuda!(name, cuDeviceGet(&mut device, ordinal as i32))?;
            failure::usable(sys::cuDevicePrimaryCtxRetain(&mut raw, device), name)?;
        }
        Ok(Self { name, device, raw })
    }

    /// Makes the context that of this thread. To be done before every call: a thread may serve several devices, and a context several
    /// threads.
    pub fn bind(&self) -> Result<()> {
        // SAFETY: the context is retained until `self` is dropped.
        unsafe { cuda!(self.name, cuCtxSetCurrent(self.raw)) }
    }

    /// Waits for everything issued on `stream`. Never for the whole context: others of this process may use it, and one of them that is recording a
    /// graph would lose it.
    pub fn synchronize(&self, stream: CUstream) -> Result<()> {
        self.bind()?;
        // SAFETY: the stream lives: the driver destroys it when it is dropped.
        unsafe { cuda!(self.name, cuStreamSynchronize(stream)) }
    }

    /// Bytes that can be allocated now, and in all.
    pub fn memory(&self) -> Result<(usize, usize)> {
        self.bind()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: both outlive the call.
        unsafe { cuda!(self.name, cuMemGetInfo_v2(&mut free, &mut total)) }?;
        Ok((free, total))
    }

    /// A stream that does not wait for the default one.
    pub fn stream(&self) -> Result<CUstream> {
        self.bind()?;
        let mut stream = ptr::null_mut();
        // SAFETY: `stream` outlives the call.
        unsafe { cuda!(self.name, cuStreamCreate(&mut stream, CUstream_flags::CU_STREAM_NON_BLOCKING as u32)) }?;
        Ok(stream)
    }

    /// An event that keeps no time. Where the processor waits for it, it sleeps if `sleep` says so.
    pub fn event(&self, sleep: bool) -> Result<CUevent> {
        use CUevent_flags as F;
        let sleeping = if sleep { F::CU_EVENT_BLOCKING_SYNC as u32 } else { 0 };
        self.bind()?;
        let mut event = ptr::null_mut();
        // SAFETY: `event` outlives the call.
        unsafe { cuda!(self.name, cuEventCreate(&mut event, F::CU_EVENT_DISABLE_TIMING as u32 | sleeping)) }?;
        Ok(event)
    }

    /// Records `event` of this context on `stream` of this context.
    pub fn record(&self, event: CUevent, stream: CUstream) -> Result<()> {
        self.bind()?;
        // SAFETY: both live: the driver destroys them when it is dropped.
        unsafe { cuda!(self.name, cuEventRecord(event, stream)) }
    }

    /// Holds `stream` of this context back until `event`, of any context.
    pub fn wait(&self, stream: CUstream, event: CUevent) -> Result<()> {
        self.bind()?;
        // SAFETY: as in `record`.
        unsafe { cuda!(self.name, cuStreamWaitEvent(stream, event, 0)) }
    }

    /// Destroys a stream and events of this context, nothing of them under way.
    pub fn destroy(&self, streams: &[CUstream], events: &[CUevent]) {
        if self.bind().is_err() {
            return;
        }
        for event in events {
            // SAFETY: made by `event`, destroyed once.
            let _ = unsafe { sys::cuEventDestroy_v2(*event) };
        }
        for stream in streams {
            // SAFETY: made by `stream`, destroyed once.
            let _ = unsafe { sys::cuStreamDestroy_v2(*stream) };
        }
    }

    /// Memory of the device, its content undefined: plain, not of a pool, which peers could not reach without further ado.
    pub fn alloc(&self, bytes: usize) -> Result<Address> {
        self.bind()?;
        let mut address = 0;
        // SAFETY: `address` outlives the call.
        let code = unsafe { sys::cuMemAlloc_v2(&mut address, bytes.max(1)) };
        if code == CUresult::CUDA_ERROR_OUT_OF_MEMORY {
            let (free, total) = self.memory().unwrap_or((0, 0));
            return Err(Error::device(format!(
                "{}: {bytes} bytes do not fit: {free} of its {total} bytes are free",
                self.name
            ))
            .hint("Use a smaller `--batch`, or end other programs that use the device (`nvidia-smi` lists them)."));
        }
        failure::check(code, self.name, "cuMemAlloc")?;
        Ok(address)
    }

    /// Gives back what [`alloc`](Self::alloc) returned; nothing may use it any more.
    pub fn free(&self, address: Address) -> Result<()> {
        self.bind()?;
        // SAFETY: the address comes from `cuMemAlloc` of this context, and the caller has waited for what used it.
        unsafe { cuda!(self.name, cuMemFree_v2(address)) }
    }
}

/// A device's product name: "NVIDIA H100 80GB HBM3". Needs no context.
pub(super) fn product(name: DeviceName, device: CUdevice) -> Result<String> {
    let mut text = [0u8; 128];
    // SAFETY: the driver writes at most as many bytes as it is told, the last one a zero.
    unsafe { cuda!(name, cuDeviceGetName(text.as_mut_ptr().cast(), text.len() as i32, device)) }?;
    Ok(until_zero(&text))
}

/// Where a device sits: "0000:01:00.0". Needs no context.
pub(super) fn pci(name: DeviceName, device: CUdevice) -> Result<String> {
    let mut text = [0u8; 32];
    // SAFETY: as in `product`.
    unsafe { cuda!(name, cuDeviceGetPCIBusId(text.as_mut_ptr().cast(), text.len() as i32, device)) }?;
    Ok(until_zero(&text))
}

/// What a device is known by, in hexadecimal digits. Needs no context.
pub(super) fn uuid(name: DeviceName, device: CUdevice) -> Result<String> {
    let mut uuid = sys::CUuuid { bytes: [0; 16] };
    // SAFETY: `uuid` outlives the call.
    unsafe { cuda!(name, cuDeviceGetUuid_v2(&mut uuid, device)) }?;
    let digits = |bytes: &[c_char]| bytes.iter().map(|byte| format!("{:02x}", *byte as u8)).collect::<String>();
    let b = &uuid.bytes;
    Ok([&b[..4], &b[4..6], &b[6..8], &b[8..10], &b[10..]].map(digits).join("-"))
}

fn until_zero(text: &[u8]) -> String {
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    String::from_utf8_lossy(&text[..end]).into_owned()
}

/// An attribute of a device. Needs no context.
pub(super) fn attribute(name: DeviceName, device: CUdevice, attribute: CUdevice_attribute) -> Result<i32> {
    let mut value = 0;
    // SAFETY: `value` outlives the call.
    unsafe { cuda!(name, cuDeviceGetAttribute(&mut value, attribute, device)) }?;
    Ok(value)
}

/// A device's compute capability, times ten. Needs no context.
pub(super) fn compute(name: DeviceName, device: CUdevice) -> Result<u32> {
    use CUdevice_attribute as A;
    let major = attribute(name, device, A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = attribute(name, device, A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    Ok((major * 10 + minor) as u32)
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: it was retained once, by `retain`. At the end of a process the driver may be gone already: that is no failure.
        let _ = unsafe { sys::cuDevicePrimaryCtxRelease_v2(self.device) };
    }
}

/// Page-locked memory of the host: devices copy from and to it while the processor goes on.
#[derive(Debug)]
pub(super) struct Pinned {
    pub pointer: *mut u8,
}

impl Pinned {
    /// Locks `bytes` bytes for every device of the process.
    pub fn alloc(context: &Context, bytes: usize) -> Result<Self> {
        context.bind()?;
        let mut pointer: *mut c_void = ptr::null_mut();
        // SAFETY: `pointer` outlives the call.
        let code = unsafe { sys::cuMemHostAlloc(&mut pointer, bytes, sys::CU_MEMHOSTALLOC_PORTABLE) };
        if code == CUresult::CUDA_ERROR_OUT_OF_MEMORY {
            let name = context.name;
            return Err(Error::device(format!("{name}: the system refuses {bytes} bytes of page-locked host memory"))
                .hint("Free memory of the host, or raise the limit on locked memory (`ulimit -l`)."));
        }
        failure::check(code, context.name, "cuMemHostAlloc")?;
        Ok(Self { pointer: pointer.cast() })
    }

    /// Gives the memory back; no copy may be under way.
    pub fn free(self, context: &Context) {
        if context.bind().is_ok() {
            // SAFETY: it comes from `cuMemHostAlloc`, and the caller has waited for all copies.
            let _ = unsafe { sys::cuMemFreeHost(self.pointer.cast()) };
        }
    }
}
