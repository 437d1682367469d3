//! The embedded data set: ten classes of shapes and textures, drawn on demand, the same bits on every machine.
//!
//! An image is a function of (seed, split, index, size) and nothing else: every number comes from Philox
//! ([`Purpose::Generate`]), every operation is one that IEEE 754 rounds in one way, and the sine is `libm`'s own.
//!
//! The class says only *how* the figure's alpha mask looks. Colours, area, place, turn, background, clutter and noise are
//! drawn by the same code, in the same order, for all classes, so that neither a colour histogram nor any fixed
//! template tells them apart. Mirroring keeps every class.

use alexnode_core::rng::{Purpose, Stream, uniform};
use std::f32::consts::TAU;

/// Names of the classes; class `i` is drawn where `index % 10 == i`.
pub const CLASSES: [&str; 10] =
    ["disc", "ring", "square", "triangle", "cross", "star", "stripes", "checker", "dots", "waves"];
/// Images of the training split.
pub const TRAIN: u32 = 8000;
/// Images of the validation split.
pub const VAL: u32 = 1000;

/// The images are composed on a canvas of this many units; `size` only says how finely it is sampled.
const CANVAS: f32 = 56.0;
/// Points of the lattice of the background's clouds, per axis.
const LATTICE: usize = 6;
/// Least distance between the colours of figure and background, in RGB, 0 to 1.
const CONTRAST: f32 = 0.45;

/// Draws image `index` of `split` (0 = training, 1 = validation) at `size x size` pixels into `out` (`size * size * 3`
/// bytes, RGB, channels last) and returns its class, `index % 10`. Images of the same (seed, split, index) at two sizes show
/// the same scene; only the pixel noise differs.
///
/// # Panics
/// Where `out` does not have `size * size * 3` bytes.
pub fn render(seed: u64, split: u32, index: u32, size: usize, out: &mut [u8]) -> usize {
    assert_eq!(out.len(), size * size * 3, "bytes of a generated image of {size} x {size} pixels");
    let class = index as usize % CLASSES.len();
    let stream = Stream::new(seed, Purpose::Generate, 0);
    let mut rng = Draws { stream, index, split, block: 0, words: [0; 4], used: 4 };
    let mut canvas = Canvas { size, unit: size as f32 / CANVAS, pixels: vec![[0.0; 3]; size * size] };

    let (ground, paint) = colours(&mut rng);
    background(&mut canvas, &mut rng, ground);
    for _ in 0..rng.count(0, 4) {
        clutter(&mut canvas, &mut rng);
    }
    figure(&mut canvas, &mut rng, class, paint);
    for _ in 0..rng.count(0, 2) {
        scratch(&mut canvas, &mut rng);
    }
    // Noise is addressed by the pixel, after all draws of the scene (their blocks stay far below).
    let strength = rng.between(2.0, 10.0);
    let mut words = [[0u32; 4]; 3];
    for (pixel, (rgb, bytes)) in canvas.pixels.iter().zip(out.chunks_exact_mut(3)).enumerate() {
        // Sixteen pixels share three calls: each takes 3 of 48 bytes.
        if pixel % 16 == 0 {
            words = std::array::from_fn(|i| stream.words(index, NOISE + (pixel / 16 * 3 + i) as u32, split));
        }
        for (channel, byte) in bytes.iter_mut().enumerate() {
            let at = pixel % 16 * 3 + channel;
            let noise = (words[at / 16][at / 4 % 4] >> (at % 4 * 8) & 255) as f32 * (2.0 / 255.0) - 1.0;
            // The cast rounds down and saturates.
            *byte = (rgb[channel] * 255.0 + noise * strength + 0.5) as u8;
        }
    }
    class
}

/// First block of the pixel noise.
const NOISE: u32 = 1 << 16;

/// Random numbers of one image, in the order in which they are asked for.
struct Draws {
    stream: Stream,
    index: u32,
    split: u32,
    block: u32,
    words: [u32; 4],
    used: usize,
}

impl Draws {
    /// A number in [0, 1).
    fn unit(&mut self) -> f32 {
        if self.used == 4 {
            self.words = self.stream.words(self.index, self.block, self.split);
            self.block += 1;
            self.used = 0;
        }
        self.used += 1;
        uniform(self.words[self.used - 1])
    }
    /// A number in [low, high).
    fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }
    /// A whole number from `low` to `high`, both included.
    fn count(&mut self, low: u32, high: u32) -> u32 {
        low + (self.unit() * (high - low + 1) as f32) as u32
    }
    /// Cosine and sine of an angle.
    fn turn(&mut self) -> (f32, f32) {
        let angle = TAU * self.unit();
        (libm::cosf(angle), libm::sinf(angle))
    }
    /// A colour: any lightness, moderate saturation.
    fn colour(&mut self) -> [f32; 3] {
        let light = self.between(0.25, 0.75);
        self.shade([light; 3], 0.2)
    }
    /// A colour near `base`, channel by channel.
    fn shade(&mut self, base: [f32; 3], by: f32) -> [f32; 3] {
        base.map(|c| c + self.between(-by, by))
    }
}

