//! Samples to RGB, row by row.

use super::Plane;

/// Working memory: a row of each chroma at the width of its plane, and with a copy of each end beside it.
#[derive(Default)]
pub struct Rows {
    wide: [Vec<u8>; 2],
    narrow: Vec<u8>,
}

/// Writes row `y` of a picture. `halved` says whether there is chroma only for every other column, and only for every other row.
#[inline(always)]
pub fn row(planes: &[Plane; 3], halved: [bool; 2], y: usize, rows: &mut Rows, out: &mut [u8]) {
    let [luma, chroma @ ..] = planes;
    if !halved[0] {
        return convert(luma.row(y), chroma[0].row(y), chroma[1].row(y), out);
    }
    let Rows { wide, narrow } = rows;
    for (plane, wide) in chroma.iter().zip(&mut *wide) {
        // Three parts of the nearer sample and one of the other one, in both directions; at the edges there is only one.
        let mut near = (y, y);
        if halved[1] {
            let other = if y.is_multiple_of(2) { (y / 2).saturating_sub(1) } else { (y / 2 + 1).min(plane.rows() - 1) };
            near = (y / 2, other);
        }
        narrow.resize(plane.width + 2, 0);
        for ((to, &a), &b) in narrow[1..].iter_mut().zip(plane.row(near.0)).zip(plane.row(near.1)) {
            *to = mixed(a, b);
        }
        narrow[0] = narrow[1];
        narrow[plane.width + 1] = narrow[plane.width];
        wide.resize(2 * plane.width, 0);
        let (before, here, after) = (&narrow[..plane.width], &narrow[1..=plane.width], &narrow[2..]);
        for (((to, &before), &here), &after) in wide.chunks_exact_mut(2).zip(before).zip(here).zip(after) {
            to[0] = mixed(here, before);
            to[1] = mixed(here, after);
        }
    }
    convert(luma.row(y), &wide[0], &wide[1], out);
}

#[inline(always)]
fn mixed(nearer: u8, other: u8) -> u8 {
    ((3 * u16::from(nearer) + u16::from(other) + 2) >> 2) as u8
}

/// ITU-R BT.601 over the whole range, with fourteen bits behind the point.
#[inline(always)]
fn convert(luma: &[u8], cb: &[u8], cr: &[u8], out: &mut [u8]) {
    for (((to, &y), &cb), &cr) in out.chunks_exact_mut(3).zip(luma).zip(cb).zip(cr) {
        let (cb, cr) = (i32::from(cb) - 128, i32::from(cr) - 128);
        let light = 16_384 * i32::from(y) + 8191;
        to[0] = ((light + 22_970 * cr) >> 14).clamp(0, 255) as u8;
        to[1] = ((light - 11_700 * cr - 5638 * cb) >> 14).clamp(0, 255) as u8;
        to[2] = ((light + 29_032 * cb) >> 14).clamp(0, 255) as u8;
    }
}
