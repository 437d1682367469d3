//! Rows of `c` floats that lie `ld` floats apart (the pixels of an NHWC tensor, or of a tower's half of one), shared out
//! among the workers in chunks which depend on the shape alone.

use alexnode_core::host::Host;
use std::ops::Range;

/// Fewer images than these are cut into pieces on the processor, so that all its workers have something to do.
pub const FEW: usize = 16;

/// Elements that one task handles: some ten microseconds of work.
const TASK: usize = 16 * 1024;
/// Elements that are handled as one row where rows follow each other without a gap.
const MERGED: usize = 4096;

/// Calls `body` with the ranges of a partition of `0..items`. An item stands for about `elements` elements of work.
pub fn share(host: &dyn Host, items: usize, elements: usize, body: impl Fn(Range<usize>) + Sync) {
    let chunk = (TASK / elements.max(1)).max(1);
    host.parallel(items.div_ceil(chunk), &|task, _| body(task * chunk..items.min((task + 1) * chunk)));
}

/// Calls `body(row, len)` so that the rows are covered once: `len` floats from the beginning of `row` on. Rows are merged into
/// longer ones where `contiguous` says that no tensor concerned has gaps.
pub fn rows(host: &dyn Host, rows: usize, c: usize, contiguous: bool, body: impl Fn(usize, usize) + Sync) {
    let merged = if contiguous { (MERGED / c.max(1)).max(1) } else { 1 };
    share(host, rows.div_ceil(merged), merged * c, |spans| {
        for span in spans {
            let row = span * merged;
            body(row, merged.min(rows - row) * c);
        }
    });
}
