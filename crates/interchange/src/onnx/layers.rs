//! Each layer in the words of ONNX. Images are N x C x H x W there; names of tensors are those of files of ours.

use super::graph::{Chain, Value};
use alexnode_core::{Result, Shape};
use alexnode_nn::{
    layers::{
        LayerSpec, avg_pool2d::AvgPool2d, conv2d::Conv2d, local_response_norm::LocalResponseNorm,
        map_response_norm::MapResponseNorm, max_pool2d::MaxPool2d,
    },
    network::Network,
    tensors::Source,
};

/// Layers on their way into a graph.
pub struct Writer<'a> {
    pub chain: Chain,
    pub network: &'a Network,
    pub source: &'a dyn Source,
    /// What the next linear layer's inputs are multiplied by: the dropout below it.
    factor: f32,
    /// Whether the last tensor is N x C instead of N x C x H x W.
    flat: bool,
}

impl<'a> Writer<'a> {
    pub fn new(chain: Chain, network: &'a Network, source: &'a dyn Source) -> Self {
        Self { chain, network, source, factor: 1.0, flat: false }
    }

    /// Adds layer `index`. `name` is that of the tensor that it puts out.
    pub fn layer(&mut self, index: usize, name: &str) -> Result<()> {
        let (x, y) = (self.network.input(index), self.network.output(index));
        match self.network.spec(index) {
            LayerSpec::Conv2d(conv) => self.conv(index, name, conv, x, y),
            LayerSpec::Local2d(local) => self.local(index, name, &local.0, x, y),
            LayerSpec::Linear(_) => self.linear(index, name),
            LayerSpec::Relu(_) => self.plain("Relu", name),
            LayerSpec::Tanh(_) => self.plain("Tanh", name),
            LayerSpec::LocalResponseNorm(norm) => self.norm(name, norm, x),
            LayerSpec::MapResponseNorm(norm) => self.map_norm(name, norm, x),
            LayerSpec::MaxPool2d(pool) => self.max_pool(name, pool, x, y),
            LayerSpec::AvgPool2d(pool) => self.avg_pool(name, pool, x, y),
            LayerSpec::Dropout(dropout) => {
                let factor = if dropout.inverted { 1.0 } else { 1.0 - dropout.p };
                self.dropout(index, name, factor)
            }
        }
    }

    /// Adds the parameters of layer `index` as constants; their names.
    fn parameters(&mut self, index: usize) -> Result<[String; 2]> {
        let mut names = [String::new(), String::new()];
        for (name, parameter) in names.iter_mut().zip(self.network.parameters_of(index)) {
            let parameter = &self.network.parameters()[parameter];
            let shape = &parameter.spec.border_shape;
            self.chain.floats(&parameter.name, shape, &self.source.tensor(&parameter.name, shape)?);
            name.clone_from(&parameter.name);
        }
        Ok(names)
    }

    fn plain(&mut self, kind: &str, name: &str) -> Result<()> {
        self.chain.add(kind, name, &[], &[]);
        Ok(())
    }

    fn conv(&mut self, index: usize, name: &str, conv: &Conv2d, x: Shape, y: Shape) -> Result<()> {
        self.image(name, x);
        let [weight, bias] = self.parameters(index)?;
        let sliding = Sliding::new(conv.kernel_size, conv.stride, conv.padding, x, y);
        let [kernel, strides, pads] = sliding.attributes();
        let group = ("group", Value::Int(conv.groups as i64));
        self.chain.add("Conv", name, &[&weight, &bias], &[kernel, strides, pads, group]);
        Ok(())
    }

