// The product in fp32 (gemm.cuh): a thread computes TILE_M / 16 x TILE_N / 16 sums in registers.
#pragma once
#if PRECISION == FP32

#define ACROSS 16 // threads along each side of a tile

static_assert(TILE_M % ACROSS == 0 && TILE_N % ACROSS == 0 && TILE_K % 4 == 0, "tiles are shared out among 16 x 16 threads");
static_assert(STAGES == 2, "one tile is filled while the other is read");

// Shared memory: the operands' tiles, k first. The padding spreads columns over banks.
struct Tiles {
    float a[STAGES][TILE_K][TILE_M + 4];
    float b[STAGES][TILE_K][TILE_N + 4];
};

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
    __device__ __forceinline__ void put(float (&tile)[TILE_K][TILE + 4]) const {
#pragma unroll
        for (int j = 0; j < Base::EACH; j++) {
            if (!Base::mine(j)) continue;
            const int i = Base::i_of(j), k = Base::k_of(j);
#pragma unroll
            for (int v = 0; v < Base::VECTOR; v++) tile[Operand::ALONG_K ? k + v : k][Operand::ALONG_K ? i : i + v] = values[j][v];
        }
    }
};

template <class A, class B, class Store>
static __device__ __forceinline__ void product(
    Tiles& tiles, const A& a, const B& b, int first_m, int first_n, int first_k, int end_k, const Store& store) {
    constexpr int DOWN = TILE_M / ACROSS, RIGHT = TILE_N / ACROSS;
    const int row = int(threadIdx.x) / ACROSS * DOWN, column = int(threadIdx.x) % ACROSS * RIGHT;
    Feed<A, TILE_M> feed_a;
    Feed<B, TILE_N> feed_b;
    feed_a.begin(a, first_m);
    feed_b.begin(b, first_n);
    float sums[DOWN][RIGHT];
#pragma unroll
    for (int i = 0; i < DOWN; i++)
#pragma unroll
        for (int j = 0; j < RIGHT; j++) sums[i][j] = 0.0f;
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
#pragma unroll
        for (int t = 0; t < TILE_K; t++) {
            float left[DOWN], right[RIGHT];
#pragma unroll
            for (int i = 0; i < DOWN; i++) left[i] = tiles.a[turn][t][row + i];
#pragma unroll
            for (int j = 0; j < RIGHT; j++) right[j] = tiles.b[turn][t][column + j];
#pragma unroll
            for (int i = 0; i < DOWN; i++)
#pragma unroll
                for (int j = 0; j < RIGHT; j++) sums[i][j] = fmaf(left[i], right[j], sums[i][j]);
        }
        turn ^= 1;
    }
#pragma unroll
    for (int i = 0; i < DOWN; i++)
#pragma unroll
        for (int j = 0; j < RIGHT; j++) store(first_m + row + i, first_n + column + j, sums[i][j]);
}
#endif
