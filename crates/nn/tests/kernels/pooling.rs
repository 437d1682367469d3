use crate::{bits, check, processor};
use alexnode_core::{ErrorCode, Shape, Window};
use alexnode_nn::{
    layers::{Layer, avg_pool2d::AvgPool2d, max_pool2d::MaxPool2d},
    testing::{Rng, alone::Alone, numeric_gradient, reference, wide},
};

/// Batch, input, window: 3/2 as in the paper, with and without overhang, tiles, gaps between windows, padding.
fn cases() -> Vec<(usize, Shape, Window)> {
    let window = |size, stride, padding, ceil| Window { size, stride, padding, ceil };
    vec![
        (1, Shape::new(1, 1, 1), window(1, 1, 0, true)),
        (3, Shape::new(13, 13, 17), window(3, 2, 0, true)),
        (2, Shape::new(32, 32, 3), window(3, 2, 0, true)),
        (2, Shape::new(8, 5, 16), window(3, 2, 0, true)),
        (2, Shape::new(8, 5, 35), window(3, 2, 0, false)),
        (1, Shape::new(6, 6, 4), window(2, 2, 0, true)),
        (1, Shape::new(9, 8, 5), window(2, 3, 0, true)),
        (2, Shape::new(7, 6, 33), window(3, 2, 1, true)),
        (1, Shape::new(6, 7, 2), window(5, 1, 2, true)),
        (1, Shape::new(3, 4, 20), window(4, 3, 3, true)),
    ]
}

fn max_layer(w: Window) -> MaxPool2d {
    let name = "pool1".into();
    MaxPool2d { name, kernel_size: w.size, stride: w.stride, padding: w.padding, ceil_mode: w.ceil }
}

fn avg_layer(w: Window) -> AvgPool2d {
    let name = "pool2".into();
    AvgPool2d { name, kernel_size: w.size, stride: w.stride, padding: w.padding, ceil_mode: w.ceil }
}

#[test]
fn the_largest_of_each_window() {
    for (batch, input, window) in cases() {
        let layer = max_layer(window);
        let output = layer.output(input).unwrap();
        let mut rng = Rng::new(7);
        // Whole numbers from -2 to 2: most windows have ties, and the first must win.
        let x: Vec<f32> = (0..batch * input.len()).map(|_| rng.below(5) as f32 - 2.0).collect();
        let dy: Vec<f32> = (0..batch * output.len()).map(|_| rng.below(100) as f32 - 50.0).collect();
        let (y, dx) = reference::max_pool(window, batch, input, output, &wide(&x), &wide(&dy));
        let trained = check(&mut Alone::new(&layer, batch, input), &x, &dy, (&y, &dx), 0.0, 0.0);
        let mut evaluated = Alone::new(&layer, batch, input);
        evaluated.train = false;
        let passes = check(&mut evaluated, &x, &dy, (&y, &dx), 0.0, 0.0);
        assert_eq!(bits(&passes.y), bits(&trained.y));
    }
}

#[test]
fn the_mean_of_each_window() {
    for (batch, input, window) in cases() {
        let layer = avg_layer(window);
        let output = layer.output(input).unwrap();
        let mut rng = Rng::new(8);
        let (x, dy) = (rng.normals(batch * input.len(), 1.0), rng.normals(batch * output.len(), 1.0));
        let (y, dx) = reference::avg_pool(window, batch, input, output, &wide(&x), &wide(&dy));
        check(&mut Alone::new(&layer, batch, input), &x, &dy, (&y, &dx), 1e-6, 1e-6);
    }
}

#[test]
fn references_are_differentiable_functions() {
    let (batch, input) = (2, Shape::new(5, 6, 2));
    let window = Window { size: 3, stride: 2, padding: 1, ceil: true };
    let output = max_layer(window).output(input).unwrap();
    let mut rng = Rng::new(9);
    let (x, dy) = (wide(&rng.normals(batch * input.len(), 1.0)), wide(&rng.normals(batch * output.len(), 1.0)));
    for pool in [reference::max_pool, reference::avg_pool] {
        let numeric = numeric_gradient(|x| pool(window, batch, input, output, x, &dy).0, &x, &dy);
        for (got, want) in pool(window, batch, input, output, &x, &dy).1.iter().zip(&numeric) {
            assert!((got - want).abs() < 1e-8, "{got} against {want}");
        }
    }
}

/// The mean of a constant image is that constant everywhere: padding and overhang do not count.
#[test]
fn means_divide_by_what_is_inside() {
    for (batch, input, window) in cases() {
        let layer = avg_layer(window);
        let outputs = batch * layer.output(input).unwrap().len();
        let x = vec![3.0; batch * input.len()];
        let y = Alone::new(&layer, batch, input).run(&x, &vec![0.0; outputs], &mut processor(1)).y;
        assert_eq!(y, vec![3.0; outputs]);
    }
}

#[test]
fn of_equal_elements_the_first_gets_the_gradient() {
    let layer = max_layer(Window { size: 3, stride: 2, padding: 0, ceil: true });
    let input = Shape::new(3, 3, 1);
    let passes = Alone::new(&layer, 1, input).run(&[0.0; 9], &[1.0], &mut processor(1));
    assert_eq!(passes.dx, [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
}

#[test]
fn a_nan_is_not_swallowed() {
    let layer = max_layer(Window { size: 2, stride: 2, padding: 0, ceil: true });
    for place in 0..4 {
        let mut x = [1.0, 5.0, 2.0, 3.0];
        x[place] = f32::NAN;
        let passes = Alone::new(&layer, 1, Shape::new(2, 2, 1)).run(&x, &[1.0], &mut processor(1));
        assert!(passes.y[0].is_nan(), "{place}");
        assert_eq!(passes.dx[place], 1.0);
    }
}

/// 16 x 16 places just fit into a byte.
#[test]
fn the_largest_window() {
    let input = Shape::new(16, 16, 1);
    let layer = max_layer(Window { size: 16, stride: 16, padding: 0, ceil: true });
    for place in [0, 17, 255] {
        let mut x = [0.0; 256];
        x[place] = 1.0;
        let passes = Alone::new(&layer, 1, input).run(&x, &[2.0], &mut processor(1));
        assert_eq!((passes.y[0], passes.dx[place]), (1.0, 2.0));
    }
    let error = max_layer(Window { size: 17, stride: 17, padding: 0, ceil: true }).output(Shape::new(17, 17, 1));
    assert_eq!(error.unwrap_err().code(), ErrorCode::Usage);
    assert!(avg_layer(Window { size: 9, stride: 1, padding: 0, ceil: true }).output(Shape::new(8, 8, 1)).is_err());
}
