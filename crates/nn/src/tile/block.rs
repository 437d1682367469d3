//! The loop over the steps of a sweep, for any vector.

use super::{Ahead, Ends, MAX_ROWS, Sweep, Tile};

/// max(0, x), a NaN for a NaN: in all epilogues. (`f32::max` would make it a 0.)
#[inline(always)]
pub fn relu(x: f32) -> f32 {
    if x <= 0.0 { 0.0 } else { x }
}

/// Numbers of the longest vector: of two of AVX-512.
pub const MAX_LANES: usize = 2 * Tile::UNIT;

/// What is done with vectors, whichever the processor has.
pub trait Work {
    /// Does it. To be inlined always: only then it uses the instructions of `V`.
    ///
    /// # Safety
    /// The processor has the instructions of `V`.
    unsafe fn run<V: Vector>(self);
}

/// Some numbers that are computed at once.
pub trait Vector: Copy {
    /// How many: 8 or 16, or twice as many.
    const LANES: usize;
    /// # Safety
    /// The elements are readable; the processor has the instructions.
    unsafe fn load(from: *const f32) -> Self;
    /// # Safety
    /// The elements are writable; the processor has the instructions.
    unsafe fn store(self, to: *mut f32);
    /// The same number in every lane.
    ///
    /// # Safety
    /// The element is readable; the processor has the instructions.
    unsafe fn splat(from: *const f32) -> Self;
    /// `a b + self`.
    ///
    /// # Safety
    /// The processor has the instructions.
    unsafe fn add_product(self, a: Self, b: Self) -> Self;
    /// `self - a b`.
    ///
    /// # Safety
    /// The processor has the instructions.
    unsafe fn sub_product(self, a: Self, b: Self) -> Self;
    /// `self + other`.
    ///
    /// # Safety
    /// The processor has the instructions.
    unsafe fn add(self, other: Self) -> Self;
    /// `self - other`.
    ///
    /// # Safety
    /// The processor has the instructions.
    unsafe fn sub(self, other: Self) -> Self;
    /// `self other`.
    ///
    /// # Safety
    /// The processor has the instructions.
    unsafe fn mul(self, other: Self) -> Self;
    /// 0 for what is at most 0.
    ///
    /// # Safety
    /// The processor has the instructions.
    unsafe fn relu(self) -> Self;
    /// The smaller of both; where `self` is a NaN, that.
    ///
    /// # Safety
    /// The processor has the instructions.
    #[inline(always)]
    unsafe fn at_most(self, most: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { both(self, most, |x, most| if x > most { most } else { x }) }
    }
    /// 0 where `of` is not positive.
    ///
    /// # Safety
    /// The processor has the instructions.
    #[inline(always)]
    unsafe fn where_positive(self, of: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { both(self, of, |x, of| if of > 0.0 { x } else { 0.0 }) }
    }
    /// The numbers whose bits are `from - (bits - bits / 4)`: a power of -3/4, roughly.
    ///
    /// # Safety
    /// The processor has the instructions.
    #[inline(always)]
    unsafe fn bits_below(self, from: u32) -> Self {
        let below = |x: f32| f32::from_bits(from.wrapping_sub(x.to_bits() - (x.to_bits() >> 2)));
        // SAFETY: the caller's promise.
        unsafe { both(self, self, |x, _| below(x)) }
    }
}

/// `f` of each two numbers.
///
/// # Safety
/// The processor has the instructions of `V`.
#[inline(always)]
unsafe fn both<V: Vector>(a: V, b: V, f: impl Fn(f32, f32) -> f32) -> V {
    let (mut x, mut y) = ([0.0; MAX_LANES], [0.0; MAX_LANES]);
    // SAFETY: no vector is longer; the caller's promise.
    unsafe {
        a.store(x.as_mut_ptr());
        b.store(y.as_mut_ptr());
        x.iter_mut().zip(y).for_each(|(x, y)| *x = f(*x, y));
        V::load(x.as_ptr())
    }
}

/// What is done with elements that lie one behind the other.
pub trait Step {
    /// Does it with `n` of them, from the one at `at` on: as many as a vector has, or without `WHOLE` fewer. To be inlined always.
    ///
    /// # Safety
    /// The processor has the instructions of `V`; and what it says itself.
    unsafe fn vector<V: Vector, const WHOLE: bool>(&self, at: usize, n: usize);
}

/// A step for all of `n` elements, two vectors at a time while there are so many.
///
/// # Safety
/// The processor has the instructions of `V`; what the step asks for holds for `n` elements.
#[inline(always)]
pub unsafe fn each_vector<V: Vector>(n: usize, step: &impl Step) {
    let (pairs, whole) = (n - n % Pair::<V>::LANES, n - n % V::LANES);
    // SAFETY: the caller's promises.
    unsafe {
        for at in (0..pairs).step_by(Pair::<V>::LANES) {
            step.vector::<Pair<V>, true>(at, Pair::<V>::LANES);
        }
        for at in (pairs..whole).step_by(V::LANES) {
            step.vector::<V, true>(at, V::LANES);
        }
        if whole < n {
            step.vector::<V, false>(whole, n - whole);
        }
    }
}

/// The vector at `from`; without `WHOLE` only `n` elements of it, then 0.
///
/// # Safety
/// So many elements are readable, `n` fewer than a vector has; the processor has the instructions of `V`.
#[inline(always)]
pub unsafe fn load<V: Vector, const WHOLE: bool>(from: *const f32, n: usize) -> V {
    // SAFETY: no vector is longer; the caller's promises.
    unsafe {
        if WHOLE {
            return V::load(from);
        }
        let mut some = [0.0; MAX_LANES];
        some.as_mut_ptr().copy_from_nonoverlapping(from, n);
        V::load(some.as_ptr())
    }
}

