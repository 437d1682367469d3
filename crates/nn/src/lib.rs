//! Networks: layers, the plan that lowers them to operations, parameters, the trainer, checkpoints. Knows no device.
//!
//! A network is written once, as a chain of [`layers`]; where the towers do not talk it has `groups`. [`plan`] places it on one
//! or two slots and lowers every layer *once* to operations on planned memory; a step only walks that list.
//!
//! | module | about |
//! |---|---|
//! | [`network`] | the specification of a network, checked |
//! | [`layers`] | one file per layer: its specification, shapes, parameters, kernels and how it lowers to them |
//! | [`augment`], [`loss`], [`class_weights`], [`sgd`], [`ops`] | the kernels around the layers: input, loss, its weights, update, gradient sums |
//! | `fusions` | which neighbouring layers become one operation |
//! | [`lower`] | what a layer lowers itself with: tensors, values, launches |
//! | [`placement`] | how a network lies on the slots |
//! | [`request`] | what a plan is asked to be |
//! | [`plan`] | a network lowered to operations on planned memory |
//! | [`resident`] | what resides on the slots between steps |
//! | `room` | whether all that fits on the devices |
//! | [`parameter`] | parameter tensors outside of any slot: initial values, shares of towers, order of axes in files |
//! | [`describe`] | the layer table, the exact memory and the counters, without allocating any of it |
//! | [`timing`] | how long a step takes, and each of its operations |
//! | [`trainer`] | steps, evaluations, diagnoses |
//! | [`model`] | a trained network that answers |
//! | [`report`], [`outcomes`] | what is told of steps and evaluations, and of each image of one |
//! | [`statistics`] | sizes of weights and updates, and units that never answer |
//! | `evaluate`, `program`, `weights` | what both share: loss and errors over many images, operations issued again and again, tensors to and from files |
//! | [`ceilings`] | what a device can do at most |
//! | [`checkpoint`] | files of weights and momentum |
//! | [`tensors`] | safetensors files of other programs |
//! | [`testing`] | naive f64 references, and a probe for single layers |

pub mod augment;
pub mod ceilings;
pub mod checkpoint;
pub mod class_weights;
pub mod describe;
mod evaluate;
mod fusions;
pub mod layers;
pub mod loss;
pub mod lower;
mod memory;
pub mod model;
pub mod network;
pub mod ops;
pub mod outcomes;
pub mod parameter;
pub mod placement;
pub mod plan;
mod program;
pub mod report;
pub mod request;
pub mod resident;
mod room;
pub mod sgd;
mod stages;
pub mod statistics;
pub mod tensors;
pub mod testing;
pub mod tile;
pub mod timing;
pub mod trainer;
mod weights;
