//! All layers with every kind of vectors that this processor has: those that multiply against the reference, the others, whose own tests do that with the widest, against
//! themselves. One test on its own: what is used is the same for the whole process.

use alexnode_core::Shape;
use alexnode_cpu::CpuBackend;
use alexnode_nn::{
    layers::{
        Init, Layer, avg_pool2d::AvgPool2d, conv2d::Conv2d, dropout::Dropout, linear::Linear,
        local_response_norm::LocalResponseNorm, local2d::Local2d, map_response_norm::MapResponseNorm,
        max_pool2d::MaxPool2d, relu::Relu, tanh::Tanh,
    },
    testing::{
        Rng,
        alone::{Alone, Passes},
        compare,
        conv::Convolution,
        largest, wide,
    },
    tile::{MAX_BLOCK, MAX_COLUMNS, MAX_ROWS, Sweep, Tile, Vectors},
};

/// Batch, input, then output channels, kernel, stride, padding and groups: directly, then by minimal filtering, in fixed chunks and with shared weights.
const CASES: &[(usize, Shape, [usize; 5])] = &[
    (1, Shape::new(1, 1, 1), [1, 1, 1, 0, 1]),
    (9, Shape::new(6, 7, 3), [6, 5, 1, 2, 1]),
    (2, Shape::new(40, 40, 3), [24, 11, 4, 0, 1]),
    (17, Shape::new(9, 8, 4), [10, 3, 2, 1, 2]),
    (2, Shape::new(10, 11, 2), [4, 2, 3, 1, 1]),
    (1, Shape::new(5, 5, 300), [20, 3, 1, 1, 1]),
    (3, Shape::new(7, 8, 24), [20, 3, 1, 0, 1]),
    (2, Shape::new(12, 10, 40), [36, 3, 1, 2, 2]),
    (11, Shape::new(11, 9, 20), [70, 5, 1, 2, 1]),
    (2, Shape::new(9, 14, 36), [34, 5, 1, 0, 2]),
    (1, Shape::new(4, 4, 96), [50, 5, 1, 2, 1]),
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

/// A layer, its input and its reference.
type Subject = (Box<dyn Layer>, Shape, Convolution);

fn subjects() -> Vec<Subject> {
    let conv = |case: &(usize, Shape, [usize; 5]), local: bool| {
        let (batch, input, window @ [_, kernel, stride, padding, groups]) = *case;
        let layer = conv2d(window);
        let output = layer.output(input).unwrap();
        let [i, o] = [input, output].map(|shape| [shape.h, shape.w, shape.c]);
        let shape = Convolution { batch, input: i, output: o, kernel: [kernel; 2], stride, padding, groups, local };
        let layer: Box<dyn Layer> = if local { Box::new(Local2d(layer)) } else { Box::new(layer) };
        (layer, input, shape)
    };
    let linear = |batch: usize, input: Shape, out_features: usize| {
        let name = "fc6".into();
        let layer =
            Linear { name, out_features, weight_init: Init::He, bias_init: 0.0, weight_decay: 0.0, frozen: false };
        let shape = Convolution::linear(batch, [input.h, input.w, input.c], out_features);
        (Box::new(layer) as Box<dyn Layer>, input, shape)
    };
    let mut subjects: Vec<Subject> = CASES.iter().map(|case| conv(case, false)).collect();
    subjects.push(conv(&(7, Shape::new(5, 6, 6), [10, 3, 2, 0, 2]), true));
    subjects.extend([linear(20, Shape::new(3, 2, 17), 70), linear(33, Shape::vector(530), 300)]);
    subjects
}

/// Layers that add no products, so that all vectors give the same bits; and those that may fuse multiplications and additions.
fn others() -> [Vec<Box<dyn Layer>>; 2] {
    let name = || String::from("layer");
    let (kernel_size, stride, padding, ceil_mode) = (3, 2, 1, true);
    let (size, k, alpha, alpha_divided_by_size) = (5, 2.0, 0.7, true);
    let across = |beta| LocalResponseNorm { name: name(), size, k, alpha, beta, alpha_divided_by_size, groups: 1 };
    let within = |beta| MapResponseNorm { name: name(), size, k, alpha, beta, alpha_divided_by_size };
    let exact: Vec<Box<dyn Layer>> = vec![
        Box::new(MaxPool2d { name: name(), kernel_size, stride, padding, ceil_mode }),
        Box::new(AvgPool2d { name: name(), kernel_size, stride, padding, ceil_mode }),
        Box::new(Relu { name: name() }),
        Box::new(Tanh { name: name() }),
        Box::new(Dropout { name: name(), p: 0.3, inverted: true }),
    ];
    [exact, vec![Box::new(across(0.75)), Box::new(across(0.5)), Box::new(within(0.75)), Box::new(within(0.5))]]
}

fn bits(passes: &Passes) -> Vec<Vec<u32>> {
    let tensors = [&passes.y, &passes.dx].into_iter().chain(&passes.gradients);
    tensors.map(|tensor| tensor.iter().map(|x| x.to_bits()).collect()).collect()
}

/// Passes of every one of `layers`.
fn passes_of(layers: &[Box<dyn Layer>]) -> Vec<Passes> {
    // No whole number of vectors, nor of blocks of channels.
    let (batch, input) = (3, Shape::new(9, 8, 37));
    let passes = layers.iter().map(|layer| {
        let mut rng = Rng::new(22);
        let alone = Alone::new(&**layer, batch, input);
        let x = rng.normals(batch * input.len(), 1.0);
        let dy = rng.normals(batch * alone.output.len(), 1.0);
        alone.run(&x, &dy, &mut CpuBackend::new(1, Some(2)).unwrap())
    });
    passes.collect()
}

/// The shape of a block, and (1 - e) (1 + e) - 1, which is 0 where products are rounded.
fn product() -> (usize, usize, f32) {
    let tile = Tile::new(Tile::MANY, 64);
    let e = f32::EPSILON;
    let sweep = Sweep { segments: 1, len: 1, a_step: 1, a_segment: 0, b_step: tile.columns(), b_segment: 0 };
    let mut block = [-1.0; MAX_BLOCK];
    tile.accumulate(&sweep, &[1.0 - e], &[0; MAX_ROWS], &[1.0 + e; MAX_COLUMNS], &mut block);
    (tile.rows(), tile.columns(), block[0])
}

#[test]
fn every_kind_of_vectors_agrees_with_the_reference() {
    let mut first_others: Option<[Vec<Passes>; 2]> = None;
    let mut products = Vec::new();
    for vectors in Vectors::ALL.into_iter().filter(|vectors| vectors.present()) {
        vectors.limit();
        assert_eq!(Vectors::used(), vectors);
        products.push(product());
        let [exact, fused] = others().map(|layers| passes_of(&layers));
        let [first_exact, first_fused] = first_others.get_or_insert_with(|| others().map(|layers| passes_of(&layers)));
        for (i, (got, want)) in exact.iter().zip(first_exact).enumerate() {
            assert!(bits(got) == bits(want), "{vectors:?}: other bits of layer {i}");
        }
        for (got, want) in fused.iter().zip(first_fused) {
            for (got, want) in [(&got.y, &want.y), (&got.dx, &want.dx)] {
                compare(&format!("{vectors:?}: response norm"), got, &wide(want), 0.0, 1e-6);
            }
        }
        for (layer, input, shape) in subjects() {
            let mut rng = Rng::new(21);
            let (x, dy) = (rng.normals(shape.inputs(), 1.0), rng.normals(shape.outputs(), 1.0));
            let (weights, bias) = (rng.normals(shape.weights(), 1.0), rng.normals(shape.biases(), 1.0));
            let y = shape.forward(&wide(&x), &wide(&weights), &wide(&bias));
            let gradients = shape.backward(&wide(&x), &wide(&weights), &wide(&dy));
            let mut alone = Alone::new(&*layer, shape.batch, input);
            alone.parameters = vec![weights, bias];
            let mut first = None;
            // What is not written stays poison; gaps between pixels are looked at, too.
            for (threads, gaps) in [(1, [0, 0]), (3, [5, 3]), (2, [0, 16])] {
                alone.gaps = gaps;
                let passes = alone.run(&x, &dy, &mut CpuBackend::new(1, Some(threads)).unwrap());
                let name = format!("{vectors:?}, {threads} threads: {} {} of {input:?}", layer.kind(), layer.name());
                for (what, got, want) in [
                    ("output", &passes.y, &y),
                    ("gradient", &passes.dx, &gradients.dx),
                    ("gradient of the weights", &passes.gradients[0], &gradients.dw),
                    ("gradient of the biases", &passes.gradients[1], &gradients.db),
                ] {
                    compare(&format!("{name}: {what}"), got, want, 0.0, 1e-5 * largest(want));
                }
                assert!(*first.get_or_insert_with(|| bits(&passes)) == bits(&passes), "{name}: other bits");
            }
        }
    }
    // Each kind is really another one: by the shapes of blocks, and with AVX2 products are not rounded before they are added.
    for (i, one) in products.iter().enumerate() {
        assert!(!products[..i].contains(one), "{products:?}");
    }
}
