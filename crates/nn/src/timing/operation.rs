//! What an operation is called, where it runs and how much memory it names.

use crate::plan::{Op, OpKind};
use alexnode_core::{Access, SlotId, View};

/// An operation as a table names it.
pub(crate) struct Operation {
    /// The kernel's name; `copy` for a copy.
    pub name: &'static str,
    /// Where it runs; of a copy between slots, where it arrives.
    pub slot: SlotId,
    /// The bytes of its arguments, from their first to their last: once for what is read, once for what is written. No scratch memory.
    pub bytes: u64,
}

impl Operation {
    pub fn of(op: &Op) -> Self {
        let count = |(view, access): (View, &Access)| match access {
            Access::Read | Access::Write => view.bytes,
            Access::ReadWrite => 2 * view.bytes,
            Access::Scratch => 0,
        };
        let (name, slot, bytes) = match &op.kind {
            OpKind::Launch(slot, launch) => {
                let bytes: usize = launch.args().zip(launch.kernel.access).map(count).sum();
                (launch.kernel.name, *slot, bytes)
            }
            OpKind::Copy(copy) => ("copy", copy.dst.buffer.slot, 2 * copy.rows * copy.row_bytes),
        };
        Self { name, slot, bytes: bytes as u64 }
    }
}
