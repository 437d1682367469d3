// The CUDA language on a plain processor: enough of it for the kernels of this folder. Put in front of a kernel's source, which then
// compiles with a host C++ compiler (crates/cuda/src/emulated/build.rs does that).
//
// A thread of a block is a fiber. It runs until it waits for others, at a barrier or in an operation of its warp; the scheduler
// (crates/cuda/src/emulated/block.rs) then runs another one. Everything that a kernel can ask of it goes through `Runtime`.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#define EMULATED 1
#define __global__
#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))

struct uint3 {
    unsigned x, y, z;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

// EMULATED_OWN result name(...): a function that does the emulator's work for a kernel: what common.cuh and its like put behind their names for a
// device's instructions.
#define EMULATED_OWN __attribute__((unused)) static inline
// The place of a call, as the last parameters of such a function: `name(..., EMULATED_PLACE)` then knows `file` and `line`.
#define EMULATED_PLACE const char *file = __builtin_FILE(), unsigned line = __builtin_LINE()
// The site of a call, within such a function.
#define EMULATED_SITE __builtin_return_address(0)

namespace emulator {
struct Context;
// What an access does.
enum Kind : unsigned { READ = 0, WRITE = 1 };
// Combines what the lanes of a warp left: operands[lane], null for lanes outside of the mask.
using Combine = void (*)(void* const* operands, unsigned mask);
// Twin of `Runtime` in crates/cuda/src/emulated/block.rs.
struct Runtime {
    void (*barrier)(Context*, unsigned line);
    void* (*shared)(Context*, size_t bytes, unsigned line);
    void (*warp)(Context*, unsigned mask, unsigned line, void* operands, Combine);
    void (*copy_async)(Context*, void* to, const void* from, unsigned bytes, unsigned valid);
    void (*commit_async)(Context*);
    void (*wait_async)(Context*, unsigned pending);
    void (*access)(Context*, const void* address, unsigned bytes, unsigned kind, const void* site);
};
// Twin of `Context` there: what the running fiber sees.
struct Context {
    uint3 thread, block, threads, blocks;
    const Runtime* runtime;
};
static thread_local Context* current;

EMULATED_OWN void warp(unsigned mask, const char*, unsigned line, void* operands, Combine combine) {
    current->runtime->warp(current, mask, line, operands, combine);
}
EMULATED_OWN void copy_async(void* to, const void* from, unsigned bytes, unsigned valid, const void*) {
    current->runtime->copy_async(current, to, from, bytes, valid);
}
// The kernel touches memory at `site` (EMULATED_SITE), through the function that calls this.
EMULATED_OWN void touches(const void*, size_t, unsigned, const void*) {}
} // namespace emulator

#define threadIdx (emulator::current->thread)
#define blockIdx (emulator::current->block)
#define blockDim (emulator::current->threads)
#define gridDim (emulator::current->blocks)
#define __syncthreads() emulator::current->runtime->barrier(emulator::current, __LINE__)
#define SHARED(Type, name) \
    Type& name = *static_cast<Type*>(emulator::current->runtime->shared(emulator::current, sizeof(Type), __LINE__))

using std::max;
using std::min;
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
template <class To, class From> static inline To emulated_bits(From from) {
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}
static inline unsigned __float_as_uint(float x) { return emulated_bits<unsigned>(x); }
static inline float __uint_as_float(unsigned x) { return emulated_bits<float>(x); }

// How the scheduler calls an entry: `arguments[i]` points to argument i, as in cuLaunchKernel.
namespace emulator {
template <size_t... I, class... A>
static inline void call(void (*entry)(A...), void* const* arguments, std::index_sequence<I...>) {
    entry(*static_cast<std::remove_reference_t<A>*>(arguments[I])...);
}
template <class... A> static inline void call(void (*entry)(A...), void* const* arguments) {
    call(entry, arguments, std::index_sequence_for<A...>{});
}
template <class... A> static constexpr unsigned count(void (*)(A...)) { return sizeof...(A); }
template <class P, class... A> static constexpr unsigned first(void (*)(P, A...)) { return sizeof(P); }
} // namespace emulator

// One line per entry behind the source: how to call it, how many arguments it has, how large its parameters are.
#define EMULATED_ENTRY(name) \
    extern "C" __attribute__((visibility("default"))) void emulated_run_##name(emulator::Context* context, void* const* arguments) { \
        emulator::current = context; \
        emulator::call(name, arguments); \
    } \
    extern "C" __attribute__((visibility("default"))) const unsigned emulated_shape_##name[2] = {emulator::count(name), emulator::first(name)};
