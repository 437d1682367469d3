use crate::{channels, check, processor, sum};
use alexnode_core::Shape;
use alexnode_nn::{
    layers::{Layer, Reads, local_response_norm::LocalResponseNorm, map_response_norm::MapResponseNorm},
    lower::Part,
    testing::{Rng, alone::Alone, compare, numeric_gradient, reference::Norm, wide},
};

fn across(size: usize, beta: f32, groups: usize) -> LocalResponseNorm {
    // Strong enough for the second term of the gradient to matter.
    let (k, alpha, alpha_divided_by_size) = (2.0, 0.7, true);
    LocalResponseNorm { name: "lrn1".into(), size, k, alpha, beta, alpha_divided_by_size, groups }
}

fn within(size: usize, beta: f32) -> MapResponseNorm {
    MapResponseNorm { name: "norm2".into(), size, k: 1.0, alpha: 0.9, beta, alpha_divided_by_size: true }
}

fn reference(size: usize, k: f32, alpha: f32, beta: f32) -> Norm {
    Norm { size, k: k.into(), alpha: alpha.into(), beta: beta.into() }
}

#[test]
fn references_are_differentiable_functions() {
    let mut rng = Rng::new(2);
    let shape = Shape::new(3, 4, 6);
    let (x, dy) = (wide(&rng.normals(2 * shape.len(), 1.0)), wide(&rng.normals(2 * shape.len(), 1.0)));
    for size in [1, 4, 5] {
        let norm = reference(size, 2.0, 0.3, 0.75);
        for groups in [1, 2] {
            let numeric = numeric_gradient(|x| norm.across(x, &dy, shape.c, groups).0, &x, &dy);
            near(&norm.across(&x, &dy, shape.c, groups).1, &numeric);
        }
        let numeric = numeric_gradient(|x| norm.within(x, &dy, 2, shape).0, &x, &dy);
        near(&norm.within(&x, &dy, 2, shape).1, &numeric);
    }
}

fn near(got: &[f64], want: &[f64]) {
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() < 1e-7 * (1.0 + want.abs()), "[{i}] {got} against {want}");
    }
}

#[test]
fn across_channels() {
    let cases = [
        (1, Shape::vector(1), 5, 0.75, 1),
        (3, Shape::new(3, 2, 7), 5, 0.75, 1),
        (2, Shape::new(13, 13, 10), 5, 0.75, 2),
        (2, Shape::new(5, 3, 48), 9, 0.75, 1),
        (1, Shape::new(2, 2, 96), 3, 0.75, 2),
        // Even, wider than the group, and powers without a short cut.
        (2, Shape::new(4, 5, 6), 4, 0.75, 1),
        (2, Shape::new(4, 5, 6), 2, 0.5, 3),
        (1, Shape::new(3, 3, 12), 20, 1.0, 2),
        (1, Shape::new(3, 3, 4), 5, 0.75, 1),
        (1, Shape::new(3, 3, 3), 9, 0.3, 1),
    ];
    for (batch, shape, size, beta, groups) in cases {
        let layer = across(size, beta, groups);
        let mut rng = Rng::new(3);
        let (x, dy) = (rng.normals(batch * shape.len(), 2.0), rng.normals(batch * shape.len(), 1.0));
        let norm = reference(size, 2.0, 0.7 / size as f32, beta);
        let (y, dx) = norm.across(&wide(&x), &wide(&dy), shape.c, groups);
        check(&mut Alone::new(&layer, batch, shape), &x, &dy, (&y, &dx), 2e-5, 1e-6);
    }
}

/// Without groups each tower sees all channels and computes half: the halves of the output are the same bits, and the two
/// partial gradients add up.
#[test]
fn two_towers_share_one_group() {
    for (c, size, cut) in [(12, 5, 6), (7, 4, 3), (96, 9, 48), (4, 9, 2)] {
        let (layer, batch, shape) = (across(size, 0.75, 1), 2, Shape::new(3, 5, c));
        assert_eq!(layer.reads(2).unwrap(), Reads::All);
        let mut rng = Rng::new(4);
        let (x, dy) = (rng.normals(batch * shape.len(), 2.0), rng.normals(batch * shape.len(), 1.0));
        let norm = reference(size, 2.0, 0.7 / size as f32, 0.75);
        let (y, dx) = norm.across(&wide(&x), &wide(&dy), c, 1);
        let whole = Alone::new(&layer, batch, shape).run(&x, &dy, &mut processor(1));
        let mut gradients = Vec::new();
        for (start, count) in [(0, cut), (cut, c - cut)] {
            let mut tower = Alone::new(&layer, batch, shape);
            tower.part = Part { start, channels: count, total: c };
            // The other tower's outputs earn this one no gradient.
            let own: Vec<f64> = wide(&dy)
                .into_iter()
                .enumerate()
                .map(|(i, dy)| if (start..start + count).contains(&(i % c)) { dy } else { 0.0 })
                .collect();
            let partial = norm.across(&wide(&x), &own, c, 1).1;
            let want = channels(&y, c, start, count);
            let part_dy = channels(&dy, c, start, count);
            let passes = check(&mut tower, &x, &part_dy, (&want, &partial), 2e-5, 1e-6);
            assert_eq!(passes.y, channels(&whole.y, c, start, count));
            gradients.push(passes.dx);
        }
        compare("sum of the towers' gradients", &sum(&gradients[0], &gradients[1]), &dx, 2e-5, 1e-6);
    }
}

