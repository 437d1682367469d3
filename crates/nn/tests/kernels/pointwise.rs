use crate::{alike, bits, channels, check, processor};
use alexnode_core::{Backend, Shape, StepState};
use alexnode_nn::{
    layers::{dropout::Dropout, relu::Relu, tanh::Tanh},
    lower::Part,
    testing::{Rng, alone::Alone, numeric_gradient, reference, wide},
};

const SHAPES: [(usize, Shape); 5] = [
    (1, Shape::vector(1)),
    (3, Shape::new(13, 13, 10)),
    (2, Shape::vector(4099)),
    (5, Shape::new(2, 3, 1)),
    (1, Shape::new(40, 30, 33)),
];

#[test]
fn relu_and_tanh() {
    let (relu, tanh) = (Relu { name: "relu1".into() }, Tanh { name: "tanh1".into() });
    for (batch, shape) in SHAPES {
        let mut rng = Rng::new(10);
        let mut x = rng.normals(batch * shape.len(), 1.5);
        // At 0 no gradient passes.
        for x in x.iter_mut().step_by(3) {
            *x = 0.0;
        }
        let dy = rng.normals(x.len(), 1.0);
        let (y, dx) = reference::relu(&wide(&x), &wide(&dy));
        check(&mut Alone::new(&relu, batch, shape), &x, &dy, (&y, &dx), 0.0, 0.0);
        let (y, dx) = reference::tanh(&wide(&x), &wide(&dy));
        check(&mut Alone::new(&tanh, batch, shape), &x, &dy, (&y, &dx), 1e-5, 1e-6);
    }
}

#[test]
fn references_are_differentiable_functions() {
    let mut rng = Rng::new(11);
    let (x, dy) = (wide(&rng.normals(50, 1.0)), wide(&rng.normals(50, 1.0)));
    for layer in [reference::relu, reference::tanh] {
        let numeric = numeric_gradient(|x| layer(x, &dy).0, &x, &dy);
        for (got, want) in layer(&x, &dy).1.iter().zip(&numeric) {
            assert!((got - want).abs() < 1e-8, "{got} against {want}");
        }
    }
}

#[test]
fn relu_lets_a_nan_through() {
    let relu = Relu { name: "relu1".into() };
    alike(|backend| {
        let y = Alone::new(&relu, 1, Shape::vector(3)).run(&[f32::NAN, -1.0, -0.0], &[1.0; 3], backend).y;
        assert!(y[0].is_nan());
        assert_eq!(bits(&y[1..]), [0, 0]);
        bits(&y)
    });
}

#[test]
fn tanh_of_numbers_at_the_edge() {
    let tanh = Tanh { name: "tanh1".into() };
    let x = [f32::NAN, 0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, 1e30, -20.0, 1e-30];
    alike(|backend| {
        let passes = Alone::new(&tanh, 1, Shape::vector(x.len())).run(&x, &[2.0; 8], backend);
        assert!(passes.y[0].is_nan() && passes.dx[0].is_nan());
        assert_eq!(bits(&passes.y[1..]), bits(&[0.0, -0.0, 1.0, -1.0, 1.0, -1.0, 1e-30]));
        assert_eq!(passes.dx[1..], [2.0, 2.0, 0.0, 0.0, 0.0, 0.0, 2.0]);
        bits(&passes.y)
    });
}

fn dropout(p: f32, inverted: bool) -> Dropout {
    Dropout { name: "drop6".into(), p, inverted }
}

fn state(seed: u64, epoch: u32) -> StepState {
    StepState { seed_low: seed as u32, seed_high: (seed >> 32) as u32, epoch, views: 1, ..StepState::default() }
}

