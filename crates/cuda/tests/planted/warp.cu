// Lanes of a warp.
#include "fixture.cuh"

using Slots = float[256];

KERNEL(256) no_sync_of_the_warp(ARGUMENTS) {
    SHARED(Slots, slots);
    const int t = int(threadIdx.x);
    slots[t] = x[t];
    BUG(, sync_warp());
    y[t] = slots[t ^ 1]; // here
}

KERNEL(256) no_sync_of_the_warp_before_the_next_write(ARGUMENTS) {
    SHARED(Slots, slots);
    const int t = int(threadIdx.x);
    slots[t] = x[t];
    sync_warp();
    const float neighbour = slots[t ^ 1]; // here
    BUG(, sync_warp());
    slots[t] = neighbour; // here
    sync_warp();
    y[t] = slots[t ^ 2];
}

KERNEL(256) a_sync_of_the_warp_for_the_block(ARGUMENTS) {
    SHARED(Slots, slots);
    const int t = int(threadIdx.x);
    slots[t] = x[t];
    BUG(sync_warp(), __syncthreads());
    y[t] = slots[p.count - 1 - t]; // here
}

KERNEL(256) lanes_in_different_collectives(ARGUMENTS) {
    const int t = int(threadIdx.x);
    float value = x[t];
#ifdef PLANTED
    if (t % 2 == 0) {
        value += shuffle_xor(value, 1); // here
    } else {
        value += shuffle_xor(value, 1); // here
    }
#else
    value += shuffle_xor(value, 1);
#endif
    y[t] = value;
}

KERNEL(256) lanes_that_end_before_a_collective(ARGUMENTS) {
    const int t = int(threadIdx.x);
    if (t >= BUG(p.count - 3, p.count)) return;
    y[t] = x[t] + shuffle_xor(x[t], 2); // here
}
