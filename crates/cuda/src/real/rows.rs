//! Copies of rows in the terms of the CUDA driver: pure functions, so that they can be tested without one.

use crate::driver::{Address, Rows};
use alexnode_core::{Error, Result};
use cudarc::driver::sys::{CUDA_MEMCPY2D, CUDA_MEMCPY3D, CUDA_MEMCPY3D_PEER, CUcontext, CUmemorytype};
use std::{ffi::c_void, ptr};

/// The rows in their simplest form: one row where they follow each other without gaps, pitches that the driver accepts, `None` where there
/// is nothing to copy.
///
/// # Errors
/// `ERR_KERNEL` where rows overlap or leave the address space.
pub(super) fn simplest(rows: &Rows) -> Result<Option<Rows>> {
    let mut r = *rows;
    if r.rows == 0 || r.row_bytes == 0 {
        return Ok(None);
    }
    if r.rows == 1 {
        // A single row may have any pitch; the driver wants one that is no shorter than it.
        (r.src_pitch, r.dst_pitch) = (r.row_bytes, r.row_bytes);
    }
    let bad = |what: &str| {
        Err(Error::kernel(format!(
            "copy of {} rows of {} bytes every {} and {}: {what}",
            rows.rows, rows.row_bytes, rows.src_pitch, rows.dst_pitch
        )))
    };
    if r.src_pitch < r.row_bytes || r.dst_pitch < r.row_bytes {
        return bad("rows overlap");
    }
    for (first, pitch) in [(r.src, r.src_pitch), (r.dst, r.dst_pitch)] {
        let end = (r.rows - 1).checked_mul(pitch).and_then(|n| n.checked_add(r.row_bytes));
        if end.and_then(|n| first.checked_add(n as Address)).is_none() {
            return bad("they leave the address space");
        }
    }
    if r.src_pitch == r.row_bytes && r.dst_pitch == r.row_bytes {
        r.row_bytes *= r.rows;
        (r.src_pitch, r.dst_pitch, r.rows) = (r.row_bytes, r.row_bytes, 1);
    }
    Ok(Some(r))
}

/// Rows within a device. `cuMemcpy3DAsync` and not its 2D sister, which may refuse pitches that `cuMemAllocPitch` has not chosen.
pub(super) fn within(rows: &Rows) -> CUDA_MEMCPY3D {
    CUDA_MEMCPY3D {
        srcXInBytes: 0,
        srcY: 0,
        srcZ: 0,
        srcLOD: 0,
        srcMemoryType: CUmemorytype::CU_MEMORYTYPE_DEVICE,
        srcHost: ptr::null(),
        srcDevice: rows.src,
        srcArray: ptr::null_mut(),
        reserved0: ptr::null_mut(),
        srcPitch: rows.src_pitch,
        srcHeight: rows.rows,
        dstXInBytes: 0,
        dstY: 0,
        dstZ: 0,
        dstLOD: 0,
        dstMemoryType: CUmemorytype::CU_MEMORYTYPE_DEVICE,
        dstHost: ptr::null_mut(),
        dstDevice: rows.dst,
        dstArray: ptr::null_mut(),
        reserved1: ptr::null_mut(),
        dstPitch: rows.dst_pitch,
        dstHeight: rows.rows,
        WidthInBytes: rows.row_bytes,
        Height: rows.rows,
        Depth: 1,
    }
}

/// Rows from the memory of one context to that of another.
pub(super) fn between(rows: &Rows, from: CUcontext, to: CUcontext) -> CUDA_MEMCPY3D_PEER {
    CUDA_MEMCPY3D_PEER {
        srcXInBytes: 0,
        srcY: 0,
        srcZ: 0,
        srcLOD: 0,
        srcMemoryType: CUmemorytype::CU_MEMORYTYPE_DEVICE,
        srcHost: ptr::null(),
        srcDevice: rows.src,
        srcArray: ptr::null_mut(),
        srcContext: from,
        srcPitch: rows.src_pitch,
        srcHeight: rows.rows,
        dstXInBytes: 0,
        dstY: 0,
        dstZ: 0,
        dstLOD: 0,
        dstMemoryType: CUmemorytype::CU_MEMORYTYPE_DEVICE,
        dstHost: ptr::null_mut(),
        dstDevice: rows.dst,
        dstArray: ptr::null_mut(),
        dstContext: to,
        dstPitch: rows.dst_pitch,
        dstHeight: rows.rows,
        WidthInBytes: rows.row_bytes,
        Height: rows.rows,
        Depth: 1,
    }
}

/// The rows of a device into memory of the host, without gaps.
pub(super) fn to_host(rows: &Rows, host: *mut u8) -> CUDA_MEMCPY2D {
    CUDA_MEMCPY2D {
        srcXInBytes: 0,
        srcY: 0,
        srcMemoryType: CUmemorytype::CU_MEMORYTYPE_DEVICE,
        srcHost: ptr::null(),
        srcDevice: rows.src,
        srcArray: ptr::null_mut(),
        srcPitch: rows.src_pitch,
        dstXInBytes: 0,
        dstY: 0,
        dstMemoryType: CUmemorytype::CU_MEMORYTYPE_HOST,
        dstHost: host.cast::<c_void>(),
        dstDevice: 0,
        dstArray: ptr::null_mut(),
        dstPitch: rows.row_bytes,
        WidthInBytes: rows.row_bytes,
        Height: rows.rows,
    }
}

