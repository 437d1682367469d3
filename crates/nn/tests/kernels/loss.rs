use crate::{alike, bits};
use alexnode_core::{Backend, Kernel, StepState, kernel::define, state::Totals};
use alexnode_nn::{
    loss::{LossParams, SoftmaxCrossEntropyEval, SoftmaxCrossEntropyTrain},
    testing::{Rng, alone::run_kernel, compare, numeric_gradient, reference, wide},
};

/// A batch in front of the loss.
struct Batch {
    classes: usize,
    logits_ld: usize,
    /// With gaps.
    logits: Vec<f32>,
    labels: Vec<i32>,
    state: StepState,
    totals: Totals,
    /// dlogits or probabilities.
    out: Vec<f32>,
}

impl Batch {
    fn new(rows: &[Vec<f32>], labels: &[i32]) -> Self {
        let (classes, gap) = (rows[0].len(), 3);
        let mut logits: Vec<f32> = rows.iter().flat_map(|row| [row.clone(), vec![f32::NAN; gap]].concat()).collect();
        logits.truncate(logits.len() - gap);
        Self {
            classes,
            logits_ld: classes + gap,
            logits,
            labels: labels.to_vec(),
            state: StepState { valid: rows.len() as u32, views: 1, step: 41, ..StepState::default() },
            totals: Totals::default(),
            out: vec![f32::NAN; rows.len() * classes],
        }
    }
    fn run<K: Kernel<Params = LossParams>>(&mut self, backend: &mut dyn Backend) {
        let batch = self.labels.len() as i32;
        let params = LossParams { batch, classes: self.classes as i32, logits_ld: self.logits_ld as i32 };
        // Two rates behind the state, as in a run.
        let mut state = [bytemuck::bytes_of(&self.state), &[7; 8]].concat();
        let mut scratch = vec![0xff; K::scratch(&params, backend.slots()[0].engine)];
        let buffers: &mut [&mut [u8]] = &mut [
            bytemuck::cast_slice_mut(&mut self.logits),
            bytemuck::cast_slice_mut(&mut self.labels),
            &mut state,
            bytemuck::bytes_of_mut(&mut self.totals),
            bytemuck::cast_slice_mut(&mut self.out),
            &mut scratch,
        ];
        run_kernel(define::<K>(), params, buffers, backend);
        self.state = StepState::of(&state);
        assert_eq!(state[64..], [7; 8]);
    }
    fn train(&mut self, backend: &mut dyn Backend) {
        self.run::<SoftmaxCrossEntropyTrain>(backend);
    }
    /// All that a kernel may change.
    fn bits(&self) -> Vec<u32> {
        let (totals, state) = (bytemuck::cast_slice(bytemuck::bytes_of(&self.totals)), bytemuck::bytes_of(&self.state));
        [&bits(&self.out), totals, bytemuck::cast_slice(state)].concat()
    }
    fn evaluate(&mut self, backend: &mut dyn Backend, rows: &[Vec<f32>], view: u32, views: u32) {
        for (i, row) in rows.iter().enumerate() {
            self.logits[i * self.logits_ld..][..self.classes].copy_from_slice(row);
        }
        (self.state.view, self.state.views) = (view, views);
        self.run::<SoftmaxCrossEntropyEval>(backend);
    }
}

fn random_rows(rows: usize, classes: usize, seed: u64) -> Vec<Vec<f32>> {
    let mut rng = Rng::new(seed);
    (0..rows).map(|_| rng.normals(classes, 2.0)).collect()
}

fn loss(row: &[f64], label: usize) -> f64 {
    -reference::softmax(row)[label].ln()
}

/// Rows, classes, valid rows.
const SIZES: [(usize, usize, usize); 9] =
    [(1, 1, 1), (1, 2, 1), (5, 10, 5), (4, 7, 3), (3, 1000, 2), (2, 5, 0), (127, 3, 127), (300, 4, 257), (3, 129, 3)];

