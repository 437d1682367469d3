// y = max(0, x), in place; its gradient passes where y > 0 (crates/nn/src/layers/relu.rs).
#include "pointwise.cuh"

KERNEL(256) relu_forward(PointwiseParams params, float* y) {
    CONSTANTS(PointwiseParams, p, params);
    const size_t i = item();
    if (i >= elements(p)) return;
    float& value = y[place(p, i, p.y_ld)];
    value = relu(value);
}

KERNEL(256) relu_backward(PointwiseParams params, const float* y, float* dy) {
    CONSTANTS(PointwiseParams, p, params);
    const size_t i = item();
    if (i >= elements(p)) return;
    float& gradient = dy[place(p, i, p.dy_ld)];
    gradient = y[place(p, i, p.y_ld)] > 0.0f ? gradient : 0.0f;
}
