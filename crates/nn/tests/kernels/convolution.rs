use crate::{agree, instructions::machines, name, processor, same_passes};
use alexnode_core::{Precision, Shape};
use alexnode_nn::{
    layers::{Init, Layer, conv2d::Conv2d, linear::Linear, local2d::Local2d},
    testing::{
        Rng,
        alone::{Alone, Passes},
        compare,
        conv::Convolution,
        largest, relative_error, rounded, wide,
    },
};

/// Batch, input, then output channels, kernel, stride, padding and groups.
type Case = (usize, Shape, [usize; 5]);

const CASES: &[Case] = &[
    (1, Shape::new(1, 1, 1), [1, 1, 1, 0, 1]),
    (3, Shape::new(1, 1, 5), [17, 3, 1, 1, 1]),
    (2, Shape::new(13, 13, 32), [48, 3, 1, 1, 2]),
    (1, Shape::new(13, 13, 48), [16, 3, 1, 1, 1]),
    (9, Shape::new(6, 7, 3), [6, 5, 1, 2, 1]),
    // The paper's first layer in small, with windows that hang over.
    (2, Shape::new(40, 40, 3), [24, 11, 4, 0, 1]),
    (17, Shape::new(9, 8, 4), [10, 3, 2, 1, 2]),
    // Input pixels that no window sees.
    (2, Shape::new(10, 11, 2), [4, 2, 3, 1, 1]),
    (2, Shape::new(5, 6, 3), [4, 3, i32::MAX as usize, 1, 1]),
    // A sum that is longer than one sweep, in one row of the kernel and over several.
    (1, Shape::new(5, 5, 300), [20, 3, 1, 1, 1]),
    (1, Shape::new(40, 40, 1), [3, 21, 2, 3, 1]),
    // A patch that is larger than a task's.
    (1, Shape::new(70, 90, 16), [16, 3, 1, 1, 1]),
];

/// For minimal filtering: tiles and vectors that are not whole, more padding than a kernel needs and none.
const MINIMAL_CASES: &[Case] = &[
    (3, Shape::new(7, 8, 24), [20, 3, 1, 0, 1]),
    (2, Shape::new(12, 10, 40), [36, 3, 1, 2, 2]),
    (2, Shape::new(11, 9, 20), [70, 5, 1, 2, 1]),
    (2, Shape::new(9, 14, 36), [34, 5, 1, 0, 2]),
];

/// Of [`CASES`] those with few pixels, and the paper's first layer once more: a gradient through a stride asks every tap of every pixel.
fn small_cases() -> impl Iterator<Item = Case> {
    let small = CASES.iter().filter(|(batch, input, _)| batch * input.pixels() <= 1600).copied();
    small.chain([(1, Shape::new(27, 27, 3), [24, 11, 4, 0, 1])])
}

const LOCAL_CASES: &[Case] = &[
    (1, Shape::new(1, 1, 1), [1, 1, 1, 0, 1]),
    (3, Shape::new(1, 1, 5), [17, 3, 1, 1, 1]),
    (50, Shape::new(6, 6, 16), [32, 3, 1, 1, 1]),
    (7, Shape::new(5, 6, 6), [10, 3, 2, 0, 2]),
    // Input pixels that no window sees.
    (2, Shape::new(10, 11, 2), [4, 2, 3, 1, 1]),
    (2, Shape::new(5, 6, 3), [4, 3, i32::MAX as usize, 1, 1]),
];

/// Batch, input, outputs.
const LINEAR_CASES: &[(usize, Shape, usize)] = &[
    (1, Shape::vector(1), 1),
    (3, Shape::vector(7), 10),
    (1, Shape::vector(600), 5),
    (20, Shape::new(3, 2, 17), 70),
    (5, Shape::new(6, 6, 32), 13),
    (128, Shape::vector(130), 400),
    (33, Shape::vector(530), 300),
    // Several tasks for the inputs, of panels that do not fill 256.
    (8, Shape::vector(700), 300),
];

fn conv2d([out_channels, kernel_size, stride, padding, groups]: [usize; 5]) -> Conv2d {
    Conv2d {
        name: "conv1".into(),
        out_channels,
        kernel_size,
        stride,
        padding,
        groups,
        ceil_mode: true,
        weight_init: Init::He,
        bias_init: 0.0,
        weight_decay: 0.0,
        frozen: false,
    }
}

