//! A split that a data set gets here keeps pictures together that look nearly the same.

mod support;

use alexnode_core::rng::{Purpose, Stream};
use alexnode_data::{Dataset, DatasetOptions, Split};
use image::{ExtendedColorType, RgbImage, imageops};
use std::{collections::BTreeMap, path::Path};
use support::{
    images::{jpeg, png},
    open, pack, write,
};

const SCENES: u32 = 24;

/// Soft spots of light, others for every scene.
fn scene(number: u32) -> RgbImage {
    let stream = Stream::new(11, Purpose::Generate, 0);
    let unit = |spot: u32, what: usize| stream.words(spot, number, 0)[what] as f32 / 2f32.powi(32);
    RgbImage::from_fn(120, 90, |x, y| {
        let light: f32 = (0..9)
            .map(|spot| {
                let (dx, dy) = (x as f32 / 120.0 - unit(spot, 0), y as f32 / 90.0 - unit(spot, 1));
                (unit(spot, 2) - 0.4) * (-(dx * dx + dy * dy) * (10.0 + 60.0 * unit(spot, 3))).exp()
            })
            .sum();
        let value = 100.0 + 140.0 * light;
        [value, value * 0.9, value * 0.8 + 20.0].map(|v| v.clamp(0.0, 255.0) as u8).into()
    })
}

/// The picture itself, encoded anew, smaller, brighter, and turned with a note to turn it back.
fn variants(number: u32) -> [Vec<u8>; 5] {
    let original = scene(number);
    let rgb = jpeg_encoder::ColorType::Rgb;
    let as_jpeg = |image: &RgbImage, exif| jpeg(image.width() as usize, image.height() as usize, image, rgb, exif);
    let mut rough = Vec::new();
    jpeg_encoder::Encoder::new(&mut rough, 40).encode(&original, 120, 90, rgb).unwrap();
    let small = imageops::resize(&original, 73, 55, imageops::FilterType::Triangle);
    let mut bright = original.clone();
    bright.pixels_mut().flat_map(|pixel| &mut pixel.0).for_each(|v| *v = (f32::from(*v) * 1.15).min(255.0) as u8);
    [
        png(120, 90, &original, ExtendedColorType::Rgb8),
        rough,
        as_jpeg(&small, 0),
        as_jpeg(&bright, 0),
        as_jpeg(&imageops::rotate270(&original), 6),
    ]
}

fn options(path: &Path) -> DatasetOptions {
    DatasetOptions { val_fraction: 0.3, ..DatasetOptions::new(path.to_str().unwrap(), 16) }
}

/// The side of every file, by its name below `root`.
fn sides(dataset: &Dataset, root: &Path) -> BTreeMap<String, Split> {
    let of = |split| {
        (0..dataset.len(split) as u32).map(move |id| {
            let name = dataset.name(split, id);
            (name.trim_start_matches(root.to_str().unwrap()).trim_start_matches([':', '/']).to_owned(), split)
        })
    };
    Split::ALL.into_iter().flat_map(of).collect()
}

#[test]
fn copies_that_look_the_same_are_on_one_side() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..SCENES {
        for (variant, bytes) in variants(number).iter().enumerate() {
            write(dir.path(), &format!("{}/{number}-{variant}.jpg", ["a", "b"][number as usize % 2]), bytes);
        }
    }
    let first = open(&options(dir.path())).unwrap();
    assert_eq!(first.info().kept_together, 5 * SCENES as usize);
    let before = sides(&first, dir.path());
    let of_scene = |sides: &BTreeMap<String, Split>, number: u32| -> Vec<Split> {
        let of = |(name, _): &(&String, &Split)| name.split(['/', '-']).nth(1) == Some(&number.to_string());
        sides.iter().filter(of).map(|(_, side)| *side).collect()
    };
    for number in 0..SCENES {
        let of = of_scene(&before, number);
        assert!(of.len() == 5 && of.iter().all(|side| *side == of[0]), "scene {number}: {of:?}");
    }
    assert!(before.values().any(|side| *side == Split::Val) && before.values().any(|side| *side == Split::Train));
    // The same in an archive, and under other names.
    let tar = tempfile::tempdir().unwrap();
    pack(dir.path(), "photos", &tar.path().join("photos.tar"));
    let packed = open(&options(&tar.path().join("photos.tar"))).unwrap();
    assert_eq!(
        sides(&packed, &tar.path().join("photos.tar")).into_values().collect::<Vec<_>>(),
        before.values().copied().collect::<Vec<_>>()
    );
    // Others move nothing.
    for number in SCENES..SCENES + 6 {
        write(dir.path(), &format!("a/{number}-0.jpg"), &variants(number)[0]);
    }
    let after = sides(&open(&options(dir.path())).unwrap(), dir.path());
    assert!(before.iter().all(|(name, side)| after[name] == *side));
    // One more of a scene goes where the scene goes.
    let mut more = scene(3);
    more.pixels_mut().flat_map(|pixel| &mut pixel.0).for_each(|v| *v = v.saturating_sub(9));
    write(dir.path(), "b/3-5.jpg", &png(120, 90, &more, ExtendedColorType::Rgb8));
    let last = sides(&open(&options(dir.path())).unwrap(), dir.path());
    let of = of_scene(&last, 3);
    assert!(of.len() == 6 && of.iter().all(|side| *side == of[0]), "{of:?}");
    assert!(after.iter().all(|(name, side)| name.starts_with("b/3-") || last[name] == *side));
}
