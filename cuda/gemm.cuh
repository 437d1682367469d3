// A product of two matrices, tile by tile: c(m, n) = sum over k of a(m, k) b(n, k). The matrices need not exist: an operand tells where an element lies, so
// that convolutions, fully connected layers and their gradients are all this one loop (implicit GEMM).
//
// A block computes TILE_M x TILE_N sums in 16 x 16 threads, TILE_K terms at a time. Terms are added in the order of k, so the bits depend on nothing else.
//
// An operand has
//   Row row(int i)                        what of row i (of a, or of b) does not depend on k, computed once;
//   const float* at(const Row&, int k)    the address of element (i, k), or null where it is 0 or does not exist;
//   VECTOR                                elements that follow that address, and exist with it: 4 where they can be loaded at once;
//   ALONG_K                               whether they follow along k, or along i. Neighbouring threads load in that direction.
#pragma once
#include "common.cuh"

// Set by the launch (crates/nn/src/layers/gemm.rs): the tile, and WIDTH, the elements that can be loaded at once from the matrices concerned: 4 or 1.
#ifndef TILE_M
#define TILE_M 64
#define TILE_N 64
#define TILE_K 16
#define WIDTH 1
#endif

#define THREADS 256
#define ACROSS 16 // threads along each side of a tile

static_assert(TILE_M % ACROSS == 0 && TILE_N % ACROSS == 0 && TILE_K % 4 == 0, "tiles are shared out among 16 x 16 threads");

// Shared memory: the operands' tiles, k first, twice: one is filled while the other is read. The padding spreads columns over banks.
struct Tiles {
    float a[2][TILE_K][TILE_M + 4];
    float b[2][TILE_K][TILE_N + 4];
};

// This thread's part in loading the tiles of one operand.
template <class Operand, int TILE> struct Feed {
    static constexpr int VECTOR = Operand::VECTOR;
    static constexpr int CHUNKS = TILE * TILE_K / VECTOR;
    static constexpr int EACH = (CHUNKS + THREADS - 1) / THREADS;
    typename Operand::Row rows[EACH];
    float values[EACH][VECTOR];

    static __device__ __forceinline__ bool mine(int chunk) { return CHUNKS % THREADS == 0 || chunk < CHUNKS; }
    static __device__ __forceinline__ int i_of(int chunk) {
        return Operand::ALONG_K ? chunk / (TILE_K / VECTOR) : chunk % (TILE / VECTOR) * VECTOR;
    }
    static __device__ __forceinline__ int k_of(int chunk) {
        return Operand::ALONG_K ? chunk % (TILE_K / VECTOR) * VECTOR : chunk / (TILE / VECTOR);
    }
    __device__ __forceinline__ void begin(const Operand& operand, int first) {
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            const int chunk = j * THREADS + int(threadIdx.x);
            if (mine(chunk)) rows[j] = operand.row(first + i_of(chunk));
        }
    }
    // From global memory to registers.
    __device__ __forceinline__ void fetch(const Operand& operand, int first) {
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            const int chunk = j * THREADS + int(threadIdx.x);
            if (!mine(chunk)) continue;
            const float* from = operand.at(rows[j], first + k_of(chunk));
            if constexpr (VECTOR == 4) {
                const float4 four = from ? *reinterpret_cast<const float4*>(from) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
                values[j][0] = four.x, values[j][1] = four.y, values[j][2] = four.z, values[j][3] = four.w;
            } else {
                values[j][0] = from ? *from : 0.0f;
            }
        }
    }
    // From registers to a tile.
    __device__ __forceinline__ void put(float (&tile)[TILE_K][TILE + 4]) const {
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            const int chunk = j * THREADS + int(threadIdx.x);
            if (!mine(chunk)) continue;
            const int i = i_of(chunk), k = k_of(chunk);
#pragma unroll
            for (int v = 0; v < VECTOR; v++) tile[Operand::ALONG_K ? k + v : k][Operand::ALONG_K ? i : i + v] = values[j][v];
        }
    }
};

// The sums of the tile at (first_m, first_n) over k in first_k .. end_k; `store(m, n, sum)` gets each. Rows beyond the last are the
// operands' and the store's business: they are computed like others, from nothing.
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

// Rows of a matrix that lies in memory: element (i, k) at `data + i * pitch + k`.
struct Dense {
    static constexpr int VECTOR = WIDTH;
    static constexpr bool ALONG_K = true;
    const float* data;
    size_t pitch;
    int rows, depth;
    struct Row {
        const float* start;
    };
    __device__ __forceinline__ Row row(int i) const { return {i < rows ? data + i * pitch : nullptr}; }
    __device__ __forceinline__ const float* at(const Row& row, int k) const {
        return row.start && k < depth ? row.start + k : nullptr;
    }
};

// The same, transposed: element (i, k) at `data + k * pitch + i`.
struct Transposed {
    static constexpr int VECTOR = WIDTH;
    static constexpr bool ALONG_K = false;
    const float* data;
    size_t pitch;
    int rows, depth;
    struct Row {
        const float* start;
    };
    __device__ __forceinline__ Row row(int i) const { return {i < rows ? data + i : nullptr}; }
    __device__ __forceinline__ const float* at(const Row& row, int k) const {
        return row.start && k < depth ? row.start + k * pitch : nullptr;
    }
};
