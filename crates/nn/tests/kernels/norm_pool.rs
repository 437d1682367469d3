//! A normalisation and the pooling behind it as one operation: against the formulas, and against the two layers on their own.

use crate::{bits, channels, check, emulated, families, name, processor, sum};
use alexnode_core::{Backend, Engine, Shape, Window};
use alexnode_cuda::emulated::Options;
use alexnode_nn::{
    layers::{Layer, Reads, local_response_norm::LocalResponseNorm, max_pool2d::MaxPool2d, norm_pool::NormPool},
    lower::Part,
    testing::{
        Rng,
        alone::{Alone, Passes},
        compare,
        reference::{self, Norm},
        wide,
    },
};

fn norm(size: usize, beta: f32, groups: usize) -> LocalResponseNorm {
    // Strong enough for the second term of the gradient to matter.
    let (k, alpha, alpha_divided_by_size) = (2.0, 0.7, true);
    LocalResponseNorm { name: "lrn1".into(), size, k, alpha, beta, alpha_divided_by_size, groups }
}

fn pool(w: Window) -> MaxPool2d {
    let name = "pool1".into();
    MaxPool2d { name, kernel_size: w.size, stride: w.stride, padding: w.padding, ceil_mode: w.ceil }
}

const PAPER: Window = Window { size: 3, stride: 2, padding: 0, ceil: true };

/// Batch, input, window of the norm, beta, groups, window of the pooling.
fn cases() -> Vec<(usize, Shape, usize, f32, usize, Window)> {
    let window = |size, stride, padding, ceil| Window { size, stride, padding, ceil };
    vec![
        (1, Shape::new(1, 1, 1), 5, 0.75, 1, window(1, 1, 0, true)),
        (3, Shape::new(13, 13, 10), 5, 0.75, 1, PAPER),
        (1, Shape::new(13, 13, 1), 5, 0.75, 1, PAPER),
        // Several tiles, the last of them smaller, and several pieces of the channels.
        (1, Shape::new(27, 27, 96), 5, 0.75, 1, PAPER),
        (2, Shape::new(20, 9, 130), 5, 0.75, 2, PAPER),
        (1, Shape::new(55, 5, 48), 5, 0.75, 1, PAPER),
        // An overhang, a row of windows that is dropped, gaps between windows, padding.
        (3, Shape::new(8, 5, 14), 9, 0.75, 2, PAPER),
        (2, Shape::new(8, 5, 7), 4, 0.75, 1, window(3, 2, 0, false)),
        (1, Shape::new(9, 8, 6), 5, 0.6, 3, window(2, 3, 0, true)),
        (2, Shape::new(7, 6, 33), 3, 0.75, 1, window(3, 2, 1, true)),
        (1, Shape::new(6, 7, 4), 20, 1.0, 2, window(5, 1, 2, true)),
        (1, Shape::new(60, 61, 20), 5, 0.75, 1, window(3, 2, 1, true)),
        // One window that leaves room for few channels.
        (1, Shape::new(16, 17, 40), 5, 0.75, 1, window(16, 16, 0, true)),
    ]
}

/// Normal numbers, with `relu` what a ReLU leaves of them: half of them are 0, and so are all of many windows. The largest of a window is so beyond doubt.
fn draw(rng: &mut Rng, pair: &NormPool<'_>, batch: usize, input: Shape, relu: bool) -> Vec<f32> {
    let output = pair.pool.output(input).unwrap();
    loop {
        let mut x = rng.normals(batch * input.len(), 2.0);
        if relu {
            x.iter_mut().for_each(|x| *x = x.max(0.0));
        }
        let normalised = normalise(pair, &x, input);
        if reference::max_pool_margin(window(pair), batch, input, output, &normalised) > 2e-6 {
            return x;
        }
    }
}

fn window(pair: &NormPool<'_>) -> Window {
    let MaxPool2d { kernel_size, stride, padding, ceil_mode, .. } = *pair.pool;
    Window { size: kernel_size, stride, padding, ceil: ceil_mode }
}

fn formula(pair: &NormPool<'_>) -> Norm {
    let LocalResponseNorm { size, k, alpha, beta, .. } = *pair.norm;
    Norm { size, k: k.into(), alpha: f64::from(alpha) / size as f64, beta: beta.into() }
}

fn normalise(pair: &NormPool<'_>, x: &[f32], input: Shape) -> Vec<f64> {
    formula(pair).across(&wide(x), &vec![0.0; x.len()], input.c, pair.norm.groups).0
}

