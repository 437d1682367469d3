// Asynchronous copies.
#include "async.cuh"
#include "fixture.cuh"

struct Buffers {
    float at[2][64];
};

// Each of the first 16 threads copies four floats.
INLINE void fetch(float (&to)[64], const float* from) {
    const int t = int(threadIdx.x);
    if (t < 16) copy_async16(to + 4 * t, from + 4 * t, true);
    commit_async();
}

KERNEL(256) no_wait_for_a_copy(ARGUMENTS) {
    SHARED(Buffers, buffers);
    const int t = int(threadIdx.x);
    fetch(buffers.at[0], x);
    BUG(, wait_async<0>());
    __syncthreads();
    y[t] = buffers.at[0][t]; // here
}

KERNEL(256) a_wait_for_the_wrong_copy(ARGUMENTS) {
    SHARED(Buffers, buffers);
    const int t = int(threadIdx.x);
    fetch(buffers.at[0], x);
    fetch(buffers.at[1], x + 64);
    wait_async<BUG(1, 0)>();
    __syncthreads();
    y[t] = buffers.at[0][t] + buffers.at[1][t]; // here
}

KERNEL(256) no_barrier_behind_the_wait(ARGUMENTS) {
    SHARED(Buffers, buffers);
    const int t = int(threadIdx.x);
    fetch(buffers.at[0], x);
    wait_async<0>();
    BUG(, __syncthreads());
    y[t] = buffers.at[0][63 - t]; // here
}

// The next copy into a buffer is asked for while others still read it.
KERNEL(256) no_barrier_before_the_next_copy(ARGUMENTS) {
    SHARED(Buffers, buffers);
    const int t = int(threadIdx.x);
    float sum = 0.0f;
    fetch(buffers.at[0], x);
    for (int round = 0; round < 4; round++) {
        wait_async<0>();
        __syncthreads();
        sum += buffers.at[0][63 - t]; // here
        BUG(, __syncthreads());
        if (round < 3) fetch(buffers.at[0], x + 16 * (round + 1)); // here
    }
    y[t] = sum;
}

KERNEL(256) a_copy_from_a_misaligned_address(ARGUMENTS) {
    SHARED(Buffers, buffers);
    const int t = int(threadIdx.x);
    BUG(fetch(buffers.at[0], x + 1), buffers.at[0][t] = x[t + 1]); // here
    wait_async<0>();
    __syncthreads();
    y[t] = buffers.at[0][t];
}

KERNEL(256) a_copy_from_behind_the_end(ARGUMENTS) {
    SHARED(Buffers, buffers);
    const int t = int(threadIdx.x);
    if (t < 16) copy_async16(buffers.at[0] + 4 * t, x + 4 * t + p.count - 32, BUG(true, t < 8)); // here
    commit_async();
    wait_async<0>();
    __syncthreads();
    y[t] = buffers.at[0][t];
}