/// A background and a figure colour that keep their distance; which of the two is lighter is left to chance.
fn colours(rng: &mut Draws) -> ([f32; 3], [f32; 3]) {
    let ground = rng.colour();
    loop {
        let paint = rng.colour();
        let squares = ground.iter().zip(paint).map(|(a, b)| (a - b) * (a - b)).fold(0.0, |a, b| a + b);
        if squares >= CONTRAST * CONTRAST {
            return (ground, paint);
        }
    }
}

struct Canvas {
    size: usize,
    /// Pixels per unit.
    unit: f32,
    pixels: Vec<[f32; 3]>,
}

impl Canvas {
    /// Blends `paint(x, y)` over the canvas, weighted with how much of each pixel lies inside: `distance(x, y)` is the
    /// signed distance to the outline in units, negative inside. Touches only the square of half width `reach` around (x, y).
    fn blend(
        &mut self,
        (x, y): (f32, f32),
        reach: f32,
        distance: impl Fn(f32, f32) -> f32,
        paint: impl Fn(f32, f32) -> [f32; 3],
    ) {
        let range = |centre: f32| {
            let low = ((centre - reach) * self.unit) as usize;
            let high = ((centre + reach) * self.unit + 1.0) as usize;
            low.min(self.size)..high.min(self.size)
        };
        let (rows, columns) = (range(y), range(x));
        let step = 1.0 / self.unit;
        for row in rows {
            let v = (row as f32 + 0.5) * step - y;
            for column in columns.clone() {
                let u = (column as f32 + 0.5) * step - x;
                let alpha = (0.5 - distance(u, v) * self.unit).clamp(0.0, 1.0);
                if alpha > 0.0 {
                    let colour = paint(u, v);
                    for (old, new) in self.pixels[row * self.size + column].iter_mut().zip(colour) {
                        *old += (new - *old) * alpha;
                    }
                }
            }
        }
    }
}

/// A slope between two shades, with clouds: bilinear noise on a coarse lattice.
fn background(canvas: &mut Canvas, rng: &mut Draws, ground: [f32; 3]) {
    let slope = rng.shade([0.0; 3], 0.12);
    let (cos, sin) = rng.turn();
    let strength = rng.between(0.0, 0.1);
    let clouds: [f32; LATTICE * LATTICE] = std::array::from_fn(|_| rng.between(-strength, strength));
    let size = canvas.size;
    let step = 1.0 / size as f32;
    for row in 0..size {
        let v = (row as f32 + 0.5) * step;
        let down = v * (LATTICE - 1) as f32;
        let (top, fraction) = (down as usize, down - down as usize as f32);
        let line: [f32; LATTICE] = std::array::from_fn(|i| {
            let (a, b) = (clouds[top * LATTICE + i], clouds[(top + 1) * LATTICE + i]);
            a + (b - a) * fraction
        });
        for column in 0..size {
            let u = (column as f32 + 0.5) * step;
            let along = u * (LATTICE - 1) as f32;
            let (left, fraction) = (along as usize, along - along as usize as f32);
            let cloud = line[left] + (line[left + 1] - line[left]) * fraction;
            let tilt = 2.0 * ((u - 0.5) * cos + (v - 0.5) * sin);
            canvas.pixels[row * size + column] = std::array::from_fn(|i| ground[i] + slope[i] * tilt + cloud);
        }
    }
}

/// A speck, far smaller than any figure.
fn clutter(canvas: &mut Canvas, rng: &mut Draws) {
    let colour = rng.colour();
    let at = (rng.between(0.0, CANVAS), rng.between(0.0, CANVAS));
    let (a, b) = (rng.between(0.8, 2.4), rng.between(0.8, 2.4));
    let (cos, sin) = rng.turn();
    canvas.blend(
        at,
        5.0,
        move |u, v| (u * cos + v * sin).abs().max((v * cos - u * sin).abs() - a + b) - b,
        |_, _| colour,
    );
}

/// A thin line over everything.
fn scratch(canvas: &mut Canvas, rng: &mut Draws) {
    let colour = rng.colour();
    let at = (rng.between(0.0, CANVAS), rng.between(0.0, CANVAS));
    let (half, width) = (rng.between(5.0, 16.0), rng.between(0.3, 0.6));
    let (cos, sin) = rng.turn();
    let outline = move |u: f32, v: f32| ((u * cos + v * sin).abs() - half).max((v * cos - u * sin).abs() - width);
    canvas.blend(at, 17.0, outline, |_, _| colour);
}

