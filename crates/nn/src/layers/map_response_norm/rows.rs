//! The Rust bodies: row by row, so that what lies between x and y stays in the first two caches.

use super::{Curve, Params};
use crate::layers::response_norm::{Normalisation, with_powers};
use crate::tile::{Step, Vector, each_vector, load, store};
use alexnode_core::host::Shared;
use std::ops::Range;

/// Some channels of one image: pixel i begins at `start + i * ld`.
#[derive(Clone, Copy)]
pub(super) struct Plane<'a> {
    data: &'a [f32],
    start: usize,
    ld: usize,
    channels: usize,
}

impl<'a> Plane<'a> {
    pub fn new(data: &'a [f32], ld: i32, pixels: usize, image: usize, first: usize, channels: usize) -> Self {
        let ld = ld as usize;
        let start = image * pixels * ld + first;
        assert!(start + (pixels - 1) * ld + channels <= data.len(), "an image leaves its tensor");
        Self { data, start, ld, channels }
    }
    /// Where pixel `i`, which the image has, begins.
    #[inline(always)]
    fn pixel(&self, i: usize) -> *const f32 {
        self.data.as_ptr().wrapping_add(self.start + i * self.ld)
    }
}

/// The windows of the pixels along an axis of `n`: `size` pixels from `before` pixels earlier on, clipped.
#[derive(Clone, Copy)]
struct Windows {
    n: usize,
    size: usize,
    before: usize,
}

impl Windows {
    fn of(p: &Params, n: i32) -> Self {
        let size = p.size as usize;
        Self { n: n as usize, size, before: size / 2 }
    }
    /// i lies in the window of j for the j in these.
    fn mirrored(self) -> Self {
        Self { before: self.size - 1 - self.before, ..self }
    }
    #[inline(always)]
    fn at(self, i: usize) -> Range<usize> {
        i.saturating_sub(self.before)..self.n.min(i + self.size - self.before)
    }
}

/// Rows of a block of channels that a worker needs forward, and backward: a row of sums, and the terms of all rows that a window sees.
pub(super) fn rows(p: &Params) -> [usize; 2] {
    [1, 1 + terms(p)]
}

/// Rows of terms that are kept: those of a window.
fn terms(p: &Params) -> usize {
    (p.size as usize).min(p.h as usize)
}

/// The channels of `x` forward; pixel i of y begins at `start + i * y_ld`. The sums have a row.
///
/// # Safety
/// No other task may touch these elements of y.
pub(super) unsafe fn forward(p: &Params, x: Plane<'_>, y: &Shared<'_, f32>, start: usize, sums: &mut [f32]) {
    with_powers(p.curve(), Forward { p, x, y, start, sums });
}

struct Forward<'a> {
    p: &'a Params,
    x: Plane<'a>,
    y: &'a Shared<'a, f32>,
    start: usize,
    sums: &'a mut [f32],
}

impl Normalisation for Forward<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector, const PAPER: bool>(self) {
        let Self { p, x, y, start, sums } = self;
        let (n, w, columns) = (x.channels, p.w as usize, Windows::of(p, p.w));
        for row in 0..p.h as usize {
            // SAFETY: the caller's promise.
            unsafe { square::<V>(p, x, row, sums) };
            for column in 0..w {
                let (pixel, seen) = (row * w + column, columns.at(column));
                // SAFETY: nobody else touches these elements (the caller's promise); one pixel at a time.
                let y = unsafe { y.range(start + pixel * p.y_ld as usize, n) };
                let sums = Rows::new(&sums[seen.start * n..][..seen.len() * n], n);
                let step = Normalise::<PAPER> { curve: p.curve(), sums, x: x.pixel(pixel), y: y.as_mut_ptr() };
                // SAFETY: x, y and all rows have `n` elements; the caller's promise.
                unsafe { each_vector::<V>(n, &step) };
            }
        }
    }
}

/// The channels of `x` backward; pixel i of dx begins at `start + i * dx_ld`. The space has the rows for it.
///
/// # Safety
/// No other task may touch these elements of dx.
pub(super) unsafe fn backward(
    p: &Params,
    [x, dy]: [Plane<'_>; 2],
    dx: &Shared<'_, f32>,
    start: usize,
    space: &mut [f32],
) {
    with_powers(p.curve(), Backward { p, x, dy, dx, start, space });
}

struct Backward<'a> {
    p: &'a Params,
    x: Plane<'a>,
    dy: Plane<'a>,
    dx: &'a Shared<'a, f32>,
    start: usize,
    space: &'a mut [f32],
}

