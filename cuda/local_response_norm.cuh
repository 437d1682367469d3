// Response normalisation across channels: what its own kernels and those with a pooling behind it share.
// y_i = x_i s_i^-beta, s_i = k + alpha * sum of x_j^2 over the `size` channels from i - size / 2 on, clipped to the group of i.
// dx_i = dy_i s_i^-beta - 2 alpha beta x_i * sum of dy_j x_j s_j^(-beta - 1) over the j whose window holds i; s is computed anew
// (crates/nn/src/layers/local_response_norm.rs).
#pragma once
#include "response_norm.cuh"

struct LocalResponseNormParams {
    int rows, c, group, first, count, size, x_ld, y_ld, dx_ld, relu;
    float k, alpha, beta;
};

constexpr int THREADS = 256;
// Elements of a thread, in registers.
constexpr int EACH = 8;
// What a block holds: some pixels of as many whole groups as fit. So windows never leave it, and every s is computed once. The host's
// MAX_GROUP is the same number.
constexpr int TILE = THREADS * EACH;

struct Tile {
    float at[TILE];
};

// Channels and pixels of a tile.
INLINE int tile_channels(const LocalResponseNormParams& p) { return min(p.c, TILE / p.group * p.group); }
INLINE int tile_pixels(const LocalResponseNormParams& p) { return TILE / tile_channels(p); }

// Element `i` of this block's tile.
struct Element {
    size_t row;
    int channel;
    // Whether there is such an element, and whether y has its channel.
    bool exists, output;
};

INLINE Element element(const LocalResponseNormParams& p, int i) {
    const int channels = tile_channels(p), pixels = tile_pixels(p);
    const int row = blockIdx.x * pixels + i / channels, channel = blockIdx.y * channels + i % channels;
    const bool exists = i < pixels * channels && row < p.rows && channel < p.c;
    return {size_t(row), channel, exists, exists && channel >= p.first && channel - p.first < p.count};
}

INLINE int before(const LocalResponseNormParams& p) { return p.size / 2; }
INLINE int after(const LocalResponseNormParams& p) { return p.size - 1 - p.size / 2; }

// The sum of the `before` values in front of *at, of *at and of the `after` values behind it, or of their squares, as far as they are of
// its group, in which *at is the `channel`-th.
INLINE float sum(const LocalResponseNormParams& p, const float* at, int channel, int before, int after, bool squares) {
    float sum = 0.0f;
    // As many steps for each element: where size is a constant, they unroll.
    for (int d = -min(before, p.group - 1); d <= min(after, p.group - 1); d++) {
        const float value = channel + d >= 0 && channel + d < p.group ? at[d] : 0.0f;
        sum = squares ? fmaf(value, value, sum) : sum + value;
    }
    return sum;
}

// The powers of the s of *x, the `channel`-th of its group.
INLINE Powers powers(const LocalResponseNormParams& p, const float* x, int channel) {
    return powers(fmaf(p.alpha, sum(p, x, channel, before(p), after(p), true), p.k), p.beta);
}

// dx of this block's tile. `dy(element)` is the gradient by an element that y has. Where x comes from a ReLU (`relu`), the gradient passes
// that as well.
template <class Dy>
INLINE void gradient(const LocalResponseNormParams& p, Tile& xs, Tile& terms, const float* x, float* dx, const Dy& dy) {
    float direct[EACH];
#pragma unroll
    for (int n = 0; n < EACH; n++) {
        const int i = n * THREADS + threadIdx.x;
        const Element e = element(p, i);
        if (e.exists) xs.at[i] = x[e.row * p.x_ld + e.channel];
        // The other tower's outputs count as 0.
        direct[n] = e.output ? dy(e) : 0.0f;
    }
    __syncthreads();
#pragma unroll
    for (int n = 0; n < EACH; n++) {
        const int i = n * THREADS + threadIdx.x;
        if (!element(p, i).exists) continue;
        const Powers at = powers(p, xs.at + i, i % p.group);
        terms.at[i] = direct[n] * xs.at[i] * at.slope;
        direct[n] *= at.power;
    }
    __syncthreads();
#pragma unroll
    for (int n = 0; n < EACH; n++) {
        const int i = n * THREADS + threadIdx.x;
        const Element e = element(p, i);
        if (!e.exists) continue;
        // Element i is in the windows of those in its mirrored window.
        const float terms_of_i = sum(p, terms.at + i, i % p.group, after(p), before(p), false);
        const float indirect = 2.0f * p.alpha * p.beta * xs.at[i] * terms_of_i;
        dx[e.row * p.dx_ld + e.channel] = p.relu && !(xs.at[i] > 0.0f) ? 0.0f : direct[n] - indirect;
    }
}
