use crate::{alike, bits};
use alexnode_core::{Backend, StepState, kernel::define};
use alexnode_nn::{
    augment::{Augment, AugmentParams, Crop, colour_noise, random_crop, view},
    testing::{Rng, alone::run_kernel, compare},
};
use std::collections::HashSet;

const SEED: u64 = 0xfeed_0000_beef;

struct Input {
    params: AugmentParams,
    pixels: Vec<u8>,
    ids: Vec<u32>,
    state: StepState,
    mean: Vec<f32>,
    colour: Vec<f32>,
}

impl Input {
    fn new(batch: usize, image: usize, crop: usize) -> Self {
        let mut rng = Rng::new(16);
        Self {
            params: AugmentParams {
                batch: batch as i32,
                image: image as i32,
                crop: crop as i32,
                train: 1,
                flip: 1,
                noise_divisor: 1.1,
                scale: 0.5,
            },
            pixels: (0..batch * image * image * 3).map(|_| rng.word() as u8).collect(),
            ids: (0..batch as u32).map(|i| 500 + 3 * i).collect(),
            state: StepState {
                seed_low: SEED as u32,
                seed_high: (SEED >> 32) as u32,
                epoch: 4,
                views: 1,
                colour_noise: 0.1,
                ..StepState::default()
            },
            mean: rng.normals(crop * crop * 3, 50.0),
            colour: [vec![20.0, 37.0, 122.0], rng.normals(9, 0.6)].concat(),
        }
    }
    fn crop(&self) -> usize {
        self.params.crop as usize
    }
    fn run(&self, backend: &mut dyn Backend) -> Vec<f32> {
        let mut out = vec![f32::NAN; self.ids.len() * self.crop() * self.crop() * 3];
        let mut read = [
            self.pixels.clone(),
            bytemuck::cast_slice(&self.ids).to_vec(),
            bytemuck::bytes_of(&self.state).to_vec(),
            bytemuck::cast_slice(&self.mean).to_vec(),
            bytemuck::cast_slice(&self.colour).to_vec(),
        ];
        let mut buffers: Vec<&mut [u8]> = read.iter_mut().map(Vec::as_mut_slice).collect();
        buffers.push(bytemuck::cast_slice_mut(&mut out));
        run_kernel(define::<Augment>(), self.params, &mut buffers, backend);
        out
    }
    /// Runs everywhere. The logarithm, sine and cosine of a device are other than the processor's, in the last bits: the noise is some tens at most,
    /// and wrong by less than 1e-4.
    fn check(&self, want: &[f64]) {
        alike(|backend| {
            let out = self.run(backend);
            compare("input", &out, want, 1e-5, 1e-4);
            bits(&out)
        });
    }
    /// Image `n` through `crop`, plus `noise`, times `factor`.
    fn expect(&self, n: usize, crop: Crop, noise: [f64; 3], factor: f64) -> Vec<f64> {
        let (image, size) = (self.params.image as usize, self.crop());
        let mut out = Vec::new();
        for h in 0..size {
            for w in 0..size {
                let column = crop.left + if crop.mirrored { size - 1 - w } else { w };
                for (c, noise) in noise.iter().enumerate() {
                    let pixel = self.pixels[((n * image + crop.top + h) * image + column) * 3 + c];
                    let mean = self.mean[(h * size + w) * 3 + c];
                    out.push((f64::from(pixel) - f64::from(mean) + noise) * factor);
                }
            }
        }
        out
    }
}

#[test]
fn training_crops_mirrors_and_colours_each_sample_by_its_id() {
    for (batch, image, size) in [(1, 1, 1), (6, 9, 6), (3, 40, 33), (2, 16, 16)] {
        let input = Input::new(batch, image, size);
        let want: Vec<f64> = (0..batch)
            .flat_map(|n| {
                let crop = random_crop(SEED, input.ids[n], 4, image, size, true);
                let noise = colour_noise(SEED, input.ids[n], 4, &input.colour, 0.1).map(f64::from);
                input.expect(n, crop, noise, 0.5 / 1.1)
            })
            .collect();
        input.check(&want);
    }
}