/// With two groups a tower holds one and knows of no other.
#[test]
fn two_towers_hold_a_group_each() {
    let (layer, batch, shape) = (across(5, 0.75, 2), 2, Shape::new(4, 3, 20));
    assert_eq!(layer.reads(2).unwrap(), Reads::Own);
    let mut rng = Rng::new(5);
    let (x, dy) = (rng.normals(batch * shape.len(), 2.0), rng.normals(batch * shape.len(), 1.0));
    let whole = Alone::new(&layer, batch, shape).run(&x, &dy, &mut processor(2));
    for start in [0, 10] {
        let mut tower = Alone::new(&layer, batch, shape);
        tower.input = shape.with_channels(10);
        tower.part = Part { start, channels: 10, total: 20 };
        let passes = tower.run(&channels(&x, 20, start, 10), &channels(&dy, 20, start, 10), &mut processor(1));
        assert_eq!(passes.y, channels(&whole.y, 20, start, 10));
        assert_eq!(passes.dx, channels(&whole.dx, 20, start, 10));
    }
    assert!(across(5, 0.75, 3).reads(2).is_err());
}

/// The numbers of spec sheets: k = 2, n = 5, alpha = 1e-4, beta = 0.75.
#[test]
fn closed_forms_across_channels() {
    let paper = |alpha_divided_by_size| LocalResponseNorm { alpha: 1e-4, alpha_divided_by_size, ..across(5, 0.75, 1) };
    let host = &mut processor(1);
    let (shape, dy) = (Shape::vector(9), vec![3.0; 9]);
    let layer = paper(true);
    let at_zero = Alone::new(&layer, 1, shape).run(&[0.0; 9], &dy, host);
    compare("gradient at 0", &at_zero.dx, &[3.0 * 0.594_603_557_5; 9], 1e-6, 0.0);
    for (divided, coefficient) in [(true, 1e-4), (false, 5e-4)] {
        let c = 100.0f64;
        let layer = paper(divided);
        let y = Alone::new(&layer, 1, shape).run(&[c as f32; 9], &dy, host).y;
        compare("inner channels", &y[2..7], &[c * (2.0 + coefficient * c * c).powf(-0.75); 5], 1e-6, 0.0);
        let edge = c * (2.0 + coefficient * 3.0 / 5.0 * c * c).powf(-0.75);
        compare("edge channels", &[y[0], y[8]], &[edge; 2], 1e-6, 0.0);
    }
}

#[test]
fn within_maps() {
    let cases = [
        (1, Shape::vector(1), 5, 0.75),
        (3, Shape::new(13, 13, 3), 5, 0.75),
        (2, Shape::new(4, 7, 16), 3, 0.75),
        (2, Shape::new(7, 4, 37), 5, 0.75),
        (1, Shape::new(6, 5, 20), 4, 0.75),
        (1, Shape::new(3, 2, 17), 9, 0.6),
        (1, Shape::new(1, 8, 4), 1, 1.0),
        // Many images, whose channels are cut into larger blocks.
        (16, Shape::new(6, 2, 265), 3, 0.75),
    ];
    for (batch, shape, size, beta) in cases {
        let layer = within(size, beta);
        let mut rng = Rng::new(6);
        let (x, dy) = (rng.normals(batch * shape.len(), 2.0), rng.normals(batch * shape.len(), 1.0));
        let norm = reference(size, 1.0, 0.9 / (size * size) as f32, beta);
        let (y, dx) = norm.within(&wide(&x), &wide(&dy), batch, shape);
        check(&mut Alone::new(&layer, batch, shape), &x, &dy, (&y, &dx), 2e-5, 1e-6);
    }
}

#[test]
fn closed_forms_within_maps() {
    let layer = MapResponseNorm { alpha: 1e-3, ..within(5, 0.75) };
    let (shape, c) = (Shape::new(7, 7, 2), 30.0f64);
    let y = Alone::new(&layer, 1, shape).run(&[c as f32; 98], &[1.0; 98], &mut processor(1)).y;
    let want = |pixels: f64| c * (1.0 + 1e-3 / 25.0 * pixels * c * c).powf(-0.75);
    compare("middle", &y[48..50], &[want(25.0); 2], 1e-6, 0.0);
    compare("corners", &[y[0], y[13], y[84], y[97]], &[want(9.0); 4], 1e-6, 0.0);
    let layer = MapResponseNorm { alpha_divided_by_size: false, ..layer };
    let y = Alone::new(&layer, 1, shape).run(&[c as f32; 98], &[1.0; 98], &mut processor(1)).y;
    compare("literal alpha", &y[48..50], &[c * (1.0 + 25e-3 * c * c).powf(-0.75); 2], 1e-6, 0.0);
}
