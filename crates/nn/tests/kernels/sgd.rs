use crate::{alike, bits};
use alexnode_core::{Backend, Launch, SlotId, StepState, View, kernel::define};
use alexnode_nn::{
    sgd::{Sgd, SgdParams},
    testing::{Rng, alone::run_kernel, compare, wide},
};

struct Tensor {
    weight: Vec<f32>,
    momentum: Vec<f32>,
}

/// One update; the tensor's rate is the second of three.
fn update(tensor: &mut Tensor, gradient: &[f32], lr: f32, diverged: u32, backend: &mut dyn Backend) {
    let state = StepState { diverged, ..StepState::default() };
    let mut state = [bytemuck::bytes_of(&state), bytemuck::cast_slice(&[9.0f32, lr, 7.0])].concat();
    let (count, mut gradient) = (gradient.len() as u32, gradient.to_vec());
    let buffers: &mut [&mut [u8]] = &mut [
        bytemuck::cast_slice_mut(&mut tensor.weight),
        bytemuck::cast_slice_mut(&mut gradient),
        bytemuck::cast_slice_mut(&mut tensor.momentum),
        &mut state,
    ];
    let params = SgdParams { rate: 1, count, momentum: 0.9, decay: 0.0005 };
    run_kernel(define::<Sgd>(), params, buffers, backend);
}

/// The rate changes between the steps: it is inside the velocity, so old steps keep their old rate.
#[test]
fn three_steps_follow_the_paper() {
    for n in [1, 7, 5000, 70_001] {
        alike(|backend| {
            let mut rng = Rng::new(17);
            let mut tensor = Tensor { weight: rng.normals(n, 1.0), momentum: rng.normals(n, 0.1) };
            let (mut w, mut v) = (wide(&tensor.weight), wide(&tensor.momentum));
            for lr in [0.1, 0.1, 0.01] {
                let gradient = rng.normals(n, 1.0);
                update(&mut tensor, &gradient, lr, 0, backend);
                for i in 0..n {
                    let lr = f64::from(lr);
                    v[i] = 0.9 * v[i] - 0.0005 * lr * w[i] - lr * f64::from(gradient[i]);
                    w[i] += v[i];
                }
            }
            compare("momentum", &tensor.momentum, &v, 1e-5, 1e-6);
            compare("weight", &tensor.weight, &w, 1e-5, 1e-6);
            [bits(&tensor.weight), bits(&tensor.momentum)].concat()
        });
    }
}

#[test]
fn a_rate_of_0_and_a_diverged_loss_change_nothing() {
    for (lr, diverged) in [(0.0, 0), (0.1, 1), (0.1, 42)] {
        alike(|backend| {
            let mut tensor = Tensor { weight: vec![1.0; 10], momentum: vec![0.5; 10] };
            update(&mut tensor, &[f32::NAN; 10], lr, diverged, backend);
            assert_eq!((tensor.weight, tensor.momentum), (vec![1.0; 10], vec![0.5; 10]));
            Vec::new()
        });
    }
}

/// Tensors that begin anywhere, with neighbours that stay as they are.
#[test]
fn the_place_in_memory_does_not_show() {
    const COUNT: usize = 21;
    alike(|backend| {
        let mut rng = Rng::new(18);
        let values = rng.normals(3 * COUNT, 1.0);
        let state = [bytemuck::bytes_of(&StepState::default()), bytemuck::bytes_of(&0.1f32)].concat();
        let params = SgdParams { rate: 0, count: COUNT as u32, momentum: 0.9, decay: 0.0005 };
        let mut results = Vec::new();
        for first in [[0, 0, 0], [1, 1, 1], [2, 2, 2], [3, 0, 1], [0, 0, 2]] {
            let mut put = |bytes: &[u8], at: usize, length: usize| {
                let buffer = backend.alloc(SlotId(0), bytes.len()).unwrap();
                backend.upload(View { buffer, offset: 0, bytes: bytes.len() }, bytes).unwrap();
                View { buffer, offset: at, bytes: length }
            };
            let mut tensor = |i: usize| {
                let mut memory = [f32::NAN; COUNT + 5];
                memory[first[i]..][..COUNT].copy_from_slice(&values[i * COUNT..][..COUNT]);
                put(bytemuck::cast_slice(&memory), first[i] * 4, COUNT * 4)
            };
            let [weight, gradient, momentum] = [tensor(0), tensor(1), tensor(2)];
            let args = [weight, gradient, momentum, put(&state, 0, state.len())];
            backend.launch(SlotId(0), &Launch::new(define::<Sgd>(), bytemuck::bytes_of(&params), &args)).unwrap();
            let mut result = Vec::new();
            for (view, first) in [(weight, first[0]), (momentum, first[2])] {
                let mut memory = [0.0f32; COUNT + 5];
                let whole = View { offset: 0, bytes: size_of_val(&memory), ..view };
                backend.download(whole, bytemuck::cast_slice_mut(&mut memory)).unwrap();
                assert!(memory[..first].iter().chain(&memory[first + COUNT..]).all(|v| v.is_nan()));
                result.extend_from_slice(&memory[first..][..COUNT]);
            }
            assert!(result.iter().all(|v| v.is_finite()));
            for view in args {
                backend.free(view.buffer);
            }
            results.push(bits(&result));
        }
        assert!(results.iter().all(|r| *r == results[0]));
        results.swap_remove(0)
    });
}
