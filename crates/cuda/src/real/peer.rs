//! What devices have to do with each other: whether one reaches the memory of another, proven and timed, not believed. There are drivers
//! that say yes where writes vanish.

use super::{
    context::Context,
    failure::{self, cuda},
    relay::Relay,
    rows,
};
use crate::driver::{Address, Rows};
use alexnode_core::{Error, Result};
use cudarc::driver::sys::{self, CUresult, CUstream};
use serde::Serialize;
use std::{ffi::c_void, fmt, time::Instant};

/// How rows get from one device to another.
#[derive(Debug)]
pub(super) enum Way {
    /// The devices reach each other's memory.
    Peer,
    /// Through page-locked memory of the host.
    Relay(Box<Relay>),
}

impl Way {
    /// Copies `rows`, in their simplest form, from the memory of `from` to that of `to`, whose `stream` it is.
    pub fn copy(&mut self, from: &Context, to: &Context, stream: CUstream, rows: &Rows) -> Result<()> {
        match self {
            Self::Peer => copy(from, to, stream, rows),
            Self::Relay(relay) => relay.copy(from, to, stream, rows),
        }
    }

    /// Gives back what it needs; no copy from `from` to `to` may be under way.
    pub fn close(self, from: &Context, to: &Context) {
        if let Self::Relay(relay) = self {
            relay.close(from, to);
        }
    }
}

/// What was measured between two devices, in one direction.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Link {
    /// The source's name in `devices`.
    pub from: String,
    /// The target's.
    pub to: String,
    /// Whether the devices reach each other's memory; else data goes through page-locked memory of the host.
    pub peer: bool,
    /// 10^9 bytes a second.
    pub gigabytes_per_second: f64,
    /// Why there is no peer access.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = if self.gigabytes_per_second < 10.0 { 1 } else { 0 };
        let way = if self.peer { "peer" } else { "through pinned host memory" };
        write!(f, "{way}, {:.*} GB/s", digits, self.gigabytes_per_second)
    }
}

/// Two links between the same devices, there and back, in words. The reason for a missing access is that of both.
pub(super) fn told(there: &Link, back: &Link) -> String {
    let reason = there.reason.as_ref().map_or(String::new(), |reason| format!("; because {reason}"));
    format!("{} to {}: {there}; back: {back}{reason}", there.from, there.to)
}

/// The ways between two devices, there and back, and what was measured of them.
pub(super) fn connect(a: &Context, b: &Context) -> Result<[(Way, Link); 2]> {
    let trial = Trial::new(a, b)?;
    let reason = match enable(a, b)? {
        Some(reason) => Some(reason),
        None => trial.vanishes(),
    };
    let way = |from: &Context, to: &Context| match &reason {
        None => Ok(Way::Peer),
        Some(_) => Relay::new(from, to).map(|relay| Way::Relay(Box::new(relay))),
    };
    let (mut there, mut back) = (way(a, b)?, way(b, a)?);
    let link = |from: &Context, to: &Context, speed| Link {
        from: from.name.to_string(),
        to: to.name.to_string(),
        peer: reason.is_none(),
        gigabytes_per_second: speed,
        reason: reason.clone(),
    };
    let (to_b, to_a) = (trial.speed(0, &mut there)?, trial.speed(1, &mut back)?);
    Ok([(there, link(a, b, to_b)), (back, link(b, a, to_a))])
}

/// Enables access in both directions; the reason where there is none.
fn enable(a: &Context, b: &Context) -> Result<Option<String>> {
    for (from, to) in [(a, b), (b, a)] {
        let mut can = 0;
        // SAFETY: `can` outlives the call.
        unsafe { cuda!(from.name, cuDeviceCanAccessPeer(&mut can, from.device, to.device)) }?;
        if can == 0 {
            return Ok(Some(format!("CUDA offers no access from {} to the memory of {}", from.name, to.name)));
        }
    }
    for (from, to) in [(a, b), (b, a)] {
        from.bind()?;
        // SAFETY: both contexts are retained.
        match unsafe { sys::cuCtxEnablePeerAccess(to.raw, 0) } {
            // Another driver of this process has done it: contexts are shared.
            CUresult::CUDA_SUCCESS | CUresult::CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED => {}
            code => {
                let (from, to) = (from.name, to.name);
                return Ok(Some(format!("CUDA refuses {from} the memory of {to}: {}", failure::describe(code))));
            }
        }
    }
    Ok(None)
}

