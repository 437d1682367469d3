// Threads of a block that do not wait for each other where they must.
#include "fixture.cuh"

using Slots = float[256];

KERNEL(256) no_barrier_after_a_write(ARGUMENTS) {
    SHARED(Slots, slots);
    const int t = int(threadIdx.x);
    slots[t] = x[t];
    BUG(, __syncthreads());
    y[t] = slots[(t + 1) % p.count]; // here
}

KERNEL(256) no_barrier_before_the_next_write(ARGUMENTS) {
    SHARED(Slots, slots);
    const int t = int(threadIdx.x);
    float sum = 0.0f;
    for (int round = 0; round < 3; round++) {
        slots[t] = x[t] * float(round); // here
        __syncthreads();
        sum += slots[(t + 1) % p.count]; // here
        BUG(, __syncthreads());
    }
    y[t] = sum;
}

KERNEL(256) no_barrier_in_a_reduction(ARGUMENTS) {
    SHARED(Slots, slots);
    const int t = int(threadIdx.x);
    slots[t] = x[t];
    __syncthreads();
    for (int half = int(blockDim.x) / 2; half > 0; half /= 2) {
        if (t < half) slots[t] += slots[t + half]; // here
        BUG(, __syncthreads());
    }
    if (t == 0) y[0] = slots[0];
}

// Only the thread with the odd one out writes what all read.
KERNEL(256) no_barrier_around_a_flag(ARGUMENTS) {
    SHARED(int, largest);
    const int t = int(threadIdx.x);
    if (t == p.count - 1) largest = t;
    BUG(, __syncthreads());
    if (t != 0) y[t] = float(largest); // here
}

KERNEL(256) shared_memory_that_nobody_wrote(ARGUMENTS) {
    SHARED(Slots, slots);
    const int t = int(threadIdx.x);
    if (t < BUG(p.count - 1, p.count)) slots[t] = x[t];
    __syncthreads();
    y[t] = slots[p.count - 1 - t]; // here
}

KERNEL(256) different_barriers(ARGUMENTS) {
    SHARED(Slots, slots);
    const int t = int(threadIdx.x);
    slots[t] = x[t];
#ifdef PLANTED
    if (t < 32) {
        __syncthreads(); // here
    } else {
        __syncthreads(); // here
    }
#else
    __syncthreads();
#endif
    y[t] = slots[p.count - 1 - t];
}

KERNEL(256) threads_that_end_before_a_barrier(ARGUMENTS) {
    SHARED(Slots, slots);
    const int t = int(threadIdx.x);
    BUG(if (t >= p.count - 7) return, );
    slots[t] = x[t];
    __syncthreads(); // here
    if (t < p.count - 7) y[t] = slots[t];
}

KERNEL(256) a_sum_by_all_threads(ARGUMENTS) {
    unsigned* sum = reinterpret_cast<unsigned*>(y);
    if (threadIdx.x == 0) *sum = 0;
    __syncthreads();
    BUG(*sum += 1, atomicAdd(sum, 1u)); // here
}

KERNEL(256) a_sum_that_begins_too_late(ARGUMENTS) {
    SHARED(unsigned, sum);
    if (threadIdx.x == 0) sum = 0; // here
    BUG(, __syncthreads());
    atomicAdd(&sum, 1u); // here
    __syncthreads();
    if (threadIdx.x == 0) y[0] = float(sum);
}
