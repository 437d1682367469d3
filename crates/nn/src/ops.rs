use crate::lower::*;
use alexnode_core::SlotId;
pub(crate) fn add(b: &mut Builder, o: Origin, s: SlotId, src: Tensor, dst: Tensor) {
    todo!()
}
