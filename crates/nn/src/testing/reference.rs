//! Layers and kernels in f64, written from their formulas: no blocks, no strides, no order of sums to speak of. Tensors are dense,
//! `n x h x w x c`.

use alexnode_core::{
    Shape, Window,
    rng::{Purpose, Stream, uniform},
};

/// Element (n, h, w, c) of dense images of `shape`.
fn at(shape: Shape, n: usize, h: usize, w: usize, c: usize) -> usize {
    ((n * shape.h + h) * shape.w + w) * shape.c + c
}

/// max(0, x) and its gradient at x.
pub fn relu(x: &[f64], dy: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let pass = |(x, v): (&f64, &f64)| if *x > 0.0 { *v } else { 0.0 };
    (x.iter().zip(x).map(pass).collect(), x.iter().zip(dy).map(pass).collect())
}

/// tanh(x) and its gradient at x.
pub fn tanh(x: &[f64], dy: &[f64]) -> (Vec<f64>, Vec<f64>) {
    (x.iter().map(|x| x.tanh()).collect(), x.iter().zip(dy).map(|(x, dy)| dy / x.cosh().powi(2)).collect())
}

/// A response normalisation: y = x (k + alpha sum of squares)^-beta. `alpha` is the factor in front of the sum.
#[derive(Clone, Copy, Debug)]
pub struct Norm {
    /// Extent of the window.
    pub size: usize,
    /// The constant.
    pub k: f64,
    /// The factor.
    pub alpha: f64,
    /// The exponent.
    pub beta: f64,
}

impl Norm {
    /// `windows(i)`: the elements in the window of element i.
    fn forward(&self, x: &[f64], windows: &[Vec<usize>]) -> Vec<f64> {
        (0..x.len()).map(|i| x[i] * self.s(x, &windows[i]).powf(-self.beta)).collect()
    }
    fn s(&self, x: &[f64], window: &[usize]) -> f64 {
        self.k + self.alpha * window.iter().map(|j| x[*j] * x[*j]).sum::<f64>()
    }
    /// dy_i reaches x_i directly, and every x_j in its window through s_i.
    fn backward(&self, x: &[f64], dy: &[f64], windows: &[Vec<usize>]) -> Vec<f64> {
        let mut dx = vec![0.0; x.len()];
        for i in 0..x.len() {
            let s = self.s(x, &windows[i]);
            dx[i] += dy[i] * s.powf(-self.beta);
            for j in &windows[i] {
                dx[*j] -= dy[i] * x[i] * self.beta * s.powf(-self.beta - 1.0) * self.alpha * 2.0 * x[*j];
            }
        }
        dx
    }
    /// The windows of [`across`](Self::across): channels of the same pixel and group.
    fn channels(&self, pixels: usize, c: usize, groups: usize) -> Vec<Vec<usize>> {
        let reach = (self.size / 2) as isize;
        let mut windows = Vec::new();
        for pixel in 0..pixels {
            for i in 0..c {
                let group = i / (c / groups);
                let seen = (0..self.size as isize)
                    .map(|d| i as isize - reach + d)
                    .filter(|j| *j >= 0 && (*j as usize) < c && *j as usize / (c / groups) == group);
                windows.push(seen.map(|j| pixel * c + j as usize).collect());
            }
        }
        windows
    }
    /// The windows of [`within`](Self::within): pixels of the same map.
    fn maps(&self, batch: usize, shape: Shape) -> Vec<Vec<usize>> {
        let reach = (self.size / 2) as isize;
        let axis = |i: usize, extent: usize| {
            let places = (0..self.size as isize).map(move |d| i as isize - reach + d);
            places.filter(move |j| *j >= 0 && (*j as usize) < extent).map(|j| j as usize)
        };
        let mut windows = Vec::new();
        for n in 0..batch {
            for h in 0..shape.h {
                for w in 0..shape.w {
                    for c in 0..shape.c {
                        let seen = axis(h, shape.h).flat_map(|h| axis(w, shape.w).map(move |w| (h, w)));
                        windows.push(seen.map(|(h, w)| at(shape, n, h, w, c)).collect());
                    }
                }
            }
        }
        windows
    }
    /// Across the channels of each pixel, within `groups` groups; output and gradient.
    pub fn across(&self, x: &[f64], dy: &[f64], c: usize, groups: usize) -> (Vec<f64>, Vec<f64>) {
        let windows = self.channels(x.len() / c, c, groups);
        (self.forward(x, &windows), self.backward(x, dy, &windows))
    }
    /// Within each map, over squares of pixels; output and gradient.
    pub fn within(&self, x: &[f64], dy: &[f64], batch: usize, shape: Shape) -> (Vec<f64>, Vec<f64>) {
        let windows = self.maps(batch, shape);
        (self.forward(x, &windows), self.backward(x, dy, &windows))
    }
}

