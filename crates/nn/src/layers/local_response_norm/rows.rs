//! The Rust bodies: some pixels at a time, so that the steps of a pixel need not wait for each other.

use super::{Curve, MAX_GROUP, Params};
use crate::layers::response_norm::{Normalisation, with_powers};
use crate::tile::{Step, Tile, Vector, each_vector, load, prefetch, store};
use std::ops::Range;

/// Numbers of a line of the caches, and of the longest vector.
const LANES: usize = Tile::UNIT;
/// Channels of a window that get a loop of their own.
const USUAL: usize = 5;
/// Elements of a space: at least a group with windows as wide, and one vector that is read beyond.
const SPACE: usize = 3 * MAX_GROUP + LANES;
/// Elements of a space that are used where pixels are small: all three, x and dy stay in the first-level cache.
const CHUNK: usize = 2048;

/// A place for some pixels with zeros before and behind each. What is not written between stays 0.
#[derive(Clone)]
#[repr(align(64))]
struct Space([f32; SPACE]);

/// What a task needs for some pixels: forward the squares; backward also dy s^-beta, and the summands of the second term.
pub(in crate::layers) struct Scratch<const N: usize> {
    spaces: [Space; N],
    /// The windows, and the channels among theirs, for which something was written.
    used: Option<(Windows, Range<usize>)>,
}

impl<const N: usize> Scratch<N> {
    pub fn new() -> Self {
        Self { spaces: [const { Space([0.0; SPACE]) }; N], used: None }
    }
    /// The spaces, with zeros wherever these do not write.
    fn spaces(&mut self, windows: Windows, channels: Range<usize>) -> [&mut [f32; SPACE]; N] {
        let used = (windows, channels);
        if self.used.as_ref() != Some(&used) {
            if self.used.is_some() {
                self.spaces.iter_mut().for_each(|space| space.0.fill(0.0));
            }
            self.used = Some(used);
        }
        self.spaces.each_mut().map(|space| &mut space.0)
    }
}

/// Windows over `n` channels of a pixel, in a [`Space`]: for each pixel `lead` zeros, on a line of the caches, and its channels. Behind the last one as many zeros follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Windows {
    n: usize,
    before: usize,
    after: usize,
    lead: usize,
    /// From pixel to pixel.
    pitch: usize,
    /// Pixels that are handled at once.
    pixels: usize,
}

impl Windows {
    fn new(n: usize, (before, after): (usize, usize)) -> Self {
        // A window that is wider sees no more.
        let (before, after) = (before.min(n - 1), after.min(n - 1));
        let lead = before.max(after).next_multiple_of(LANES);
        let pitch = (lead + n).next_multiple_of(LANES);
        Self { n, before, after, lead, pitch, pixels: (CHUNK.saturating_sub(lead) / pitch).max(1) }
    }
    /// Channels of a window.
    fn width(self) -> usize {
        self.before + 1 + self.after
    }
    /// The mirrored windows: i lies in W(j) for the j in them.
    fn mirrored(self) -> Self {
        Self { before: self.after, after: self.before, ..self }
    }
    /// The ranges of pixels that are handled at once.
    fn chunks(self, pixels: usize) -> impl Iterator<Item = (usize, usize)> {
        (0..pixels).step_by(self.pixels).map(move |first| (first, self.pixels.min(pixels - first)))
    }
    /// Whether a space has room for so many pixels.
    fn hold(self, count: usize) -> bool {
        count * self.pitch + self.lead + LANES <= SPACE
    }
}

/// Some channels of pixels that lie `ld` apart, from the first of these channels of the first pixel on.
struct Pixels<T> {
    data: T,
    ld: usize,
}

impl<'a> Pixels<&'a [f32]> {
    fn of(data: &'a [f32], ld: usize, first: usize, channel: usize) -> Self {
        Self { data: &data[first * ld + channel..], ld }
    }
}

impl<'a> Pixels<&'a mut [f32]> {
    fn of_mut(data: &'a mut [f32], ld: usize, first: usize, channel: usize) -> Self {
        Self { data: &mut data[first * ld + channel..], ld }
    }
}

impl<T: std::ops::Deref<Target = [f32]>> Pixels<T> {
    /// Whether there are `n` channels of `count` pixels.
    fn hold(&self, count: usize, n: usize) -> bool {
        count == 0 || (count - 1) * self.ld + n <= self.data.len()
    }
}

