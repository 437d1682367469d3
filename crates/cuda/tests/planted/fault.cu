// Kernels that do not end by themselves.
#include "fixture.cuh"

KERNEL(256) a_loop_without_end(ARGUMENTS) {
    int i = 0;
    while (BUG(x[i % p.count] >= 0.0f, i < 9)) i++; // none is less; where it is caught is chance
    if (threadIdx.x == 0) y[0] = float(i);
}

KERNEL(256) barriers_without_end(ARGUMENTS) {
    for (int i = 0; BUG(i >= 0, i < 9); i = (i + 1) % 10) __syncthreads(); // here
    if (threadIdx.x == 0) y[0] = x[0];
}

KERNEL(256) a_thread_that_spins_on_another(ARGUMENTS) {
    SHARED(int, flag);
    volatile int& seen = flag;
    if (threadIdx.x == 0) flag = 0;
    __syncthreads();
#ifdef PLANTED
    if (threadIdx.x == 0) {
        while (seen == 0) { // where it is caught is chance
        }
    }
    if (threadIdx.x == 1) seen = 1;
#endif
    if (threadIdx.x == 0) y[0] = x[0];
}

static __device__ __attribute__((noinline)) float deep(const float* x, int depth) {
    volatile float local[256];
    for (int i = 0; i < 256; i++) local[i] = x[0];
    return depth == 0 ? local[0] : deep(x, depth - 1) + local[depth % 256];
}

KERNEL(256) a_stack_that_is_full(ARGUMENTS) {
    if (threadIdx.x == 0) y[0] = deep(x, BUG(1000, 3));
}