fn linear(out_features: usize) -> Linear {
    let name = "fc6".into();
    Linear { name, out_features, weight_init: Init::He, bias_init: 0.0, weight_decay: 0.0, frozen: false }
}

/// `layer` against the reference `shape`, with a ReLU behind it and without.
fn against(layer: &dyn Layer, input: Shape, shape: &Convolution) {
    let mut rng = Rng::new(18);
    let (x, dy) = (rng.normals(shape.inputs(), 1.0), rng.normals(shape.outputs(), 1.0));
    let (weights, bias) = (rng.normals(shape.weights(), 1.0), rng.normals(shape.biases(), 1.0));
    let y = shape.forward(&wide(&x), &wide(&weights), &wide(&bias));
    let gradients = shape.backward(&wide(&x), &wide(&weights), &wide(&dy));
    let mut alone = Alone::new(layer, shape.batch, input);
    alone.parameters = vec![weights, bias];
    for fused_relu in [false, true] {
        alone.fused_relu = fused_relu;
        let y: Vec<f64> = y.iter().map(|y| if fused_relu { y.max(0.0) } else { *y }).collect();
        for passes in agree(&mut alone, &x, &dy) {
            // Sums of many products: what is lost by rounding is relative to the largest of them, not to each.
            let near = |what: &str, got: &[f32], want: &[f64]| {
                compare(&format!("{}: {what}", name(&alone)), got, want, 0.0, 1e-5 * largest(want));
            };
            near("output", &passes.y, &y);
            near("gradient", &passes.dx, &gradients.dx);
            near("gradient of the weights", &passes.gradients[0], &gradients.dw);
            near("gradient of the biases", &passes.gradients[1], &gradients.db);
        }
    }
}

/// `layer` against the reference `shape` on tensor cores: with factors that need no rounding, so that only the sums can differ, and with others.
fn against_on_tensor_cores(layer: &dyn Layer, input: Shape, shape: &Convolution) {
    let mut rng = Rng::new(19);
    let (x, dy) = (rng.normals(shape.inputs(), 1.0), rng.normals(shape.outputs(), 1.0));
    let (weights, bias) = (rng.normals(shape.weights(), 1.0), rng.normals(shape.biases(), 1.0));
    let mut alone = Alone::new(layer, shape.batch, input);
    alone.fused_relu = true;
    for precision in [Precision::Tf32, Precision::Bf16] {
        let mut run = |[x, dy, weights]: [Vec<f32>; 3], gaps: &[[usize; 2]], [sums, long_sums]: [f64; 2]| {
            let y: Vec<f64> =
                shape.forward(&wide(&x), &wide(&weights), &wide(&bias)).iter().map(|y| y.max(0.0)).collect();
            let gradients = shape.backward(&wide(&x), &wide(&weights), &wide(&dy));
            alone.parameters = vec![weights, bias.clone()];
            let mut first: Option<Passes> = None;
            for ((machine, mut backend), gaps) in machines(precision).into_iter().zip(gaps) {
                alone.gaps = *gaps;
                let passes = alone.run(&x, &dy, &mut *backend);
                let name = format!("{}: {machine}, gaps {gaps:?}", name(&alone));
                if let Some(first) = &first {
                    same_passes(&name, first, &passes);
                    continue;
                }
                let near = |what: &str, got: &[f32], want: &[f64], most: f64| {
                    let error = relative_error(got, want);
                    assert!(error <= most, "{name}: {what}: error {error:e}, at most {most:e}");
                    compare(&format!("{name}: {what}"), got, want, 0.0, 4.0 * most * largest(want));
                };
                near("output", &passes.y, &y, sums);
                near("gradient", &passes.dx, &gradients.dx, sums);
                near("gradient of the weights", &passes.gradients[0], &gradients.dw, long_sums);
                near("gradient of the biases", &passes.gradients[1], &gradients.db, 1e-5);
                first = Some(passes);
            }
        };
        let factors = [&x, &dy, &weights];
        run(factors.map(|values| rounded(values, precision)), &[[0, 0], [8, 24], [5, 3], [0, 16]], [2e-5, 1e-4]);
        // What is lost by rounding is known for many numbers together only.
        if x.len().min(weights.len()).min(dy.len()) >= 400 {
            let error = if precision == Precision::Tf32 { 5e-4 } else { 4e-3 };
            run(factors.map(|values| values.clone()), &[[0, 0]], [error, error]);
        }
    }
}