/// In f64: both layers, one after the other, and the gradient of a ReLU below where there is one. `own`: the channels whose outputs count.
fn formulas(
    pair: &NormPool<'_>,
    batch: usize,
    input: Shape,
    x: &[f32],
    dy: &[f32],
    relu: bool,
    own: Part,
) -> [Vec<f64>; 2] {
    let (between, output) =
        (input.with_channels(own.channels), pair.pool.output(input.with_channels(own.channels)).unwrap());
    let normalised = channels(&normalise(pair, x, input), input.c, own.start, own.channels);
    let (y, dn) = reference::max_pool(window(pair), batch, between, output, &normalised, &wide(dy));
    // The outputs of the other channels earn x nothing.
    let mut all = vec![0.0; x.len()];
    for (all, own_dn) in all.chunks_exact_mut(input.c).zip(dn.chunks_exact(own.channels)) {
        all[own.start..own.start + own.channels].copy_from_slice(own_dn);
    }
    let mut dx = formula(pair).across(&wide(x), &all, input.c, pair.norm.groups).1;
    if relu {
        dx.iter_mut().zip(x).for_each(|(dx, x)| *dx = if *x > 0.0 { *dx } else { 0.0 });
    }
    [y, dx]
}

/// The two layers on their own.
fn apart(pair: &NormPool<'_>, alone: &Alone<'_>, x: &[f32], dy: &[f32], backend: &mut dyn Backend) -> Passes {
    let mut norm = Alone::new(pair.norm, alone.batch, alone.input);
    (norm.part, norm.train, norm.passes_relu) = (alone.part, alone.train, alone.passes_relu);
    let between = alone.input.with_channels(alone.part.channels);
    let normalised = norm.run(x, &vec![0.0; alone.batch * between.len()], backend).y;
    let mut pool = Alone::new(pair.pool, alone.batch, between);
    pool.train = alone.train;
    let Passes { y, dx, .. } = pool.run(&normalised, dy, backend);
    let dx = if alone.train { norm.run(x, &dx, backend).dx } else { dx };
    Passes { y, dx, gradients: Vec::new() }
}

/// |got - want| / |want|.
fn distance(got: &[f32], want: &[f64]) -> f64 {
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let difference = square(&mut got.iter().zip(want).map(|(got, want)| f64::from(*got) - want));
    (difference / square(&mut want.iter().copied()).max(1e-30)).sqrt()
}

/// Everything that must hold of `alone`, which runs `pair`.
fn hold(pair: &NormPool<'_>, alone: &mut Alone<'_>, x: &[f32], dy: &[f32]) -> Passes {
    let [y, dx] = formulas(pair, alone.batch, alone.input, x, dy, alone.passes_relu, alone.part);
    let passes = check(alone, x, dy, (&y, &dx), 2e-5, 2e-6);
    for family in families() {
        let (machine, _, mut backend) = family.into_iter().next().unwrap();
        alone.gaps = [0, 0];
        let (both, apart) = (alone.run(x, dy, &mut *backend), apart(pair, alone, x, dy, &mut *backend));
        let name = format!("{} with {machine}", name(alone));
        if matches!(backend.slots()[0].engine, Engine::Host { .. }) {
            assert!(
                bits(&both.y) == bits(&apart.y) && bits(&both.dx) == bits(&apart.dx),
                "{name}: other bits than apart"
            );
        }
        for (what, most, both, apart, want) in
            [("output", 2e-6, &both.y, &apart.y, &y), ("gradient", 5e-6, &both.dx, &apart.dx, &dx)]
        {
            if what == "output" || alone.train {
                let [formulas, apart] = [want, &wide(apart)].map(|want| distance(both, want));
                assert!(
                    formulas < most && apart < most,
                    "{name}: {what}: {formulas:e} from the formulas, {apart:e} from apart"
                );
            }
        }
    }
    passes
}

#[test]
fn both_layers_at_once() {
    for (batch, input, size, beta, groups, window) in cases() {
        let (norm, pool) = (norm(size, beta, groups), pool(window));
        let pair = NormPool { norm: &norm, pool: &pool };
        for relu in [false, true] {
            let mut rng = Rng::new(30);
            let mut alone = Alone::new(&pair, batch, input);
            let x = draw(&mut rng, &pair, batch, input, relu);
            let dy = rng.normals(batch * alone.output.len(), 1.0);
            alone.passes_relu = relu;
            let trained = hold(&pair, &mut alone, &x, &dy);
            alone.train = false;
            let evaluated = hold(&pair, &mut alone, &x, &dy);
            assert_eq!(bits(&evaluated.y), bits(&trained.y));
        }
    }
}