/// `pixels` pixels forward; those of y lie `y_ld` apart.
pub(in crate::layers) fn forward(
    p: &Params,
    x: &[f32],
    y: &mut [f32],
    y_ld: usize,
    pixels: usize,
    scratch: &mut Scratch<1>,
) {
    with_powers(p.curve(), Forward { p, x, y, y_ld, pixels, scratch });
}

struct Forward<'a> {
    p: &'a Params,
    x: &'a [f32],
    y: &'a mut [f32],
    y_ld: usize,
    pixels: usize,
    scratch: &'a mut Scratch<1>,
}

impl Normalisation for Forward<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector, const PAPER: bool>(self) {
        let Self { p, x, y, y_ld, pixels, scratch } = self;
        let ((before, after), x_ld) = (p.reach(), p.x_ld as usize);
        for (lo, hi) in p.groups() {
            let (from, to) = p.outputs(lo, hi);
            if from == to {
                continue;
            }
            // The channels that the windows of from..to see.
            let (left, right) = (from.saturating_sub(before).max(lo), hi.min(to + after));
            let windows = Windows::new(right - left, (before, after));
            let own = from - left..to - left;
            let [squares] = scratch.spaces(windows, 0..windows.n);
            for (first, count) in windows.chunks(pixels) {
                let x = Pixels::of(x, x_ld, first, left);
                let y = Pixels::of_mut(y, y_ld, first, from - p.first as usize);
                // SAFETY: the caller's promise.
                unsafe {
                    square::<V>(windows, count, &x, squares);
                    if windows.width() == USUAL {
                        normalise::<V, PAPER>(p.curve(), windows, USUAL, &own, count, squares, &x, y);
                    } else {
                        normalise::<V, PAPER>(p.curve(), windows, windows.width(), &own, count, squares, &x, y);
                    }
                }
            }
        }
    }
}

/// `pixels` pixels backward; those of dy lie `dy_ld` apart.
pub(in crate::layers) fn backward(
    p: &Params,
    x: &[f32],
    dy: &[f32],
    dy_ld: usize,
    dx: &mut [f32],
    pixels: usize,
    scratch: &mut Scratch<3>,
) {
    with_powers(p.curve(), Backward { p, x, dy, dy_ld, dx, pixels, scratch });
}

struct Backward<'a> {
    p: &'a Params,
    x: &'a [f32],
    dy: &'a [f32],
    dy_ld: usize,
    dx: &'a mut [f32],
    pixels: usize,
    scratch: &'a mut Scratch<3>,
}

impl Normalisation for Backward<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector, const PAPER: bool>(self) {
        let Self { p, x, dy, dy_ld, dx, pixels, scratch } = self;
        let (x_ld, dx_ld) = (p.x_ld as usize, p.dx_ld as usize);
        for (lo, hi) in p.groups() {
            let (from, to) = p.outputs(lo, hi);
            if from == to {
                (0..pixels).for_each(|pixel| dx[pixel * dx_ld..][lo..hi].fill(0.0));
                continue;
            }
            let windows = Windows::new(hi - lo, p.reach());
            // The outputs of the other tower count as 0.
            let own = from - lo..to - lo;
            let [squares, direct, terms] = scratch.spaces(windows, own.clone());
            for (first, count) in windows.chunks(pixels) {
                let x = Pixels::of(x, x_ld, first, lo);
                let dy = Pixels::of(dy, dy_ld, first, from - p.first as usize);
                let dx = Pixels::of_mut(dx, dx_ld, first, lo);
                // SAFETY: the caller's promise.
                unsafe {
                    square::<V>(windows, count, &x, squares);
                    if windows.width() == USUAL {
                        split::<V, PAPER>(p.curve(), windows, USUAL, &own, count, squares, [&x, &dy], direct, terms);
                        join::<V>(p, windows.mirrored(), USUAL, count, direct, terms, &x, dx);
                    } else {
                        let width = windows.width();
                        split::<V, PAPER>(p.curve(), windows, width, &own, count, squares, [&x, &dy], direct, terms);
                        join::<V>(p, windows.mirrored(), width, count, direct, terms, &x, dx);
                    }
                }
            }
        }
    }
}

