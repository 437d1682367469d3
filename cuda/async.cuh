// Copies from global to shared memory that go on beside the thread that asked for them. What was asked for between two commits is a group.
// A copy has arrived, for the thread that asked, after a wait that leaves fewer groups pending; for the others after a barrier behind it.
#pragma once
#include "common.cuh"

// The emulator has its own (emulator/emulator.h). Devices below sm_80 copy at once.
#ifndef EMULATED
// 16 bytes to shared memory, both addresses multiples of 16; zeros where not valid, and then nothing is read.
INLINE void copy_async16(void* shared, const void* global, bool valid) {
#if __CUDA_ARCH__ >= 800
    const unsigned to = unsigned(__cvta_generic_to_shared(shared));
    const int bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(bytes) : "memory");
#else
    *static_cast<uint4*>(shared) = valid ? *static_cast<const uint4*>(global) : uint4{0, 0, 0, 0};
#endif
}
// Closes a group.
INLINE void commit_async() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
// Waits until at most PENDING of this thread's groups are under way.
template <int PENDING> INLINE void wait_async() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
#endif
}
#endif
