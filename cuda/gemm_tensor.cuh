// What the products on tensor cores share (gemm.cuh): how tiles lie in shared memory, and what a warp does with them.
//
// Eight warps share out a tile's sums. A warp's part is BLOCKS_M x BLOCKS_N blocks of 16 x 16 sums; it loads a fragment (mma.cuh) for each row and column of
// blocks, 32 bytes along k at a time, and multiplies them all with each other.
#pragma once
#if PRECISION != FP32

#if PRECISION == TF32
using Element = float;
#else
using Element = unsigned short;
#endif
constexpr int PACK = 16 / sizeof(Element); // elements of 16 bytes
constexpr int STEP = 2 * PACK;             // terms of one product of fragments
constexpr int WARPS_M = TILE_M > TILE_N ? 4 : 2, WARPS_N = 8 / WARPS_M;
constexpr int BLOCKS_M = TILE_M / WARPS_M / 16, BLOCKS_N = TILE_N / WARPS_N / 16;

static_assert(BLOCKS_M * WARPS_M * 16 == TILE_M && BLOCKS_N * WARPS_N * 16 == TILE_N, "tiles are shared out among eight warps");
static_assert(TILE_M % 32 == 0 && TILE_N % 32 == 0 && TILE_K % (4 * PACK) == 0, "rows of a tile are 64 bytes, or some more of them");

// Shared memory: a ring of the operands' tiles.
struct Tiles {
    Element a[STAGES][TILE_M * TILE_K];
    Element b[STAGES][TILE_N * TILE_K];
};

// How a tile lies there: in rows, as in global memory, along k or along i. In a row of 16-byte chunks these have changed places, by a pattern that differs
// from row to row, so that the eight rows of a matrix that are read at once lie in different banks.
template <class Operand, int TILE> struct Layout {
    static constexpr bool ALONG_K = Operand::ALONG_K;
    static constexpr int ROW = (ALONG_K ? TILE_K : TILE) / PACK; // chunks
    static __device__ __forceinline__ int turned(int row, int chunk) {
        // Single tf32 of four rows, eight of each, are read at once.
        if (PRECISION == TF32 && !ALONG_K) return chunk ^ (row & 3) << 1;
        // Rows of 128 bytes begin in the same bank, those of 64 bytes more or less in two.
        return ROW % 8 == 0 ? chunk ^ (row & 7) : chunk ^ (row >> 1 & 3);
    }
    // Element (i, k) of the tile.
    static __device__ __forceinline__ int place(int i, int k) {
        const int row = ALONG_K ? i : k, column = ALONG_K ? k : i;
        return (row * ROW + turned(row, column / PACK)) * PACK + column % PACK;
    }
    // The fragments of rows first .. first + 16 COUNT at k, with the elements as they lie there. Rows of shared memory that are 8 apart, or 4 for single tf32,
    // have the same pattern: what is added to a place is a constant.
    template <int COUNT> static __device__ __forceinline__ void load(unsigned (&to)[COUNT][4], const Element* tile, int first, int k) {
        constexpr int PITCH = ROW * PACK;
        const int lane = int(threadIdx.x) % 32;
        if constexpr (PRECISION == TF32 && !ALONG_K) {
#pragma unroll
            for (int c = 0; c < COUNT; c++) {
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const Element* element = tile + place(first + c * 16 + i % 2 * 8 + lane / 4, lane % 4);
                    to[c][i] = __float_as_uint(element[(k + i / 2 * 4) * PITCH]);
                }
            }
        } else {
            const void* rows[COUNT];
#pragma unroll
            for (int c = 0; c < COUNT; c++) {
                rows[c] = ALONG_K ? tile + place(first + lane % 16, k + lane / 16 * PACK) + c * 16 * PITCH
                                  : tile + place(first + c * 16 + lane / 8 % 2 * 8, lane / 16 * 8 + lane % 8) + k * PITCH;
            }
            if constexpr (ALONG_K) {
                load_fragments(to, rows);
            } else {
                load_transposed(to, rows);
            }
        }
        if constexpr (PRECISION == TF32) {
#pragma unroll
            for (int c = 0; c < COUNT; c++) {
#pragma unroll
                for (int i = 0; i < 4; i++) to[c][i] = round_tf32(__uint_as_float(to[c][i]));
            }
        }
    }
};

// The sums of a warp.
struct Sums {
    float values[BLOCKS_M][2 * BLOCKS_N][4];

    static __device__ __forceinline__ int first_m() { return int(threadIdx.x) / 32 / WARPS_N * (TILE_M / WARPS_M); }
    static __device__ __forceinline__ int first_n() { return int(threadIdx.x) / 32 % WARPS_N * (TILE_N / WARPS_N); }
    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int m = 0; m < BLOCKS_M; m++)
#pragma unroll
            for (int n = 0; n < 2 * BLOCKS_N; n++)
#pragma unroll
                for (int i = 0; i < 4; i++) values[m][n][i] = 0.0f;
    }
    // Adds the product of two tiles.
    template <class A, class B> __device__ __forceinline__ void add(const Element* a, const Element* b) {
#pragma unroll
        for (int k = 0; k < TILE_K; k += STEP) {
            unsigned left[BLOCKS_M][4], right[BLOCKS_N][4];
            Layout<A, TILE_M>::load(left, a, first_m(), k);
            Layout<B, TILE_N>::load(right, b, first_n(), k);
#if PRECISION == TF32
            multiply_tf32(values, left, right);
#else
            multiply_bf16(values, left, right);
#endif
        }
    }
    template <class Store> __device__ __forceinline__ void put(int m, int n, const Store& store) const {
        const int lane = int(threadIdx.x) % 32;
        m += first_m() + lane / 4;
        n += first_n() + lane % 4 * 2;
#pragma unroll
        for (int down = 0; down < 2 * BLOCKS_M; down++)
#pragma unroll
            for (int right = 0; right < 2 * BLOCKS_N; right++)
#pragma unroll
                for (int i = 0; i < 2; i++) store(m + down * 8, n + right * 8 + i, values[down / 2][right][down % 2 * 2 + i]);
    }
};
#endif
