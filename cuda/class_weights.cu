// dlogits[row] *= weights[label of the row]: a loss that weighs samples by their class (crates/nn/src/class_weights.rs).
#include "common.cuh"

struct ClassWeightsParams {
    int batch, classes;
};

KERNEL(256) class_weights(ClassWeightsParams params, const int* labels, const float* weights, const StepState* state, float* dlogits) {
    CONSTANTS(ClassWeightsParams, p, params);
    const size_t i = item();
    if (i >= size_t(p.batch) * p.classes) return;
    const unsigned row = i / p.classes;
    // The gradient of the rows after the valid ones is 0, and their labels say nothing.
    if (row >= state->valid) return;
    const int label = labels[row];
    // One that is no class has made the loss a NaN already.
    if (label >= 0 && label < p.classes) dlogits[i] *= weights[label];
}
