// Tensor cores (sm_80 and later): rounding of factors, fragments of matrices from shared memory, products of fragments. Each function has two halves, the
// device's instruction and, for the emulator, its formula from the PTX ISA. All lanes of a warp take part.
//
// A fragment is a block of 16 rows of 32 bytes, 16 bf16 or 8 tf32 along k, as four words of every lane: with row = lane / 4 and word = lane % 4,
//   [0] word `word` of row `row`         [1] of row `row` + 8
//   [2] word `word` + 4 of row `row`     [3] of row `row` + 8
// That is the left factor of mma.m16n8k16 (bf16) and m16n8k8 (tf32). Its right factor has 8 rows: a fragment is two, {[0], [2]} and {[1], [3]}.
// The sums of such a product, 16 x 8, are four floats of every lane: row `row` (+ 8 for the last two), columns 2 `word` and 2 `word` + 1.
#pragma once
#include "common.cuh"

#ifdef EMULATED
namespace emulator {
// What a lane leaves for `load`.
struct Loads {
    unsigned (*to)[4];
    const void* const* rows;
};
template <int COUNT, bool TRANSPOSED> EMULATED_OWN void load(void* const* operands, unsigned) {
    for (int i = 0; i < COUNT; i++) {
        for (int matrix = 0; matrix < 4; matrix++) {
            uint16_t elements[8][8];
            for (int row = 0; row < 8; row++) {
                std::memcpy(elements[row], static_cast<const Loads*>(operands[matrix * 8 + row])->rows[i], 16);
            }
            for (int lane = 0; lane < 32; lane++) {
                const int row = lane / 4, first = lane % 4 * 2;
                const unsigned low = TRANSPOSED ? elements[first][row] : elements[row][first];
                const unsigned high = TRANSPOSED ? elements[first + 1][row] : elements[row][first + 1];
                static_cast<const Loads*>(operands[lane])->to[i][matrix] = low | high << 16;
            }
        }
    }
}

// The elements of a word: two bf16; or one tf32, of which the tensor cores do not see the last 13 bits.
struct Bf16 {
    static constexpr int OF_WORD = 2;
    EMULATED_OWN float element(unsigned word, int i) { return __builtin_bit_cast(float, i == 0 ? word << 16 : word & 0xffff0000u); }
};
struct Tf32 {
    static constexpr int OF_WORD = 1;
    EMULATED_OWN float element(unsigned word, int) { return __builtin_bit_cast(float, word & 0xffffe000u); }
};
// What a lane leaves for `multiply`.
struct Factors {
    float (*sums)[4];
    const unsigned (*a)[4];
    const unsigned (*b)[4];
};
// The sums of all lanes as a matrix, or back again.
template <int M, int N, bool BACK> EMULATED_OWN void sums_of(void* const* operands, float (&sums)[M * 16][N * 16]) {
    for (int lane = 0; lane < 32; lane++) {
        for (int m = 0; m < M; m++) {
            for (int n = 0; n < 2 * N; n++) {
                for (int i = 0; i < 4; i++) {
                    float& own = static_cast<const Factors*>(operands[lane])->sums[m * 2 * N + n][i];
                    float& sum = sums[m * 16 + lane / 4 + i / 2 * 8][n * 8 + lane % 4 * 2 + i % 2];
                    (BACK ? own : sum) = BACK ? sum : own;
                }
            }
        }
    }
}
template <class Type, int M, int N> EMULATED_OWN void multiply(void* const* operands, unsigned) {
    constexpr int OF_WORD = Type::OF_WORD, K = 8 * OF_WORD;
    float left[M * 16][K], right[K][N * 16], sums[M * 16][N * 16];
    for (int lane = 0; lane < 32; lane++) {
        const Factors& own = *static_cast<const Factors*>(operands[lane]);
        for (int i = 0; i < 4; i++) {
            const int row = lane / 4 + i % 2 * 8, word = lane % 4 + i / 2 * 4;
            for (int e = 0; e < OF_WORD; e++) {
                const int k = word * OF_WORD + e;
                for (int m = 0; m < M; m++) left[m * 16 + row][k] = Type::element(own.a[m][i], e);
                for (int n = 0; n < N; n++) right[k][n * 16 + row] = Type::element(own.b[n][i], e);
            }
        }
    }
    sums_of<M, N, false>(operands, sums);
    for (int m = 0; m < M * 16; m++) {
        for (int k = 0; k < K; k++) {
            for (int n = 0; n < N * 16; n++) sums[m][n] += left[m][k] * right[k][n];
        }
    }
    sums_of<M, N, true>(operands, sums);
}
} // namespace emulator

