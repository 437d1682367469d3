//! Files for other programs.
//!
//! | module | about |
//! |---|---|
//! | [`onnx`] | a trained network as an ONNX model |
//! | [`tensorboard`] | TensorBoard's event records |
//!
//! Both formats are protocol buffers, encoded by `prost` from messages with the fields that are used: nothing is generated, and no compiler of schemas is
//! needed to build.

pub mod onnx;
pub mod tensorboard;