impl Normalisation for Backward<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector, const PAPER: bool>(self) {
        let Self { p, x, dy, dx, start, space } = self;
        let (n, h, w) = (x.channels, p.h as usize, p.w as usize);
        let (sums, terms) = space.split_at_mut(w * n);
        let (columns, kept, place) = (Windows::of(p, p.w), terms.len() / (w * n), w * n);
        let pixel = |i: usize| start + i * p.dx_ld as usize;
        let mirrored = [p.h, p.w].map(|n| Windows::of(p, n).mirrored());
        // A row is finished as soon as the terms of all rows are there that have it in their windows.
        let later = (p.size as usize / 2).min(h - 1);
        for row in 0..h + later {
            if row < h {
                // SAFETY: the caller's promise.
                unsafe { square::<V>(p, x, row, sums) };
                let terms = &mut terms[row % kept * place..][..place];
                for (column, terms) in terms.chunks_exact_mut(n).enumerate() {
                    let (i, seen) = (row * w + column, columns.at(column));
                    // SAFETY: nobody else touches these elements (the caller's promise); one pixel at a time.
                    let dx = unsafe { dx.range(pixel(i), n) };
                    let sums = Rows::new(&sums[seen.start * n..][..seen.len() * n], n);
                    let (direct, terms) = (dx.as_mut_ptr(), terms.as_mut_ptr());
                    let step = Split::<PAPER> { curve: p.curve(), sums, x: x.pixel(i), dy: dy.pixel(i), direct, terms };
                    // SAFETY: all have `n` elements; the caller's promise.
                    unsafe { each_vector::<V>(n, &step) };
                }
            }
            let Some(row) = row.checked_sub(later) else { continue };
            let seen = mirrored[0].at(row);
            // The rows up to the last place, and those from the first one on.
            let (first, count) = (seen.start % kept, seen.len());
            let upper = count.min(kept - first);
            let upper = Rows { first: terms[first * place..].as_ptr(), step: place, count: upper };
            let lower = Rows { first: terms.as_ptr(), step: place, count: count - upper.count };
            // SAFETY: rows of a row's length (`kept` of them); the caller's promise.
            unsafe { each_vector::<V>(place, &Add { upper, lower, sums: sums.as_mut_ptr() }) };
            for column in 0..w {
                let (i, seen) = (row * w + column, mirrored[1].at(column));
                // SAFETY: as above.
                let dx = unsafe { dx.range(pixel(i), n) };
                let sums = Rows::new(&sums[seen.start * n..][..seen.len() * n], n);
                let step = Join { slope: p.curve().slope(), sums, x: x.pixel(i), dx: dx.as_mut_ptr() };
                // SAFETY: all have `n` elements; the caller's promise.
                unsafe { each_vector::<V>(n, &step) };
            }
        }
    }
}

/// Rows of numbers that are added, `step` apart.
#[derive(Clone, Copy)]
struct Rows {
    first: *const f32,
    step: usize,
    count: usize,
}

impl Rows {
    /// Those that `rows` holds, one behind the other.
    fn new(rows: &[f32], step: usize) -> Self {
        Self { first: rows.as_ptr(), step, count: rows.len() / step }
    }
    /// `sum` and the sums of `n` elements from `at` on, the first row first; of their squares with `SQUARES`.
    ///
    /// # Safety
    /// As [`load`]'s in every row.
    #[inline(always)]
    unsafe fn add<V: Vector, const WHOLE: bool, const SQUARES: bool>(&self, sum: V, at: usize, n: usize) -> V {
        let mut sum = sum;
        let mut from = self.first.wrapping_add(at);
        for _ in 0..self.count {
            // SAFETY: the caller's promise.
            unsafe {
                let values = load::<V, WHOLE>(from, n);
                sum = if SQUARES { sum.add_product(values, values) } else { sum.add(values) };
            }
            from = from.wrapping_add(self.step);
        }
        sum
    }
}

