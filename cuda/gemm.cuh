// A product of two matrices, tile by tile: c(m, n) = sum over k of a(m, k) b(n, k). The matrices need not exist: an operand tells where an element lies, so
// that convolutions, fully connected layers and their gradients are all this one loop (implicit GEMM), in every precision:
//   gemm_fp32.cuh   fp32 multiply-adds
//   gemm_tf32.cuh   tensor cores, factors rounded to tf32   } gemm_tensor.cuh has what these two share
//   gemm_bf16.cuh   tensor cores, factors rounded to bf16   }
// Matrices lie in memory as fp32 and sums are fp32 in all of them; only factors are rounded, on their way.
//
// A block of 256 threads computes TILE_M x TILE_N sums, TILE_K terms at a time. Terms are added in the order of k, so the bits depend on nothing else.
//
// An operand has
//   Row row(int i)                        what of row i (of a, or of b) does not depend on k, computed once;
//   const float* at(const Row&, int k)    the address of element (i, k), or null where it is 0 or does not exist;
//   VECTOR                                elements that follow that address, and exist with it: 4 where they can be loaded at once;
//   ALONG_K                               whether they follow along k, or along i. Neighbouring threads load in that direction.
//
// product(tiles, a, b, first_m, first_n, first_k, end_k, store) calls `store(m, n, sum)` with each sum over k in first_k .. end_k of the tile at (first_m, first_n).
// Rows beyond the last are the operands' and the store's business: they are computed like others, from nothing.
#pragma once
#include "async.cuh"
#include "common.cuh"
#include "mma.cuh"

#define FP32 0
#define TF32 1
#define BF16 2

// Set by the launch (crates/nn/src/layers/gemm.rs): the precision, the tile, how many tiles of each operand lie in shared memory and what that comes to, and
// WIDTH, the elements that can be loaded at once from the matrices concerned: 4 or 1.
#ifndef PRECISION
#define PRECISION FP32
#define TILE_M 64
#define TILE_N 64
#define TILE_K 16
#define STAGES 2
#define SHARED_BYTES 17408
#define WIDTH 1
#endif

#define THREADS 256

// Where the tile of this block begins in a result of n columns. Tiles of the same rows follow each other, so that the second finds these rows of a in a cache.
struct Corner {
    int m, n;
};
INLINE Corner corner(int n) {
    const int across = ceil_div(n, TILE_N), tile = int(blockIdx.x);
    return {tile / across * TILE_M, tile % across * TILE_N};
}

// This thread's share of the tiles of one operand: chunks of VECTOR elements.
template <class Operand, int TILE> struct Share {
    static constexpr int VECTOR = Operand::VECTOR;
    static constexpr int CHUNKS = TILE * TILE_K / VECTOR;
    static constexpr int EACH = (CHUNKS + THREADS - 1) / THREADS;
    typename Operand::Row rows[EACH];

    static __device__ __forceinline__ int chunk(int j) { return j * THREADS + int(threadIdx.x); }
    static __device__ __forceinline__ bool mine(int j) { return CHUNKS % THREADS == 0 || chunk(j) < CHUNKS; }
    // The first element of chunk j.
    static __device__ __forceinline__ int i_of(int j) {
        return Operand::ALONG_K ? chunk(j) / (TILE_K / VECTOR) : chunk(j) % (TILE / VECTOR) * VECTOR;
    }
    static __device__ __forceinline__ int k_of(int j) {
        return Operand::ALONG_K ? chunk(j) % (TILE_K / VECTOR) * VECTOR : chunk(j) / (TILE / VECTOR);
    }
    __device__ __forceinline__ void begin(const Operand& operand, int first) {
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            if (mine(j)) rows[j] = operand.row(first + i_of(j));
        }
    }
    // Chunk j of the tile at k from global memory.
    __device__ __forceinline__ void read(const Operand& operand, int first, int j, float (&values)[VECTOR]) const {
        const float* from = operand.at(rows[j], first + k_of(j));
        if constexpr (VECTOR == 4) {
            const float4 four = from ? *reinterpret_cast<const float4*>(from) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            values[0] = four.x, values[1] = four.y, values[2] = four.z, values[3] = four.w;
        } else {
            values[0] = from ? *from : 0.0f;
        }
    }
};

#include "gemm_fp32.cuh"
#include "gemm_tensor.cuh"
#include "gemm_tf32.cuh"
#include "gemm_bf16.cuh"

static_assert(sizeof(Tiles) == SHARED_BYTES, "the size of the tiles differs from what crates/nn/src/layers/gemm.rs counts with");

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
