//! The input of every network: crop, flip, mean, colour noise (paper section 4.1; 2012 code: convdata_jpeg.py).

use crate::layers::rows::share;
use crate::tile::for_vectors;
use alexnode_core::{
    Stage, StepState, Target,
    host::{Host, Shared},
    kernel::{Access, Args, Kernel},
    rng::{Purpose, Stream, below},
};
use bytemuck::{Pod, Zeroable};

/// `batch` images of `image x image x 3` bytes become `crop x crop x 3` floats.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct AugmentParams {
    /// Images.
    pub batch: i32,
    /// Width and height of a stored image.
    pub image: i32,
    /// Width and height of a crop, at most `image`.
    pub crop: i32,
    /// 1 in training, 0 in evaluation.
    pub train: i32,
    /// 1 where training mirrors half of the images.
    pub flip: i32,
    /// The image is divided by it while colour noise is on; 1.1 in the 2012 code.
    pub noise_divisor: f32,
    /// Every output is multiplied by it.
    pub scale: f32,
}

/// out = (crop of pixels - mean + noise) / divisor * scale.
///
/// * Training: the crop's offset is uniform on `0..=image - crop` in both axes and the crop is mirrored with probability 1/2, by
///   [`Purpose::Crop`]. Where `state.colour_noise` > 0, noise = colour_noise * sum of z_i stdev_i vector_i with three normal z_i
///   per image ([`Purpose::Colour`]), and `noise_divisor` applies. With `state.views` 0 all of this is off: the centre crop, as it is.
/// * Evaluation: [`view`] number `state.view`, no noise, no divisor.
///
/// The mean is the central crop of the mean image, wherever the crop lies (2012 code). Random numbers are those of the sample's
/// id, whatever its place in the batch.
///
/// Arguments: pixels (u8, batch x image x image x 3), ids (u32), state, mean (crop x crop x 3), colour (3 standard deviations,
/// then 3 eigenvectors as rows), out (batch x crop x crop x 3).
#[derive(Debug)]
pub struct Augment;

/// Where a crop lies, and whether it is mirrored from left to right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crop {
    /// First row.
    pub top: usize,
    /// First column.
    pub left: usize,
    /// Whether its columns run from right to left.
    pub mirrored: bool,
}

/// Number `view` of the ten views of the paper's test (section 4.1): 0 the centre, 1 to 4 the corners (top left, top right,
/// bottom left, bottom right), 5 to 9 the mirror images of 0 to 4.
pub fn view(view: u32, image: usize, crop: usize) -> Crop {
    let far = image - crop;
    let (top, left) = match view % 5 {
        0 => (far / 2, far / 2),
        1 => (0, 0),
        2 => (0, far),
        3 => (far, 0),
        _ => (far, far),
    };
    Crop { top, left, mirrored: view % 10 >= 5 }
}

/// The crop that training sees of sample `id` in an epoch.
pub fn random_crop(seed: u64, id: u32, epoch: u32, image: usize, crop: usize, flip: bool) -> Crop {
    let words = Stream::new(seed, Purpose::Crop, 0).words(id, 0, epoch);
    let offsets = (image - crop + 1) as u32;
    Crop {
        top: below(words[0], offsets) as usize,
        left: below(words[1], offsets) as usize,
        mirrored: flip && words[2] >> 31 == 1,
    }
}

/// What is added to the red, green and blue of sample `id` in an epoch, in units of pixels.
pub fn colour_noise(seed: u64, id: u32, epoch: u32, colour: &[f32], factor: f32) -> [f32; 3] {
    let z = Stream::new(seed, Purpose::Colour, 0).normals(id, 0, epoch);
    let (stdevs, vectors) = colour.split_at(3);
    std::array::from_fn(|channel| factor * (0..3).map(|i| z[i] * stdevs[i] * vectors[3 * i + channel]).sum::<f32>())
}

impl Kernel for Augment {
    type Params = AugmentParams;
    const NAME: &'static str = "augment";
    const SOURCE: &'static str = "augment.cu";
    const ACCESS: &'static [Access] =
        &[Access::Read, Access::Read, Access::Read, Access::Read, Access::Read, Access::Write];
    fn run(p: &AugmentParams, args: &Args<'_>, host: &dyn Host) {
        let (pixels, ids, mean, colour) = (args.read::<u8>(0), args.read::<u32>(1), args.read::<f32>(3), args.read(4));
        let state = StepState::of(args.read(2));
        let out = Shared::new(args.write::<f32>(5));
        let (image, size) = (p.image as usize, p.crop as usize);
        let (random, seed) = (p.train != 0 && state.views != 0, state.seed());
        let noisy = random && state.colour_noise > 0.0;
        let factor = if noisy { p.scale / p.noise_divisor } else { p.scale };
        share(host, p.batch as usize * size, size * 3, |rows| {
            for row in rows {
                let (n, h) = (row / size, row % size);
                let crop = match p.train != 0 {
                    false => view(state.view, image, size),
                    true if random => random_crop(seed, ids[n], state.epoch, image, size, p.flip != 0),
                    true => view(0, image, size),
                };
                let noise = match noisy {
                    true => colour_noise(seed, ids[n], state.epoch, colour, state.colour_noise),
                    false => [0.0; 3],
                };
                let pixels = &pixels[((n * image + crop.top + h) * image + crop.left) * 3..][..size * 3];
                // SAFETY: every row is visited once.
                let out = unsafe { out.range(row * size * 3, size * 3) };
                fill_row(out, pixels, crop.mirrored, &mean[h * size * 3..][..size * 3], noise, factor);
            }
        });
    }
    fn stages(p: &AugmentParams, _: &Target) -> Vec<Stage> {
        // A warp per row of an image; the images go along x, of which a grid has the most.
        let rows = Stage::THREADS / 32;
        let grid = [p.batch as u32, (p.crop as u32).div_ceil(rows), 1];
        vec![Stage { grid, ..Stage::each(Self::NAME, 1) }]
    }
}

for_vectors!(fill_row, fill_row_any, (out: &mut [f32], pixels: &[u8], mirrored: bool, mean: &[f32], noise: [f32; 3], factor: f32));

/// One row: `(pixels - mean + noise) * factor`, `mirrored` or not.
#[inline(always)]
fn fill_row_any(out: &mut [f32], pixels: &[u8], mirrored: bool, mean: &[f32], noise: [f32; 3], factor: f32) {
    if mirrored {
        let columns = pixels.rchunks_exact(3).zip(mean.chunks_exact(3));
        for (out, (pixel, mean)) in out.chunks_exact_mut(3).zip(columns) {
            for channel in 0..3 {
                out[channel] = (f32::from(pixel[channel]) - mean[channel] + noise[channel]) * factor;
            }
        }
        return;
    }
    // Eight pixels at a time: the colours repeat.
    const RUN: usize = 24;
    let colours: [f32; RUN] = std::array::from_fn(|i| noise[i % 3]);
    for ((out, pixels), mean) in out.chunks_mut(RUN).zip(pixels.chunks(RUN)).zip(mean.chunks(RUN)) {
        for (((out, pixel), mean), colour) in out.iter_mut().zip(pixels).zip(mean).zip(&colours) {
            *out = (f32::from(*pixel) - mean + colour) * factor;
        }
    }
}