/// The sums over the windows of a vector's channels, from left to right.
///
/// # Safety
/// The processor has the instructions of `V`; `width - 1` elements and a vector are readable from `padded` on.
#[inline(always)]
unsafe fn sums<V: Vector>(width: usize, padded: *const f32) -> V {
    // SAFETY: the caller's promises.
    unsafe { (1..width).fold(V::load(padded), |sum, i| sum.add(V::load(padded.add(i)))) }
}

/// Asks for a vector's lines.
#[inline(always)]
fn prefetch_vector<V: Vector>(from: *const f32) {
    for i in (0..V::LANES).step_by(LANES) {
        prefetch(from.wrapping_add(i));
    }
}

/// The squares of `count` pixels of x.
///
/// # Safety
/// The processor has the instructions of `V`.
#[inline(always)]
unsafe fn square<V: Vector>(windows: Windows, count: usize, x: &Pixels<&[f32]>, squares: &mut [f32; SPACE]) {
    let Windows { n, lead, pitch, .. } = windows;
    assert!(windows.hold(count) && x.hold(count, n));
    for pixel in 0..count {
        // SAFETY: `n` elements of both lie inside (checked above); the caller's promise.
        unsafe {
            let x = x.data.as_ptr().add(pixel * x.ld);
            each_vector::<V>(n, &Square { x, squares: squares.as_mut_ptr().add(pixel * pitch + lead) });
        }
    }
}

/// `squares` = x^2. Both hold the elements.
struct Square {
    x: *const f32,
    squares: *mut f32,
}

impl Step for Square {
    #[inline(always)]
    unsafe fn vector<V: Vector, const WHOLE: bool>(&self, at: usize, n: usize) {
        // SAFETY: the caller's promises.
        unsafe {
            let x = load::<V, WHOLE>(self.x.add(at), n);
            store::<V, WHOLE>(x.mul(x), self.squares.add(at), n);
        }
    }
}

/// The channels `own` of `count` pixels forward.
///
/// # Safety
/// The processor has the instructions of `V`.
#[inline(always)]
unsafe fn normalise<V: Vector, const PAPER: bool>(
    curve: Curve,
    windows: Windows,
    width: usize,
    own: &Range<usize>,
    count: usize,
    squares: &[f32; SPACE],
    x: &Pixels<&[f32]>,
    y: Pixels<&mut [f32]>,
) {
    let Windows { n: all, before, lead, pitch, .. } = windows;
    let (first, n, ahead) = (own.start, own.len(), windows.pixels * x.ld);
    assert!(own.end <= all && windows.hold(count) && x.hold(count, all) && y.hold(count, n));
    for pixel in 0..count {
        // SAFETY: `n` elements of x and y, and their windows, lie inside (checked above); the caller's promise.
        unsafe {
            let squares = squares.as_ptr().add(pixel * pitch + lead - before + first);
            let x = x.data.as_ptr().add(pixel * x.ld + first);
            let y = y.data.as_mut_ptr().add(pixel * y.ld);
            each_vector::<V>(n, &Normalise::<PAPER> { curve, width, squares, x, y, ahead });
        }
    }
}

/// y = x s^-beta. x and y hold the elements, `squares` also their windows and a vector; what lies `ahead` of x is asked for.
struct Normalise<const PAPER: bool> {
    curve: Curve,
    width: usize,
    squares: *const f32,
    x: *const f32,
    y: *mut f32,
    ahead: usize,
}

impl<const PAPER: bool> Step for Normalise<PAPER> {
    #[inline(always)]
    unsafe fn vector<V: Vector, const WHOLE: bool>(&self, at: usize, n: usize) {
        prefetch_vector::<V>(self.x.wrapping_add(self.ahead + at));
        // SAFETY: the caller's promises.
        unsafe {
            let (powers, _) = self.curve.powers::<V, PAPER, false>(sums(self.width, self.squares.add(at)));
            store::<V, WHOLE>(load::<V, WHOLE>(self.x.add(at), n).mul(powers), self.y.add(at), n);
        }
    }
}

