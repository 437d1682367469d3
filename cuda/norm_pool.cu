// Response normalisation across channels and the max pooling behind it, in one kernel each way: what lies between is never in memory
// (crates/nn/src/layers/norm_pool.rs; local_response_norm.cuh, max_pool2d.cuh).
#include "local_response_norm.cuh"
#include "max_pool2d.cuh"

// `norm` from x to what lies between, `pool` from there to y; its channels are those that y has. A block of the forward pass has
// tile_p x tile_q windows of `chunk` channels.
struct NormPoolParams {
    LocalResponseNormParams norm;
    PoolParams pool;
    int tile_p, tile_q, chunk;
};

// What a block normalises: the host's ROOM is the same number.
constexpr int ROOM = 8192;

struct Normalised {
    float at[ROOM];
};

// The pixels that `windows` neighbouring windows see of an axis of `extent` pixels, at most.
INLINE int span(const PoolParams& p, int windows, int extent) { return min((windows - 1) * p.stride + p.size, extent); }

// What this block pools: its first window and its first channel of y.
struct Place {
    size_t image;
    int p, q, channel;
};

INLINE Place place(const NormPoolParams& p) {
    const unsigned across = ceil_div(p.pool.q, p.tile_q), down = ceil_div(p.pool.p, p.tile_p), strip = blockIdx.x / across;
    return {strip / down, int(strip % down) * p.tile_p, int(blockIdx.x % across) * p.tile_q, int(blockIdx.y) * p.chunk};
}

// Calls store(output pixel, channel, largest) for each element of y of this block.
template <class Store> INLINE void norm_pool(const NormPoolParams& p, Normalised& tile, const float* x, const Store& store) {
    const Place first = place(p);
    const int top = pixels(p.pool, first.p, p.pool.h).first, left = pixels(p.pool, first.q, p.pool.w).first;
    const int rows = span(p.pool, p.tile_p, p.pool.h), columns = span(p.pool, p.tile_q, p.pool.w);
    // Every element once, though up to four windows see it: its powers cost more than all else. Its neighbours come from the cache.
#pragma unroll 4
    for (int i = threadIdx.x; i < rows * columns * p.chunk; i += THREADS) {
        const int row = top + i / p.chunk / columns, column = left + i / p.chunk % columns, channel = first.channel + i % p.chunk;
        if (row >= p.pool.h || column >= p.pool.w || channel >= p.pool.c) continue;
        const int of_x = p.norm.first + channel;
        const float* at = x + ((first.image * p.pool.h + row) * p.pool.w + column) * p.norm.x_ld + of_x;
        tile.at[i] = *at * powers(p.norm, at, of_x % p.norm.group).power;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < p.tile_p * p.tile_q * p.chunk; i += THREADS) {
        const int window_row = first.p + i / p.chunk / p.tile_q, window = first.q + i / p.chunk % p.tile_q, channel = i % p.chunk;
        if (window_row >= p.pool.p || window >= p.pool.q || first.channel + channel >= p.pool.c) continue;
        const Largest best = largest(p.pool, window_row, window, [&](int row, int column) {
            return tile.at[((row - top) * columns + column - left) * p.chunk + channel];
        });
        store((first.image * p.pool.p + window_row) * p.pool.q + window, first.channel + channel, best);
    }
}

KERNEL(THREADS) norm_pool_forward(NormPoolParams params, const float* x, float* y, unsigned char* places, float*) {
    CONSTANTS(NormPoolParams, p, params);
    SHARED(Normalised, tile);
    norm_pool(p, tile, x, [&](size_t pixel, int channel, const Largest& best) {
        y[pixel * p.pool.y_ld + channel] = best.value;
        places[pixel * p.pool.c + channel] = (unsigned char)best.place;
    });
}

KERNEL(THREADS) norm_pool_inference(NormPoolParams params, const float* x, float* y, float*) {
    CONSTANTS(NormPoolParams, p, params);
    SHARED(Normalised, tile);
    norm_pool(p, tile, x, [&](size_t pixel, int channel, const Largest& best) { y[pixel * p.pool.y_ld + channel] = best.value; });
}

KERNEL(THREADS) norm_pool_backward(NormPoolParams params, const float* x, const unsigned char* places, const float* dy, float* dx, float*) {
    CONSTANTS(NormPoolParams, p, params);
    SHARED(Tile, xs);
    SHARED(Tile, terms);
    gradient(p.norm, xs, terms, x, dx, [&](const Element& e) {
        const unsigned plane = unsigned(p.pool.h) * p.pool.w, pixel = unsigned(e.row) % plane;
        const int row = pixel / unsigned(p.pool.w), column = pixel % unsigned(p.pool.w);
        return collected(p.pool, places, dy, unsigned(e.row) / plane, row, column, e.channel - p.norm.first);
    });
}
