// What mma.cuh and async.cuh wrap, each alone: compared with its formula before anything is built on it (crates/nn/src/testing/instructions.rs).
#include "async.cuh"
#include "mma.cuh"

struct InstructionParams {
    int count;
};

KERNEL(256) to_tf32(InstructionParams params, const float* x, unsigned* y) {
    CONSTANTS(InstructionParams, p, params);
    if (item() < size_t(p.count)) y[item()] = round_tf32(x[item()]);
}

// Pairs: the first of each in the lower half.
KERNEL(256) to_bf16(InstructionParams params, const float* x, unsigned* y) {
    CONSTANTS(InstructionParams, p, params);
    if (item() < size_t(p.count)) y[item()] = round_bf16x2(x[2 * item()], x[2 * item() + 1]);
}

// For each of two warps two fragments, from rows of 16 bytes: rows[warp][fragment][lane] -> y[warp][fragment][word][lane].
struct Rows {
    uint4 of[64];
};
INLINE void put_fragments(const unsigned (&fragments)[2][4], unsigned* y) {
    for (int i = 0; i < 2; i++) {
        for (int word = 0; word < 4; word++) {
            y[((threadIdx.x / 32 * 2 + i) * 4 + word) * 32 + threadIdx.x % 32] = fragments[i][word];
        }
    }
}
KERNEL(64) fragments(InstructionParams, const uint4* memory, const int* rows, unsigned* y) {
    SHARED(Rows, shared);
    shared.of[threadIdx.x] = memory[threadIdx.x];
    __syncthreads();
    const int* own = rows + threadIdx.x / 32 * 64 + threadIdx.x % 32;
    const void* const from[2] = {&shared.of[own[0]], &shared.of[own[32]]};
    unsigned to[2][4];
    load_fragments(to, from);
    put_fragments(to, y);
}
KERNEL(64) transposed_fragments(InstructionParams, const uint4* memory, const int* rows, unsigned* y) {
    SHARED(Rows, shared);
    shared.of[threadIdx.x] = memory[threadIdx.x];
    __syncthreads();
    const int* own = rows + threadIdx.x / 32 * 64 + threadIdx.x % 32;
    const void* const from[2] = {&shared.of[own[0]], &shared.of[own[32]]};
    unsigned to[2][4];
    load_transposed(to, from);
    put_fragments(to, y);
}

// Two left factors, one right one: a[fragment][word][lane], b[word][lane], sums[fragment][half][sum][lane].
struct Fragments {
    unsigned a[2][4], b[1][4];
    float sums[2][2][4];
};
INLINE void get(Fragments& fragments, const unsigned* a, const unsigned* b, const float* sums) {
    for (int i = 0; i < 8; i++) fragments.a[i / 4][i % 4] = a[i * 32 + threadIdx.x];
    for (int i = 0; i < 4; i++) fragments.b[0][i] = b[i * 32 + threadIdx.x];
    for (int i = 0; i < 16; i++) fragments.sums[i / 8][i / 4 % 2][i % 4] = sums[i * 32 + threadIdx.x];
}
INLINE void put_sums(const Fragments& fragments, float* y) {
    for (int i = 0; i < 16; i++) y[i * 32 + threadIdx.x] = fragments.sums[i / 8][i / 4 % 2][i % 4];
}
KERNEL(32) product_tf32(InstructionParams, const unsigned* a, const unsigned* b, const float* sums, float* y) {
    Fragments own;
    get(own, a, b, sums);
    multiply_tf32(own.sums, own.a, own.b);
    put_sums(own, y);
}
KERNEL(32) product_bf16(InstructionParams, const unsigned* a, const unsigned* b, const float* sums, float* y) {
    Fragments own;
    get(own, a, b, sums);
    multiply_bf16(own.sums, own.a, own.b);
    put_sums(own, y);
}

// A ring of three stages, each of 16 bytes and of one word per thread; two stages are under way while a third one is read. Of the 16 bytes thread t gets
// those of thread t ^ 1, zeros where stage + t is a multiple of 3; of the words likewise of 5.
struct Ring {
    uint4 chunks[3][64];
    unsigned words[3][64];
};
INLINE void ask(Ring& ring, const uint4* chunks, const unsigned* words, int stage) {
    const int t = int(threadIdx.x), other = t ^ 1, at = stage * 64 + other;
    copy_async16(&ring.chunks[stage % 3][t], chunks + at, (stage + t) % 3 != 0);
    copy_async4(&ring.words[stage % 3][t], words + at, (stage + t) % 5 != 0);
}
KERNEL(64) copies(InstructionParams params, const uint4* chunks, const unsigned* words, uint4* y, unsigned* z) {
    CONSTANTS(InstructionParams, p, params);
    SHARED(Ring, ring);
    for (int stage = 0; stage < 2; stage++) {
        if (stage < p.count) ask(ring, chunks, words, stage);
        commit_async();
    }
    for (int stage = 0; stage < p.count; stage++) {
        wait_async<1>();
        __syncthreads();
        if (stage + 2 < p.count) ask(ring, chunks, words, stage + 2);
        commit_async();
        y[stage * 64 + threadIdx.x] = ring.chunks[stage % 3][threadIdx.x];
        z[stage * 64 + threadIdx.x] = ring.words[stage % 3][threadIdx.x];
    }
}