#[test]
fn dropout_keeps_what_its_numbers_say() {
    let (seed, epoch, index) = (0x0123_4567_89ab_cdef, 3, 6);
    for (batch, shape) in SHAPES {
        for (p, inverted) in [(0.5, false), (0.3, true)] {
            let layer = dropout(p, inverted);
            let mut rng = Rng::new(12);
            let (x, dy) = (rng.normals(batch * shape.len(), 1.0), rng.normals(batch * shape.len(), 1.0));
            let mut alone = Alone::new(&layer, batch, shape);
            (alone.state, alone.index) = (state(seed, epoch), index);
            // Ids, not places in the batch.
            alone.ids = (0..batch as u32).map(|i| 1000 - 7 * i).collect();
            let scale = if inverted { 1.0 / (1.0 - f64::from(p)) } else { 1.0 };
            let masked = |values: &[f32]| -> Vec<f64> {
                let keeps = |i: usize| {
                    let element = (i % shape.len()) as u32;
                    reference::dropout_keeps(seed, index, epoch, alone.ids[i / shape.len()], element, p)
                };
                values.iter().enumerate().map(|(i, v)| if keeps(i) { f64::from(*v) * scale } else { 0.0 }).collect()
            };
            let (y, dx) = (masked(&x), masked(&dy));
            check(&mut alone, &x, &dy, (&y, &dx), 1e-6, 0.0);
        }
    }
}

/// The numbers belong to channels of the whole layer: two towers drop what one device would drop.
#[test]
fn two_towers_drop_the_same() {
    let shapes = [
        (Shape::vector(4096), 2048),
        (Shape::new(2, 3, 10), 5),
        (Shape::new(3, 1, 7), 3),
        (Shape::new(5, 2, 16), 8),
        (Shape::new(2, 2, 12), 6),
    ];
    for (shape, cut) in shapes {
        let layer = dropout(0.5, false);
        let x = vec![1.0; 2 * shape.len()];
        let run = |part: Part, gap: usize, backend: &mut dyn Backend| {
            let mut alone = Alone::new(&layer, 2, shape);
            (alone.part, alone.input, alone.state) = (part, shape.with_channels(part.channels), state(9, 1));
            alone.gaps = [gap; 2];
            let x = channels(&x, shape.c, part.start, part.channels);
            alone.run(&x, &x, backend).y
        };
        let whole = run(Part { start: 0, channels: shape.c, total: shape.c }, 0, &mut processor(2));
        alike(|backend| {
            for (start, count) in [(0, cut), (cut, shape.c - cut)] {
                // Gaps as where two towers share a tensor, and odd ones.
                for gap in [0, shape.c - count, 3] {
                    let tower = run(Part { start, channels: count, total: shape.c }, gap, backend);
                    assert_eq!(tower, channels(&whole, shape.c, start, count));
                }
            }
            Vec::new()
        });
    }
}

#[test]
fn dropout_drops_its_share_and_anew_each_time() {
    let shape = Shape::vector(40_000);
    let x = vec![1.0; shape.len()];
    let run = |p: f32, epoch: u32, index: u32, id: u32| {
        let layer = dropout(p, false);
        let mut alone = Alone::new(&layer, 1, shape);
        (alone.state, alone.index, alone.ids) = (state(1, epoch), index, vec![id]);
        alone.run(&x, &x, &mut processor(1)).y
    };
    for p in [0.1, 0.5, 0.8] {
        let dropped = run(p, 0, 0, 0).iter().filter(|v| **v == 0.0).count() as f32 / shape.len() as f32;
        assert!((dropped - p).abs() < 0.01, "{p}: {dropped}");
    }
    assert_eq!(run(0.0, 0, 0, 0), x);
    let first = run(0.5, 0, 0, 0);
    for other in [run(0.5, 1, 0, 0), run(0.5, 0, 1, 0), run(0.5, 0, 0, 1)] {
        let same = first.iter().zip(&other).filter(|(a, b)| a == b).count() as f32 / shape.len() as f32;
        assert!((same - 0.5).abs() < 0.01, "{same}");
    }
}

#[test]
fn evaluation_scales_or_changes_nothing() {
    let shape = Shape::new(3, 3, 5);
    let x = Rng::new(13).normals(2 * shape.len(), 1.0);
    for (p, inverted, factor) in [(0.5, false, 0.5), (0.2, false, 0.8), (0.5, true, 1.0), (0.0, false, 1.0)] {
        let layer = dropout(p, inverted);
        let mut alone = Alone::new(&layer, 2, shape);
        alone.train = false;
        let want: Vec<f64> = x.iter().map(|x| f64::from(*x) * factor).collect();
        check(&mut alone, &x, &[], (&want, &[]), 1e-6, 0.0);
    }
}
