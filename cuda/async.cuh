// Copies from global to shared memory that go on beside the thread that asked for them (sm_80 and later). What was asked for between two commits is a
// group. A copy has arrived, for the thread that asked, after a wait that leaves fewer groups pending; for the others after a barrier behind it.
#pragma once
#include "common.cuh"

#ifdef EMULATED
EMULATED_OWN void copy_async16(void* shared, const void* global, bool valid) {
    emulator::copy_async(shared, global, 16, valid ? 16 : 0, EMULATED_SITE);
}
EMULATED_OWN void copy_async4(void* shared, const void* global, bool valid) {
    emulator::copy_async(shared, global, 4, valid ? 4 : 0, EMULATED_SITE);
}
EMULATED_OWN void commit_async() { emulator::current->runtime->commit_async(emulator::current); }
template <int PENDING> EMULATED_OWN void wait_async() { emulator::current->runtime->wait_async(emulator::current, PENDING); }
#else
// 16 bytes to shared memory, both addresses multiples of 16; zeros where not valid, and then nothing is read. Through the L1 cache (.ca): neighbouring
// windows of a convolution read the same pixels.
INLINE void copy_async16(void* shared, const void* global, bool valid) {
    const unsigned to = unsigned(__cvta_generic_to_shared(shared));
    const int bytes = valid ? 16 : 0;
    asm volatile("cp.async.ca.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(bytes) : "memory");
}
// The same for 4 bytes.
INLINE void copy_async4(void* shared, const void* global, bool valid) {
    const unsigned to = unsigned(__cvta_generic_to_shared(shared));
    const int bytes = valid ? 4 : 0;
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(global), "r"(bytes) : "memory");
}
// Closes a group.
INLINE void commit_async() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most PENDING of this thread's groups are under way.
template <int PENDING> INLINE void wait_async() { asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory"); }
#endif
