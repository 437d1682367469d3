// What both response normalisations share: y = x s^-beta with s = k + alpha * sum of squares (crates/nn/src/layers/response_norm.rs).
#pragma once
#include "common.cuh"

// s^-beta and s^(-beta - 1).
struct Powers {
    float power, slope;
};

INLINE Powers powers(float s, float beta) {
    if (beta == 0.75f) { // the paper's: two roots
        const float root = rsqrtf(s), power = root * sqrtf(root);
        return {power, power * root * root};
    }
    const float power = powf(s, -beta);
    return {power, power / s};
}