#[test]
fn loss_errors_and_gradient() {
    for (rows, classes, valid) in SIZES {
        let logits = random_rows(rows, classes, 14);
        let labels: Vec<i32> = (0..rows).map(|i| (i * 5 % classes) as i32).collect();
        let before = Totals { loss: 100.0, top1_errors: 1.0, top5_errors: 0.5, samples: 3.0 };
        let mut want = before;
        let mut gradient = Vec::new();
        for (i, (row, label)) in logits.iter().zip(&labels).enumerate() {
            if i >= valid {
                gradient.extend(vec![0.0; classes]);
                continue;
            }
            let (row, label) = (wide(row), *label as usize);
            let p = reference::softmax(&row);
            want.loss += loss(&row, label);
            want.top1_errors += 1.0 - reference::hit(&p, label, 1);
            want.top5_errors += 1.0 - reference::hit(&p, label, 5);
            want.samples += 1.0;
            // The slope of the loss itself, not a formula of it.
            gradient.extend(numeric_gradient(|row| vec![loss(row, label)], &row, &[1.0 / valid as f64]));
        }
        alike(|backend| {
            let mut batch = Batch::new(&logits, &labels);
            batch.state.valid = valid as u32;
            batch.totals = before;
            batch.train(backend);
            compare("dlogits", &batch.out, &gradient, 1e-4, 1e-7);
            assert!((batch.totals.loss - want.loss).abs() < 1e-9, "{:?} against {want:?}", batch.totals);
            assert_eq!(Totals { loss: 0.0, ..batch.totals }, Totals { loss: 0.0, ..want });
            assert_eq!(batch.state.diverged, 0);
            batch.bits()
        });
    }
}

#[test]
fn classes_that_tie_share_the_credit() {
    alike(|backend| {
        // Everything ties: 1 of 10, 5 of 10.
        let mut batch = Batch::new(&[vec![0.5; 10]], &[3]);
        batch.train(backend);
        assert_eq!((batch.totals.top1_errors, batch.totals.top5_errors), (1.0 - 1.0 / 10.0, 1.0 - 5.0 / 10.0));
        // Fewer than five classes always hold the label.
        let mut batch = Batch::new(&[vec![0.5; 4]], &[3]);
        batch.train(backend);
        assert_eq!((batch.totals.top1_errors, batch.totals.top5_errors), (0.75, 0.0));
        // Three above, the label and two others tie for places 4 to 6: two of the three win.
        let row = vec![9.0, 8.0, 7.0, 1.0, 1.0, 1.0, 0.0, -1.0];
        let mut batch = Batch::new(&[row.clone(), row], &[4, 0]);
        batch.train(backend);
        assert_eq!(batch.totals.top1_errors, 1.0);
        assert!((batch.totals.top5_errors - (1.0 - 2.0 / 3.0)).abs() < 1e-12);
        batch.bits()
    });
}

#[test]
fn a_small_probability_is_not_an_infinite_loss() {
    alike(|backend| {
        let mut batch = Batch::new(&[vec![0.0, 1000.0, -5.0]], &[0]);
        batch.train(backend);
        assert!((batch.totals.loss - 1000.0).abs() < 1e-9 && batch.state.diverged == 0);
        assert_eq!(batch.out, [-1.0, 1.0, 0.0]);
        // Large numbers do not overflow.
        let mut batch = Batch::new(&[vec![3e38, 3e38]], &[0]);
        batch.train(backend);
        assert!((batch.totals.loss - 2f64.ln()).abs() < 1e-12);
        let mut batch = Batch::new(&[vec![0.0; 3]], &[0]);
        batch.evaluate(backend, &[vec![0.0, 1000.0, -5.0]], 0, 1);
        assert!((batch.totals.loss - 1000.0).abs() < 1e-9);
        batch.bits()
    });
}

