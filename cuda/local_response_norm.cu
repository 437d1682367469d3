// Response normalisation across channels, forward and backward (local_response_norm.cuh).
#include "local_response_norm.cuh"

KERNEL(THREADS) local_response_norm_forward(LocalResponseNormParams params, const float* x, float* y) {
    CONSTANTS(LocalResponseNormParams, p, params);
    SHARED(Tile, xs);
#pragma unroll
    for (int n = 0; n < EACH; n++) {
        const int i = n * THREADS + threadIdx.x;
        const Element e = element(p, i);
        // Of the other tower's channels only those that a window sees.
        const bool seen = e.channel + before(p) >= p.first && e.channel - after(p) < p.first + p.count;
        if (e.exists && seen) xs.at[i] = x[e.row * p.x_ld + e.channel];
    }
    __syncthreads();
#pragma unroll
    for (int n = 0; n < EACH; n++) {
        const int i = n * THREADS + threadIdx.x;
        const Element e = element(p, i);
        if (e.output) y[e.row * p.y_ld + e.channel - p.first] = xs.at[i] * powers(p, xs.at + i, i % p.group).power;
    }
}

KERNEL(THREADS) local_response_norm_backward(LocalResponseNormParams params, const float* x, const float* dy, float* dx) {
    CONSTANTS(LocalResponseNormParams, p, params);
    SHARED(Tile, xs);
    SHARED(Tile, terms);
    gradient(p, xs, terms, x, dx, [&](const Element& e) { return dy[e.row * p.y_ld + e.channel - p.first]; });
}
