// What a device can do at most (crates/nn/src/ceilings.rs): copies of memory, and multiply-adds on registers.
#include "common.cuh"

struct CopyCeilingParams {
    unsigned vectors;
};

// to = from, 16 bytes at a time. Four loads of each thread are under way before the first store.
#define EACH 4
KERNEL(256) copy_ceiling(CopyCeilingParams params, const float4* from, float4* to) {
    CONSTANTS(CopyCeilingParams, p, params);
    const size_t first = size_t(blockIdx.x) * blockDim.x * EACH + threadIdx.x;
    float4 vectors[EACH];
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        if (first + i * blockDim.x < p.vectors) vectors[i] = from[first + i * blockDim.x];
    }
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        if (first + i * blockDim.x < p.vectors) to[first + i * blockDim.x] = vectors[i];
    }
}

struct MultiplyCeilingParams {
    unsigned items, rounds;
};

// Every item has CHAINS numbers x = 1, 2, ..., and `rounds` times x = x factor + term; y = their sum. No number waits for another one.
#define CHAINS 8
KERNEL(256) multiply_ceiling(MultiplyCeilingParams params, float* y) {
    CONSTANTS(MultiplyCeilingParams, p, params);
    const size_t i = item();
    if (i >= p.items) return;
    // Of each item its own, and both exact: 1 - 1/1024 to 1 - 8/1024, and 1/1024 to 4/1024.
    const float factor = float(1023 - i % 8) / 1024.0f, term = float(1 + i % 4) / 1024.0f;
    float x[CHAINS];
#pragma unroll
    for (int chain = 0; chain < CHAINS; chain++) x[chain] = float(1 + chain);
#pragma unroll 4
    for (unsigned round = 0; round < p.rounds; round++) {
#pragma unroll
        for (int chain = 0; chain < CHAINS; chain++) x[chain] = fmaf(x[chain], factor, term);
    }
    float sum = 0.0f;
#pragma unroll
    for (int chain = 0; chain < CHAINS; chain++) sum += x[chain];
    y[i] = sum;
}
