use crate::{alike, bits};
use alexnode_core::{Backend, Kernel, StepState, kernel::define, state::Totals};
use alexnode_nn::{
    class_weights::{ClassWeights, ClassWeightsParams},
    loss::{LossParams, SoftmaxCrossEntropyTrain},
    testing::{Rng, alone::run_kernel, compare, numeric_gradient, reference, wide},
};

/// Runs the kernel on `dlogits` with so many valid rows.
fn weigh(labels: &[i32], weights: &[f32], valid: u32, dlogits: &mut [f32], backend: &mut dyn Backend) {
    let params = ClassWeightsParams { batch: labels.len() as i32, classes: weights.len() as i32 };
    let mut state = StepState { valid, ..StepState::default() };
    let (mut labels, mut weights) = (labels.to_vec(), weights.to_vec());
    let buffers: &mut [&mut [u8]] = &mut [
        bytemuck::cast_slice_mut(&mut labels),
        bytemuck::cast_slice_mut(&mut weights),
        bytemuck::bytes_of_mut(&mut state),
        bytemuck::cast_slice_mut(dlogits),
    ];
    run_kernel(define::<ClassWeights>(), params, buffers, backend);
}

/// Loss and weights, where there are some, as a step issues them: dlogits, and the totals.
fn step(
    logits: &[f32],
    labels: &[i32],
    weights: Option<&[f32]>,
    valid: u32,
    backend: &mut dyn Backend,
) -> (Vec<f32>, Totals) {
    let (batch, classes) = (labels.len() as i32, (logits.len() / labels.len()) as i32);
    let params = LossParams { batch, classes, logits_ld: classes };
    let mut state = StepState { valid, views: 1, ..StepState::default() };
    let mut scratch = vec![0xff; SoftmaxCrossEntropyTrain::scratch(&params, backend.slots()[0].engine)];
    let (mut totals, mut dlogits) = (Totals::default(), vec![f32::NAN; logits.len()]);
    let (mut logits, mut ids) = (logits.to_vec(), labels.to_vec());
    let buffers: &mut [&mut [u8]] = &mut [
        bytemuck::cast_slice_mut(&mut logits),
        bytemuck::cast_slice_mut(&mut ids),
        bytemuck::bytes_of_mut(&mut state),
        bytemuck::bytes_of_mut(&mut totals),
        bytemuck::cast_slice_mut(&mut dlogits),
        &mut scratch,
    ];
    run_kernel(define::<SoftmaxCrossEntropyTrain>(), params, buffers, backend);
    if let Some(weights) = weights {
        weigh(labels, weights, valid, &mut dlogits, backend);
    }
    (dlogits, totals)
}

/// Rows, classes, valid rows.
const SIZES: [(usize, usize, usize); 7] =
    [(1, 1, 1), (1, 2, 1), (5, 10, 5), (3, 1000, 2), (2, 5, 0), (127, 3, 126), (300, 7, 257)];

/// The slope of the mean of `weight[label] * -ln p(label)` itself, not a formula of it.
#[test]
fn the_gradient_is_that_of_the_weighed_loss() {
    for (rows, classes, valid) in SIZES {
        let mut rng = Rng::new(31);
        let logits = rng.normals(rows * classes, 2.0);
        let labels: Vec<i32> = (0..rows).map(|i| (i * 5 % classes) as i32).collect();
        let weights: Vec<f32> = rng.normals(classes, 1.0).iter().map(|w| w.abs()).collect();
        let (mut loss, mut gradient) = (0.0, Vec::new());
        for (i, (row, label)) in logits.chunks(classes).zip(&labels).enumerate() {
            let (row, label) = (wide(row), *label as usize);
            let of = |row: &[f64]| -reference::softmax(row)[label].ln();
            if i >= valid {
                gradient.extend(vec![0.0; classes]);
                continue;
            }
            loss += of(&row);
            let share = f64::from(weights[label]) / valid as f64;
            gradient.extend(numeric_gradient(|row| vec![of(row)], &row, &[share]));
        }
        alike(|backend| {
            let (dlogits, totals) = step(&logits, &labels, Some(&weights), valid as u32, backend);
            compare("dlogits", &dlogits, &gradient, 1e-4, 1e-7);
            // What is told stays the loss without weights.
            assert!((totals.loss - loss).abs() < 1e-9 && totals.samples == valid as f64, "{totals:?}, loss {loss}");
            bits(&dlogits)
        });
    }
}

#[test]
fn rows_that_do_not_count_and_labels_that_are_no_class_are_left_alone() {
    alike(|backend| {
        // Not read either: a weight of a row that does not count would be out of bounds.
        let mut dlogits = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0], [0.0, 0.0]].concat();
        weigh(&[1, -1, 2, 0, i32::MAX], &[3.0, 0.5], 4, &mut dlogits, backend);
        assert_eq!(dlogits, [0.5, 1.0, 3.0, 4.0, 5.0, 6.0, 21.0, 24.0, 0.0, 0.0]);
        let mut poisoned = [f32::NAN; 4];
        weigh(&[0, 1], &[2.0, 3.0], 0, &mut poisoned, backend);
        assert!(poisoned.iter().all(|d| d.is_nan()));
        Vec::new()
    });
}

#[test]
fn weights_of_1_change_no_bit() {
    let mut rng = Rng::new(32);
    let logits = rng.normals(64 * 33, 2.0);
    let labels: Vec<i32> = (0..64).map(|i| i % 33).collect();
    alike(|backend| {
        let (plain, _) = step(&logits, &labels, None, 61, backend);
        let (weighed, _) = step(&logits, &labels, Some(&[1.0; 33]), 61, backend);
        assert_eq!(bits(&weighed), bits(&plain));
        bits(&weighed)
    });
}