/// For each window of a pooling its elements, in scan order; one list per element of the output.
fn pooled(window: Window, batch: usize, x: Shape, y: Shape) -> Vec<Vec<usize>> {
    let mut windows = Vec::new();
    let inside = |i: usize, r: usize, extent: usize| {
        (i * window.stride + r).checked_sub(window.padding).filter(|place| *place < extent)
    };
    for n in 0..batch {
        for p in 0..y.h {
            for q in 0..y.w {
                for c in 0..x.c {
                    let mut seen = Vec::new();
                    for r in 0..window.size {
                        for s in 0..window.size {
                            if let (Some(h), Some(w)) = (inside(p, r, x.h), inside(q, s, x.w)) {
                                seen.push(at(x, n, h, w, c));
                            }
                        }
                    }
                    windows.push(seen);
                }
            }
        }
    }
    windows
}

/// The largest element of each window and the gradient, which goes to the first of the largest.
pub fn max_pool(
    window: Window,
    batch: usize,
    input: Shape,
    output: Shape,
    x: &[f64],
    dy: &[f64],
) -> (Vec<f64>, Vec<f64>) {
    let (mut y, mut dx) = (Vec::new(), vec![0.0; x.len()]);
    for (i, seen) in pooled(window, batch, input, output).into_iter().enumerate() {
        let largest = seen.iter().map(|j| x[*j]).fold(f64::NEG_INFINITY, f64::max);
        y.push(largest);
        let first = seen.into_iter().find(|j| x[*j] == largest).expect("a window is not empty");
        dx[first] += dy[i];
    }
    (y, dx)
}

/// By which share of it the largest element of a window is larger than the next that is not equal, in the window where that is the least. Where it is within rounding, a float32
/// computation may find the other one.
pub fn max_pool_margin(window: Window, batch: usize, input: Shape, output: Shape, x: &[f64]) -> f64 {
    let margin = |seen: Vec<usize>| {
        let largest = seen.iter().map(|j| x[*j]).fold(f64::NEG_INFINITY, f64::max);
        let next = seen.iter().map(|j| x[*j]).filter(|x| *x < largest).fold(f64::NEG_INFINITY, f64::max);
        (largest - next) / largest.abs()
    };
    pooled(window, batch, input, output).into_iter().map(margin).fold(f64::INFINITY, f64::min)
}

/// The mean of each window's part inside the image and the gradient.
pub fn avg_pool(
    window: Window,
    batch: usize,
    input: Shape,
    output: Shape,
    x: &[f64],
    dy: &[f64],
) -> (Vec<f64>, Vec<f64>) {
    let (mut y, mut dx) = (Vec::new(), vec![0.0; x.len()]);
    for (i, seen) in pooled(window, batch, input, output).into_iter().enumerate() {
        y.push(seen.iter().map(|j| x[*j]).sum::<f64>() / seen.len() as f64);
        for j in &seen {
            dx[*j] += dy[i] / seen.len() as f64;
        }
    }
    (y, dx)
}

/// Whether dropout keeps element `element` of the whole layer (pixel * channels + channel) for sample `id`.
pub fn dropout_keeps(seed: u64, layer: u32, epoch: u32, id: u32, element: u32, p: f32) -> bool {
    let words = Stream::new(seed, Purpose::Dropout, layer).words(element / 4, id, epoch);
    uniform(words[element as usize % 4]) >= p
}

/// The softmax of one row.
pub fn softmax(logits: &[f64]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|z| (z - max).exp()).sum();
    logits.iter().map(|z| (z - max).exp() / sum).collect()
}

/// The chance that `label` is among the first `k` when classes are ranked by probability and ties are broken by lot.
pub fn hit(probabilities: &[f64], label: usize, k: usize) -> f64 {
    let above = probabilities.iter().filter(|p| **p > probabilities[label]).count();
    let tied = probabilities.iter().filter(|p| **p == probabilities[label]).count();
    let places = above..above + tied;
    places.filter(|place| *place < k).count() as f64 / tied as f64
}
