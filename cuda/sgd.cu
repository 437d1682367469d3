// v = m v - decay lr w - lr g; w = w + v (crates/nn/src/sgd.rs). Nothing changes where lr is 0, or after a loss that was not finite.
#include "common.cuh"

struct SgdParams {
    int rate;
    unsigned count;
    float momentum, decay;
};

// The multiply-adds are spelled out, so that both ways through the kernel round alike.
INLINE void update(float& w, float g, float& v, float m, float decay, float lr) {
    v = fmaf(m, v, -fmaf(decay, w, lr * g));
    w += v;
}

INLINE bool aligned(const void* pointer) { return reinterpret_cast<size_t>(pointer) % 16 == 0; }

// Four elements a thread: as one vector where the memory allows it.
KERNEL(256) sgd(SgdParams params, float* weight, const float* gradient, float* momentum, const StepState* state) {
    CONSTANTS(SgdParams, p, params);
    const size_t first = 4 * item();
    const float lr = rate(state, p.rate), decay = p.decay * lr, m = p.momentum;
    if (first >= p.count || lr == 0.0f || state->diverged != 0) return;
    if (first + 4 <= p.count && aligned(weight) && aligned(gradient) && aligned(momentum)) {
        float4& weights = *reinterpret_cast<float4*>(weight + first);
        float4& velocities = *reinterpret_cast<float4*>(momentum + first);
        const float4 g = *reinterpret_cast<const float4*>(gradient + first);
        float4 w = weights, v = velocities;
        update(w.x, g.x, v.x, m, decay, lr);
        update(w.y, g.y, v.y, m, decay, lr);
        update(w.z, g.z, v.z, m, decay, lr);
        update(w.w, g.w, v.w, m, decay, lr);
        weights = w;
        velocities = v;
        return;
    }
    for (size_t i = first; i < first + 4 && i < p.count; i++) update(weight[i], gradient[i], momentum[i], m, decay, lr);
}