/// Writes a vector; without `WHOLE` only its first `n` elements.
///
/// # Safety
/// So many elements are writable, `n` fewer than a vector has; the processor has the instructions of `V`.
#[inline(always)]
pub unsafe fn store<V: Vector, const WHOLE: bool>(values: V, to: *mut f32, n: usize) {
    // SAFETY: no vector is longer; the caller's promises.
    unsafe {
        if WHOLE {
            return values.store(to);
        }
        let mut some = [0.0; MAX_LANES];
        values.store(some.as_mut_ptr());
        to.copy_from_nonoverlapping(some.as_ptr(), n);
    }
}

/// # Safety
/// The processor has the instructions of `V`; the sweep stays inside the operands, also from the last of the first `ROWS` rows of a; each of the first `ROWS`
/// rows of c, and `ends.start` where it is not null, has `VECTORS` vectors.
#[inline(always)]
pub unsafe fn accumulate<V: Vector, const ROWS: usize, const VECTORS: usize>(
    sweep: &Sweep,
    a: &[*const f32; MAX_ROWS],
    b: *const f32,
    c: &[*mut f32; MAX_ROWS],
    ends: &Ends,
    ahead: &mut [Ahead],
) {
    // SAFETY: the caller's promises.
    unsafe {
        let a: [*const f32; ROWS] = std::array::from_fn(|i| a[i]);
        let start = |i: usize| if ends.start.is_null() { c[i].cast_const() } else { ends.start };
        let mut acc: [[V; VECTORS]; ROWS] =
            std::array::from_fn(|i| std::array::from_fn(|j| V::load(start(i).add(j * V::LANES))));
        for segment in 0..sweep.segments {
            let mut offset = segment * sweep.a_segment;
            let mut b = b.add(segment * sweep.b_segment);
            for _ in 0..sweep.len {
                let row: [V; VECTORS] = std::array::from_fn(|j| V::load(b.add(j * V::LANES)));
                for (acc, a) in acc.iter_mut().zip(a) {
                    let a = V::splat(a.add(offset));
                    for (acc, b) in acc.iter_mut().zip(row) {
                        *acc = acc.add_product(a, b);
                    }
                }
                offset += sweep.a_step;
                b = b.add(sweep.b_step);
            }
            for ahead in ahead.iter_mut() {
                ahead.ask();
            }
        }
        for (acc, c) in acc.iter().zip(c) {
            for (j, acc) in acc.iter().enumerate() {
                let sums = if ends.relu { acc.relu() } else { *acc };
                sums.store(c.add(j * V::LANES));
            }
        }
    }
}

/// Eight numbers, in whatever the target always has.
#[derive(Clone, Copy)]
pub struct Portable([f32; 8]);

impl Vector for Portable {
    const LANES: usize = 8;
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { from.cast::<[f32; 8]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[f32; 8]>().write_unaligned(self.0) };
    }
    #[inline(always)]
    unsafe fn splat(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Self([unsafe { *from }; 8])
    }
    #[inline(always)]
    unsafe fn add_product(mut self, a: Self, b: Self) -> Self {
        for (x, (a, b)) in self.0.iter_mut().zip(a.0.into_iter().zip(b.0)) {
            *x += a * b;
        }
        self
    }
    #[inline(always)]
    unsafe fn sub_product(mut self, a: Self, b: Self) -> Self {
        for (x, (a, b)) in self.0.iter_mut().zip(a.0.into_iter().zip(b.0)) {
            *x -= a * b;
        }
        self
    }
    #[inline(always)]
    unsafe fn relu(self) -> Self {
        Self(self.0.map(relu))
    }
    #[inline(always)]
    unsafe fn add(mut self, other: Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(x, y)| *x += y);
        self
    }
    #[inline(always)]
    unsafe fn sub(mut self, other: Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(x, y)| *x -= y);
        self
    }
    #[inline(always)]
    unsafe fn mul(mut self, other: Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(x, y)| *x *= y);
        self
    }
}

/// Two vectors as one: what waits for the step before it leaves room for the other's.
#[derive(Clone, Copy)]
pub struct Pair<V>(V, V);

impl<V: Vector> Vector for Pair<V> {
    const LANES: usize = 2 * V::LANES;
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self(V::load(from), V::load(from.add(V::LANES))) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe {
            self.0.store(to);
            self.1.store(to.add(V::LANES));
        }
    }
    #[inline(always)]
    unsafe fn splat(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self(V::splat(from), V::splat(from)) }
    }
    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self(self.0.add_product(a.0, b.0), self.1.add_product(a.1, b.1)) }
    }
    #[inline(always)]
    unsafe fn sub_product(self, a: Self, b: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self(self.0.sub_product(a.0, b.0), self.1.sub_product(a.1, b.1)) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self(self.0.add(other.0), self.1.add(other.1)) }
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self(self.0.sub(other.0), self.1.sub(other.1)) }
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self(self.0.mul(other.0), self.1.mul(other.1)) }
    }
    #[inline(always)]
    unsafe fn relu(self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self(self.0.relu(), self.1.relu()) }
    }
    #[inline(always)]
    unsafe fn at_most(self, most: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self(self.0.at_most(most.0), self.1.at_most(most.1)) }
    }
    #[inline(always)]
    unsafe fn where_positive(self, of: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self(self.0.where_positive(of.0), self.1.where_positive(of.1)) }
    }
    #[inline(always)]
    unsafe fn bits_below(self, from: u32) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self(self.0.bits_below(from), self.1.bits_below(from)) }
    }
}
