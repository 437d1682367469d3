// Memory that is not what a kernel takes it for.
#include "fixture.cuh"

// Within the 16 bytes that allocations are rounded up to: `count` is 125.
KERNEL(256) a_read_just_behind_the_end(ARGUMENTS) {
    const int i = int(threadIdx.x);
    if (i < p.count) y[i] = BUG(, i + 1 == p.count ? x[i] :) fmaxf(x[i], x[i + 1]); // here
}

KERNEL(256) a_wild_offset(ARGUMENTS) {
    const int i = int(threadIdx.x);
    if (i < p.count) y[i] = x[BUG(size_t(i) << 24, i)]; // here
}

KERNEL(256) memory_that_nobody_wrote(ARGUMENTS) {
    const int i = int(threadIdx.x);
    if (i >= p.count) return;
    BUG(, y[i] = 0.0f);
    y[i] = y[i] > 1.0f ? 1.0f : x[i]; // here
}

KERNEL(256) a_misaligned_vector(ARGUMENTS) {
    const int i = int(threadIdx.x);
    if (4 * i + 5 > p.count) return;
    const float* from = x + 4 * i + 1;
    const float4 four = BUG(*reinterpret_cast<const float4*>(from), make_float4(from[0], from[1], from[2], from[3])); // here
    y[i] = four.x + four.y + four.z + four.w;
}

KERNEL(256) memory_of_another_device(ARGUMENTS) {
    if (threadIdx.x == 0) y[0] = *BUG(places->other_device, places->own); // here
}

KERNEL(256) memory_of_the_host(ARGUMENTS) {
    if (threadIdx.x == 0) y[0] = *BUG(places->host, places->own); // here
}

KERNEL(256) memory_that_was_given_back(ARGUMENTS) {
    if (threadIdx.x == 0) y[0] = *BUG(places->freed, places->own); // here
}

KERNEL(256) a_null_pointer(ARGUMENTS) {
    if (threadIdx.x == 0) y[0] = *BUG(places->null, places->own); // here
}

struct Pair {
    float first[64], second[64];
};

KERNEL(256) an_index_behind_a_shared_array(ARGUMENTS) {
    SHARED(Pair, pair);
    const int t = int(threadIdx.x);
    if (t < 64) pair.first[t] = pair.second[t] = x[t];
    __syncthreads();
    if (t < 64) y[t] = pair.first[t + BUG(1, 0)]; // here
}

KERNEL(256) an_index_behind_a_local_array(ARGUMENTS) {
    float last[4];
    const int t = int(threadIdx.x);
    for (int i = 0; i < 4; i++) last[i] = x[(t + i) % p.count];
    if (t < p.count) y[t] = last[p.count % 4 + BUG(3, 0)]; // here
}

KERNEL(256) an_index_behind_all_of_shared_memory(ARGUMENTS) {
    SHARED(Pair, pair);
    const int t = int(threadIdx.x);
    float* all = pair.first;
    if (t < 64) all[t] = all[t + 64] = x[t];
    __syncthreads();
    if (t < 64) y[t] = all[2 * t + BUG(2, 1)]; // here
}

KERNEL(256) a_variable_of_the_whole_program(ARGUMENTS) {
    BUG(static, ) float last = 0.0f;
    if (threadIdx.x == 0) {
        for (int i = 0; i < p.count; i++) last = last * 0.5f + x[i]; // here
        y[0] = last;
    }
}

KERNEL(256) a_shift_by_too_much(ARGUMENTS) {
    const int t = int(threadIdx.x);
    if (t < p.count) y[t] = float(1u << BUG(t, t % 32)); // here
}

KERNEL(256) a_division_by_zero(ARGUMENTS) {
    const int t = int(threadIdx.x);
    if (t < p.count) y[t] = float(p.count / BUG(t, (t + 1))); // here
}

KERNEL(256) an_index_that_is_too_large_for_its_type(ARGUMENTS) {
    const int t = int(threadIdx.x);
    const int pitch = p.count << 20;
    if (t < p.count) y[t] = float(BUG(t * pitch, (long long)t * pitch) % 7); // here
}
