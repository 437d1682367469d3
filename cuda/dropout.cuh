// Dropout of an element in the epilogue of a product (crates/nn/src/layers/dropout.rs, Epilogue).
#pragma once
#include "common.cuh"

struct DropoutEpilogue {
    unsigned first, layer;
    float p, scale;
};

// Output `output` of sample `id` after dropout. A call of philox for each, of which one word of four is used: it is cheap beside a product.
INLINE float dropout(const DropoutEpilogue& d, const StepState* state, unsigned id, unsigned output, float value) {
    const unsigned element = d.first + output;
    if (d.p > 0.0f) {
        const Words words = philox(state, PURPOSE_DROPOUT, d.layer, element / 4, id, state->epoch);
        if (uniform(word(words, element % 4)) < d.p) return 0.0f;
    }
    return value * d.scale;
}
