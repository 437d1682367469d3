//! The Rust bodies: some pixels at a time, so that the steps of a pixel need not wait for each other.

use super::{Curve, MAX_GROUP, Params};
use crate::tile::{Tile, Vector, Work, prefetch, with_vectors};
use std::ops::Range;

/// No vector is longer.
const LANES: usize = Tile::UNIT;
/// Channels of a window that get a loop of their own.
const USUAL: usize = 5;
/// Elements of some pixels between zeros: at least a group with windows as wide, and 24 KiB, half of the first-level cache.
const SPACE: usize = 3 * MAX_GROUP;

/// What a task needs for some pixels: forward the summands between zeros; backward also dy s^-beta, and the summands of the second term between zeros.
pub(in crate::layers) struct Scratch<const N: usize>([[f32; SPACE + LANES]; N]);

impl<const N: usize> Scratch<N> {
    pub fn new() -> Self {
        Self([[0.0; SPACE + LANES]; N])
    }
}

/// Windows over `n` channels of a pixel, in memory with zeros around them: for each pixel `before`, its channels, `after`.
#[derive(Clone, Copy)]
struct Windows {
    n: usize,
    before: usize,
    after: usize,
    /// From pixel to pixel.
    pitch: usize,
    /// Pixels that fit.
    pixels: usize,
}

impl Windows {
    fn new(n: usize, (before, after): (usize, usize)) -> Self {
        // A window that is wider sees no more.
        let (before, after) = (before.min(n - 1), after.min(n - 1));
        let pitch = (before + n + after).next_multiple_of(LANES);
        Self { n, before, after, pitch, pixels: SPACE / pitch }
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
    /// Writes 0 around the channels of all pixels.
    fn clear(self, padded: &mut [f32]) {
        let end = self.pixels * self.pitch;
        for pixel in padded[..end].chunks_exact_mut(self.pitch) {
            pixel[..self.before].fill(0.0);
            pixel[self.before + self.n..].fill(0.0);
        }
        padded[end..].fill(0.0);
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
    with_vectors(Forward { p, x, y, y_ld, pixels, scratch });
}

struct Forward<'a> {
    p: &'a Params,
    x: &'a [f32],
    y: &'a mut [f32],
    y_ld: usize,
    pixels: usize,
    scratch: &'a mut Scratch<1>,
}

impl Work for Forward<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        // SAFETY: the caller's promise.
        unsafe {
            if self.p.curve().is_paper() {
                self.go::<V, true>();
            } else {
                self.go::<V, false>();
            }
        }
    }
}

