// y = the mean of what a window holds of the image; dx = the sum of dy / pixels over the windows that hold the pixel
// (crates/nn/src/layers/avg_pool2d.rs).
#include "pool.cuh"

INLINE float area(const Range& rows, const Range& columns) {
    return float((rows.end - rows.first) * (columns.end - columns.first));
}

KERNEL(256) avg_pool2d_forward(PoolParams params, const float* x, float* y) {
    CONSTANTS(PoolParams, p, params);
    const size_t image = blockIdx.x / unsigned(p.p);
    const Range rows = pixels(p, blockIdx.x % unsigned(p.p), p.h);
    for (unsigned i = row_item(); i < unsigned(p.q) * p.c; i += row_step()) {
        const int window = i / unsigned(p.c), channel = i % unsigned(p.c);
        const Range columns = pixels(p, window, p.w);
        float sum = 0.0f;
        for (int a = 0; a < most_pixels(p, p.h); a++) {
            for (int b = 0; b < most_pixels(p, p.w); b++) {
                const int row = rows.first + a, column = columns.first + b;
                const bool inside = row < rows.end && column < columns.end;
                sum += inside ? x[((image * p.h + row) * p.w + column) * p.x_ld + channel] : 0.0f;
            }
        }
        y[(size_t(blockIdx.x) * p.q + window) * p.y_ld + channel] = sum / area(rows, columns);
    }
}

KERNEL(256) avg_pool2d_backward(PoolParams params, const float* dy, float* dx) {
    CONSTANTS(PoolParams, p, params);
    const size_t image = blockIdx.x / unsigned(p.h);
    const Range rows = windows(p, blockIdx.x % unsigned(p.h), p.p);
    for (unsigned i = row_item(); i < unsigned(p.w) * p.c; i += row_step()) {
        const int column = i / unsigned(p.c), channel = i % unsigned(p.c);
        const Range columns = windows(p, column, p.q);
        float sum = 0.0f;
        for (int a = 0; a < most_windows(p, p.p); a++) {
            for (int b = 0; b < most_windows(p, p.q); b++) {
                const int row = rows.first + a, window = columns.first + b;
                const bool inside = row < rows.end && window < columns.end;
                const float gradient = inside ? dy[((image * p.p + row) * p.q + window) * p.y_ld + channel] : 0.0f;
                sum += gradient / (inside ? area(pixels(p, row, p.h), pixels(p, window, p.w)) : 1.0f);
            }
        }
        dx[(size_t(blockIdx.x) * p.w + column) * p.x_ld + channel] = sum;
    }
}