/// The figure that the class is about. `radius` is that of a disc of the same area: no class is larger than another.
fn figure(canvas: &mut Canvas, rng: &mut Draws, class: usize, paint: [f32; 3]) {
    let radius = rng.between(9.0, 14.0);
    let (cos, sin) = rng.turn();
    let stretch = rng.between(0.87, 1.15);
    let slope = rng.shade([0.0; 3], 0.12);
    // What only some classes use is drawn for all of them, so that the later draws do not depend on the class.
    let (p, q, r, s, t) = (rng.unit(), rng.unit(), rng.unit(), rng.unit(), rng.unit());
    let (fx, fy) = (rng.unit(), rng.unit());
    let grown = |factor: f32| radius * factor;
    // Textures fill a patch of twice the area, since about half of it shows.
    let patch = grown(1.41);
    let reach = match class {
        0 => radius,
        1 => grown(1.35),
        2 => grown(1.26),
        3 => grown(1.56),
        4 => grown(1.35),
        5 => grown(1.68),
        _ => grown(1.77),
    } * 1.15;
    let margin = (reach + 1.0).min(CANVAS / 2.0 - 3.0);
    let place = |f: f32| margin + f * (CANVAS - 2.0 * margin);
    let at = (place(fx), place(fy));
    let local = move |u: f32, v: f32| ((u * cos + v * sin) * stretch, (v * cos - u * sin) / stretch);
    let colour = move |u: f32, v: f32| std::array::from_fn(|i| paint[i] + slope[i] * (u * cos - v * sin) / reach);
    let round = s < 0.5;
    let inside = move |u: f32, v: f32| {
        if round { (u * u + v * v).sqrt() - patch } else { u.abs().max(v.abs()) - patch * 0.886 }
    };
    let period = 5.5 + 3.5 * p;
    let mut draw = |shape: &dyn Fn(f32, f32) -> f32| {
        canvas.blend(
            at,
            reach + 1.0,
            |u, v| {
                let (u, v) = local(u, v);
                shape(u, v)
            },
            colour,
        );
    };
    match class {
        0 => draw(&|u, v| (u * u + v * v).sqrt() - radius),
        1 => {
            // Outer radius R, hole h R: area pi R^2 (1 - h^2).
            let hole = 0.45 + 0.15 * p;
            let outer = radius / (1.0 - hole * hole).sqrt();
            let (middle, half) = (outer * (1.0 + hole) * 0.5, outer * (1.0 - hole) * 0.5);
            draw(&|u, v| ((u * u + v * v).sqrt() - middle).abs() - half);
        }
        2 => draw(&|u, v| u.abs().max(v.abs()) - radius * 0.886),
        3 => {
            // An equilateral triangle of inner radius a has the area 3 sqrt(3) a^2.
            let inner = radius * 0.777;
            draw(&|u, v| (-v).max(0.866_025_4 * u.abs() + 0.5 * v) - inner);
        }
        4 => {
            // Two bars 2a x 2b: area 8ab - 4b^2.
            let thin = 0.26 + 0.12 * p;
            let a = radius * (std::f32::consts::PI / (8.0 * thin - 4.0 * thin * thin)).sqrt();
            let b = a * thin;
            draw(&|u, v| {
                let (u, v) = (u.abs(), v.abs());
                (u.max(v) - a).max(u.min(v) - b)
            });
        }
        5 => {
            // Inside a five-pointed star at most one of five half planes is missed.
            const NORMALS: [(f32, f32); 5] = [
                (0.0, -1.0),
                (0.951_056_5, -0.309_017),
                (0.587_785_25, 0.809_017),
                (-0.587_785_25, 0.809_017),
                (-0.951_056_5, -0.309_017),
            ];
            let inner = radius * 0.517;
            draw(&|u, v| {
                let (mut first, mut second) = (f32::MIN, f32::MIN);
                for (x, y) in NORMALS {
                    let d = u * x + v * y;
                    second = second.max(first.min(d));
                    first = first.max(d);
                }
                second - inner
            });
        }
        6 => draw(&|u, v| inside(u, v).max(bars(v + q * period, period))),
        7 => {
            let pitch = period * 1.7;
            draw(&|u, v| {
                let (a, b) = (bars(u + q * pitch, pitch), bars(v + r * pitch, pitch));
                // Where exactly one of the two is inside.
                inside(u, v).max(a.min(b)).max(-a.max(b))
            });
        }
        8 => {
            let (pitch, dot) = (period * 1.25, period * 0.36);
            draw(&|u, v| {
                let (u0, v0) = (nearest(u + q * pitch, pitch), nearest(v + r * pitch, pitch));
                inside(u, v).max((u0 * u0 + v0 * v0).sqrt() - dot)
            });
        }
        _ => {
            let (length, depth) = (11.0 + 5.0 * r, 0.28 + 0.12 * t);
            draw(&|u, v| {
                let bend = swing(u / length + q) * length * depth * 0.5;
                inside(u, v).max(bars(v + bend + q * period, period))
            });
        }
    }
}

/// Distance from `x` to the nearest multiple of `period`, with its sign.
fn nearest(x: f32, period: f32) -> f32 {
    // Shifted to positive numbers, where the cast is a floor: figures are far smaller than 64 periods.
    let t = x / period + 64.5;
    (t - t as i32 as f32 - 0.5) * period
}

/// Signed distance to bars as wide as the gaps between them.
fn bars(x: f32, period: f32) -> f32 {
    nearest(x, period).abs() - period * 0.25
}

/// A wave of period 1 between -1 and 1, made of parabolas.
fn swing(x: f32) -> f32 {
    let t = nearest(x, 1.0);
    t * (0.5 - t.abs()) * 16.0
}
