// What convolutions with and without shared weights have in common: their geometry, and the gradient of a bias.
#pragma once
#include "gemm.cuh"

// crates/nn/src/layers/conv2d/geometry.rs, Params.
struct ConvParams {
    int batch, in_h, in_w, in_c, x_ld, out_h, out_w, out_c, y_ld, kernel, stride, padding, groups, relu;
};

INLINE int group_in(const ConvParams& p) { return p.in_c / p.groups; }
INLINE int group_out(const ConvParams& p) { return p.out_c / p.groups; }
INLINE int taps(const ConvParams& p) { return p.kernel * p.kernel; }

// Term k of a sum over taps and channels. Channels come in chunks, so that all taps of one chunk follow each other: neighbouring taps see mostly the same pixels,
// which the second then finds in a cache. A vector never reaches across two taps.
struct Term {
    int tap, channel;
};
INLINE Term term(int k, int taps, int channels) {
    constexpr int CHUNK = 16;
    if (channels % CHUNK != 0) return {k / channels, k % channels};
    const int chunk = k / (taps * CHUNK), rest = k % (taps * CHUNK);
    return {rest / CHUNK, chunk * CHUNK + rest % CHUNK};
}

// Channel `channel` of the pixel of x that tap `tap` of a window sees; null outside of the image. The window's corner is (top, left).
INLINE const float* pixel_of_x(const ConvParams& p, const float* image, int top, int left, int tap, int channel) {
    const int h = top + tap / p.kernel, w = left + tap % p.kernel;
    if (h < 0 || h >= p.in_h || w < 0 || w >= p.in_w) return nullptr;
    return image + (size_t(h) * p.in_w + w) * p.x_ld + channel;
}

// The pixel of y whose window sees pixel (h, w) of x with tap `tap`, or -1 where there is none.
INLINE int window_of(const ConvParams& p, int h, int w, int tap) {
    const int down = h + p.padding - tap / p.kernel, right = w + p.padding - tap % p.kernel;
    if (down < 0 || right < 0 || down % p.stride != 0 || right % p.stride != 0) return -1;
    const int row = down / p.stride, column = right / p.stride;
    return row < p.out_h && column < p.out_w ? row * p.out_w + column : -1;
}

struct BiasSums {
    float rows[8][32];
};

// db[c] = sum over rows first_row .. end_row of dy, for the 32 channels of this block: each of 8 rows of threads sums every eighth row of dy.
INLINE void bias_gradient(BiasSums& sums, const float* dy, int ld, int first_row, int end_row, int channels, float* db) {
    const int lane = int(threadIdx.x) % 32, first = int(threadIdx.x) / 32, channel = int(blockIdx.x) * 32 + lane;
    float sum = 0.0f;
    if (channel < channels) {
        for (int row = first_row + first; row < end_row; row += 8) sum += dy[size_t(row) * ld + channel];
    }
    sums.rows[first][lane] = sum;
    __syncthreads();
    if (first == 0 && channel < channels) {
        for (int row = 1; row < 8; row++) sum += sums.rows[row][lane];
        db[channel] = sum;
    }
}
