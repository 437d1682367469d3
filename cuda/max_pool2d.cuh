// What the kernels with a max pooling share: the largest element of a window, and the way back (crates/nn/src/layers/max_pool2d.rs).
#pragma once
#include "pool.cuh"

// An element and its place in its window: row * size + column.
struct Largest {
    float value;
    int place;
};

// The largest of the elements at(row, column) of a window, on ties the first in scan order; a NaN wins.
template <class At> INLINE Largest largest(const PoolParams& p, int window_row, int window, const At& at) {
    const Range rows = pixels(p, window_row, p.h), columns = pixels(p, window, p.w);
    const int above = rows.first + p.padding - window_row * p.stride, left = columns.first + p.padding - window * p.stride;
    const float nothing = __uint_as_float(0xff800000u); // no number is less
    Largest best = {nothing, above * p.size + left};
    for (int a = 0; a < most_pixels(p, p.h); a++) {
        for (int b = 0; b < most_pixels(p, p.w); b++) {
            const int row = rows.first + a, column = columns.first + b;
            const bool inside = row < rows.end && column < columns.end;
            const float value = inside ? at(row, column) : nothing;
            const bool take = value > best.value || value != value;
            best.value = take ? value : best.value;
            best.place = take ? (above + a) * p.size + left + b : best.place;
        }
    }
    return best;
}

// The sum of dy over the windows that chose channel `channel` of this pixel: a thread collects, so the order of the sum is fixed.
INLINE float collected(
    const PoolParams& p, const unsigned char* places, const float* dy, size_t image, int row, int column, int channel) {
    const Range rows = windows(p, row, p.p), columns = windows(p, column, p.q);
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
    return sum;
}
