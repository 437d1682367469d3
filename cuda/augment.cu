// out = (crop of pixels - mean + noise) / divisor * scale, mirrored or not (crates/nn/src/augment.rs).
#include "common.cuh"

struct AugmentParams {
    int batch, image, crop, train, flip;
    float noise_divisor, scale;
};

// What all pixels of a sample share.
struct Sample {
    int top, left, mirrored;
    float noise[3], factor;
};

// Number `view` of the ten views of the test.
INLINE void look_at(Sample& sample, const AugmentParams& p, unsigned view) {
    const int far = p.image - p.crop, corner = int(view % 5);
    sample.top = corner == 0 ? far / 2 : corner <= 2 ? 0 : far;
    sample.left = corner == 0 ? far / 2 : corner % 2 == 1 ? 0 : far;
    sample.mirrored = view % 10 >= 5;
}

INLINE void crop_at_random(Sample& sample, const AugmentParams& p, const StepState* state, unsigned id) {
    const Words words = philox(state, PURPOSE_CROP, 0, id, 0, state->epoch);
    const unsigned offsets = unsigned(p.image - p.crop + 1);
    sample.top = int(below(words.x, offsets));
    sample.left = int(below(words.y, offsets));
    sample.mirrored = p.flip != 0 && words.z >> 31 == 1;
}

// crates/core/src/rng.rs, box_muller: the radius, from (0, 1] so that the logarithm stays finite, and the angle.
INLINE float radius(unsigned word) { return sqrtf(-2.0f * logf(float((word >> 8) + 1) * (1.0f / 16777216.0f))); }
INLINE float angle(unsigned word) { return 6.28318530717958647692f * uniform(word); }

INLINE void colour_at_random(Sample& sample, const StepState* state, const float* colour, unsigned id) {
    const Words words = philox(state, PURPOSE_COLOUR, 0, id, 0, state->epoch);
    const float near = radius(words.x), turn = angle(words.y);
    const float z[3] = {near * cosf(turn), near * sinf(turn), radius(words.z) * cosf(angle(words.w))};
    for (int channel = 0; channel < 3; channel++) {
        float sum = 0.0f;
        for (int i = 0; i < 3; i++) sum = fmaf(z[i] * colour[i], colour[3 + 3 * i + channel], sum);
        sample.noise[channel] = state->colour_noise * sum;
    }
}

// Blocks: samples x groups of eight rows. A warp has a row; what the sample shares is drawn once in a block.
KERNEL(256) augment(AugmentParams params, const unsigned char* pixels, const unsigned* ids, const StepState* state, const float* mean,
                    const float* colour, float* out) {
    CONSTANTS(AugmentParams, p, params);
    SHARED(Sample, sample);
    const size_t n = blockIdx.x;
    if (threadIdx.x == 0) {
        const bool random = p.train != 0 && state->views != 0, noisy = random && state->colour_noise > 0.0f;
        if (random) {
            crop_at_random(sample, p, state, ids[n]);
        } else {
            look_at(sample, p, p.train != 0 ? 0 : state->view);
        }
        sample.noise[0] = sample.noise[1] = sample.noise[2] = 0.0f;
        if (noisy) colour_at_random(sample, state, colour, ids[n]);
        sample.factor = noisy ? p.scale / p.noise_divisor : p.scale;
    }
    __syncthreads();
    const int row = int(blockIdx.y * (blockDim.x / 32) + threadIdx.x / 32), length = 3 * p.crop;
    if (row >= p.crop) return;
    const bool mirrored = sample.mirrored;
    const float factor = sample.factor;
    pixels += ((n * p.image + sample.top + row) * p.image + sample.left) * 3;
    mean += size_t(row) * length;
    out += (n * p.crop + row) * length;
    for (int i = int(threadIdx.x % 32); i < length; i += 32) {
        const int channel = i % 3;
        // Mirrored, the pixels run backwards, the channels of each do not.
        const int from = mirrored ? length - 3 - i + 2 * channel : i;
        out[i] = (float(pixels[from]) - mean[i] + sample.noise[channel]) * factor;
    }
}
