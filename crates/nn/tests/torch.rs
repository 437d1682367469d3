//! Every layer, the loss, the update and a whole small network against numbers that PyTorch computed in double precision
//! (fixtures/make_fixtures.py).

use alexnode_core::{Shape, StepState, kernel::define, state::Totals};
use alexnode_cpu::CpuBackend;
use alexnode_nn::{
    layers::LayerSpec,
    loss::{LossParams, SoftmaxCrossEntropyEval, SoftmaxCrossEntropyTrain},
    sgd::{Sgd, SgdParams},
    testing::{alone::run_kernel, compare, probe::Probe},
};
use serde_json::{Value, json};

const RTOL: f64 = 3e-5;
const ATOL: f64 = 3e-6;

/// The cases of one operation.
fn cases(op: &str) -> Vec<Value> {
    let fixtures: Value = serde_json::from_str(include_str!("fixtures/layers.json")).unwrap();
    let cases: Vec<Value> = fixtures["cases"].as_array().unwrap().iter().filter(|c| c["op"] == op).cloned().collect();
    assert!(!cases.is_empty(), "no fixture for {op}");
    cases
}

fn name(case: &Value) -> String {
    format!("{}, {}", case["op"].as_str().unwrap(), case["name"].as_str().unwrap())
}

fn wide(tensor: &Value) -> Vec<f64> {
    tensor["data"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn floats(tensor: &Value) -> Vec<f32> {
    wide(tensor).into_iter().map(|v| v as f32).collect()
}

/// Batch and shape of one sample.
fn extents(tensor: &Value) -> (usize, Shape) {
    let extents: Vec<usize> =
        tensor["shape"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as usize).collect();
    match extents[..] {
        [n, c] => (n, Shape::vector(c)),
        [n, h, w, c] => (n, Shape::new(h, w, c)),
        _ => panic!("{extents:?}"),
    }
}

fn backend() -> Box<CpuBackend> {
    Box::new(CpuBackend::new(1, Some(2)).unwrap())
}

/// Runs the cases of a layer through the plan.
fn layer(op: &str) {
    for case in cases(op) {
        let name = name(&case);
        let mut spec = case["params"].clone();
        spec["type"] = json!(op);
        spec["name"] = json!("layer");
        if !case["weight"].is_null() {
            spec["weightInit"] = json!({ "type": "he" });
        }
        let spec: LayerSpec = serde_json::from_value(spec).unwrap_or_else(|error| panic!("{name}: {error}"));
        let (batch, shape) = extents(&case["x"]);
        let mut probe =
            Probe::new(vec![spec], shape, batch, backend()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(probe.network().output(0), extents(&case["y"]).1, "{name}: shape of the output");
        for parameter in ["weight", "bias"].into_iter().filter(|p| !case[p].is_null()) {
            probe.set_parameter(&format!("layer.{parameter}"), &floats(&case[parameter])).unwrap();
        }
        let outcome = probe.run(&floats(&case["x"]), &floats(&case["dy"])).unwrap();
        compare(&format!("{name}: y"), &outcome.y, &wide(&case["y"]), RTOL, ATOL);
        compare(&format!("{name}: dx"), &outcome.dx, &wide(&case["dx"]), RTOL, ATOL);
        for parameter in ["weight", "bias"].into_iter().filter(|p| !case[p].is_null()) {
            let got = &outcome.gradients[&format!("layer.{parameter}")];
            compare(&format!("{name}: d{parameter}"), got, &wide(&case[format!("d{parameter}")]), RTOL, ATOL);
        }
    }
}

macro_rules! layers {
    ($($test:ident $op:literal)*) => { $(#[test] fn $test() { layer($op); })* };
}
layers! {
    conv2d "conv2d"
    local2d "local2d"
    linear "linear"
    relu "relu"
    tanh "tanh"
    local_response_norm "localResponseNorm"
    map_response_norm "mapResponseNorm"
    max_pool2d "maxPool2d"
    avg_pool2d "avgPool2d"
}

#[test]
fn softmax_cross_entropy() {
    for case in cases("softmaxCrossEntropy") {
        let name = name(&case);
        let (batch, shape) = extents(&case["x"]);
        let params = LossParams { batch: batch as i32, classes: shape.c as i32, logits_ld: shape.c as i32 };
        let valid = case["params"]["valid"].as_u64().unwrap();
        let state = StepState { valid: valid as u32, views: 1, ..StepState::default() };
        let labels: Vec<i32> = case["labels"].as_array().unwrap().iter().map(|v| v.as_i64().unwrap() as i32).collect();
        for (kernel, want) in
            [(define::<SoftmaxCrossEntropyTrain>(), &case["dx"]), (define::<SoftmaxCrossEntropyEval>(), &case["y"])]
        {
            let (mut totals, mut out) = (Totals::default(), vec![f32::NAN; batch * shape.c]);
            let mut logits = bytemuck::cast_slice::<f32, u8>(&floats(&case["x"])).to_vec();
            let mut labels = bytemuck::cast_slice::<i32, u8>(&labels).to_vec();
            let mut state = bytemuck::bytes_of(&state).to_vec();
            let buffers: &mut [&mut [u8]] = &mut [
                &mut logits,
                &mut labels,
                &mut state,
                bytemuck::bytes_of_mut(&mut totals),
                bytemuck::cast_slice_mut(&mut out),
                &mut [],
            ];
            run_kernel(kernel, params, buffers, &mut CpuBackend::new(1, Some(2)).unwrap());
            compare(&format!("{name}: {}", kernel.name), &out, &wide(want), RTOL, 1e-8);
            let loss = case["loss"].as_f64().unwrap() * valid as f64;
            assert!((totals.loss - loss).abs() < 1e-6 * loss, "{name}: {totals:?}, loss {loss}");
            let errors = [&case["top1Errors"], &case["top5Errors"]].map(|v| v.as_f64().unwrap());
            assert_eq!([totals.top1_errors, totals.top5_errors, totals.samples], [errors[0], errors[1], valid as f64]);
        }
    }
}

#[test]
fn sgd() {
    for case in cases("sgd") {
        let number = |key: &str| case["params"][key].as_f64().unwrap() as f32;
        let mut weight = floats(&case["weight"]);
        let (momentum, decay) = (number("momentum"), number("weightDecay"));
        let params = SgdParams { rate: 0, count: weight.len() as u32, momentum, decay };
        let mut velocity = vec![0.0f32; weight.len()];
        for (step, update) in case["updates"].as_array().unwrap().iter().enumerate() {
            let lr = [update["lr"].as_f64().unwrap() as f32];
            let mut state = [bytemuck::bytes_of(&StepState::default()), bytemuck::cast_slice(&lr)].concat();
            let mut gradient = bytemuck::cast_slice::<f32, u8>(&floats(&update["gradient"])).to_vec();
            let buffers: &mut [&mut [u8]] = &mut [
                bytemuck::cast_slice_mut(&mut weight),
                &mut gradient,
                bytemuck::cast_slice_mut(&mut velocity),
                &mut state,
            ];
            run_kernel(define::<Sgd>(), params, buffers, &mut CpuBackend::new(1, Some(1)).unwrap());
            compare(&format!("weight after step {step}"), &weight, &wide(&update["weight"]), 1e-6, 1e-6);
            compare(&format!("velocity after step {step}"), &velocity, &wide(&update["velocity"]), 1e-6, 1e-6);
        }
    }
}

/// The layers together, as they feed each other; the gradient of the loss enters at the top.
#[test]
fn a_network() {
    for case in cases("network") {
        let layers: Vec<LayerSpec> = serde_json::from_value(case["network"]["layers"].clone()).unwrap();
        let (batch, shape) = extents(&case["x"]);
        let mut probe = Probe::new(layers.clone(), shape, batch, backend()).unwrap();
        for (index, layer) in layers.iter().enumerate() {
            let want: Vec<usize> = serde_json::from_value(case["shapes"][layer.layer().name()].clone()).unwrap();
            let shape = probe.network().output(index);
            let got = if want.len() == 1 { vec![shape.c] } else { vec![shape.h, shape.w, shape.c] };
            assert_eq!(got, want, "shape of {}", layer.layer().name());
        }
        let parameters = case["parameters"].as_object().unwrap();
        for (name, parameter) in parameters {
            probe.set_parameter(name, &floats(&parameter["value"])).unwrap();
        }
        let logits = wide(&case["logits"]);
        let classes = logits.len() / batch;
        let mut loss = 0.0;
        let mut dlogits = Vec::new();
        for (row, label) in logits.chunks(classes).zip(case["labels"].as_array().unwrap()) {
            let label = label.as_u64().unwrap() as usize;
            let mut p = alexnode_nn::testing::reference::softmax(row);
            loss -= p[label].ln() / batch as f64;
            p[label] -= 1.0;
            dlogits.extend(p.into_iter().map(|p| (p / batch as f64) as f32));
        }
        assert!((loss - case["loss"].as_f64().unwrap()).abs() < 1e-7, "{loss}");
        let outcome = probe.run(&floats(&case["x"]), &dlogits).unwrap();
        compare("logits", &outcome.y, &logits, RTOL, 1e-5);
        compare("gradient by the image", &outcome.dx, &wide(&case["dx"]), 1e-4, 1e-5);
        for (name, parameter) in parameters {
            compare(name, &outcome.gradients[name], &wide(&parameter["gradient"]), 1e-4, 1e-5);
        }
        assert_eq!(outcome.gradients.len(), parameters.len());
    }
}
