use super::{
    Params,
    gradient::{LinearDataGradient, LinearWeightGradient, data_scratch, weight_scratch},
    product::{LinearForward, scratch},
};
use crate::testing::{
    body::{assert_close, gather, numbers, run_body, spread, wide},
    conv::Convolution,
};
use alexnode_cpu::Workers;

fn run(batch: usize, input: [usize; 3], out: usize, gap: usize, workers: usize, relu: bool) -> [Vec<f32>; 4] {
    let shape = Convolution::linear(batch, input, out);
    let c = input[2];
    let (x_ld, y_ld) = (c + gap, out + 2 * gap);
    let params = Params {
        batch: batch as i32,
        pixels: (input[0] * input[1]) as i32,
        in_c: c as i32,
        x_ld: x_ld as i32,
        out: out as i32,
        y_ld: y_ld as i32,
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
    let mut s = space(scratch(&params, workers));
    run_body::<LinearForward>(&params, &mut [&mut x, &mut weights, &mut bias, &mut y, &mut s], &host);
    let y = gather(&y, out, y_ld, 7.0);

    let mut dx = spread(&vec![f32::NAN; shape.inputs()], c, x_ld, 7.0);
    let mut s = space(data_scratch(&params, workers));
    run_body::<LinearDataGradient>(&params, &mut [&mut dy, &mut weights, &mut dx, &mut s], &host);
    let dx = gather(&dx, c, x_ld, 7.0);

    let (mut dw, mut db) = (vec![f32::NAN; shape.weights()], vec![f32::NAN; out]);
    let mut s = space(weight_scratch(&params, workers));
    run_body::<LinearWeightGradient>(&params, &mut [&mut x, &mut dy, &mut dw, &mut db, &mut s], &host);

    let what = format!("{batch} x {input:?} to {out}");
    let expected: Vec<f64> = expected.into_iter().map(|y| if relu { y.max(0.0) } else { y }).collect();
    assert_close(&format!("{what}: y"), &y, &expected, 1e-5);
    assert_close(&format!("{what}: dx"), &dx, &gradients.dx, 1e-5);
    assert_close(&format!("{what}: dw"), &dw, &gradients.dw, 1e-5);
    assert_close(&format!("{what}: db"), &db, &gradients.db, 1e-5);
    [y, dx, dw, db]
}

/// Batch, input, outputs, gap.
const CASES: &[(usize, [usize; 3], usize, usize)] = &[
    (1, [1, 1, 1], 1, 0),
    (3, [1, 1, 7], 10, 5),
    (1, [1, 1, 600], 5, 0),
    (20, [3, 2, 17], 70, 3),
    (5, [6, 6, 32], 13, 0),
    (128, [1, 1, 130], 400, 1),
    (33, [1, 1, 530], 300, 0),
];

#[test]
fn values_and_gradients_are_those_of_the_reference() {
    for (i, (batch, input, out, gap)) in CASES.iter().enumerate() {
        run(*batch, *input, *out, *gap, 1 + i % 3, i % 2 == 0);
    }
}

#[test]
fn any_number_of_workers_gives_the_same_bits() {
    for (batch, input, out, gap) in CASES {
        let bits = |results: [Vec<f32>; 4]| results.map(|v| v.iter().map(|x| x.to_bits()).collect::<Vec<u32>>());
        let one = bits(run(*batch, *input, *out, *gap, 1, false));
        assert!(one == bits(run(*batch, *input, *out, *gap, 2, false)));
        assert!(one == bits(run(*batch, *input, *out, *gap, 5, false)));
    }
}