/// A crop depends on seed, epoch and id, and on nothing else: not on the place in the batch.
#[test]
fn a_sample_looks_the_same_wherever_it_stands() {
    alike(|backend| {
        let mut input = Input::new(4, 12, 8);
        let one = 12 * 12 * 3;
        let first = input.run(backend);
        input.pixels.rotate_left(one);
        input.ids.rotate_left(1);
        let mut second = input.run(backend);
        second.rotate_right(8 * 8 * 3);
        assert_eq!(first, second);
        input.state.epoch += 1;
        assert_ne!(input.run(backend), second);
        bits(&first)
    });
}

#[test]
fn crops_cover_every_offset_evenly() {
    let crops: Vec<Crop> = (0..20_000).map(|id| random_crop(1, id, 0, 36, 32, true)).collect();
    let places: HashSet<_> = crops.iter().map(|crop| (crop.top, crop.left, crop.mirrored)).collect();
    assert_eq!(places.len(), 5 * 5 * 2);
    let share = |test: &dyn Fn(&Crop) -> bool| crops.iter().filter(|crop| test(crop)).count() as f64 / 20_000.0;
    assert!((share(&|crop| crop.mirrored) - 0.5).abs() < 0.02);
    for offset in 0..5 {
        assert!((share(&|crop| crop.top == offset) - 0.2).abs() < 0.02, "{offset}");
        assert!((share(&|crop| crop.left == offset) - 0.2).abs() < 0.02, "{offset}");
    }
    assert!((0..100).all(|id| !random_crop(1, id, 0, 36, 32, false).mirrored));
}

/// Noise moves a colour along the principal components, by its standard deviations.
#[test]
fn colour_noise_has_the_statistics_of_the_colours() {
    let colour = [2.0, 3.0, 5.0, 1.0, 0.0, 0.0, 0.0, 0.6, 0.8, 0.0, -0.8, 0.6];
    let n = 40_000u32;
    let mut moments = [[0.0; 3]; 3];
    for id in 0..n {
        let noise = colour_noise(2, id, 0, &colour, 0.1).map(f64::from);
        for (i, row) in moments.iter_mut().enumerate() {
            for (j, m) in row.iter_mut().enumerate() {
                *m += noise[i] * noise[j] / f64::from(n);
            }
        }
    }
    for i in 0..3 {
        for j in 0..3 {
            let want: f64 = (0..3)
                .map(|k| f64::from(0.01 * colour[k] * colour[k] * colour[3 + 3 * k + i] * colour[3 + 3 * k + j]))
                .sum();
            assert!((moments[i][j] - want).abs() < 0.005, "({i}, {j}): {} against {want}", moments[i][j]);
        }
    }
}

#[test]
fn without_noise_nothing_is_divided() {
    let mut input = Input::new(2, 9, 6);
    input.state.colour_noise = 0.0;
    let want: Vec<f64> =
        (0..2).flat_map(|n| input.expect(n, random_crop(SEED, input.ids[n], 4, 9, 6, true), [0.0; 3], 0.5)).collect();
    input.check(&want);
}

#[test]
fn without_augmentation_training_sees_the_centre() {
    let mut input = Input::new(2, 11, 6);
    input.state.views = 0;
    let centre = Crop { top: 2, left: 2, mirrored: false };
    let want: Vec<f64> = (0..2).flat_map(|n| input.expect(n, centre, [0.0; 3], 0.5)).collect();
    input.check(&want);
}

#[test]
fn evaluation_sees_ten_views() {
    let mut input = Input::new(2, 10, 7);
    (input.params.train, input.state.views) = (0, 10);
    let corners = [(1, 1), (0, 0), (0, 3), (3, 0), (3, 3)];
    for number in 0..10 {
        input.state.view = number;
        let (top, left) = corners[number as usize % 5];
        let crop = Crop { top, left, mirrored: number >= 5 };
        assert_eq!(view(number, 10, 7), crop);
        let want: Vec<f64> = (0..2).flat_map(|n| input.expect(n, crop, [0.0; 3], 0.5)).collect();
        input.check(&want);
    }
}