/// Without groups each tower sees all channels and computes half: the halves of the output are the same bits, and the two partial gradients add up.
#[test]
fn two_towers_share_one_group() {
    for (c, size, cut) in [(12, 5, 6), (7, 4, 3), (96, 9, 48), (4, 9, 2), (260, 5, 130)] {
        let (norm, pool) = (norm(size, 0.75, 1), pool(PAPER));
        let pair = NormPool { norm: &norm, pool: &pool };
        assert_eq!(pair.reads(2).unwrap(), Reads::All);
        let (batch, input) = (2, Shape::new(7, 5, c));
        let mut rng = Rng::new(31);
        let x = draw(&mut rng, &pair, batch, input, true);
        let mut whole = Alone::new(&pair, batch, input);
        whole.passes_relu = true;
        let dy = rng.normals(batch * whole.output.len(), 1.0);
        let [_, dx] = formulas(&pair, batch, input, &x, &dy, true, whole.part);
        let whole = whole.run(&x, &dy, &mut processor(1));
        let mut gradients = Vec::new();
        for (start, count) in [(0, cut), (cut, c - cut)] {
            let mut tower = Alone::new(&pair, batch, input);
            (tower.part, tower.passes_relu) = (Part { start, channels: count, total: c }, true);
            let passes = hold(&pair, &mut tower, &x, &channels(&dy, c, start, count));
            assert_eq!(passes.y, channels(&whole.y, c, start, count));
            gradients.push(passes.dx);
        }
        compare("sum of the towers' gradients", &sum(&gradients[0], &gradients[1]), &dx, 2e-5, 2e-6);
    }
}

/// With two groups a tower holds one and knows of no other.
#[test]
fn two_towers_hold_a_group_each() {
    let (norm, pool) = (norm(5, 0.75, 2), pool(PAPER));
    let pair = NormPool { norm: &norm, pool: &pool };
    assert_eq!(pair.reads(2).unwrap(), Reads::Own);
    let (batch, shape) = (2, Shape::new(6, 9, 20));
    let mut rng = Rng::new(32);
    let x = draw(&mut rng, &pair, batch, shape, false);
    let whole = Alone::new(&pair, batch, shape);
    let dy = rng.normals(batch * whole.output.len(), 1.0);
    let whole = whole.run(&x, &dy, &mut processor(2));
    for family in families() {
        let (machine, _, mut backend) = family.into_iter().next().unwrap();
        for start in [0, 10] {
            let mut tower = Alone::new(&pair, batch, shape);
            tower.input = shape.with_channels(10);
            tower.part = Part { start, channels: 10, total: 20 };
            let passes = tower.run(&channels(&x, 20, start, 10), &channels(&dy, 20, start, 10), &mut *backend);
            let near = |got: &[f32], want: &[f32]| {
                compare(&machine, got, &wide(&channels(want, 20, start, 10)), 2e-5, 2e-6);
            };
            near(&passes.y, &whole.y);
            near(&passes.dx, &whole.dx);
        }
    }
}

/// As for a real device: the shapes as constants of the code.
#[test]
fn with_constant_shapes() {
    let Some(mut backend) = emulated(Options { specialise: true, ..Options::default() }) else { return };
    let (norm, pool) = (norm(5, 0.75, 2), pool(PAPER));
    let pair = NormPool { norm: &norm, pool: &pool };
    let mut alone = Alone::new(&pair, 2, Shape::new(13, 13, 16));
    alone.passes_relu = true;
    let mut rng = Rng::new(33);
    let x = draw(&mut rng, &pair, 2, alone.input, true);
    let dy = rng.normals(2 * alone.output.len(), 1.0);
    let [y, dx] = formulas(&pair, 2, alone.input, &x, &dy, true, alone.part);
    let passes = alone.run(&x, &dy, &mut backend);
    compare("output", &passes.y, &y, 2e-5, 2e-6);
    compare("gradient", &passes.dx, &dx, 2e-5, 2e-6);
}

#[test]
fn a_nan_is_not_swallowed() {
    let (norm, pool) = (norm(3, 0.75, 1), pool(Window { size: 2, stride: 2, padding: 0, ceil: true }));
    let pair = NormPool { norm: &norm, pool: &pool };
    for family in families() {
        let (machine, _, mut backend) = family.into_iter().next().unwrap();
        for place in 0..4 {
            let mut x = [1.0, 5.0, 2.0, 3.0];
            x[place] = f32::NAN;
            let y = Alone::new(&pair, 1, Shape::new(2, 2, 1)).run(&x, &[1.0], &mut *backend).y;
            assert!(y[0].is_nan(), "{place} with {machine}");
        }
    }
}