/// Copies rows, in their simplest form, between the memories of two contexts.
fn copy(from: &Context, to: &Context, stream: CUstream, rows: &Rows) -> Result<()> {
    to.bind()?;
    if rows.rows == 1 {
        // SAFETY: the caller resolved both ends to living memory.
        return unsafe {
            cuda!(to.name, cuMemcpyPeerAsync(rows.dst, to.raw, rows.src, from.raw, rows.row_bytes, stream))
        };
    }
    // SAFETY: as above.
    unsafe { cuda!(to.name, cuMemcpy3DPeerAsync(&rows::between(rows, from.raw, to.raw), stream)) }
}

/// Bytes that are copied to take the time, and how often in a row.
const TIMED: usize = 32 << 20;
const REPEATS: usize = 8;

/// Two devices with a stream and some memory each.
struct Trial<'a> {
    contexts: [&'a Context; 2],
    streams: [CUstream; 2],
    buffers: [Address; 2],
}

impl<'a> Trial<'a> {
    fn new(a: &'a Context, b: &'a Context) -> Result<Self> {
        let mut trial = Self { contexts: [a, b], streams: [std::ptr::null_mut(); 2], buffers: [0; 2] };
        for (i, context) in [a, b].into_iter().enumerate() {
            trial.streams[i] = context.stream()?;
            trial.buffers[i] = context.alloc(TIMED)?;
        }
        Ok(trial)
    }

    /// Rows from device `from` to the other one, from the beginning of each one's memory.
    fn rows(&self, from: usize, rows: usize, row_bytes: usize, src_pitch: usize, dst_pitch: usize) -> Rows {
        let to = 1 - from;
        Rows { from, src: self.buffers[from], src_pitch, to, dst: self.buffers[to], dst_pitch, row_bytes, rows }
    }

    /// Why peer copies cannot be relied on, where they cannot: in both directions, rows with gaps and without.
    fn vanishes(&self) -> Option<String> {
        for from in 0..2 {
            let shapes = [self.rows(from, 4096, 192, 256, 320), self.rows(from, 1, 1 << 20, 1 << 20, 1 << 20)];
            for (round, rows) in shapes.iter().enumerate() {
                let (a, b) = (self.contexts[from].name, self.contexts[1 - from].name);
                match self.arrives(rows, (2 * round + from) as u32) {
                    Ok(true) => {}
                    Ok(false) => {
                        return Some(format!("what {a} copied to {b} did not arrive, though CUDA offers access"));
                    }
                    // Where the device is broken for good, the copies through the host will say so.
                    Err(e) => return Some(format!("{a} could not copy to {b}, though CUDA offers access: {e}")),
                }
            }
        }
        None
    }

    /// Whether a pattern arrives, and nothing else changes.
    fn arrives(&self, rows: &Rows, salt: u32) -> Result<bool> {
        let (from, to) = (rows.from, rows.to);
        let source = pattern(rows.rows * rows.src_pitch, salt);
        let mut target = pattern(rows.rows * rows.dst_pitch, !salt);
        self.write(from, &source)?;
        self.write(to, &target)?;
        copy(self.contexts[from], self.contexts[to], self.streams[to], rows)?;
        let mut arrived = vec![0; target.len()];
        self.read(to, &mut arrived)?;
        for row in 0..rows.rows {
            let (src, dst) = (row * rows.src_pitch, row * rows.dst_pitch);
            target[dst..dst + rows.row_bytes].copy_from_slice(&source[src..src + rows.row_bytes]);
        }
        Ok(arrived == target)
    }

