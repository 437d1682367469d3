//! The operations of a plan on real memory, issued again and again.

use crate::plan::{Op, OpKind};
use alexnode_core::{Backend, Result, backend::RecordingId};

/// A plan's operations, and how far they are on their way to being replayed in one go.
pub(crate) struct Program {
    ops: Vec<Op>,
    replay: Replay,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Replay {
    /// It has not run yet.
    New,
    /// It has run, operation by operation.
    Ready,
    Recorded(RecordingId),
    Impossible,
}

impl Program {
    /// What [`Plan::bind`](crate::plan::Plan::bind) gave.
    pub fn new(ops: Vec<Op>) -> Self {
        Self { ops, replay: Replay::New }
    }
    /// The operations, in order.
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }
    /// Issues all of it: the first time as it is, so that everything is loaded; then as a recording, where there is such a thing.
    ///
    /// # Errors
    /// As [`issue_op`].
    pub fn issue(&mut self, backend: &mut dyn Backend) -> Result<()> {
        let Self { ops, replay } = self;
        let all = |backend: &mut dyn Backend| ops.iter().try_for_each(|op| issue_op(backend, op));
        if *replay == Replay::Ready {
            *replay = backend.record(&mut |backend| all(backend))?.map_or(Replay::Impossible, Replay::Recorded);
        }
        match *replay {
            Replay::Recorded(recording) => return backend.replay(recording),
            Replay::New => *replay = Replay::Ready,
            Replay::Ready | Replay::Impossible => {}
        }
        all(backend)
    }
}

/// Issues one operation.
///
/// # Errors
/// As [`Backend::launch`] and [`Backend::copy`].
pub fn issue_op(backend: &mut dyn Backend, op: &Op) -> Result<()> {
    match &op.kind {
        OpKind::Launch(slot, launch) => backend.launch(*slot, launch),
        OpKind::Copy(copy) => backend.copy(copy),
    }
}
