//! The constants of a launch (shared with the unshared convolution), and patches: a piece of an image with its zero border, densely packed.

use crate::lower::Tensor;
use bytemuck::{Pod, Zeroable};

/// A convolution on one slot. The same for all three kernels; `x_ld` and `y_ld` are those of the gradients where these are read or written.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Params {
    pub batch: i32,
    pub in_h: i32,
    pub in_w: i32,
    pub in_c: i32,
    pub x_ld: i32,
    pub out_h: i32,
    pub out_w: i32,
    pub out_c: i32,
    pub y_ld: i32,
    pub kernel: i32,
    pub stride: i32,
    pub padding: i32,
    pub groups: i32,
    /// Forward: whether negative outputs become 0.
    pub relu: i32,
}

/// Images of one group: `h x w` pixels, `c` channels seen of every `ld`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plane {
    pub h: usize,
    pub w: usize,
    pub c: usize,
    pub ld: usize,
}

impl Plane {
    /// Elements from one image to the next.
    pub fn image(&self) -> usize {
        self.h * self.w * self.ld
    }
}

impl Params {
    /// The constants for `x` and `y` (or their gradients); `window` is kernel, stride, padding and groups.
    pub fn new(x: Tensor, y: Tensor, window: [usize; 4], relu: bool) -> Self {
        let [kernel, stride, padding, groups] = window.map(|v| v as i32);
        Self {
            batch: x.batch as i32,
            in_h: x.shape.h as i32,
            in_w: x.shape.w as i32,
            in_c: x.shape.c as i32,
            x_ld: x.ld as i32,
            out_h: y.shape.h as i32,
            out_w: y.shape.w as i32,
            out_c: y.shape.c as i32,
            y_ld: y.ld as i32,
            kernel,
            stride,
            padding,
            groups,
            relu: i32::from(relu),
        }
    }
    pub fn groups(&self) -> usize {
        self.groups as usize
    }
    /// A group's share of x.
    pub fn x(&self) -> Plane {
        let c = (self.in_c / self.groups) as usize;
        Plane { h: self.in_h as usize, w: self.in_w as usize, c, ld: self.x_ld as usize }
    }
    /// A group's share of y.
    pub fn y(&self) -> Plane {
        let c = (self.out_c / self.groups) as usize;
        Plane { h: self.out_h as usize, w: self.out_w as usize, c, ld: self.y_ld as usize }
    }
    /// Weights of one output channel.
    pub fn weights(&self) -> usize {
        (self.kernel * self.kernel) as usize * self.x().c
    }
}

/// Copies the pixels from (`top`, `left`) on, `rows x cols` of them, to `patch` without gaps; those outside of the image are 0.
/// `image` begins at the group's first channel.
pub(crate) fn cut_patch(
    patch: &mut [f32],
    image: &[f32],
    plane: &Plane,
    (top, left): (isize, isize),
    rows: usize,
    cols: usize,
) {
    let Plane { h, w, c, ld } = *plane;
    let inside = |first: isize, count: usize, extent: usize| {
        let from = (-first).clamp(0, count as isize) as usize;
        let to = (extent as isize - first).clamp(from as isize, count as isize) as usize;
        from..to
    };
    let (valid_rows, valid_cols) = (inside(top, rows, h), inside(left, cols, w));
    for (row, patch) in patch.chunks_exact_mut(cols * c).take(rows).enumerate() {
        if !valid_rows.contains(&row) || valid_cols.is_empty() {
            patch.fill(0.0);
            continue;
        }
        let (before, rest) = patch.split_at_mut(valid_cols.start * c);
        let (middle, after) = rest.split_at_mut(valid_cols.len() * c);
        before.fill(0.0);
        after.fill(0.0);
        let y = (top + row as isize) as usize;
        let x = (left + valid_cols.start as isize) as usize;
        let source = &image[(y * w + x) * ld..];
        if c == ld {
            middle.copy_from_slice(&source[..middle.len()]);
        } else {
            for (to, from) in middle.chunks_exact_mut(c).zip(source.chunks(ld)) {
                to.copy_from_slice(&from[..c]);
            }
        }
    }
}

/// How many of `count` rows a task takes so that `each` elements per row and `fixed` ones stay within `most`: at least 1.
pub(crate) fn fit(count: usize, each: usize, fixed: usize, most: usize) -> usize {
    (most.saturating_sub(fixed) / each.max(1)).clamp(1, count)
}
