// The product in bf16 (gemm.cuh): elements are rounded between global and shared memory, on their way through registers.
#pragma once
#if PRECISION == BF16

static_assert(STAGES == 2, "one tile is filled while the other is read");

// This thread's part in loading the tiles of one operand.
template <class Operand, int TILE> struct Feed : Share<Operand, TILE> {
    using Base = Share<Operand, TILE>;
    float values[Base::EACH][Base::VECTOR];

    // From global memory to registers.
    __device__ __forceinline__ void fetch(const Operand& operand, int first) {
#pragma unroll
        for (int j = 0; j < Base::EACH; j++) {
            if (Base::mine(j)) Base::read(operand, first, j, values[j]);
        }
    }
    // From registers to a tile.
    __device__ __forceinline__ void put(Element* tile) const {
#pragma unroll
        for (int j = 0; j < Base::EACH; j++) {
            if (!Base::mine(j)) continue;
            Element* to = tile + Layout<Operand, TILE>::place(Base::i_of(j), Base::k_of(j));
            if constexpr (Base::VECTOR == 4) {
                const uint2 four = {round_bf16x2(values[j][0], values[j][1]), round_bf16x2(values[j][2], values[j][3])};
                *reinterpret_cast<uint2*>(to) = four;
            } else {
                *to = Element(round_bf16x2(values[j][0], 0.0f));
            }
        }
    }
};

template <class A, class B, class Store>
static __device__ __forceinline__ void product(
    Tiles& tiles, const A& a, const B& b, int first_m, int first_n, int first_k, int end_k, const Store& store) {
    Feed<A, TILE_M> feed_a;
    Feed<B, TILE_N> feed_b;
    feed_a.begin(a, first_m);
    feed_b.begin(b, first_n);
    Sums sums;
    sums.clear();
    int turn = 0;
    if (first_k < end_k) {
        feed_a.fetch(a, first_k);
        feed_b.fetch(b, first_k);
    }
    for (int k = first_k; k < end_k; k += TILE_K) {
        feed_a.put(tiles.a[turn]);
        feed_b.put(tiles.b[turn]);
        // One barrier suffices: who fills this half again has passed the next one, after everybody read it.
        __syncthreads();
        if (k + TILE_K < end_k) {
            feed_a.fetch(a, k + TILE_K);
            feed_b.fetch(b, k + TILE_K);
        }
        sums.add<A, B>(tiles.a[turn], tiles.b[turn]);
        turn ^= 1;
    }
    sums.put(first_m, first_n, store);
}
#endif
