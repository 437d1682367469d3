use crate::{bits, processor};
use alexnode_core::{StepState, kernel::define};
use alexnode_nn::{
    sgd::{Sgd, SgdParams},
    testing::{Rng, alone::run_kernel, compare, wide},
};

struct Tensor {
    weight: Vec<f32>,
    momentum: Vec<f32>,
}

/// One update; the tensor's rate is the second of three.
fn update(tensor: &mut Tensor, gradient: &[f32], lr: f32, diverged: u32, workers: usize) {
    let state = StepState { diverged, ..StepState::default() };
    let mut state = [bytemuck::bytes_of(&state), bytemuck::cast_slice(&[9.0f32, lr, 7.0])].concat();
    let mut gradient = gradient.to_vec();
    let buffers: &mut [&mut [u8]] = &mut [
        bytemuck::cast_slice_mut(&mut tensor.weight),
        bytemuck::cast_slice_mut(&mut gradient),
        bytemuck::cast_slice_mut(&mut tensor.momentum),
        &mut state,
    ];
    let params = SgdParams { rate: 1, momentum: 0.9, decay: 0.0005 };
    run_kernel(define::<Sgd>(), params, buffers, &mut processor(workers));
}

/// The rate changes between the steps: it is inside the velocity, so old steps keep their old rate.
#[test]
fn three_steps_follow_the_paper() {
    for n in [1, 7, 5000, 70_001] {
        let mut results = Vec::new();
        for workers in [1, 2, 3] {
            let mut rng = Rng::new(17);
            let mut tensor = Tensor { weight: rng.normals(n, 1.0), momentum: rng.normals(n, 0.1) };
            let (mut w, mut v) = (wide(&tensor.weight), wide(&tensor.momentum));
            for lr in [0.1, 0.1, 0.01] {
                let gradient = rng.normals(n, 1.0);
                update(&mut tensor, &gradient, lr, 0, workers);
                for i in 0..n {
                    let lr = f64::from(lr);
                    v[i] = 0.9 * v[i] - 0.0005 * lr * w[i] - lr * f64::from(gradient[i]);
                    w[i] += v[i];
                }
            }
            compare("momentum", &tensor.momentum, &v, 1e-5, 1e-6);
            compare("weight", &tensor.weight, &w, 1e-5, 1e-6);
            results.push((bits(&tensor.weight), bits(&tensor.momentum)));
        }
        assert!(results.iter().all(|r| *r == results[0]), "the number of workers shows");
    }
}

#[test]
fn a_rate_of_0_and_a_diverged_loss_change_nothing() {
    for (lr, diverged) in [(0.0, 0), (0.1, 1), (0.1, 42)] {
        let mut tensor = Tensor { weight: vec![1.0; 10], momentum: vec![0.5; 10] };
        update(&mut tensor, &[f32::NAN; 10], lr, diverged, 2);
        assert_eq!((tensor.weight, tensor.momentum), (vec![1.0; 10], vec![0.5; 10]));
    }
}
