//! Networks: layers, the plan that lowers them to operations, parameters, the trainer, checkpoints. Knows no device.
//!
//! A network is written once, as a chain of [`layers`]; where the towers do not talk it has `groups`. [`plan`] places it on one
//! or two slots and lowers every layer *once* to operations on planned memory; a step only walks that list.
//!
//! | module | about |
//! |---|---|
//! | [`layers`] | one file per layer: its specification, shapes, parameters, kernels and how it lowers to them |
//! | [`lower`] | what a layer lowers itself with: tensors, values, launches |
//! | [`network`] | the specification of a network, checked |

pub mod augment;
pub mod checkpoint;
pub mod layers;
pub mod loss;
pub mod lower;
mod memory;
pub mod network;
pub mod ops;
pub mod parameter;
pub mod plan;
pub mod resident;
pub mod sgd;
mod stages;
pub mod testing;
pub mod trainer;