#[test]
fn a_loss_that_is_not_finite_is_remembered_once() {
    alike(|backend| {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut batch = Batch::new(&[vec![0.0, 1.0], vec![bad, 1.0]], &[0, 1]);
            batch.train(backend);
            assert_eq!(batch.state.diverged, 42);
            assert!(!batch.totals.loss.is_finite());
            batch.state.step = 50;
            batch.train(backend);
            assert_eq!(batch.state.diverged, 42);
        }
        // Of a padded row nothing counts.
        let mut batch = Batch::new(&[vec![0.0, 1.0], vec![f32::NAN; 2]], &[0, 1]);
        batch.state.valid = 1;
        batch.train(backend);
        assert_eq!((batch.state.diverged, batch.totals.samples), (0, 1.0));
        assert_eq!(batch.out[2..], [0.0; 2]);
        // No minus infinity at the label either.
        let mut batch = Batch::new(&[vec![f32::NEG_INFINITY, 1.0]], &[0]);
        batch.train(backend);
        assert_eq!(batch.state.diverged, 42);
        batch.bits()
    });
}

#[test]
fn a_label_outside_of_the_classes_is_noticed() {
    alike(|backend| {
        for label in [-1, 2, i32::MAX, i32::MIN] {
            let mut batch = Batch::new(&[vec![0.0, 1.0]], &[label]);
            batch.train(backend);
            assert_eq!((batch.state.diverged, batch.totals.top1_errors), (42, 1.0));
        }
        Vec::new()
    });
}

#[test]
fn evaluation_averages_the_views() {
    alike(|backend| {
        let (rows, classes, views) = (3, 8, 10);
        let labels = [2, 7, 0];
        let mut batch = Batch::new(&random_rows(rows, classes, 0), &labels);
        batch.state.valid = 2;
        let mut mean = vec![0.0; rows * classes];
        for view in 0..views {
            let logits = random_rows(rows, classes, 100 + u64::from(view));
            for (i, p) in logits.iter().flat_map(|row| reference::softmax(&wide(row))).enumerate() {
                mean[i] += p / f64::from(views);
            }
            assert_eq!(batch.totals, Totals::default(), "before view {view}");
            batch.evaluate(backend, &logits, view, views);
        }
        compare("probabilities", &batch.out, &mean, 1e-5, 1e-8);
        let mut want = Totals::default();
        for (p, label) in mean.chunks(classes).zip(labels).take(2) {
            want.loss -= p[label as usize].ln();
            want.top1_errors += 1.0 - reference::hit(p, label as usize, 1);
            want.top5_errors += 1.0 - reference::hit(p, label as usize, 5);
            want.samples += 1.0;
        }
        assert!((batch.totals.loss - want.loss).abs() < 1e-5);
        assert_eq!(Totals { loss: 0.0, ..batch.totals }, Totals { loss: 0.0, ..want });
        // The next batch begins anew.
        let logits = random_rows(rows, classes, 3);
        batch.evaluate(backend, &logits, 0, 1);
        let p: Vec<f64> = logits.iter().flat_map(|row| reference::softmax(&wide(row))).collect();
        compare("probabilities of one view", &batch.out, &p, 1e-6, 1e-9);
        assert_eq!(batch.totals.samples, 4.0);
        batch.bits()
    });
}

/// An evaluation that fails must not stop the training around it.
#[test]
fn evaluation_leaves_the_state_alone() {
    alike(|backend| {
        let mut batch = Batch::new(&[vec![0.0, 0.0]], &[0]);
        let before = batch.state;
        batch.evaluate(backend, &[vec![f32::NAN, 0.0]], 0, 1);
        assert_eq!(batch.state, before);
        assert!(batch.totals.loss.is_nan());
        batch.bits()
    });
}

#[test]
fn the_same_batch_gives_the_same_bits() {
    let logits = random_rows(200, 50, 15);
    let labels: Vec<i32> = (0..200).map(|i| i % 50).collect();
    alike(|backend| {
        let mut run = || {
            let mut batch = Batch::new(&logits, &labels);
            batch.train(backend);
            batch.bits()
        };
        let first = run();
        assert_eq!(run(), first);
        first
    });
}
