use super::{
    Params,
    pass::{Conv2dDataGradient, Conv2dForward, data_gradient_scratch, forward_scratch},
    weight::{self, Conv2dWeightGradient},
};
use crate::testing::{
    body::{assert_close, gather, numbers, run_body, spread, wide},
    conv::Convolution,
};
use alexnode_core::{Kernel, Window};
use alexnode_cpu::Workers;

/// A convolution, shared weights or not.
pub(crate) struct Case {
    pub batch: usize,
    pub input: [usize; 3],
    pub out: usize,
    pub kernel: usize,
    pub stride: usize,
    pub padding: usize,
    pub groups: usize,
    /// Channels between pixels that are not this layer's.
    pub gap: usize,
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

/// Forward `F`, data gradient `D` and weight gradient `W` against the reference. `scratch` are their bytes of scratch.
pub(crate) fn run<F, D, W>(
    case: &Case,
    local: bool,
    scratch: [fn(&Params, usize) -> usize; 3],
    workers: usize,
    relu: bool,
) -> [Vec<f32>; 4]
where
    F: Kernel<Params = Params>,
    D: Kernel<Params = Params>,
    W: Kernel<Params = Params>,
{
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
        local,
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
    let space = |bytes: fn(&Params, usize) -> usize| vec![f32::NAN; bytes(&params, workers) / 4];
    let mut x = numbers(shape.inputs(), 1);
    let mut weights = numbers(shape.weights(), 2);
    let mut bias = numbers(shape.biases(), 3);
    let mut dy = numbers(shape.outputs(), 4);
    let expected = shape.forward(&wide(&x), &wide(&weights), &wide(&bias));
    let gradients = shape.backward(&wide(&x), &wide(&weights), &wide(&dy));
    x = spread(&x, c, x_ld, f32::NAN);
    dy = spread(&dy, out, y_ld, f32::NAN);

    let mut y = spread(&vec![f32::NAN; shape.outputs()], out, y_ld, 7.0);
    let mut s = space(scratch[0]);
    run_body::<F>(&params, &mut [&mut x, &mut weights, &mut bias, &mut y, &mut s], &host);
    let y = gather(&y, out, y_ld, 7.0);

    let mut dx = spread(&vec![f32::NAN; shape.inputs()], c, x_ld, 7.0);
    let mut s = space(scratch[1]);
    run_body::<D>(&params, &mut [&mut dy, &mut weights, &mut dx, &mut s], &host);
    let dx = gather(&dx, c, x_ld, 7.0);

    let (mut dw, mut db) = (vec![f32::NAN; shape.weights()], vec![f32::NAN; shape.biases()]);
    let mut s = space(scratch[2]);
    run_body::<W>(&params, &mut [&mut x, &mut dy, &mut dw, &mut db, &mut s], &host);

    let what = format!("{h}x{w}x{c} to {p}x{q}x{out}");
    let expected: Vec<f64> = expected.into_iter().map(|y| if relu { y.max(0.0) } else { y }).collect();
    assert_close(&format!("{what}: y"), &y, &expected, 1e-5);
    assert_close(&format!("{what}: dx"), &dx, &gradients.dx, 1e-5);
    assert_close(&format!("{what}: dw"), &dw, &gradients.dw, 1e-5);
    assert_close(&format!("{what}: db"), &db, &gradients.db, 1e-5);
    [y, dx, dw, db]
}

/// That a case gives the reference's values, and the same bits for any number of workers.
pub(crate) fn check(run: impl Fn(usize, bool) -> [Vec<f32>; 4]) {
    let bits = |results: [Vec<f32>; 4]| results.map(|v| v.iter().map(|x| x.to_bits()).collect::<Vec<u32>>());
    run(3, true);
    let one = bits(run(1, false));
    for workers in [2, 5] {
        assert!(one == bits(run(workers, false)), "{workers} workers give other bits than one");
    }
}

#[test]
fn values_and_gradients_are_those_of_the_reference_for_any_number_of_workers() {
    let scratch = [forward_scratch, data_gradient_scratch, weight::scratch];
    for case in CASES {
        check(|workers, relu| {
            run::<Conv2dForward, Conv2dDataGradient, Conv2dWeightGradient>(case, false, scratch, workers, relu)
        });
    }
}
