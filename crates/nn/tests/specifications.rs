//! Networks that make no sense are refused before anything is computed, with a message that names the layer.

mod common;

use alexnode_core::{Error, Shape};
use alexnode_nn::{
    describe::describe,
    layers::{LayerSpec, local_response_norm::LocalResponseNorm, max_pool2d::MaxPool2d},
    network::Network,
};
use serde_json::{Value, json};

/// A field's wrong value, and what the message says of it.
type Wrong<'a> = (Value, &'a str);

/// `base` with the fields of `changes`.
fn with(base: &Value, changes: &Value) -> Value {
    let mut changed = base.clone();
    for (field, value) in changes.as_object().unwrap() {
        changed[field] = value.clone();
    }
    changed
}

/// What is wrong with a layer on images of `input`.
fn refused(layer: &Value, input: Shape) -> Error {
    let spec: LayerSpec = serde_json::from_value(layer.clone()).unwrap();
    Network::headless(vec![spec], input).err().unwrap_or_else(|| panic!("{layer} is taken"))
}

#[test]
fn layers_refuse_numbers_without_sense() {
    let he = json!({ "type": "he" });
    let conv2d = json!({ "type": "conv2d", "name": "it", "outChannels": 8, "kernelSize": 3, "weightInit": he });
    let local2d = with(&conv2d, &json!({ "type": "local2d" }));
    let linear = json!({ "type": "linear", "name": "it", "outFeatures": 8, "weightInit": he });
    let pool = json!({ "type": "maxPool2d", "name": "it", "kernelSize": 3, "stride": 2 });
    let mean = with(&pool, &json!({ "type": "avgPool2d" }));
    let across = json!({ "type": "localResponseNorm", "name": "it", "size": 5, "k": 2, "alpha": 1e-4, "beta": 0.75 });
    let within = with(&across, &json!({ "type": "mapResponseNorm" }));
    let dropout = json!({ "type": "dropout", "name": "it", "p": 0.5 });
    let windows = [
        (json!({ "kernelSize": 0 }), "window size 0"),
        (json!({ "stride": 0 }), "stride 0"),
        (json!({ "padding": 3 }), "padding 3 must be smaller"),
        (json!({ "kernelSize": 12 }), "does not fit into 10 pixels"),
        (json!({ "stride": 1u64 << 31 }), "at most 2147483647"),
        (json!({ "stride": u64::MAX }), "at most 2147483647"),
    ];
    let parameters = [
        (json!({ "weightInit": { "type": "normal", "std": -0.01 } }), "std of weightInit"),
        (json!({ "weightInit": { "type": "normal", "std": 1e39 } }), "std of weightInit"),
        (json!({ "biasInit": -1e39 }), "biasInit must be a finite number"),
        (json!({ "weightDecay": -5e-4 }), "weightDecay must be"),
        (json!({ "weightDecay": 1e39 }), "weightDecay must be"),
    ];
    let channels = [
        (json!({ "outChannels": 0 }), "outChannels must be at least 1"),
        (json!({ "groups": 0 }), "cannot be cut into 0 groups"),
        (json!({ "groups": 4 }), "6 input channels cannot be cut into 4"),
        (json!({ "groups": 3 }), "8 output channels cannot be cut into 3"),
        (json!({ "outChannels": 1u64 << 40 }), "weights are more than"),
        (json!({ "outChannels": u64::MAX }), "weights are more than"),
        (json!({ "kernelSize": 50_000, "padding": 49_999 }), "weights are more than"),
        (json!({ "kernelSize": i32::MAX, "padding": i32::MAX - 1 }), "weights are more than"),
    ];
    let features = [
        (json!({ "outFeatures": 0 }), "outFeatures must be at least 1"),
        (json!({ "outFeatures": 4_000_000 }), "4000000 x 10 x 10 x 6 weights are more than"),
    ];
    let norms = [
        (json!({ "size": 0 }), "size must lie between 1 and"),
        (json!({ "size": 1u64 << 31 }), "size must lie between 1 and"),
        (json!({ "k": 0 }), "k must be a positive number"),
        (json!({ "k": 1e39 }), "k must be a positive number"),
        (json!({ "alpha": -1e-4 }), "alpha and beta must"),
        (json!({ "alpha": 1e39 }), "alpha and beta must"),
        (json!({ "beta": -0.75 }), "alpha and beta must"),
    ];
    let groups = [(json!({ "groups": 0 }), "into 0 groups"), (json!({ "groups": 4 }), "into 4 groups")];
    let chances =
        [(json!({ "p": -0.1 }), "p must be"), (json!({ "p": 1 }), "p must be"), (json!({ "p": 1e39 }), "p must be")];
    let size = [(json!({ "kernelSize": 17, "padding": 16 }), "kernelSize 17 is larger than 16")];
    let tables: [(&Value, &[&[Wrong<'_>]]); 8] = [
        (&conv2d, &[&windows, &parameters, &channels]),
        (&local2d, &[&windows, &parameters, &channels]),
        (&linear, &[&parameters, &features]),
        (&pool, &[&windows, &size]),
        (&mean, &[&windows]),
        (&across, &[&norms, &groups]),
        (&within, &[&norms]),
        (&dropout, &[&chances]),
    ];
    let input = Shape::new(10, 10, 6);
    for (base, tables) in tables {
        let fits = Network::headless(vec![serde_json::from_value(base.clone()).unwrap()], input);
        assert!(fits.is_ok(), "{:?}", fits.err());
        for (changes, says) in tables.iter().copied().flatten() {
            let error = refused(&with(base, changes), input);
            let (code, message) = (error.code().as_str(), error.to_string());
            assert!(["ERR_USAGE", "ERR_SHAPE"].contains(&code), "{code}: {message}");
            assert!(message.starts_with("it (") && message.contains(says), "{changes}: {message}");
        }
    }
    let error = refused(&across, Shape::vector(2049)).to_string();
    assert!(error.contains("2049 channels in a group, at most 2048"), "{error}");
}

#[test]
fn a_batch_beyond_what_kernels_count_is_refused() {
    let batch = |batch| describe(common::network(), batch, false, &common::HOST);
    assert!(batch(10_000).is_ok());
    let none = batch(0).unwrap_err();
    assert_eq!(none.code().as_str(), "ERR_USAGE");
    for (size, says) in
        [(1_000_000, "conv1 (Conv2d): 1000000 x 12 x 12 x 16 outputs"), (usize::MAX, "numbers of images")]
    {
        let error = batch(size).unwrap_err();
        assert_eq!(error.code().as_str(), "ERR_SHAPE");
        assert!(error.to_string().contains(says), "{error}");
    }
    let mut spec = common::network();
    (spec.input.image_size, spec.input.crop_size) = (usize::MAX, 16);
    let error = describe(spec, 1, false, &common::HOST[..1]).unwrap_err();
    assert!(error.to_string().contains("numbers of an image"), "{error}");
}

#[test]
fn unknown_fields_are_refused_and_defaults_are_the_paper_s() {
    let pool: MaxPool2d = serde_json::from_value(json!({ "name": "pool1", "kernelSize": 3, "stride": 2 })).unwrap();
    assert_eq!((pool.padding, pool.ceil_mode), (0, true));
    let norm = json!({ "type": "localResponseNorm", "name": "lrn1", "size": 5, "k": 2, "alpha": 1e-4, "beta": 0.75 });
    let spec: LayerSpec = serde_json::from_value(norm).unwrap();
    assert!(matches!(
        spec,
        LayerSpec::LocalResponseNorm(LocalResponseNorm { alpha_divided_by_size: true, groups: 1, .. })
    ));
    for bad in [
        r#"{"type":"relu","name":"r","slope":1}"#,
        r#"{"type":"dropout","name":"d","p":0.5,"rate":1}"#,
        r#"{"type":"conv2d","name":"c","outChannels":1,"kernelSize":3,"weightInit":{"type":"he"},"dilation":1}"#,
        r#"{"type":"local2d","name":"c","outChannels":1,"kernelSize":3,"weightInit":{"type":"he"},"dilation":1}"#,
        r#"{"type":"linear","name":"f","outFeatures":1,"weightInit":{"type":"he"},"bias":1}"#,
        r#"{"type":"maxPool2d","name":"p","kernelSize":3,"stride":2,"kernel":3}"#,
        r#"{"type":"avgPool2d","name":"p","kernelSize":3,"stride":2,"ceil":true}"#,
        r#"{"type":"localResponseNorm","name":"n","size":5,"k":2,"alpha":1,"beta":1,"n":5}"#,
        r#"{"type":"mapResponseNorm","name":"n","size":5,"k":2,"alpha":1,"beta":1,"groups":2}"#,
        r#"{"type":"tanh","name":"t","a":1}"#,
    ] {
        let error = serde_json::from_str::<LayerSpec>(bad).unwrap_err().to_string();
        assert!(error.contains("unknown field"), "{bad}: {error}");
    }
}
