// y = the largest element of each window, and its place there: row * size + column. On ties it is the first in scan order; a NaN wins.
// dx = the sum of dy over the windows that chose the element: each thread collects, so the order of the sum is fixed
// (crates/nn/src/layers/max_pool2d.rs).
#include "pool.cuh"

struct Largest {
    float value;
    int place;
};

// Element `i` of this block's row of windows.
INLINE Largest largest(const PoolParams& p, const float* x, unsigned i) {
    const size_t image = blockIdx.x / unsigned(p.p);
    const int window_row = blockIdx.x % unsigned(p.p), window = i / unsigned(p.c), channel = i % unsigned(p.c);
    const Range rows = pixels(p, window_row, p.h), columns = pixels(p, window, p.w);
    const int above = rows.first + p.padding - window_row * p.stride, left = columns.first + p.padding - window * p.stride;
    const float nothing = __uint_as_float(0xff800000u); // no number is less
    Largest best = {nothing, above * p.size + left};
    for (int a = 0; a < most_pixels(p, p.h); a++) {
        for (int b = 0; b < most_pixels(p, p.w); b++) {
            const int row = rows.first + a, column = columns.first + b;
            const bool inside = row < rows.end && column < columns.end;
            const float value = inside ? x[((image * p.h + row) * p.w + column) * p.x_ld + channel] : nothing;
            const bool take = value > best.value || value != value;
            best.value = take ? value : best.value;
            best.place = take ? (above + a) * p.size + left + b : best.place;
        }
    }
    return best;
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
    const Range rows = windows(p, row, p.p);
    for (unsigned i = row_item(); i < unsigned(p.w) * p.c; i += row_step()) {
        const int column = i / unsigned(p.c), channel = i % unsigned(p.c);
        const Range columns = windows(p, column, p.q);
        float sum = 0.0f;
        for (int a = 0; a < most_windows(p, p.p); a++) {
            for (int b = 0; b < most_windows(p, p.q); b++) {
                const int window_row = rows.first + a, window = columns.first + b;
                const bool inside = window_row < rows.end && window < columns.end;
                const size_t pixel = (image * p.p + window_row) * p.q + window;
                const int place = inside ? places[pixel * p.c + channel] : -1;
                const float gradient = inside ? dy[pixel * p.y_ld + channel] : 0.0f;
                const int above = row + p.padding - window_row * p.stride, left = column + p.padding - window * p.stride;
                sum += place == above * p.size + left ? gradient : 0.0f;
            }
        }
        dx[(size_t(blockIdx.x) * p.w + column) * p.x_ld + channel] = sum;
    }
}