impl Forward<'_> {
    /// # Safety
    /// The processor has the instructions of `V`.
    #[inline(always)]
    unsafe fn go<V: Vector, const PAPER: bool>(self) {
        let Self { p, x, y, y_ld, pixels, scratch: Scratch([padded]) } = self;
        let (before, after) = p.reach();
        for (lo, hi) in p.groups() {
            let (from, to) = p.outputs(lo, hi);
            if from == to {
                continue;
            }
            // The channels that the windows of from..to see.
            let (left, right) = (from.saturating_sub(before).max(lo), hi.min(to + after));
            let windows = Windows::new(right - left, (before, after));
            windows.clear(padded);
            for (first, count) in windows.chunks(pixels) {
                let own = |pixel: usize| &x[(first + pixel) * p.x_ld as usize..];
                for pixel in 0..count {
                    let squares = &mut padded[pixel * windows.pitch + windows.before..][..windows.n];
                    // SAFETY: the caller's promise.
                    unsafe { square::<V>(squares, &own(pixel)[left..right]) };
                }
                for pixel in 0..count {
                    ahead(x, first + pixel + windows.pixels, p.x_ld as usize, left..right);
                    let y = &mut y[(first + pixel) * y_ld + from - p.first as usize..][..to - from];
                    let padded = &padded[pixel * windows.pitch + from - left..];
                    let x = &own(pixel)[from..to];
                    // SAFETY: the caller's promise.
                    unsafe {
                        if windows.width() == USUAL {
                            normalise::<V, PAPER>(p.curve(), USUAL, padded, x, y);
                        } else {
                            normalise::<V, PAPER>(p.curve(), windows.width(), padded, x, y);
                        }
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
    with_vectors(Backward { p, x, dy, dy_ld, dx, pixels, scratch });
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

impl Work for Backward<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        // SAFETY: the caller's promise.
        unsafe {
            if self.p.curve().is_paper() {
                self.go::<V, true>();
            } else {
                self.go::<V, false>();
            }
        }
    }
}

impl Backward<'_> {
    /// # Safety
    /// The processor has the instructions of `V`.
    #[inline(always)]
    unsafe fn go<V: Vector, const PAPER: bool>(self) {
        let Self { p, x, dy, dy_ld, dx, pixels, scratch: Scratch([padded, direct, terms]) } = self;
        for (lo, hi) in p.groups() {
            let (from, to) = p.outputs(lo, hi);
            if from == to {
                (0..pixels).for_each(|pixel| dx[pixel * p.dx_ld as usize..][lo..hi].fill(0.0));
                continue;
            }
            let windows = Windows::new(hi - lo, p.reach());
            let (mirrored, usual) = (windows.mirrored(), windows.width() == USUAL);
            let Windows { n, pitch, .. } = windows;
            windows.clear(padded);
            mirrored.clear(terms);
            for (first, count) in windows.chunks(pixels) {
                let channels = |pixel: usize| &x[(first + pixel) * p.x_ld as usize..][lo..hi];
                for pixel in 0..count {
                    // SAFETY: the caller's promise.
                    unsafe { square::<V>(&mut padded[pixel * pitch + windows.before..][..n], channels(pixel)) };
                }
                for pixel in 0..count {
                    ahead(x, first + pixel + windows.pixels, p.x_ld as usize, lo..hi);
                    let (at, x) = (pixel * pitch, channels(pixel));
                    let direct = &mut direct[at..][..n];
                    let terms = &mut terms[at + mirrored.before..][..n];
                    let dy = &dy[(first + pixel) * dy_ld..][from - p.first as usize..to - p.first as usize];
                    // The outputs of the other tower count as 0.
                    let (below, above) = (0..from - lo, to - lo..n);
                    for others in [below, above] {
                        direct[others.clone()].fill(0.0);
                        terms[others].fill(0.0);
                    }
                    let own = from - lo..to - lo;
                    let (direct, terms, both) =
                        (&mut direct[own.clone()], &mut terms[own.clone()], [&x[own.clone()], dy]);
                    let padded = &padded[at + own.start..];
                    // SAFETY: the caller's promise.
                    unsafe {
                        if usual {
                            split::<V, PAPER>(p.curve(), USUAL, padded, both, direct, terms);
                        } else {
                            split::<V, PAPER>(p.curve(), windows.width(), padded, both, direct, terms);
                        }
                    }
                }
                for pixel in 0..count {
                    let dx = &mut dx[(first + pixel) * p.dx_ld as usize..][lo..hi];
                    let (terms, both) = (&terms[pixel * pitch..], [channels(pixel), &direct[pixel * pitch..][..n]]);
                    // SAFETY: the caller's promise.
                    unsafe {
                        if usual {
                            join::<V>(p, USUAL, terms, both, dx);
                        } else {
                            join::<V>(p, windows.width(), terms, both, dx);
                        }
                    }
                }
            }
        }
    }
}

/// Asks for channels of pixel `pixel`: they are read together with others, before anything else is computed, and would be waited for.
#[inline(always)]
fn ahead(x: &[f32], pixel: usize, ld: usize, channels: Range<usize>) {
    for channel in channels.step_by(LANES) {
        prefetch(x.as_ptr().wrapping_add(pixel * ld + channel));
    }
}

/// The elements of `n` that are in whole vectors.
#[inline(always)]
fn whole<V: Vector>(n: usize) -> usize {
    n / V::LANES * V::LANES
}

/// The elements of `from` as a vector, then 0.
///
/// # Safety
/// The processor has the instructions of `V`.
#[inline(always)]
unsafe fn load_some<V: Vector>(from: &[f32]) -> V {
    let mut some = [0.0; LANES];
    some[..from.len()].copy_from_slice(from);
    // SAFETY: no vector is longer; the caller's promise.
    unsafe { V::load(some.as_ptr()) }
}

/// Writes as many elements as there are.
///
/// # Safety
/// The processor has the instructions of `V`.
#[inline(always)]
unsafe fn store_some<V: Vector>(values: V, to: &mut [f32]) {
    let mut some = [0.0; LANES];
    // SAFETY: no vector is longer; the caller's promise.
    unsafe { values.store(some.as_mut_ptr()) };
    let len = to.len();
    to.copy_from_slice(&some[..len]);
}

/// The sums over the windows of a vector's channels, from left to right.
///
/// # Safety
/// The processor has the instructions of `V`; `width - 1` elements and a vector are readable from `padded` on.
#[inline(always)]
unsafe fn sums<V: Vector>(width: usize, padded: *const f32) -> V {
    // SAFETY: the caller's promises.
    unsafe { (0..width).fold(V::splat(&0.0), |sum, i| sum.add(V::load(padded.add(i)))) }
}

/// # Safety
/// The processor has the instructions of `V`.
#[inline(always)]
unsafe fn square<V: Vector>(squares: &mut [f32], x: &[f32]) {
    let n = x.len();
    assert_eq!(squares.len(), n);
    let whole = whole::<V>(n);
    for i in (0..whole).step_by(V::LANES) {
        // SAFETY: whole vectors of both; the caller's promise.
        unsafe {
            let x = V::load(x.as_ptr().add(i));
            x.mul(x).store(squares.as_mut_ptr().add(i));
        }
    }
    squares[whole..].iter_mut().zip(&x[whole..]).for_each(|(square, x)| *square = x * x);
}

/// Some channels of one pixel; their windows begin at the beginning of `padded`.
///
/// # Safety
/// The processor has the instructions of `V`.
#[inline(always)]
unsafe fn normalise<V: Vector, const PAPER: bool>(
    curve: Curve,
    width: usize,
    padded: &[f32],
    x: &[f32],
    y: &mut [f32],
) {
    let n = x.len();
    assert!(y.len() == n && n + width - 1 + LANES <= padded.len());
    let whole = whole::<V>(n);
    // SAFETY: whole vectors, and the windows of one that is not, lie inside (checked above); the caller's promise.
    unsafe {
        for i in (0..whole).step_by(V::LANES) {
            let (powers, _) = curve.powers::<V, PAPER, false>(sums(width, padded.as_ptr().add(i)));
            V::load(x.as_ptr().add(i)).mul(powers).store(y.as_mut_ptr().add(i));
        }
        if whole < n {
            let (powers, _) = curve.powers::<V, PAPER, false>(sums(width, padded.as_ptr().add(whole)));
            store_some(load_some::<V>(&x[whole..]).mul(powers), &mut y[whole..]);
        }
    }
}

/// The two terms of a pixel: `direct` = dy s^-beta, `terms` = dy x s^(-beta - 1). Its windows begin at the beginning of `padded`.
///
/// # Safety
/// The processor has the instructions of `V`.
#[inline(always)]
unsafe fn split<V: Vector, const PAPER: bool>(
    curve: Curve,
    width: usize,
    padded: &[f32],
    [x, dy]: [&[f32]; 2],
    direct: &mut [f32],
    terms: &mut [f32],
) {
    let n = x.len();
    assert!(dy.len() == n && direct.len() == n && terms.len() == n && n + width - 1 + LANES <= padded.len());
    let whole = whole::<V>(n);
    // SAFETY: whole vectors, and the windows of one that is not, lie inside (checked above); the caller's promise.
    unsafe {
        for i in (0..whole).step_by(V::LANES) {
            let (powers, slopes) = curve.powers::<V, PAPER, true>(sums(width, padded.as_ptr().add(i)));
            let (x, dy) = (V::load(x.as_ptr().add(i)), V::load(dy.as_ptr().add(i)));
            dy.mul(powers).store(direct.as_mut_ptr().add(i));
            dy.mul(x).mul(slopes).store(terms.as_mut_ptr().add(i));
        }
        if whole < n {
            let (powers, slopes) = curve.powers::<V, PAPER, true>(sums(width, padded.as_ptr().add(whole)));
            let (x, dy) = (load_some::<V>(&x[whole..]), load_some::<V>(&dy[whole..]));
            store_some(dy.mul(powers), &mut direct[whole..]);
            store_some(dy.mul(x).mul(slopes), &mut terms[whole..]);
        }
    }
}

/// dx of a pixel from both; the windows of the terms begin at the beginning of `terms`.
///
/// # Safety
/// The processor has the instructions of `V`.
#[inline(always)]
unsafe fn join<V: Vector>(p: &Params, width: usize, terms: &[f32], [x, direct]: [&[f32]; 2], dx: &mut [f32]) {
    let n = x.len();
    assert!(direct.len() == n && dx.len() == n && n + width - 1 + LANES <= terms.len());
    let whole = whole::<V>(n);
    // SAFETY: whole vectors, and the windows of one that is not, lie inside (checked above); the caller's promise.
    unsafe {
        for i in (0..whole).step_by(V::LANES) {
            let (x, direct) = (V::load(x.as_ptr().add(i)), V::load(direct.as_ptr().add(i)));
            difference(p, x, direct, sums(width, terms.as_ptr().add(i))).store(dx.as_mut_ptr().add(i));
        }
        if whole < n {
            let (x, direct) = (load_some::<V>(&x[whole..]), load_some::<V>(&direct[whole..]));
            store_some(difference(p, x, direct, sums(width, terms.as_ptr().add(whole))), &mut dx[whole..]);
        }
    }
}

/// # Safety
/// The processor has the instructions of `V`.
#[inline(always)]
unsafe fn difference<V: Vector>(p: &Params, x: V, direct: V, sums: V) -> V {
    let slope = p.curve().slope();
    // SAFETY: the caller's promise.
    unsafe {
        let dx = direct.sub(V::splat(&slope).mul(x).mul(sums));
        if p.relu != 0 { dx.where_positive(x) } else { dx }
    }
}