    /// ONNX has no unshared convolution. Its patches are cut out by a convolution with kernels of a single one (C r s channels); then each position
    /// has a matrix of its own.
    fn local(&mut self, index: usize, name: &str, local: &Conv2d, x: Shape, y: Shape) -> Result<()> {
        self.image(name, x);
        let (size, groups) = (local.kernel_size, local.groups);
        let (area, pixels) = (size * size, y.pixels());
        let depth = x.c / groups * area;
        let out = y.c / groups;
        let part = |what: &str| format!("{name}.{what}");

        let mut cut = vec![0.0; x.c * area * area];
        for kernel in 0..x.c * area {
            cut[kernel * area + kernel % area] = 1.0;
        }
        self.chain.floats(&part("cut"), &[x.c * area, 1, size, size], &cut);
        let sliding = Sliding::new(size, local.stride, local.padding, x, y);
        let [kernel, strides, pads] = sliding.attributes();
        let group = ("group", Value::Int(x.c as i64));
        self.chain.add("Conv", &part("patches"), &[&part("cut")], &[kernel, strides, pads, group]);

        // n, groups depth, p, q -> pixels, groups, n, depth
        self.chain.ints(&part("patch.shape"), &[0, groups as i64, depth as i64, pixels as i64]);
        self.chain.add("Reshape", &part("flat"), &[&part("patch.shape")], &[]);
        self.chain.add("Transpose", &part("positions"), &[], &[("perm", Value::Ints(&[3, 1, 0, 2]))]);

        // Files: pixels, groups out, depth; here each matrix is depth x out.
        let specs: Vec<_> = self.network.parameters_of(index).map(|i| &self.network.parameters()[i]).collect();
        let read = |i: usize| self.source.tensor(&specs[i].name, &specs[i].spec.border_shape);
        let (weight, bias) = (read(0)?, read(1)?);
        let mut matrices = vec![0.0; weight.len()];
        for (matrix, weight) in matrices.chunks_mut(depth * out).zip(weight.chunks(depth * out)) {
            for (o, row) in weight.chunks(depth).enumerate() {
                row.iter().enumerate().for_each(|(i, v)| matrix[i * out + o] = *v);
            }
        }
        let (weight, bias_name) = (specs[0].name.clone(), specs[1].name.clone());
        self.chain.floats(&weight, &[pixels, groups, depth, out], &matrices);
        self.chain.floats(&bias_name, &[pixels, groups, 1, out], &bias);
        self.chain.add("MatMul", &part("product"), &[&weight], &[]);
        self.chain.add("Add", &part("sum"), &[&bias_name], &[]);

        // pixels, groups, n, out -> n, groups out, p, q
        self.chain.add("Transpose", &part("maps"), &[], &[("perm", Value::Ints(&[2, 1, 3, 0]))]);
        self.chain.ints(&part("shape"), &[0, y.c as i64, y.h as i64, y.w as i64]);
        self.chain.add("Reshape", name, &[&part("shape")], &[]);
        Ok(())
    }

    fn linear(&mut self, index: usize, name: &str) -> Result<()> {
        let [weight, bias] = self.parameters(index)?;
        if !self.flat {
            self.chain.add("Flatten", &format!("{name}.input"), &[], &[("axis", Value::Int(1))]);
        }
        self.flat = true;
        let alpha = ("alpha", Value::Float(std::mem::replace(&mut self.factor, 1.0)));
        self.chain.add("Gemm", name, &[&weight, &bias], &[alpha, ("transB", Value::Int(1))]);
        Ok(())
    }

    /// Makes the last tensor N x C x H x W.
    fn image(&mut self, name: &str, x: Shape) {
        if std::mem::take(&mut self.flat) {
            self.chain.ints(&format!("{name}.image.shape"), &[0, x.c as i64, x.h as i64, x.w as i64]);
            self.chain.add("Reshape", &format!("{name}.image"), &[&format!("{name}.image.shape")], &[]);
        }
    }

    /// ONNX: y = x / (bias + alpha / size * sum of squares)^beta, over windows that begin floor((size - 1) / 2) channels before their own. For odd sizes that
    /// is ours, with `alpha` taken before its division by the size.
    fn norm(&mut self, name: &str, norm: &LocalResponseNorm, x: Shape) -> Result<()> {
        self.image(name, x);
        let &LocalResponseNorm { size, k, alpha, beta, alpha_divided_by_size, groups, .. } = norm;
        if size % 2 == 0 {
            return self.even_norm(name, norm, x);
        }
        let part = |what: &str| format!("{name}.{what}");
        if groups > 1 {
            self.chain.ints(&part("group.shape"), &[-1, (x.c / groups) as i64, x.h as i64, x.w as i64]);
            self.chain.add("Reshape", &part("groups"), &[&part("group.shape")], &[]);
        }
        let alpha = if alpha_divided_by_size { alpha } else { alpha * size as f32 };
        let normalised = if groups > 1 { part("normalised") } else { name.to_owned() };
        let attributes = [
            ("size", Value::Int(size as i64)),
            ("bias", Value::Float(k)),
            ("alpha", Value::Float(alpha)),
            ("beta", Value::Float(beta)),
        ];
        self.chain.add("LRN", &normalised, &[], &attributes);
        if groups > 1 {
            self.chain.ints(&part("shape"), &[-1, x.c as i64, x.h as i64, x.w as i64]);
            self.chain.add("Reshape", name, &[&part("shape")], &[]);
        }
        Ok(())
    }

