//! Networks: layers, the plan that lowers them to operations, parameters, the trainer, checkpoints. Knows no device.
