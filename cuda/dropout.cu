// Dropout (crates/nn/src/layers/dropout.rs). dropout_mask: x = keep ? x * scale : 0; element e of a sample, e = pixel * total + channel, is kept
// where word e % 4 of the numbers at (e / 4, id, epoch) is not below p. dropout_scale: x = x * scale.
#include "common.cuh"

struct DropoutParams {
    int batch, pixels, c, ld, first, total;
    unsigned layer;
    float p, scale;
};

// One thread for each four elements that share a call of philox; a tower's channels may begin and end within such four.
KERNEL(256) dropout_mask(DropoutParams params, const StepState* state, const unsigned* ids, float* x) {
    CONSTANTS(DropoutParams, p, params);
    // As in the Rust file: the calls that the channels of a pixel need, at most.
    const bool whole = p.first % 4 == 0 && p.total % 4 == 0;
    const unsigned calls = (unsigned(p.c) + (whole ? 3 : 6)) / 4;
    const size_t row = item() / calls;
    if (row >= size_t(p.batch) * p.pixels) return;
    const size_t first = row % p.pixels * p.total + p.first, call = first / 4 + item() % calls;
    // The channel of the first of the four, seen from this tower: -3 at least.
    const long long channel = (long long)(4 * call) - (long long)first;
    if (channel >= p.c) return;
    const Words words = philox(state, PURPOSE_DROPOUT, p.layer, unsigned(call), ids[row / p.pixels], state->epoch);
    const auto masked = [&](int i, float value) { return uniform(word(words, i)) >= p.p ? value * p.scale : 0.0f; };
    float* values = x + row * p.ld;
    if (channel >= 0 && channel + 4 <= p.c && reinterpret_cast<size_t>(values + channel) % 16 == 0) {
        float4& four = *reinterpret_cast<float4*>(values + channel);
        const float4 v = four;
        four = make_float4(masked(0, v.x), masked(1, v.y), masked(2, v.z), masked(3, v.w));
        return;
    }
    for (int i = 0; i < 4; i++) {
        if (channel + i < 0 || channel + i >= p.c) continue;
        float& value = values[channel + i];
        value = masked(i, value);
    }
}

KERNEL(256) dropout_scale(DropoutParams params, float* x) {
    CONSTANTS(DropoutParams, p, params);
    const size_t i = item();
    if (i >= size_t(p.batch) * p.pixels * p.c) return;
    x[p.ld == p.c ? i : i / p.c * p.ld + i % p.c] *= p.scale;
}
