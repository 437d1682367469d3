//! Dropout in the epilogue of a linear layer: against the formulas, and against the dropout on its own.

use crate::{agree, bits, families, name};
use alexnode_core::{Engine, Shape, StepState};
use alexnode_nn::{
    layers::{Init, dropout::Dropout, linear::Linear},
    lower::Part,
    testing::{Rng, alone::Alone, compare, conv::Convolution, largest, reference, wide},
};

const SEED: u64 = 0x0123_4567_89ab_cdef;
const EPOCH: u32 = 3;
/// Of the dropout, which is two layers above.
const INDEX: u32 = 8;

/// Batch, input, the outputs computed, the first of them, and how many the layer has.
const CASES: &[(usize, Shape, [usize; 3])] = &[
    (1, Shape::vector(1), [1, 0, 1]),
    (3, Shape::vector(7), [10, 0, 10]),
    (20, Shape::new(3, 2, 17), [70, 0, 70]),
    (33, Shape::vector(130), [200, 200, 400]),
    // Towers that begin and end within four elements of one call.
    (3, Shape::new(2, 2, 5), [7, 7, 14]),
    (2, Shape::vector(20), [33, 33, 66]),
];

#[test]
fn a_linear_layer_drops_what_the_dropout_would() {
    for (batch, input, [out, start, total]) in CASES.iter().copied() {
        let layer = Linear {
            name: "fc6".into(),
            out_features: out,
            weight_init: Init::He,
            bias_init: 0.0,
            weight_decay: 0.0,
            frozen: false,
        };
        let shape = Convolution::linear(batch, [input.h, input.w, input.c], out);
        let mut rng = Rng::new(34);
        let (x, dy) = (rng.normals(shape.inputs(), 1.0), rng.normals(shape.outputs(), 1.0));
        let parameters = vec![rng.normals(shape.weights(), 1.0), rng.normals(shape.biases(), 1.0)];
        let product = shape.forward(&wide(&x), &wide(&parameters[0]), &wide(&parameters[1]));
        for (p, inverted) in [(0.5, false), (0.3, true), (0.0, false)] {
            let dropout = Dropout { name: "drop6".into(), p, inverted };
            for (relu, train) in [(true, true), (false, true), (true, false)] {
                let mut alone = Alone::new(&layer, batch, input);
                alone.part = Part { start, channels: out, total };
                alone.parameters.clone_from(&parameters);
                alone.state = StepState {
                    seed_low: SEED as u32,
                    seed_high: (SEED >> 32) as u32,
                    epoch: EPOCH,
                    views: 1,
                    ..StepState::default()
                };
                alone.ids = (0..batch as u32).map(|i| 1000 - 7 * i).collect();
                (alone.fused_relu, alone.train) = (relu, train);
                alone.fused_dropout = dropout.epilogue(INDEX, alone.part, train);
                let dropped: Vec<bool> = (0..product.len())
                    .map(|i| {
                        let element = (start + i % out) as u32;
                        train && !reference::dropout_keeps(SEED, INDEX, EPOCH, alone.ids[i / out], element, p)
                    })
                    .collect();
                let scale = match (train, inverted) {
                    (true, true) => 1.0 / (1.0 - f64::from(p)),
                    (false, false) => 1.0 - f64::from(p),
                    _ => 1.0,
                };
                let kept = |y: f64| scale * if relu { y.max(0.0) } else { y };
                let want: Vec<f64> =
                    product.iter().zip(&dropped).map(|(y, dropped)| if *dropped { 0.0 } else { kept(*y) }).collect();
                for passes in agree(&mut alone, &x, &dy) {
                    let atol = 1e-5 * largest(&want).max(largest(&product));
                    compare(&name(&alone), &passes.y, &want, 0.0, atol);
                    let zero = |(y, dropped): (&f32, &bool)| !dropped || *y == 0.0;
                    assert!(passes.y.iter().zip(&dropped).all(zero), "{}: dropped, but not 0", name(&alone));
                }
                apart(&mut alone, &dropout, &x, &dy);
            }
        }
    }
}

/// The same bits as by the linear layer and the dropout one after the other.
fn apart(alone: &mut Alone<'_>, dropout: &Dropout, x: &[f32], dy: &[f32]) {
    for family in families() {
        let (machine, _, mut backend) = family.into_iter().next().unwrap();
        alone.gaps = [0, 0];
        let both = alone.run(x, dy, &mut *backend).y;
        let fused = std::mem::replace(&mut alone.fused_dropout, alexnode_nn::layers::dropout::Epilogue::NONE);
        let product = alone.run(x, dy, &mut *backend).y;
        alone.fused_dropout = fused;
        let mut second = Alone::new(dropout, alone.batch, Shape::vector(alone.part.channels));
        (second.part, second.index, second.train) = (alone.part, INDEX, alone.train);
        (second.state, second.ids) = (alone.state, alone.ids.clone());
        let dropped = second.run(&product, dy, &mut *backend).y;
        let name = format!("{} with {machine}", name(alone));
        match backend.slots()[0].engine {
            Engine::Host { .. } => assert!(bits(&both) == bits(&dropped), "{name}: other bits than apart"),
            Engine::Cuda(_) => compare(&name, &both, &wide(&dropped), 1e-6, 0.0),
        }
    }
}