/// The two terms of the channels `own` of `count` pixels.
///
/// # Safety
/// The processor has the instructions of `V`.
#[inline(always)]
unsafe fn split<V: Vector, const PAPER: bool>(
    curve: Curve,
    windows: Windows,
    width: usize,
    own: &Range<usize>,
    count: usize,
    squares: &[f32; SPACE],
    [x, dy]: [&Pixels<&[f32]>; 2],
    direct: &mut [f32; SPACE],
    terms: &mut [f32; SPACE],
) {
    let Windows { n: all, before, lead, pitch, .. } = windows;
    let (first, n, ahead) = (own.start, own.len(), windows.pixels * x.ld);
    assert!(own.end <= all && windows.hold(count) && x.hold(count, all) && dy.hold(count, n));
    for pixel in 0..count {
        // SAFETY: `n` elements of all, and their windows, lie inside (checked above); the caller's promise.
        unsafe {
            let place = pixel * pitch + lead + first;
            let squares = squares.as_ptr().add(place - before);
            let (direct, terms) = (direct.as_mut_ptr().add(place), terms.as_mut_ptr().add(place));
            let x = x.data.as_ptr().add(pixel * x.ld + first);
            let dy = dy.data.as_ptr().add(pixel * dy.ld);
            each_vector::<V>(n, &Split::<PAPER> { curve, width, squares, x, dy, direct, terms, ahead });
        }
    }
}

/// `direct` = dy s^-beta, `terms` = dy x s^(-beta - 1). All hold the elements, `squares` also their windows and a vector; what lies `ahead` of x is asked for.
struct Split<const PAPER: bool> {
    curve: Curve,
    width: usize,
    squares: *const f32,
    x: *const f32,
    dy: *const f32,
    direct: *mut f32,
    terms: *mut f32,
    ahead: usize,
}

impl<const PAPER: bool> Step for Split<PAPER> {
    #[inline(always)]
    unsafe fn vector<V: Vector, const WHOLE: bool>(&self, at: usize, n: usize) {
        prefetch_vector::<V>(self.x.wrapping_add(self.ahead + at));
        // SAFETY: the caller's promises.
        unsafe {
            let (powers, below) = self.curve.powers::<V, PAPER, true>(sums(self.width, self.squares.add(at)));
            let [x, dy] = [self.x, self.dy].map(|from| load::<V, WHOLE>(from.add(at), n));
            store::<V, WHOLE>(dy.mul(powers), self.direct.add(at), n);
            store::<V, WHOLE>(dy.mul(x).mul(below), self.terms.add(at), n);
        }
    }
}

/// dx of `count` pixels from both terms.
///
/// # Safety
/// The processor has the instructions of `V`.
#[inline(always)]
unsafe fn join<V: Vector>(
    p: &Params,
    windows: Windows,
    width: usize,
    count: usize,
    direct: &[f32; SPACE],
    terms: &[f32; SPACE],
    x: &Pixels<&[f32]>,
    dx: Pixels<&mut [f32]>,
) {
    let Windows { n, before, lead, pitch, .. } = windows;
    assert!(windows.hold(count) && x.hold(count, n) && dx.hold(count, n));
    let (slope, relu, ahead) = (p.curve().slope(), p.relu != 0, windows.pixels * dx.ld);
    for pixel in 0..count {
        // SAFETY: `n` elements of all, and their windows, lie inside (checked above); the caller's promise.
        unsafe {
            let place = pixel * pitch + lead;
            let (direct, terms) = (direct.as_ptr().add(place), terms.as_ptr().add(place - before));
            let x = x.data.as_ptr().add(pixel * x.ld);
            let dx = dx.data.as_mut_ptr().add(pixel * dx.ld);
            each_vector::<V>(n, &Join { slope, relu, width, direct, terms, x, dx, ahead });
        }
    }
}

/// dx = `direct` - `slope` x * sums of `terms`, with `relu` 0 where x is not positive. All hold the elements, `terms` also their windows and a vector; what lies `ahead` of dx is asked
/// for, since what is written is read from memory first.
struct Join {
    slope: f32,
    relu: bool,
    width: usize,
    direct: *const f32,
    terms: *const f32,
    x: *const f32,
    dx: *mut f32,
    ahead: usize,
}

impl Step for Join {
    #[inline(always)]
    unsafe fn vector<V: Vector, const WHOLE: bool>(&self, at: usize, n: usize) {
        prefetch_vector::<V>(self.dx.wrapping_add(self.ahead + at));
        // SAFETY: the caller's promises.
        unsafe {
            let [x, direct] = [self.x, self.direct].map(|from| load::<V, WHOLE>(from.add(at), n));
            let dx = direct.sub_product(V::splat(&self.slope).mul(x), sums(self.width, self.terms.add(at)));
            store::<V, WHOLE>(if self.relu { dx.where_positive(x) } else { dx }, self.dx.add(at), n);
        }
    }
}