    /// Windows of an even size lie differently in ONNX: the sums are a convolution of the squares with kernels of ones and zeros.
    fn even_norm(&mut self, name: &str, norm: &LocalResponseNorm, x: Shape) -> Result<()> {
        let alpha = if norm.alpha_divided_by_size { norm.alpha / norm.size as f32 } else { norm.alpha };
        let group = x.c / norm.groups;
        let mut band = vec![0.0; x.c * x.c];
        for channel in 0..x.c {
            let (first, end) = (channel / group * group, (channel / group + 1) * group);
            let from = channel.saturating_sub(norm.size / 2).max(first);
            let to = (channel + norm.size - norm.size / 2).min(end);
            band[channel * x.c..][from..to].fill(alpha);
        }
        let (input, weights, bias) = (self.chain.last.clone(), format!("{name}.band"), format!("{name}.k"));
        self.chain.add("Mul", &format!("{name}.squares"), &[&input], &[]);
        self.chain.floats(&weights, &[x.c, x.c, 1, 1], &band);
        self.chain.floats(&bias, &[x.c], &vec![norm.k; x.c]);
        self.chain.add("Conv", &format!("{name}.base"), &[&weights, &bias], &[]);
        self.power(name, &input, norm.beta);
        Ok(())
    }

    /// The sum over a window of pixels is an average pooling that counts the padding, times the area.
    fn map_norm(&mut self, name: &str, norm: &MapResponseNorm, x: Shape) -> Result<()> {
        self.image(name, x);
        let (size, area) = (norm.size as i64, (norm.size * norm.size) as f32);
        let (before, after) = (size / 2, size - 1 - size / 2);
        let alpha = if norm.alpha_divided_by_size { norm.alpha } else { norm.alpha * area };
        let (input, part) = (self.chain.last.clone(), |what: &str| format!("{name}.{what}"));
        self.chain.add("Mul", &part("squares"), &[&input], &[]);
        let attributes = [
            ("kernel_shape", Value::Ints(&[size, size])),
            ("pads", Value::Ints(&[before, before, after, after])),
            ("count_include_pad", Value::Int(1)),
        ];
        self.chain.add("AveragePool", &part("means"), &[], &attributes);
        self.chain.number(&part("alpha"), alpha);
        self.chain.add("Mul", &part("scaled"), &[&part("alpha")], &[]);
        self.chain.number(&part("k"), norm.k);
        self.chain.add("Add", &part("base"), &[&part("k")], &[]);
        self.power(name, &input, norm.beta);
        Ok(())
    }

    /// `input` divided by the last tensor to the power of beta.
    fn power(&mut self, name: &str, input: &str, beta: f32) {
        self.chain.number(&format!("{name}.beta"), beta);
        self.chain.add("Pow", &format!("{name}.divisor"), &[&format!("{name}.beta")], &[]);
        let divisor = self.chain.last.clone();
        self.chain.add_to(input, "Div", name, &[&divisor], &[]);
    }

    fn max_pool(&mut self, name: &str, pool: &MaxPool2d, x: Shape, y: Shape) -> Result<()> {
        self.image(name, x);
        let sliding = Sliding::new(pool.kernel_size, pool.stride, pool.padding, x, y);
        self.chain.add("MaxPool", name, &[], &sliding.attributes());
        Ok(())
    }

    /// Padding and overhang do not count in either.
    fn avg_pool(&mut self, name: &str, pool: &AvgPool2d, x: Shape, y: Shape) -> Result<()> {
        self.image(name, x);
        let sliding = Sliding::new(pool.kernel_size, pool.stride, pool.padding, x, y);
        self.chain.add("AveragePool", name, &[], &sliding.attributes());
        Ok(())
    }

    /// The factor of the paper's dropout goes into the linear layer that follows.
    fn dropout(&mut self, index: usize, name: &str, factor: f32) -> Result<()> {
        if factor == 1.0 {
            return Ok(());
        }
        if index + 1 < self.network.len() && matches!(self.network.spec(index + 1), LayerSpec::Linear(_)) {
            self.factor = factor;
            return Ok(());
        }
        self.chain.number(&format!("{name}.factor"), factor);
        self.chain.add("Mul", name, &[&format!("{name}.factor")], &[]);
        Ok(())
    }
}

/// A window that slides over an image. What hangs over at the bottom and right (sizes are rounded up) is written as padding there, which all programs
/// understand in the same way; `ceil_mode` they do not.
struct Sliding {
    kernel: [i64; 2],
    strides: [i64; 2],
    /// Top, left, bottom, right.
    pads: [i64; 4],
}

impl Sliding {
    fn new(size: usize, stride: usize, padding: usize, x: Shape, y: Shape) -> Self {
        let over = |from: usize, to: usize| ((to - 1) * stride + size).saturating_sub(padding + from);
        let pads = [padding, padding, over(x.h, y.h), over(x.w, y.w)].map(|p| p as i64);
        Self { kernel: [size as i64; 2], strides: [stride as i64; 2], pads }
    }
    fn attributes(&self) -> [(&'static str, Value<'_>); 3] {
        [
            ("kernel_shape", Value::Ints(&self.kernel)),
            ("strides", Value::Ints(&self.strides)),
            ("pads", Value::Ints(&self.pads)),
        ]
    }
}
