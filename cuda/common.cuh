// What all kernels share: constants of a launch, shared memory, the step's state, random numbers. Needs no header of CUDA.
// The same text compiles with NVRTC, with nvcc and, behind emulator/emulator.h, with a host compiler.
#pragma once

// An entry: `KERNEL name(Params params, pointers ...)`. THREADS is the most threads that a block has.
#define KERNEL(THREADS) extern "C" __global__ void __launch_bounds__(THREADS)
#define INLINE static __device__ __forceinline__

// CONSTANTS(Type, name, argument): the launch's parameters. A build for one set of parameters defines PARAMS_WORDS, their 32-bit words:
// then every shape is a constant and divisions by it become multiplications. Otherwise they are the argument itself.
#ifdef PARAMS_WORDS
template <int N> struct ParamsWords {
    unsigned words[N];
};
#define CONSTANTS(Type, name, argument) \
    constexpr Type name = __builtin_bit_cast(Type, ParamsWords<int(sizeof(Type) / 4)>{{PARAMS_WORDS}}); \
    (void)argument
#else
#define CONSTANTS(Type, name, argument) const Type& name = argument
#endif
// The size that the Rust side states for a struct of parameters (PARAMS_BYTES, defined for the kernel that is built).
#define SAME_SIZE(Type, bytes) static_assert(sizeof(Type) == bytes, "the struct of parameters differs from its Rust twin")

// SHARED(Type, name): a struct in shared memory, aligned for vector loads; at most 48 KiB.
#ifndef EMULATED
#define SHARED(Type, name) \
    __shared__ __align__(16) unsigned char name##_bytes[sizeof(Type)]; \
    Type& name = reinterpret_cast<Type&>(name##_bytes)

#endif

// All lanes of a warp meet: what they wrote to memory before, all see after.
#ifdef EMULATED
EMULATED_OWN void sync_warp(EMULATED_PLACE) { emulator::warp(0xffffffffu, file, line, nullptr, emulator::met); }
#else
INLINE void sync_warp() { __syncwarp(); }
#endif

// The value of the lane whose number differs by an exclusive or with `lanes`. All lanes of the warp take part.
#ifdef EMULATED
struct Exchange {
    float give, take;
    int lanes;
};
EMULATED_OWN void exchange(void* const* operands, unsigned) {
    for (int lane = 0; lane < 32; lane++) {
        Exchange& own = *static_cast<Exchange*>(operands[lane]);
        own.take = static_cast<Exchange*>(operands[(lane ^ own.lanes) & 31])->give;
    }
}
EMULATED_OWN float shuffle_xor(float value, int lanes, EMULATED_PLACE) {
    Exchange operand{value, value, lanes};
    emulator::warp(0xffffffffu, file, line, &operand, exchange);
    return operand.take;
}
#else
INLINE float shuffle_xor(float value, int lanes) { return __shfl_xor_sync(0xffffffffu, value, lanes); }
#endif

INLINE constexpr int ceil_div(int n, int by) { return (n + by - 1) / by; }

// The index of this thread among those of the grid, for kernels with one thread per item.
INLINE size_t item() { return size_t(blockIdx.x) * blockDim.x + threadIdx.x; }

// crates/core/src/state.rs, StepState; the learning rates follow it.
struct StepState {
    unsigned seed_low, seed_high, epoch, step, valid, view, views;
    float colour_noise;
    unsigned diverged, reserved[7];
};
SAME_SIZE(StepState, 64);
// crates/core/src/state.rs, Totals.
struct Totals {
    double loss, top1_errors, top5_errors, samples;
};
SAME_SIZE(Totals, 32);

INLINE float rate(const StepState* state, int index) { return reinterpret_cast<const float*>(state + 1)[index]; }

// Philox4x32-10 (crates/core/src/rng.rs): four words at a counter, no state.
struct Words {
    unsigned x, y, z, w;
};
enum Purpose { PURPOSE_CROP = 2, PURPOSE_COLOUR = 3, PURPOSE_DROPOUT = 4 };

INLINE Words philox(const StepState* state, Purpose purpose, unsigned layer, unsigned a, unsigned b, unsigned c) {
    Words words = {a, b, c, unsigned(purpose) << 16 | layer};
    unsigned key0 = state->seed_low, key1 = state->seed_high;
    for (int round = 0; round < 10; round++) {
        const unsigned long long p0 = 0xD2511F53ull * words.x, p1 = 0xCD9E8D57ull * words.z;
        words = {unsigned(p1 >> 32) ^ words.y ^ key0, unsigned(p1), unsigned(p0 >> 32) ^ words.w ^ key1, unsigned(p0)};
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return words;
}
INLINE unsigned word(const Words& words, int i) { return i == 0 ? words.x : i == 1 ? words.y : i == 2 ? words.z : words.w; }
// A number in [0, 1): the upper 24 bits.
INLINE float uniform(unsigned word) { return float(word >> 8) * (1.0f / 16777216.0f); }
// A number in 0..n.
INLINE unsigned below(unsigned word, unsigned n) { return unsigned((unsigned long long)word * n >> 32); }

// max(0, x), a NaN for a NaN: so that a loss shows what went wrong far below.
INLINE float relu(float x) { return x <= 0.0f ? 0.0f : x; }
