// The product in tf32 (gemm.cuh): fp32 tiles by asynchronous copies, STAGES - 1 ahead; elements are rounded when they become factors.
#pragma once
#if PRECISION == TF32

static_assert(STAGES >= 2, "one tile is filled while another one is read");

// This thread's part in loading the tiles of one operand.
template <class Operand, int TILE> struct Feed : Share<Operand, TILE> {
    using Base = Share<Operand, TILE>;
    __device__ __forceinline__ void copy(const Operand& operand, int first, float* tile) const {
#pragma unroll
        for (int j = 0; j < Base::EACH; j++) {
            if (!Base::mine(j)) continue;
            const int i = Base::i_of(j), k = Base::k_of(j);
            const float* from = operand.at(Base::rows[j], first + k);
            float* to = tile + Layout<Operand, TILE>::place(i, k);
            if constexpr (Base::VECTOR == 4) {
                copy_async16(to, from, from != nullptr);
            } else {
                copy_async4(to, from, from != nullptr);
            }
        }
    }
};

template <class A, class B, class Store>
static __device__ __forceinline__ void product(
    Tiles& tiles, const A& a, const B& b, int first_m, int first_n, int first_k, int end_k, const Store& store) {
    constexpr int AHEAD = STAGES - 1;
    Feed<A, TILE_M> feed_a;
    Feed<B, TILE_N> feed_b;
    feed_a.begin(a, first_m);
    feed_b.begin(b, first_n);
    Sums sums;
    sums.clear();
    // A group of copies for each tile, an empty one where there is none: so that a wait knows how many may be under way.
#pragma unroll
    for (int stage = 0; stage < AHEAD; stage++) {
        const int k = first_k + stage * TILE_K;
        if (k < end_k) {
            feed_a.copy(a, k, tiles.a[stage]);
            feed_b.copy(b, k, tiles.b[stage]);
        }
        commit_async();
    }
    int read = 0, filled = AHEAD;
    for (int k = first_k; k < end_k; k += TILE_K) {
        wait_async<AHEAD - 1>();
        // Behind it, everybody's copies for this turn have arrived, and nobody reads the tiles of the last turn any more: they are the next to be filled.
        __syncthreads();
        if (k + AHEAD * TILE_K < end_k) {
            feed_a.copy(a, k + AHEAD * TILE_K, tiles.a[filled]);
            feed_b.copy(b, k + AHEAD * TILE_K, tiles.b[filled]);
        }
        commit_async();
        sums.add<A, B>(tiles.a[read], tiles.b[read]);
        read = read + 1 == STAGES ? 0 : read + 1;
        filled = filled + 1 == STAGES ? 0 : filled + 1;
    }
    sums.put(first_m, first_n, store);
}
#endif
