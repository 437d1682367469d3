//! Places values in an arena: two values may share bytes when no operation lies in the lifetimes of both.

use crate::lower::{Draft, DraftKind, Home, ValueInfo};
use alexnode_core::backend::MAX_PARAMS;

/// A value to be placed.
#[derive(Clone, Copy, Debug)]
struct Block {
    /// Length in bytes.
    pub bytes: usize,
    /// First operation that names it.
    pub first: usize,
    /// Last operation that names it.
    pub last: usize,
}

/// Every value begins at a multiple of this: a cache line and a CUDA vector load are smaller.
pub(crate) const ALIGNMENT: usize = 256;

/// Offsets for `blocks` and the bytes that hold all of them. The largest first, each at the lowest place that is free for its whole
/// lifetime: within a few per cent of the lower bound for the networks here.
fn place(blocks: &[Block]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..blocks.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(blocks[i].bytes), blocks[i].first, i));
    let mut offsets = vec![0; blocks.len()];
    let mut placed: Vec<usize> = Vec::new(); // by offset
    let mut total = 0;
    for i in order {
        let block = blocks[i];
        let bytes = block.bytes.next_multiple_of(ALIGNMENT);
        let mut offset = 0;
        for &other in &placed {
            let alive = blocks[other].first <= block.last && block.first <= blocks[other].last;
            if alive && offsets[other] < offset + bytes {
                offset = offset.max(offsets[other] + blocks[other].bytes.next_multiple_of(ALIGNMENT));
            }
        }
        offsets[i] = offset;
        total = total.max(offset + bytes);
        let position = placed.partition_point(|&other| offsets[other] <= offset);
        placed.insert(position, i);
    }
    (offsets, total)
}

/// Offsets of the values in the arenas of their slots, and the sizes of these.
pub(crate) fn arrange(values: &[ValueInfo], drafts: &[Draft], slots: usize) -> (Vec<usize>, Vec<usize>) {
    let mut life: Vec<Option<(usize, usize)>> = vec![None; values.len()];
    for (time, draft) in drafts.iter().enumerate() {
        let args = match &draft.kind {
            DraftKind::Launch { args, params, .. } => {
                debug_assert!(params.len() <= MAX_PARAMS);
                args.as_slice()
            }
            DraftKind::Copy { src, dst, .. } => &[*src, *dst],
        };
        for arg in args {
            let life = &mut life[arg.value.0 as usize];
            *life = Some(life.map_or((time, time), |(first, _)| (first, time)));
        }
    }
    let (mut offsets, mut arena) = (vec![0; values.len()], Vec::new());
    for slot in 0..slots {
        let (mut ids, mut blocks) = (Vec::new(), Vec::new());
        for (id, info) in values.iter().enumerate().filter(|(_, v)| v.slot.index() == slot) {
            let (first, last) = match (info.home, life[id]) {
                (Home::Kept, _) => (0, drafts.len()),
                (Home::Arena, Some(life)) => life,
                _ => continue,
            };
            ids.push(id);
            blocks.push(Block { bytes: info.bytes, first, last });
        }
        let (places, total) = place(&blocks);
        for (id, place) in ids.into_iter().zip(places) {
            offsets[id] = place;
        }
        arena.push(total);
    }
    (offsets, arena)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_share_bytes_only_when_their_lives_do_not_meet() {
        let blocks: Vec<Block> = (0..60)
            .map(|i| Block { bytes: 1 + (i * 7919) % 5000, first: (i * 31) % 40, last: (i * 31) % 40 + (i * 17) % 9 })
            .collect();
        let (offsets, total) = place(&blocks);
        for (i, a) in blocks.iter().enumerate() {
            assert!(offsets[i] % ALIGNMENT == 0 && offsets[i] + a.bytes <= total);
            for (j, b) in blocks.iter().enumerate().skip(i + 1) {
                let alive = a.first <= b.last && b.first <= a.last;
                let apart = offsets[i] + a.bytes <= offsets[j] || offsets[j] + b.bytes <= offsets[i];
                assert!(!alive || apart, "{i} and {j}");
            }
        }
        assert!(total < blocks.iter().map(|b| b.bytes).sum(), "nothing was shared");
    }

    #[test]
    fn a_chain_needs_two_buffers() {
        let blocks: Vec<Block> = (0..10).map(|i| Block { bytes: 1024, first: i, last: i + 1 }).collect();
        assert_eq!(place(&blocks).1, 2048);
    }
}
