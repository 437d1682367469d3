use super::{
    Params,
    pass::{Conv2dDataGradient, Conv2dForward, data_gradient_scratch, forward_scratch},
    weight::{Conv2dWeightGradient, scratch},
};
use crate::testing::{
    body::{assert_close, gather, numbers, run_body, spread, wide},
    conv::Convolution,
};
use alexnode_core::Window;
use alexnode_cpu::Workers;

struct Case {
    batch: usize,
    input: [usize; 3],
    out: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
    groups: usize,
    /// Channels between pixels that are not this layer's.
    gap: usize,
}

const CASES: &[Case] = &[
    Case { batch: 1, input: [1, 1, 1], out: 1, kernel: 1, stride: 1, padding: 0, groups: 1, gap: 0 },
    Case { batch: 3, input: [1, 1, 5], out: 17, kernel: 3, stride: 1, padding: 1, groups: 1, gap: 2 },
    Case { batch: 2, input: [13, 13, 32], out: 48, kernel: 3, stride: 1, padding: 1, groups: 2, gap: 0 },
    Case { batch: 1, input: [13, 13, 48], out: 16, kernel: 3, stride: 1, padding: 1, groups: 1, gap: 48 },
    Case { batch: 9, input: [6, 7, 3], out: 6, kernel: 5, stride: 1, padding: 2, groups: 1, gap: 1 },
    // The paper's first layer in small, with windows that hang over.
    Case { batch: 2, input: [40, 40, 3], out: 24, kernel: 11, stride: 4, padding: 0, groups: 1, gap: 0 },
    Case { batch: 17, input: [9, 8, 4], out: 10, kernel: 3, stride: 2, padding: 1, groups: 2, gap: 3 },
    // Input pixels that no window sees.
    Case { batch: 2, input: [10, 11, 2], out: 4, kernel: 2, stride: 3, padding: 1, groups: 1, gap: 1 },
    // A sum that is longer than one sweep, in one row of the kernel and over several.
    Case { batch: 1, input: [5, 5, 300], out: 20, kernel: 3, stride: 1, padding: 1, groups: 1, gap: 0 },
    Case { batch: 1, input: [40, 40, 1], out: 3, kernel: 21, stride: 2, padding: 3, groups: 1, gap: 0 },
    // A patch that is larger than a task's.
    Case { batch: 1, input: [70, 90, 16], out: 16, kernel: 3, stride: 1, padding: 1, groups: 1, gap: 0 },
];

fn run(case: &Case, workers: usize, relu: bool) -> [Vec<f32>; 4] {
    let Case { batch, input: [h, w, c], out, kernel, stride, padding, groups, gap } = *case;
    let window = Window { size: kernel, stride, padding, ceil: true };
    let [p, q] = [h, w].map(|extent| window.output(extent).unwrap());
    let shape = Convolution {
        batch,
        input: [h, w, c],
        output: [p, q, out],
        kernel: [kernel, kernel],
        stride,
        padding,
        groups,
        local: false,
    };
    let (x_ld, y_ld) = (c + gap, out + 2 * gap);
    let params = Params {
        batch: batch as i32,
        in_h: h as i32,
        in_w: w as i32,
        in_c: c as i32,
        x_ld: x_ld as i32,
        out_h: p as i32,
        out_w: q as i32,
        out_c: out as i32,
        y_ld: y_ld as i32,
        kernel: kernel as i32,
        stride: stride as i32,
        padding: padding as i32,
        groups: groups as i32,
        relu: i32::from(relu),
    };
    let host = Workers::new(workers).unwrap();
    let space = |bytes: usize| vec![f32::NAN; bytes / 4];
    let mut x = numbers(shape.inputs(), 1);
    let mut weights = numbers(shape.weights(), 2);
    let mut bias = numbers(shape.biases(), 3);
    let mut dy = numbers(shape.outputs(), 4);
    let expected = shape.forward(&wide(&x), &wide(&weights), &wide(&bias));
    let gradients = shape.backward(&wide(&x), &wide(&weights), &wide(&dy));
    x = spread(&x, c, x_ld, f32::NAN);
    dy = spread(&dy, out, y_ld, f32::NAN);

    let mut y = spread(&vec![f32::NAN; shape.outputs()], out, y_ld, 7.0);
    let mut s = space(forward_scratch(&params, workers));
    run_body::<Conv2dForward>(&params, &mut [&mut x, &mut weights, &mut bias, &mut y, &mut s], &host);
    let y = gather(&y, out, y_ld, 7.0);

    let mut dx = spread(&vec![f32::NAN; shape.inputs()], c, x_ld, 7.0);
    let mut s = space(data_gradient_scratch(&params, workers));
    run_body::<Conv2dDataGradient>(&params, &mut [&mut dy, &mut weights, &mut dx, &mut s], &host);
    let dx = gather(&dx, c, x_ld, 7.0);

    let (mut dw, mut db) = (vec![f32::NAN; shape.weights()], vec![f32::NAN; out]);
    let mut s = space(scratch(&params, workers));
    run_body::<Conv2dWeightGradient>(&params, &mut [&mut x, &mut dy, &mut dw, &mut db, &mut s], &host);

    let what = format!("{h}x{w}x{c} to {p}x{q}x{out}");
    let expected: Vec<f64> = expected.into_iter().map(|y| if relu { y.max(0.0) } else { y }).collect();
    assert_close(&format!("{what}: y"), &y, &expected, 1e-5);
    assert_close(&format!("{what}: dx"), &dx, &gradients.dx, 1e-5);
    assert_close(&format!("{what}: dw"), &dw, &gradients.dw, 1e-5);
    assert_close(&format!("{what}: db"), &db, &gradients.db, 1e-5);
    [y, dx, dw, db]
}

#[test]
fn values_and_gradients_are_those_of_the_reference() {
    for (i, case) in CASES.iter().enumerate() {
        run(case, 1 + i % 3, i % 2 == 0);
    }
}

#[test]
fn any_number_of_workers_gives_the_same_bits() {
    for case in CASES {
        let bits = |results: [Vec<f32>; 4]| results.map(|v| v.iter().map(|x| x.to_bits()).collect::<Vec<u32>>());
        let one = bits(run(case, 1, false));
        assert!(one == bits(run(case, 2, false)) && one == bits(run(case, 5, false)));
    }
}
