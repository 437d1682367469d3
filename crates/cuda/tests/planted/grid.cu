// Blocks of a launch.
#include "fixture.cuh"

KERNEL(256) a_sum_by_all_blocks(ARGUMENTS) {
    unsigned* sum = reinterpret_cast<unsigned*>(places->own);
    if (threadIdx.x != 0) return;
    BUG(*sum += 1, atomicAdd(sum, 1u)); // here
}

KERNEL(256) a_block_that_reads_what_another_writes(ARGUMENTS) {
    const int t = int(threadIdx.x), block = int(blockIdx.x);
    if (t != 0) return;
    y[block] = x[block] + (block > 0 ? BUG(y[block - 1], x[block - 1]) : 0.0f); // here
}

KERNEL(256) a_write_behind_the_end(ARGUMENTS) {
    const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
    BUG(, if (i >= p.count) return);
    y[i] = x[i % p.count]; // here
}
