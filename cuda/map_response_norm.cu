// y_i = x_i s_i^-beta, s_i = k + alpha * sum of x_j^2 over the size x size pixels of the same channel from size / 2 above and left of i on, clipped to
// the image. dx_i = dy_i s_i^-beta - 2 alpha beta x_i * sum of dy_j x_j s_j^(-beta - 1) over the j whose window holds i: first every pixel leaves its
// term in scratch memory, then every pixel collects them (crates/nn/src/layers/map_response_norm.rs).
#include "response_norm.cuh"

struct MapResponseNormParams {
    int batch, h, w, c, size, x_ld, y_ld, dx_ld;
    float k, alpha, beta;
};

// A channel of a pixel; neighbouring threads have neighbouring channels.
struct Element {
    int image, row, column, channel;
    bool exists;
};

INLINE Element element(const MapResponseNormParams& p) {
    const size_t i = item(), pixel = i / p.c, plane = size_t(p.h) * p.w;
    const int within = int(pixel % plane);
    return {int(pixel / plane), within / p.w, within % p.w, int(i % p.c), pixel < p.batch * plane};
}

// Where pixel (row, column) of the element's image lies, and in it the element's channel.
INLINE size_t place(const MapResponseNormParams& p, const Element& e, int row, int column, int ld) {
    return ((size_t(e.image) * p.h + row) * p.w + column) * ld + e.channel;
}
INLINE size_t place(const MapResponseNormParams& p, const Element& e, int ld) { return place(p, e, e.row, e.column, ld); }

// The sum of the values, or of their squares, over the window that begins `before` pixels above and left of the element.
INLINE float sum(const MapResponseNormParams& p, const Element& e, const float* values, int ld, int before, bool squares) {
    const int top = max(0, e.row - before), bottom = int(min((long long)p.h, (long long)e.row - before + p.size));
    const int left = max(0, e.column - before), right = int(min((long long)p.w, (long long)e.column - before + p.size));
    float sum = 0.0f;
    for (int row = top; row < bottom; row++) {
        for (int column = left; column < right; column++) {
            const float value = values[place(p, e, row, column, ld)];
            sum = squares ? fmaf(value, value, sum) : sum + value;
        }
    }
    return sum;
}

INLINE Powers powers_of(const MapResponseNormParams& p, const Element& e, const float* x) {
    return powers(fmaf(p.alpha, sum(p, e, x, p.x_ld, p.size / 2, true), p.k), p.beta);
}

KERNEL(256) map_response_norm_forward(MapResponseNormParams params, const float* x, float* y, float*) {
    CONSTANTS(MapResponseNormParams, p, params);
    const Element e = element(p);
    if (e.exists) y[place(p, e, p.y_ld)] = x[place(p, e, p.x_ld)] * powers_of(p, e, x).power;
}

KERNEL(256) map_response_norm_terms(MapResponseNormParams params, const float* x, const float* dy, float* dx, float* terms) {
    CONSTANTS(MapResponseNormParams, p, params);
    const Element e = element(p);
    if (!e.exists) return;
    const Powers at = powers_of(p, e, x);
    const float gradient = dy[place(p, e, p.y_ld)];
    dx[place(p, e, p.dx_ld)] = gradient * at.power;
    terms[place(p, e, p.c)] = gradient * x[place(p, e, p.x_ld)] * at.slope;
}

KERNEL(256) map_response_norm_backward(MapResponseNormParams params, const float* x, const float*, float* dx, const float* terms) {
    CONSTANTS(MapResponseNormParams, p, params);
    const Element e = element(p);
    if (!e.exists) return;
    // A pixel lies in the windows of those in its mirrored window.
    const float indirect = sum(p, e, terms, p.c, p.size - 1 - p.size / 2, false);
    dx[place(p, e, p.dx_ld)] -= 2.0f * p.alpha * p.beta * x[place(p, e, p.x_ld)] * indirect;
}
