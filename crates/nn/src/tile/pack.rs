//! Operands in the order in which the loop reads them.

use super::Tile;

/// `to = from`; whole vectors go without a call.
#[inline(always)]
pub fn copy(to: &mut [f32], from: &[f32]) {
    let (to, to_rest) = to.as_chunks_mut::<{ Tile::UNIT }>();
    let (from, from_rest) = from.as_chunks::<{ Tile::UNIT }>();
    assert!(to.len() == from.len() && to_rest.len() == from_rest.len(), "copies of different lengths");
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
    if !to_rest.is_empty() {
        to_rest.copy_from_slice(from_rest);
    }
}

/// A packed row: `from`, then zeros.
#[inline(always)]
pub fn pack(to: &mut [f32], from: &[f32]) {
    copy(&mut to[..from.len()], from);
    to[from.len()..].fill(0.0);
}

/// Packs columns: row `l` of `to`, `columns` wide, holds element `l` of each of the rows of `inner` elements in `from`, at most `columns`, then zeros.
#[inline(always)]
pub fn pack_columns(to: &mut [f32], columns: usize, from: &[f32], inner: usize) {
    let width = from.len() / inner;
    for (step, to) in to.chunks_exact_mut(columns).enumerate() {
        for (j, to) in to.iter_mut().enumerate() {
            *to = if j < width { from[j * inner + step] } else { 0.0 };
        }
    }
}
