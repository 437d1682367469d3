//! The pixels are those of zune-jpeg, bit by bit.

use super::{super::quick, Memory, any, decode, headers::Headers, transform};
use crate::decode::{
    Reason, header,
    tests::{
        fuzz::number,
        images::{pixels, shared_data},
        mutate::{Draw, mutated},
    },
};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

/// What both make of a file: the pixels, and what zune-jpeg gives.
type Both = (Vec<u8>, Result<Vec<u8>, Reason>);

/// `None` where the file is not usual.
fn both(bytes: &[u8], memory: &mut Memory) -> Option<Both> {
    let picture = header(bytes, bytes.len() as u64).ok()?;
    // Whatever was there before is written over.
    let mut own = vec![170; 3 * picture.width * picture.height];
    decode(bytes, picture.width, picture.height, memory, &mut own)?;
    let mut other = Vec::new();
    let other = quick::decode(bytes, &picture, &mut other).map(|()| other);
    Some((own, other))
}

/// Waves and, where there is much of it, noise.
fn picture(width: usize, height: usize, noise: usize, seed: usize) -> Vec<u8> {
    let mut draw = Draw(seed as u64);
    pixels(width, height, seed).into_iter().map(|v| (usize::from(v) + draw.below(noise)).min(255) as u8).collect()
}

fn encoded(width: usize, height: usize, noise: usize, quality: u8, sampling: SamplingFactor) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, quality);
    encoder.set_sampling_factor(sampling);
    let rgb = picture(width, height, noise, width + noise);
    encoder.encode(&rgb, width as u16, height as u16, ColorType::Rgb).unwrap();
    bytes
}

const SAMPLINGS: [SamplingFactor; 3] = [SamplingFactor::F_1_1, SamplingFactor::F_2_1, SamplingFactor::F_2_2];

#[test]
fn every_usual_picture_is_read_as_zune_jpeg_reads_it() {
    let mut memory = Memory::default();
    for (width, height) in [(64, 64), (256, 256), (65, 97), (80, 71), (151, 66), (72, 300)] {
        for quality in [1, 60, 95, 100] {
            for (noise, sampling) in
                [(1, SAMPLINGS), (40, SAMPLINGS), (256, SAMPLINGS)].map(|(n, s)| s.map(|s| (n, s))).concat()
            {
                let file = encoded(width, height, noise, quality, sampling);
                let (own, other) = both(&file, &mut memory).unwrap();
                assert!(own == other.unwrap(), "{width}x{height}, quality {quality}, noise {noise}, {sampling:?}");
            }
        }
    }
}

#[test]
fn a_processor_without_vectors_gives_the_same() {
    for (sampling, noise) in SAMPLINGS.into_iter().zip([1, 60, 256]) {
        let file = encoded(150, 107, noise, 90, sampling);
        let (mut memory, mut with, mut without) = (Memory::default(), vec![0; 3 * 150 * 107], vec![0; 3 * 150 * 107]);
        decode(&file, 150, 107, &mut memory, &mut with).unwrap();
        memory.planes.iter_mut().for_each(|plane| plane.samples.fill(0));
        any(&Headers::of(&file).unwrap(), &mut memory, &mut without, transform::inverse).unwrap();
        assert!(with == without, "{sampling:?}");
    }
}

#[test]
fn damage_is_left_to_the_libraries_or_read_as_by_them() {
    let mut memory = Memory::default();
    let files = SAMPLINGS.map(|sampling| encoded(80, 71, 30, 80, sampling));
    let (mut usual, mut left) = (0, 0);
    for seed in 0..number("ALEXNODE_FUZZ").unwrap_or(3000) {
        let mut draw = Draw(seed);
        let [file, other] = [0; 2].map(|_| &files[draw.below(files.len())]);
        let bytes = mutated(file, other, &mut draw);
        match both(&bytes, &mut memory) {
            Some((own, other)) => {
                usual += 1;
                assert!(Ok(own) == other, "input {seed}");
            }
            None => left += 1,
        }
    }
    assert!(usual > 100 && left > 100, "{usual} read, {left} left");
}

#[test]
fn what_is_rare_is_left_to_the_libraries() {
    let mut memory = Memory::default();
    let rgb = picture(64, 64, 9, 1);
    type Change = fn(&mut Encoder<&mut Vec<u8>>);
    let changes: [Change; 4] = [
        |encoder| encoder.set_progressive(true),
        |encoder| encoder.set_restart_interval(4),
        |encoder| encoder.set_sampling_factor(SamplingFactor::F_4_1),
        |encoder| encoder.set_sampling_factor(SamplingFactor::F_1_2),
    ];
    for change in changes {
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(&mut bytes, 90);
        change(&mut encoder);
        encoder.encode(&rgb, 64, 64, ColorType::Rgb).unwrap();
        assert!(both(&bytes, &mut memory).is_none());
    }
    let whole = encoded(64, 64, 9, 90, SamplingFactor::F_2_2);
    let mut own = vec![0; 3 * 64 * 64];
    assert!(decode(&whole, 64, 64, &mut memory, &mut own).is_some());
    for end in 0..whole.len() {
        assert!(decode(&whole[..end], 64, 64, &mut memory, &mut own).is_none(), "{end} bytes");
    }
    assert!(decode(&whole, 32, 128, &mut memory, &mut own).is_none());
}

#[test]
fn photos_are_read_as_zune_jpeg_reads_them() {
    let Some(root) = shared_data("imagenet-samples-dev/images") else { return };
    let mut memory = Memory::default();
    let (mut usual, mut all) = (0, 0);
    for path in crate::images::pictures(&root).unwrap() {
        all += 1;
        if let Some((own, other)) = both(&std::fs::read(&path).unwrap(), &mut memory) {
            usual += 1;
            assert!(own == other.unwrap(), "{}", path.display());
        }
    }
    // The others are grey, progressive, or sampled in ways of their own.
    assert!(10 * usual >= 8 * all, "{usual} of {all}");
}
