// y = the largest element of each window, and its place there: row * size + column. On ties it is the first in scan order; a NaN wins.
// dx = the sum of dy over the windows that chose the element (crates/nn/src/layers/max_pool2d.rs).
#include "max_pool2d.cuh"

// Element `i` of this block's row of windows.
INLINE Largest largest(const PoolParams& p, const float* x, unsigned i) {
    const size_t image = blockIdx.x / unsigned(p.p);
    const int channel = i % unsigned(p.c);
    return largest(p, blockIdx.x % unsigned(p.p), i / unsigned(p.c), [&](int row, int column) {
        return x[((image * p.h + row) * p.w + column) * p.x_ld + channel];
    });
}

// Where it belongs in y.
INLINE size_t output(const PoolParams& p, unsigned i) {
    return (size_t(blockIdx.x) * p.q + i / unsigned(p.c)) * p.y_ld + i % unsigned(p.c);
}

KERNEL(256) max_pool2d_forward(PoolParams params, const float* x, float* y, unsigned char* places) {
    CONSTANTS(PoolParams, p, params);
    const unsigned row = unsigned(p.q) * p.c;
    for (unsigned i = row_item(); i < row; i += row_step()) {
        const Largest best = largest(p, x, i);
        y[output(p, i)] = best.value;
        places[size_t(blockIdx.x) * row + i] = (unsigned char)best.place;
    }
}

KERNEL(256) max_pool2d_inference(PoolParams params, const float* x, float* y) {
    CONSTANTS(PoolParams, p, params);
    for (unsigned i = row_item(); i < unsigned(p.q) * p.c; i += row_step()) y[output(p, i)] = largest(p, x, i).value;
}

KERNEL(256) max_pool2d_backward(PoolParams params, const unsigned char* places, const float* dy, float* dx) {
    CONSTANTS(PoolParams, p, params);
    const size_t image = blockIdx.x / unsigned(p.h);
    const int row = blockIdx.x % unsigned(p.h);
    for (unsigned i = row_item(); i < unsigned(p.w) * p.c; i += row_step()) {
        const int column = i / unsigned(p.c), channel = i % unsigned(p.c);
        dx[(size_t(blockIdx.x) * p.w + column) * p.x_ld + channel] = collected(p, places, dy, image, row, column, channel);
    }
}