/// The sums of the squares of the rows of x that the windows of row `row` see.
///
/// # Safety
/// The processor has the instructions of `V`.
#[inline(always)]
unsafe fn square<V: Vector>(p: &Params, x: Plane<'_>, row: usize, sums: &mut [f32]) {
    let (seen, w) = (Windows::of(p, p.h).at(row), p.w as usize);
    for (column, sums) in sums[..w * x.channels].chunks_exact_mut(x.channels).enumerate() {
        let rows = Rows { first: x.pixel(seen.start * w + column), step: w * x.ld, count: seen.len() };
        // SAFETY: the pixels of one column, which the image has; the caller's promise.
        unsafe { each_vector::<V>(x.channels, &Square { rows, sums: sums.as_mut_ptr() }) };
    }
}

/// `sums` = sums of the squares of `rows`. All hold the elements.
struct Square {
    rows: Rows,
    sums: *mut f32,
}

impl Step for Square {
    #[inline(always)]
    unsafe fn vector<V: Vector, const WHOLE: bool>(&self, at: usize, n: usize) {
        // SAFETY: the caller's promises.
        unsafe {
            let sum = self.rows.add::<V, WHOLE, true>(V::splat(&0.0), at, n);
            store::<V, WHOLE>(sum, self.sums.add(at), n);
        }
    }
}

/// `sums` = sums of the rows of both. All hold the elements.
struct Add {
    upper: Rows,
    lower: Rows,
    sums: *mut f32,
}

impl Step for Add {
    #[inline(always)]
    unsafe fn vector<V: Vector, const WHOLE: bool>(&self, at: usize, n: usize) {
        // SAFETY: the caller's promises.
        unsafe {
            let sum = self.upper.add::<V, WHOLE, false>(V::splat(&0.0), at, n);
            let sum = self.lower.add::<V, WHOLE, false>(sum, at, n);
            store::<V, WHOLE>(sum, self.sums.add(at), n);
        }
    }
}

/// y = x s^-beta. All hold the elements.
struct Normalise<const PAPER: bool> {
    curve: Curve,
    sums: Rows,
    x: *const f32,
    y: *mut f32,
}

impl<const PAPER: bool> Step for Normalise<PAPER> {
    #[inline(always)]
    unsafe fn vector<V: Vector, const WHOLE: bool>(&self, at: usize, n: usize) {
        // SAFETY: the caller's promises.
        unsafe {
            let sum = self.sums.add::<V, WHOLE, false>(V::splat(&0.0), at, n);
            let (powers, _) = self.curve.powers::<V, PAPER, false>(sum);
            store::<V, WHOLE>(load::<V, WHOLE>(self.x.add(at), n).mul(powers), self.y.add(at), n);
        }
    }
}

/// `direct` = dy s^-beta, `terms` = dy x s^(-beta - 1). All hold the elements.
struct Split<const PAPER: bool> {
    curve: Curve,
    sums: Rows,
    x: *const f32,
    dy: *const f32,
    direct: *mut f32,
    terms: *mut f32,
}

impl<const PAPER: bool> Step for Split<PAPER> {
    #[inline(always)]
    unsafe fn vector<V: Vector, const WHOLE: bool>(&self, at: usize, n: usize) {
        // SAFETY: the caller's promises.
        unsafe {
            let sum = self.sums.add::<V, WHOLE, false>(V::splat(&0.0), at, n);
            let (powers, below) = self.curve.powers::<V, PAPER, true>(sum);
            let [x, dy] = [self.x, self.dy].map(|from| load::<V, WHOLE>(from.add(at), n));
            store::<V, WHOLE>(dy.mul(powers), self.direct.add(at), n);
            store::<V, WHOLE>(dy.mul(x).mul(below), self.terms.add(at), n);
        }
    }
}

/// dx, which is dy s^-beta so far, less `slope` x * sums of the terms. All hold the elements.
struct Join {
    slope: f32,
    sums: Rows,
    x: *const f32,
    dx: *mut f32,
}

impl Step for Join {
    #[inline(always)]
    unsafe fn vector<V: Vector, const WHOLE: bool>(&self, at: usize, n: usize) {
        // SAFETY: the caller's promises.
        unsafe {
            let sum = self.sums.add::<V, WHOLE, false>(V::splat(&0.0), at, n);
            let (x, dx) = (load::<V, WHOLE>(self.x.add(at), n), self.dx.add(at));
            let direct = load::<V, WHOLE>(dx, n);
            store::<V, WHOLE>(direct.sub_product(V::splat(&self.slope).mul(x), sum), dx, n);
        }
    }
}