template <int COUNT>
EMULATED_OWN void load_fragments(unsigned (&to)[COUNT][4], const void* const (&rows)[COUNT], EMULATED_PLACE) {
    for (const void* row : rows) emulator::touches(row, 16, emulator::READ, EMULATED_SITE);
    emulator::Loads operands = {to, rows};
    emulator::warp(0xffffffffu, file, line, &operands, emulator::load<COUNT, false>);
}
template <int COUNT>
EMULATED_OWN void load_transposed(unsigned (&to)[COUNT][4], const void* const (&rows)[COUNT], EMULATED_PLACE) {
    for (const void* row : rows) emulator::touches(row, 16, emulator::READ, EMULATED_SITE);
    emulator::Loads operands = {to, rows};
    emulator::warp(0xffffffffu, file, line, &operands, emulator::load<COUNT, true>);
}
EMULATED_OWN unsigned round_tf32(float x) {
    const unsigned bits = __builtin_bit_cast(unsigned, x), magnitude = bits & 0x7fffffffu;
    if (magnitude >= 0x7f800000u) return magnitude > 0x7f800000u ? 0x7fffffffu : bits;
    return (bits + 0x1000u) & 0xffffe000u;
}
EMULATED_OWN unsigned round_bf16(float x) {
    const unsigned bits = __builtin_bit_cast(unsigned, x);
    return (bits & 0x7fffffffu) > 0x7f800000u ? 0x7fffu : (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}
EMULATED_OWN unsigned round_bf16x2(float low, float high) { return round_bf16(low) | round_bf16(high) << 16; }
template <int M, int N>
EMULATED_OWN void multiply_bf16(
    float (&sums)[M][2 * N][4], const unsigned (&a)[M][4], const unsigned (&b)[N][4], EMULATED_PLACE) {
    emulator::Factors operands = {sums[0], a, b};
    emulator::warp(0xffffffffu, file, line, &operands, emulator::multiply<emulator::Bf16, M, N>);
}
template <int M, int N>
EMULATED_OWN void multiply_tf32(
    float (&sums)[M][2 * N][4], const unsigned (&a)[M][4], const unsigned (&b)[N][4], EMULATED_PLACE) {
    emulator::Factors operands = {sums[0], a, b};
    emulator::warp(0xffffffffu, file, line, &operands, emulator::multiply<emulator::Tf32, M, N>);
}
#else
// Fragments from shared memory: lane l names the 16 bytes that are row l % 8 of the matrices [l / 8] of all fragments.
template <int COUNT> INLINE void load_fragments(unsigned (&to)[COUNT][4], const void* const (&rows)[COUNT]) {
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(to[i][0]), "=r"(to[i][1]), "=r"(to[i][2]), "=r"(to[i][3])
                     : "r"(unsigned(__cvta_generic_to_shared(rows[i])))
                     : "memory");
    }
}
// The same where the rows in memory run along the fragment's rows: each 8 x 8 matrix of 16-bit elements is transposed on the way.
template <int COUNT> INLINE void load_transposed(unsigned (&to)[COUNT][4], const void* const (&rows)[COUNT]) {
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(to[i][0]), "=r"(to[i][1]), "=r"(to[i][2]), "=r"(to[i][3])
                     : "r"(unsigned(__cvta_generic_to_shared(rows[i])))
                     : "memory");
    }
}
// The nearest tf32, the one further from 0 of two.
INLINE unsigned round_tf32(float x) {
    unsigned rounded;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(x));
    return rounded;
}
// The nearest bf16 of both, the even one of two; `low` in the lower half of the word.
INLINE unsigned round_bf16x2(float low, float high) {
    unsigned rounded;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(rounded) : "f"(high), "f"(low));
    return rounded;
}
#define MULTIPLY_FRAGMENTS(instruction) \
    _Pragma("unroll") for (int m = 0; m < M; m++) { \
        _Pragma("unroll") for (int n = 0; n < 2 * N; n++) { \
            asm volatile(instruction " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
                         : "+f"(sums[m][n][0]), "+f"(sums[m][n][1]), "+f"(sums[m][n][2]), "+f"(sums[m][n][3]) \
                         : "r"(a[m][0]), "r"(a[m][1]), "r"(a[m][2]), "r"(a[m][3]), "r"(b[n / 2][n % 2]), "r"(b[n / 2][n % 2 + 2])); \
        } \
    }
// sums[m][n] += a[m] b[n / 2]^T, half n % 2 of it: each product exact, sums in fp32.
template <int M, int N>
INLINE void multiply_bf16(float (&sums)[M][2 * N][4], const unsigned (&a)[M][4], const unsigned (&b)[N][4]) {
    MULTIPLY_FRAGMENTS("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32")
}
template <int M, int N>
INLINE void multiply_tf32(float (&sums)[M][2 * N][4], const unsigned (&a)[M][4], const unsigned (&b)[N][4]) {
    MULTIPLY_FRAGMENTS("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32")
}
#undef MULTIPLY_FRAGMENTS
#endif
