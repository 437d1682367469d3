//! Damaged files: a picture or a reason comes out, never a panic, and never more memory than the file can be worth.
//!
//! `ALEXNODE_FUZZ=1000000 cargo test -p alexnode-data --lib fuzz -- --nocapture` tries that many; `ALEXNODE_FUZZ_FROM` is the first one.

use super::{
    super::{PANICKED, limits::largest_allocation},
    allocations::largest,
    mutate::{Draw, mutated},
    *,
};
use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
};

/// How many damaged files the short run tries.
const SHORT: u64 = 6000;
/// Larger files of the shared data would only cost time.
const LARGEST_FILE: u64 = 64 << 10;

/// What the environment says.
pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}: no number")))
}

/// The fixtures, and the small ones among the odd files of the shared data.
fn corpus() -> Vec<Vec<u8>> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pictures")];
    if let Some(odd) = shared_data("jpeg-oddities") {
        folders.extend(["synthetic", "third-party"].map(|name| odd.join(name)));
    }
    let mut paths: Vec<_> =
        folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap()).map(|item| item.unwrap().path()).collect();
    paths.retain(|path| fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() <= LARGEST_FILE));
    paths.sort();
    paths.into_iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Whether it is a picture. A panic here fails the test; so does whatever a decoder must not do.
fn attempt(bytes: &[u8], out: &mut [u8], preparer: &mut Preparer) -> Result<bool, String> {
    let mut decoder = Decoder::default();
    let (head, took) = largest(|| header(bytes, bytes.len() as u64));
    let (decoded, took_more) = largest(|| decoder.decode(bytes));
    let took = took.max(took_more) as u64;
    if took > largest_allocation(bytes.len() as u64) {
        return Err(format!("{took} bytes of memory at once"));
    }
    for reason in [head.as_ref().err(), decoded.as_ref().err()].into_iter().flatten() {
        if reason == PANICKED {
            return Err("a decoder panicked".into());
        }
    }
    let Ok(picture) = decoded else { return Ok(false) };
    let pixels = decoder.pixels();
    if pixels.len() != picture.width * picture.height * 3 {
        return Err(format!("{} bytes for {picture:?}", pixels.len()));
    }
    if head.as_ref() != Ok(&picture) {
        return Err(format!("its head says {head:?}, its pixels {picture:?}"));
    }
    preparer
        .fit(pixels, picture.width, picture.height, picture.orientation, out)
        .map_err(|reason| format!("{picture:?}: {reason}"))?;
    Ok(true)
}

#[test]
fn fuzz() {
    let (from, count) = (number("ALEXNODE_FUZZ_FROM").unwrap_or(0), number("ALEXNODE_FUZZ").unwrap_or(SHORT));
    let corpus = corpus();
    let (next, pictures) = (AtomicU64::new(from), AtomicU64::new(0));
    let run = || {
        let (mut out, mut preparer) = (vec![0; 16 * 16 * 3], Preparer::new(16));
        loop {
            let i = next.fetch_add(1, Relaxed);
            if i >= from + count {
                return;
            }
            let mut draw = Draw(i);
            let [file, other] = [0; 2].map(|_| &corpus[draw.below(corpus.len())]);
            let bytes = mutated(file, other, &mut draw);
            match attempt(&bytes, &mut out, &mut preparer) {
                Ok(usable) => drop(pictures.fetch_add(u64::from(usable), Relaxed)),
                Err(wrong) => {
                    let place = std::env::temp_dir().join(format!("alexnode-fuzz-{i}"));
                    fs::write(&place, &bytes).unwrap();
                    panic!("input {i}, kept as {}: {wrong}", place.display());
                }
            }
        }
    };
    thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        (0..threads).for_each(|_| drop(scope.spawn(run)));
    });
    let pictures = pictures.into_inner();
    eprintln!("{count} damaged files of {} from number {from} on: {pictures} were still pictures", corpus.len());
    // Damage that leaves nothing to decode, or everything whole, would show nothing.
    assert!(pictures > count / 20 && pictures < count * 19 / 20, "{pictures} of {count}");
}
