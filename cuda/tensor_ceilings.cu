// The most that tensor cores multiply by mma.sync, as the kernels here use it (crates/nn/src/ceilings.rs): products of fragments that stay in registers.
#include "mma.cuh"

struct TensorCeilingParams {
    unsigned warps, rounds;
};

// Fragments of a warp, which makes 16 LEFT x 16 RIGHT sums. None of its instructions waits for another one.
constexpr int LEFT = 2, RIGHT = 4;

struct Fragments {
    unsigned a[LEFT][4], b[RIGHT][4];
    float sums[LEFT][2 * RIGHT][4];
};

// The factors in word `word` of every row and of every column; exact in every precision, and so are their sums.
INLINE float left(int word) { return (1.0f + 0.125f * float(word % 4)) / 64.0f; }
INLINE float right(int word) { return (word % 2 == 0 ? 1.0f : -0.75f) * (1.0f + 0.25f * float(word % 4)) / 64.0f; }

INLINE void begin(Fragments& fragments, unsigned a, unsigned b) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
#pragma unroll
        for (int m = 0; m < LEFT; m++) fragments.a[m][i] = a;
#pragma unroll
        for (int n = 0; n < RIGHT; n++) fragments.b[n][i] = b;
#pragma unroll
        for (int sum = 0; sum < LEFT * 2 * RIGHT; sum++) fragments.sums[sum / (2 * RIGHT)][sum % (2 * RIGHT)][i] = 0.0f;
    }
}
INLINE float end(const Fragments& fragments) {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < LEFT * 2 * RIGHT * 4; i++) sum += fragments.sums[i / (8 * RIGHT)][i / 4 % (2 * RIGHT)][i % 4];
    return sum;
}

// y = of each thread the sum of its sums, after `rounds` products of the same fragments.
KERNEL(256) tf32_ceiling(TensorCeilingParams params, float* y) {
    CONSTANTS(TensorCeilingParams, p, params);
    if (item() / 32 >= p.warps) return;
    Fragments own;
    begin(own, round_tf32(left(threadIdx.x)), round_tf32(right(threadIdx.x)));
    for (unsigned round = 0; round < p.rounds; round++) multiply_tf32(own.sums, own.a, own.b);
    y[item()] = end(own);
}

KERNEL(256) bf16_ceiling(TensorCeilingParams params, float* y) {
    CONSTANTS(TensorCeilingParams, p, params);
    if (item() / 32 >= p.warps) return;
    Fragments own;
    const float a = left(threadIdx.x), b = right(threadIdx.x);
    begin(own, round_bf16x2(a, a), round_bf16x2(b, b));
    for (unsigned round = 0; round < p.rounds; round++) multiply_bf16(own.sums, own.a, own.b);
    y[item()] = end(own);
}
