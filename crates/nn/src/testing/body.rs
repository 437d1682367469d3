//! Runs the Rust body of one kernel on plain vectors.

use alexnode_core::{
    Host, Kernel,
    kernel::{Args, RawArg},
};

/// Runs `K` on `buffers`, one per argument.
///
/// # Panics
/// Where the number of buffers is not the kernel's, or its body panics.
pub fn run_body<K: Kernel>(params: &K::Params, buffers: &mut [&mut [f32]], host: &dyn Host) {
    let raw = |b: &mut &mut [f32]| RawArg { pointer: b.as_mut_ptr().cast(), bytes: size_of_val(*b) };
    let raw: Vec<RawArg> = buffers.iter_mut().map(raw).collect();
    // SAFETY: the buffers are distinct and borrowed mutably until the body is done.
    K::run(params, &unsafe { Args::new(&raw, K::ACCESS) }, host);
}

/// Deterministic numbers in (-1, 1) for tests.
pub fn numbers(n: usize, seed: u32) -> Vec<f32> {
    let stream = alexnode_core::rng::Stream::new(u64::from(seed), alexnode_core::rng::Purpose::Generate, 0);
    (0..n as u32).map(|i| 2.0 * alexnode_core::rng::uniform(stream.words(i, 0, 0)[0]) - 1.0).collect()
}

/// The same numbers in double precision.
pub fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|x| f64::from(*x)).collect()
}

/// Rows of `c` dense elements, spread to `ld`: what lies between is `gap`.
pub fn spread(dense: &[f32], c: usize, ld: usize, gap: f32) -> Vec<f32> {
    let mut rows = vec![gap; (dense.len() / c - 1) * ld + c];
    for (to, from) in rows.chunks_mut(ld).zip(dense.chunks(c)) {
        to[..c].copy_from_slice(from);
    }
    rows
}

/// The opposite of [`spread`]; what lies between must still be `gap`.
///
/// # Panics
/// Where it is not.
pub fn gather(rows: &[f32], c: usize, ld: usize, gap: f32) -> Vec<f32> {
    let same = |x: &f32| x.to_bits() == gap.to_bits();
    assert!(rows.chunks(ld).all(|row| row[c..].iter().all(same)), "something was written between the rows");
    rows.chunks(ld).flat_map(|row| &row[..c]).copied().collect()
}

/// Compares with a reference: the largest difference, relative to the largest magnitude of the reference.
///
/// # Panics
/// Where a difference is larger than `tolerance`, or a number is not finite; says where.
pub fn assert_close(what: &str, actual: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(actual.len(), expected.len(), "{what}: number of elements");
    let scale = expected.iter().fold(1e-6f64, |m, v| m.max(v.abs()));
    let wrong: Vec<usize> = (0..actual.len())
        .filter(|i| {
            let difference = (f64::from(actual[*i]) - expected[*i]).abs();
            difference.is_nan() || difference > tolerance * scale
        })
        .collect();
    let first: Vec<_> = wrong.iter().take(5).map(|i| (*i, actual[*i], expected[*i])).collect();
    assert!(wrong.is_empty(), "{what}: {} of {} wrong, scale {scale}: {first:?}", wrong.len(), actual.len());
}