/// The reference of a case.
fn reference(
    layer: &dyn Layer,
    local: bool,
    (batch, input, [_, kernel, stride, padding, groups]): Case,
) -> Convolution {
    let output = layer.output(input).unwrap();
    let [input, output] = [input, output].map(|shape| [shape.h, shape.w, shape.c]);
    Convolution { batch, input, output, kernel: [kernel; 2], stride, padding, groups, local }
}

#[test]
fn convolutions() {
    for case in CASES.iter().chain(MINIMAL_CASES) {
        let layer = conv2d(case.2);
        against(&layer, case.1, &reference(&layer, false, *case));
    }
}

/// Relative L2 errors of the paper's layers with 3 x 3 and 5 x 5 kernels: minimal filtering loses more than sums of products, and must not lose much.
#[test]
fn minimal_filtering_is_accurate() {
    for (case, error) in
        [((2, Shape::new(13, 13, 128), [32, 3, 1, 1, 1]), 2e-6), ((2, Shape::new(13, 13, 48), [64, 5, 1, 2, 1]), 4e-6)]
    {
        let layer = conv2d(case.2);
        let shape = reference(&layer, false, case);
        let mut rng = Rng::new(20);
        let (x, dy) = (rng.normals(shape.inputs(), 1.0), rng.normals(shape.outputs(), 1.0));
        let (weights, bias) = (rng.normals(shape.weights(), 1.0), rng.normals(shape.biases(), 1.0));
        let y = shape.forward(&wide(&x), &wide(&weights), &wide(&bias));
        let gradients = shape.backward(&wide(&x), &wide(&weights), &wide(&dy));
        let mut alone = Alone::new(&layer, shape.batch, case.1);
        alone.parameters = vec![weights, bias];
        let passes = alone.run(&x, &dy, &mut processor(1));
        for threads in [2, 3, 7] {
            same_passes(&format!("{threads} threads"), &passes, &alone.run(&x, &dy, &mut processor(threads)));
        }
        for (what, got, want, most) in [
            ("output", &passes.y, &y, error),
            ("gradient", &passes.dx, &gradients.dx, error),
            ("gradient of the weights", &passes.gradients[0], &gradients.dw, 1e-5),
            ("gradient of the biases", &passes.gradients[1], &gradients.db, 1e-5),
        ] {
            let error = relative_error(got, want);
            assert!(error < most, "{}: {what}: error {error:e}, at most {most:e}", name(&alone));
        }
    }
}

#[test]
fn convolutions_on_tensor_cores() {
    for case in small_cases() {
        let layer = conv2d(case.2);
        against_on_tensor_cores(&layer, case.1, &reference(&layer, false, case));
    }
}

#[test]
fn convolutions_without_shared_weights() {
    for case in LOCAL_CASES {
        let layer = Local2d(conv2d(case.2));
        against(&layer, case.1, &reference(&layer, true, *case));
    }
}

#[test]
fn convolutions_without_shared_weights_on_tensor_cores() {
    for case in LOCAL_CASES {
        let layer = Local2d(conv2d(case.2));
        against_on_tensor_cores(&layer, case.1, &reference(&layer, true, *case));
    }
}

#[test]
fn fully_connected_layers() {
    for (batch, input, out) in LINEAR_CASES {
        against(&linear(*out), *input, &Convolution::linear(*batch, [input.h, input.w, input.c], *out));
    }
}

#[test]
fn fully_connected_layers_on_tensor_cores() {
    for (batch, input, out) in LINEAR_CASES {
        let shape = Convolution::linear(*batch, [input.h, input.w, input.c], *out);
        against_on_tensor_cores(&linear(*out), *input, &shape);
    }
}

/// As by a ReLU on its own, so that a loss shows what went wrong far below.
#[test]
fn a_relu_at_the_end_lets_a_nan_through() {
    let conv = conv2d([3, 1, 1, 0, 1]);
    let (local, linear) = (Local2d(conv.clone()), linear(3));
    for layer in [&conv as &dyn Layer, &local, &linear] {
        let mut alone = Alone::new(layer, 1, Shape::vector(1));
        alone.parameters = vec![vec![1.0, -1.0, f32::NAN], vec![0.0; 3]];
        alone.fused_relu = true;
        let y = alone.run(&[2.0], &[1.0; 3], &mut processor(1)).y;
        assert!(y[..2] == [2.0, 0.0] && y[2].is_nan(), "{}: {y:?}", layer.kind());
    }
}