    fn write(&self, device: usize, bytes: &[u8]) -> Result<()> {
        let (context, stream) = (self.contexts[device], self.streams[device]);
        context.bind()?;
        // SAFETY: the buffer is at least as long, and `bytes` outlives the wait.
        unsafe {
            cuda!(context.name, cuMemcpyHtoDAsync_v2(self.buffers[device], bytes.as_ptr().cast(), bytes.len(), stream))
        }?;
        context.synchronize(stream)
    }

    fn read(&self, device: usize, bytes: &mut [u8]) -> Result<()> {
        let (context, stream) = (self.contexts[device], self.streams[device]);
        context.bind()?;
        let host: *mut c_void = bytes.as_mut_ptr().cast();
        // SAFETY: as in `write`.
        unsafe { cuda!(context.name, cuMemcpyDtoHAsync_v2(host, self.buffers[device], bytes.len(), stream)) }?;
        context.synchronize(stream)
    }

    /// 10^9 bytes a second from device `from` to the other one: the best of three.
    fn speed(&self, from: usize, way: &mut Way) -> Result<f64> {
        let (to, rows) = (1 - from, self.rows(from, 1, TIMED, TIMED, TIMED));
        let (source, target) = (self.contexts[from], self.contexts[to]);
        let wait = || target.synchronize(self.streams[to]);
        way.copy(source, target, self.streams[to], &rows)?;
        wait()?;
        let mut best = f64::INFINITY;
        for _ in 0..3 {
            let begin = Instant::now();
            for _ in 0..REPEATS {
                way.copy(source, target, self.streams[to], &rows)?;
            }
            wait()?;
            best = best.min(begin.elapsed().as_secs_f64());
        }
        if best > 0.0 {
            Ok((TIMED * REPEATS) as f64 / best / 1e9)
        } else {
            Err(Error::kernel("the clock stands still"))
        }
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        for i in 0..2 {
            let context = self.contexts[i];
            // Whatever went wrong is reported already.
            if !self.streams[i].is_null() {
                let _ = context.synchronize(self.streams[i]);
                context.destroy(&[self.streams[i]], &[]);
            }
        }
        // Not before both have ended: a copy reads one and writes the other.
        for i in 0..2 {
            if self.buffers[i] != 0 {
                let _ = self.contexts[i].free(self.buffers[i]);
            }
        }
    }
}

/// Bytes that depend on their place and on `salt`.
fn pattern(bytes: usize, salt: u32) -> Vec<u8> {
    (0..bytes.div_ceil(4) as u32)
        .flat_map(|i| (i ^ salt).wrapping_mul(0x9E37_79B9).rotate_left(13).wrapping_add(salt).to_le_bytes())
        .take(bytes)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_read_as_a_sentence() {
        let link = |from: &str, to: &str, speed, reason: Option<&str>| Link {
            from: from.into(),
            to: to.into(),
            peer: reason.is_none(),
            gigabytes_per_second: speed,
            reason: reason.map(Into::into),
        };
        let both = |reason| told(&link("cuda:0", "cuda:1", 43.4, reason), &link("cuda:1", "cuda:0", 6.26, reason));
        assert_eq!(both(None), "cuda:0 to cuda:1: peer, 43 GB/s; back: peer, 6.3 GB/s");
        assert_eq!(
            both(Some("CUDA offers none")),
            "cuda:0 to cuda:1: through pinned host memory, 43 GB/s; back: through pinned host memory, 6.3 GB/s; because CUDA offers none"
        );
    }

    #[test]
    fn patterns_differ_everywhere() {
        let (a, b) = (pattern(4096, 1), pattern(4096, !1));
        let same = a.chunks(4).zip(b.chunks(4)).filter(|(x, y)| x == y).count();
        assert_eq!((a.len(), same), (4096, 0));
        assert_ne!(a[..64], a[64..128]);
    }
}
