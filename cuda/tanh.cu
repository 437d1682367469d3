// y = tanh(x), in place; its gradient is dy (1 - y^2) (crates/nn/src/layers/tanh.rs).
#include "pointwise.cuh"

KERNEL(256) tanh_forward(PointwiseParams params, float* y) {
    CONSTANTS(PointwiseParams, p, params);
    const size_t i = item();
    if (i >= elements(p)) return;
    float& value = y[place(p, i, p.y_ld)];
    value = tanhf(value);
}

KERNEL(256) tanh_backward(PointwiseParams params, const float* y, float* dy) {
    CONSTANTS(PointwiseParams, p, params);
    const size_t i = item();
    if (i >= elements(p)) return;
    const float value = y[place(p, i, p.y_ld)];
    dy[place(p, i, p.dy_ld)] *= fmaf(-value, value, 1.0f);
}
