// The geometry of poolings: windows over the pixels of an image, clipped to it (crates/nn/src/layers/pool.rs).
// A block has a row of pixels or a piece of it; neighbouring threads have neighbouring channels.
#pragma once
#include "common.cuh"

struct PoolParams {
    int batch, h, w, c, p, q, size, stride, padding, x_ld, y_ld;
};

// Pixels or windows along one axis.
struct Range {
    int first, end;
};

// The pixels of window `window`, never empty, of an axis of `extent` pixels.
INLINE Range pixels(const PoolParams& p, int window, int extent) {
    const long long first = (long long)window * p.stride - p.padding;
    return {int(max(first, 0ll)), int(min(first + p.size, (long long)extent))};
}

// The windows that hold pixel `pixel`, of an axis of `count` windows.
INLINE Range windows(const PoolParams& p, int pixel, int count) {
    const unsigned place = unsigned(pixel) + p.padding, size = p.size, stride = p.stride;
    return {place < size ? 0 : int((place - size) / stride) + 1, min(int(place / stride) + 1, count)};
}

// The most pixels of an axis that a window holds, and the most windows that hold a pixel. Loops run this far and look aside beyond the end:
// where it is a constant they unroll, and the loads of a window are on their way together.
INLINE int most_pixels(const PoolParams& p, int extent) { return min(p.size, extent); }
INLINE int most_windows(const PoolParams& p, int count) { return min((p.size - 1) / p.stride + 1, count); }

// The elements of a row that a thread has: from row_item() on, row_step() apart.
INLINE unsigned row_item() { return blockIdx.y * blockDim.x + threadIdx.x; }
INLINE unsigned row_step() { return gridDim.y * blockDim.x; }
