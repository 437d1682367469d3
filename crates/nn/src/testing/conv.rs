//! Naive f64 references of the layers that multiply: every product of the formula, one after the other.

/// A convolution: dense NHWC images, `groups`, weights `[out, r, s, c / groups]`. `local`: own weights
/// `[p, q, out, r, s, c / groups]` and biases `[p, q, out]` for every output position.
#[derive(Clone, Copy, Debug)]
pub struct Convolution {
    /// Samples.
    pub batch: usize,
    /// Input rows, columns, channels.
    pub input: [usize; 3],
    /// Output rows, columns, channels.
    pub output: [usize; 3],
    /// Rows and columns of the kernel.
    pub kernel: [usize; 2],
    /// Step in pixels.
    pub stride: usize,
    /// Zero pixels on top and left.
    pub padding: usize,
    /// Groups.
    pub groups: usize,
    /// Whether positions do not share weights.
    pub local: bool,
}

/// Gradients by x, w and bias.
#[derive(Clone, Debug)]
pub struct Gradients {
    /// By the input.
    pub dx: Vec<f64>,
    /// By the weights.
    pub dw: Vec<f64>,
    /// By the biases.
    pub db: Vec<f64>,
}

impl Convolution {
    /// A fully connected layer: a convolution with one window.
    pub fn linear(batch: usize, input: [usize; 3], out: usize) -> Self {
        let kernel = [input[0], input[1]];
        Self { batch, input, output: [1, 1, out], kernel, stride: 1, padding: 0, groups: 1, local: false }
    }
    /// Elements of x.
    pub fn inputs(&self) -> usize {
        self.batch * self.input.iter().product::<usize>()
    }
    /// Elements of y.
    pub fn outputs(&self) -> usize {
        self.batch * self.output.iter().product::<usize>()
    }
    /// Elements of w.
    pub fn weights(&self) -> usize {
        self.biases() * self.kernel[0] * self.kernel[1] * self.input[2] / self.groups
    }
    /// Elements of the bias.
    pub fn biases(&self) -> usize {
        if self.local { self.output.iter().product() } else { self.output[2] }
    }
    /// Calls `f(y, bias)` for every output and `g(x, w, y)` for every product: indices of the elements.
    fn visit(&self, mut f: impl FnMut(usize, usize), mut g: impl FnMut(usize, usize, usize)) {
        let ([h, w, c], [p, q, out], [kr, ks]) = (self.input, self.output, self.kernel);
        let (depth, outputs) = (c / self.groups, out / self.groups);
        for y in 0..self.outputs() {
            let (o, qi, pi, n) = (y % out, y / out % q, y / out / q % p, y / out / q / p);
            let bias = if self.local { (pi * q + qi) * out + o } else { o };
            f(y, bias);
            for tap in 0..kr * ks * depth {
                let (i, s, r) = (tap % depth, tap / depth % ks, tap / depth / ks);
                let (row, col) = (pi * self.stride + r, qi * self.stride + s);
                let inside = |at: usize, extent: usize| at >= self.padding && at - self.padding < extent;
                if inside(row, h) && inside(col, w) {
                    let pixel = (n * h + row - self.padding) * w + col - self.padding;
                    g(pixel * c + o / outputs * depth + i, bias * kr * ks * depth + tap, y);
                }
            }
        }
    }
    /// y.
    pub fn forward(&self, x: &[f64], w: &[f64], bias: &[f64]) -> Vec<f64> {
        let (mut begin, mut y) = (vec![0.0; self.outputs()], vec![0.0; self.outputs()]);
        self.visit(|i, b| begin[i] = bias[b], |i, j, k| y[k] += x[i] * w[j]);
        y.iter().zip(begin).map(|(y, bias)| y + bias).collect()
    }
    /// The gradients of a loss whose gradient by y is `dy`.
    pub fn backward(&self, x: &[f64], w: &[f64], dy: &[f64]) -> Gradients {
        let (mut dx, mut dw) = (vec![0.0; self.inputs()], vec![0.0; self.weights()]);
        let mut db = vec![0.0; self.biases()];
        self.visit(
            |i, b| db[b] += dy[i],
            |i, j, k| {
                dx[i] += dy[k] * w[j];
                dw[j] += dy[k] * x[i];
            },
        );
        Gradients { dx, dw, db }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Rng, numeric_gradient, wide};

    #[test]
    fn gradients_are_those_of_central_differences() {
        for local in [false, true] {
            let (input, output) = ([5, 4, 4], [3, 2, 6]);
            let shape =
                Convolution { batch: 2, input, output, kernel: [3, 3], stride: 2, padding: 1, groups: 2, local };
            let mut rng = Rng::new(16);
            let mut draw = |n: usize| wide(&rng.normals(n, 1.0));
            let (x, w) = (draw(shape.inputs()), draw(shape.weights()));
            let (bias, dy) = (draw(shape.biases()), draw(shape.outputs()));
            let gradients = shape.backward(&x, &w, &dy);
            let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-8);
            assert!(close(&gradients.dx, &numeric_gradient(|x| shape.forward(x, &w, &bias), &x, &dy)));
            assert!(close(&gradients.dw, &numeric_gradient(|w| shape.forward(&x, w, &bias), &w, &dy)));
            assert!(close(&gradients.db, &numeric_gradient(|bias| shape.forward(&x, &w, bias), &bias, &dy)));
        }
    }

    #[test]
    fn a_window_beyond_the_edge_sees_zeros() {
        let shape = Convolution {
            batch: 1,
            input: [2, 2, 1],
            output: [1, 1, 1],
            kernel: [3, 3],
            stride: 1,
            padding: 0,
            groups: 1,
            local: false,
        };
        let w: Vec<f64> = (1..=9).map(f64::from).collect();
        assert_eq!(shape.forward(&[1.0; 4], &w, &[10.0]), [10.0 + 1.0 + 2.0 + 4.0 + 5.0]);
    }
}