/// What [`to_host`] wrote into the rows of a device.
pub(super) fn from_host(rows: &Rows, host: *const u8) -> CUDA_MEMCPY2D {
    CUDA_MEMCPY2D {
        srcXInBytes: 0,
        srcY: 0,
        srcMemoryType: CUmemorytype::CU_MEMORYTYPE_HOST,
        srcHost: host.cast::<c_void>(),
        srcDevice: 0,
        srcArray: ptr::null_mut(),
        srcPitch: rows.row_bytes,
        dstXInBytes: 0,
        dstY: 0,
        dstMemoryType: CUmemorytype::CU_MEMORYTYPE_DEVICE,
        dstHost: ptr::null_mut(),
        dstDevice: rows.dst,
        dstArray: ptr::null_mut(),
        dstPitch: rows.dst_pitch,
        WidthInBytes: rows.row_bytes,
        Height: rows.rows,
    }
}

/// The rows in parts of at most `limit` bytes: as many whole rows as fit, or pieces of a row where not even one fits.
pub(super) fn parts(rows: &Rows, limit: usize) -> impl Iterator<Item = Rows> {
    let rows = *rows;
    let wide = rows.row_bytes.min(limit);
    let high = (limit / wide).min(rows.rows);
    (0..rows.rows).step_by(high).flat_map(move |row| {
        (0..rows.row_bytes).step_by(wide).map(move |byte| Rows {
            src: rows.src + (row * rows.src_pitch + byte) as Address,
            dst: rows.dst + (row * rows.dst_pitch + byte) as Address,
            row_bytes: wide.min(rows.row_bytes - byte),
            rows: high.min(rows.rows - row),
            ..rows
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: usize, row_bytes: usize, src_pitch: usize, dst_pitch: usize) -> Rows {
        Rows { from: 0, src: 0x1000, src_pitch, to: 1, dst: 0x9000, dst_pitch, row_bytes, rows }
    }

    #[test]
    fn rows_take_their_simplest_form() {
        assert!(simplest(&rows(0, 8, 8, 8)).unwrap().is_none());
        assert!(simplest(&rows(4, 0, 8, 8)).unwrap().is_none());
        // One row: whatever its pitch was.
        let one = simplest(&rows(1, 64, 0, 3)).unwrap().unwrap();
        assert_eq!((one.rows, one.row_bytes, one.src_pitch, one.dst_pitch), (1, 64, 64, 64));
        // No gaps: one row. A gap on either side: as they are.
        let whole = simplest(&rows(5, 64, 64, 64)).unwrap().unwrap();
        assert_eq!((whole.rows, whole.row_bytes, whole.src_pitch), (1, 320, 320));
        let half = simplest(&rows(5, 64, 128, 64)).unwrap().unwrap();
        assert_eq!((half.rows, half.row_bytes, half.src_pitch, half.dst_pitch), (5, 64, 128, 64));
        for bad in [rows(2, 64, 32, 64), rows(2, 64, 64, 32), rows(3, 8, usize::MAX / 2, 8)] {
            assert!(simplest(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn descriptors_say_what_the_rows_say() {
        let r = rows(5, 64, 128, 192);
        let (from, to) = (8 as CUcontext, 16 as CUcontext);
        let d = between(&r, from, to);
        assert_eq!((d.srcDevice, d.srcPitch, d.srcHeight, d.srcContext), (0x1000, 128, 5, from));
        assert_eq!((d.dstDevice, d.dstPitch, d.dstHeight, d.dstContext), (0x9000, 192, 5, to));
        assert_eq!((d.WidthInBytes, d.Height, d.Depth), (64, 5, 1));
        assert_eq!(d.srcXInBytes + d.srcY + d.srcZ + d.srcLOD + d.dstXInBytes + d.dstY + d.dstZ + d.dstLOD, 0);
        let device = CUmemorytype::CU_MEMORYTYPE_DEVICE;
        assert_eq!((d.srcMemoryType, d.dstMemoryType), (device, device));
        let w = within(&r);
        assert_eq!((w.srcDevice, w.srcPitch, w.dstDevice, w.dstPitch), (0x1000, 128, 0x9000, 192));
        assert_eq!((w.WidthInBytes, w.Height, w.Depth), (64, 5, 1));
        let host = 0x70 as *mut u8;
        let (out, back) = (to_host(&r, host), from_host(&r, host));
        assert_eq!((out.srcDevice, out.srcPitch, out.dstHost, out.dstPitch), (0x1000, 128, host.cast(), 64));
        assert_eq!(
            (back.srcHost, back.srcPitch, back.dstDevice, back.dstPitch),
            (host.cast_const().cast(), 64, 0x9000, 192)
        );
        assert_eq!((out.WidthInBytes, out.Height, back.WidthInBytes, back.Height), (64, 5, 64, 5));
    }

    /// Every byte once, in parts that fit.
    #[test]
    fn parts_cover_all_rows() {
        for (r, limit) in [
            (rows(7, 10, 16, 24), 25),
            (rows(7, 10, 16, 24), 1000),
            (rows(7, 10, 16, 24), 10),
            (rows(3, 100, 128, 100), 32),
            (rows(1, 1000, 1000, 1000), 256),
        ] {
            let mut seen = Vec::new();
            for part in parts(&r, limit) {
                assert!(part.rows * part.row_bytes <= limit && part.rows > 0 && part.row_bytes > 0);
                for row in 0..part.rows {
                    for byte in 0..part.row_bytes {
                        let src = part.src as usize + row * part.src_pitch + byte;
                        seen.push((src, part.dst as usize + row * part.dst_pitch + byte));
                    }
                }
            }
            seen.sort_unstable();
            let mut all = Vec::new();
            for row in 0..r.rows {
                for byte in 0..r.row_bytes {
                    all.push((0x1000 + row * r.src_pitch + byte, 0x9000 + row * r.dst_pitch + byte));
                }
            }
            assert_eq!(seen, all);
        }
    }
}
