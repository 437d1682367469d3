use super::kernels::{
    Local2dDataGradient, Local2dForward, Local2dWeightGradient, data_scratch, forward_scratch, weight_scratch,
};
use crate::layers::conv2d::tests::{Case, check, run};

const CASES: &[Case] = &[
    Case { batch: 1, input: [1, 1, 1], out: 1, kernel: 1, stride: 1, padding: 0, groups: 1, gap: 0 },
    Case { batch: 3, input: [1, 1, 5], out: 17, kernel: 3, stride: 1, padding: 1, groups: 1, gap: 2 },
    Case { batch: 50, input: [6, 6, 16], out: 32, kernel: 3, stride: 1, padding: 1, groups: 1, gap: 0 },
    Case { batch: 7, input: [5, 6, 6], out: 10, kernel: 3, stride: 2, padding: 0, groups: 2, gap: 3 },
    // Input pixels that no window sees.
    Case { batch: 2, input: [10, 11, 2], out: 4, kernel: 2, stride: 3, padding: 1, groups: 1, gap: 1 },
];

#[test]
fn values_and_gradients_are_those_of_the_reference_for_any_number_of_workers() {
    let scratch = [forward_scratch, data_scratch, weight_scratch];
    for case in CASES {
        check(|workers, relu| {
            run::<Local2dForward, Local2dDataGradient, Local2dWeightGradient>(case, true, scratch, workers, relu)
        });
    }
}
