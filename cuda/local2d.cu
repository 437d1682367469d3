// Convolution without shared weights (crates/nn/src/layers/local2d/): every output position has kernels of its own,
//   y[n, p, q, o] = bias[p, q, o] + sum over r, s, i of x[n, p stride + r - padding, q stride + s - padding, i] w[p, q, o, r, s, i]
// Every pass is one product (gemm.cuh) per position and group, blockIdx.z, over few samples.
//   forward:          samples  x output channels, over taps and input channels; per position of y
//   data gradient:    samples  x input channels, over taps and output channels; per pixel of x
//   weight gradient:  output channels  x taps and input channels, over samples; per position of y
#include "convolution.cuh"

// A position of y (or of x, where that is larger) and a group.
struct Place {
    int position, group;
};
INLINE Place place(const ConvParams& p) { return {int(blockIdx.z) / p.groups, int(blockIdx.z) % p.groups}; }

// One window of every sample: row = sample, k = tap and input channel.
struct Windows {
    static constexpr int VECTOR = WIDTH;
    static constexpr bool ALONG_K = true;
    const ConvParams& p;
    const float* x;
    int top, left;
    struct Row {
        const float* image;
    };
    __device__ __forceinline__ Row row(int i) const {
        return {i < p.batch ? x + size_t(i) * p.in_h * p.in_w * p.x_ld : nullptr};
    }
    __device__ __forceinline__ const float* at(const Row& row, int k) const {
        const int tap = k / group_in(p);
        return row.image && tap < taps(p) ? pixel_of_x(p, row.image, top, left, tap, k % group_in(p)) : nullptr;
    }
};

// The same, transposed: row = tap and input channel, k = sample.
struct Columns {
    static constexpr int VECTOR = WIDTH;
    static constexpr bool ALONG_K = false;
    const ConvParams& p;
    const float* x;
    int top, left;
    struct Row {
        const float* first;
    };
    __device__ __forceinline__ Row row(int i) const {
        const int tap = i / group_in(p);
        return {tap < taps(p) ? pixel_of_x(p, x, top, left, tap, i % group_in(p)) : nullptr};
    }
    __device__ __forceinline__ const float* at(const Row& row, int k) const {
        return row.first && k < p.batch ? row.first + size_t(k) * p.in_h * p.in_w * p.x_ld : nullptr;
    }
};

// Gradients of the windows that see one pixel of x: row = sample, k = tap and output channel.
struct Gradients {
    static constexpr int VECTOR = WIDTH;
    static constexpr bool ALONG_K = true;
    const ConvParams& p;
    const float* dy;
    int h, w;
    struct Row {
        const float* image;
    };
    __device__ __forceinline__ Row row(int i) const {
        return {i < p.batch ? dy + size_t(i) * p.out_h * p.out_w * p.y_ld : nullptr};
    }
    __device__ __forceinline__ const float* at(const Row& row, int k) const {
        const int tap = k / group_out(p);
        if (!row.image || tap >= taps(p)) return nullptr;
        const int window = window_of(p, h, w, tap);
        return window < 0 ? nullptr : row.image + size_t(window) * p.y_ld + k % group_out(p);
    }
};

// The weights through which they see it: row = input channel, k = tap and output channel.
struct BackWeights {
    static constexpr int VECTOR = WIDTH;
    static constexpr bool ALONG_K = false;
    const ConvParams& p;
    const float* w;
    int row_of_x, column_of_x, group;
    struct Row {
        int channel;
    };
    __device__ __forceinline__ Row row(int i) const { return {i < group_in(p) ? i : -1}; }
    __device__ __forceinline__ const float* at(const Row& row, int k) const {
        const int tap = k / group_out(p), output = k % group_out(p);
        if (row.channel < 0 || tap >= taps(p)) return nullptr;
        const int window = window_of(p, row_of_x, column_of_x, tap);
        if (window < 0) return nullptr;
        const size_t kernel = size_t(window) * p.out_c + group * group_out(p) + output;
        return w + (kernel * taps(p) + tap) * group_in(p) + row.channel;
    }
};

KERNEL(THREADS) local2d_forward(ConvParams params, const float* x, const float* w, const float* bias, float* y, float*) {
    CONSTANTS(ConvParams, p, params);
    SHARED(Tiles, tiles);
    const Place at = place(p);
    const int inner = taps(p) * group_in(p), outputs = group_out(p), first = at.position * p.out_c + at.group * outputs;
    const int top = at.position / p.out_w * p.stride - p.padding, left = at.position % p.out_w * p.stride - p.padding;
    const Windows a = {p, x + at.group * group_in(p), top, left};
    const Dense b = {w + size_t(first) * inner, size_t(inner), outputs, inner};
    const Corner tile = corner(outputs);
    product(tiles, a, b, tile.m, tile.n, 0, inner, [&](int n, int o, float sum) {
        if (n >= p.batch || o >= outputs) return;
        const float value = sum + bias[first + o];
        y[(size_t(n) * p.out_h * p.out_w + at.position) * p.y_ld + at.group * outputs + o] = p.relu ? relu(value) : value;
    });
}

KERNEL(THREADS) local2d_data_gradient(ConvParams params, const float* dy, const float* w, float* dx, float*) {
    CONSTANTS(ConvParams, p, params);
    SHARED(Tiles, tiles);
    const Place at = place(p);
    const int inner = taps(p) * group_out(p), channels = group_in(p);
    const int h = at.position / p.in_w, column = at.position % p.in_w;
    const Gradients a = {p, dy + at.group * group_out(p), h, column};
    const BackWeights b = {p, w, h, column, at.group};
    const Corner tile = corner(channels);
    product(tiles, a, b, tile.m, tile.n, 0, inner, [&](int n, int i, float sum) {
        if (n >= p.batch || i >= channels) return;
        dx[(size_t(n) * p.in_h * p.in_w + at.position) * p.x_ld + at.group * channels + i] = sum;
    });
}

KERNEL(THREADS) local2d_weight_gradient(ConvParams params, const float* x, const float* dy, float* dw, float*, float*) {
    CONSTANTS(ConvParams, p, params);
    SHARED(Tiles, tiles);
    const Place at = place(p);
    const int inner = taps(p) * group_in(p), outputs = group_out(p), first = at.position * p.out_c + at.group * outputs;
    const int top = at.position / p.out_w * p.stride - p.padding, left = at.position % p.out_w * p.stride - p.padding;
    const size_t image = size_t(p.out_h) * p.out_w * p.y_ld;
    const Transposed a = {dy + size_t(at.position) * p.y_ld + at.group * outputs, image, outputs, p.batch};
    const Columns b = {p, x + at.group * group_in(p), top, left};
    const Corner tile = corner(inner);
    // The batch as a number that the compiler does not know: it would unroll the few turns of this loop, and spill registers.
    product(tiles, a, b, tile.m, tile.n, 0, params.batch, [&](int o, int i, float sum) {
        if (o < outputs && i < inner) dw[(size_t(first) + o) * inner + i] = sum;
    });
}

// dbias of position blockIdx.y.
KERNEL(256) local2d_bias_gradient(ConvParams params, const float*, const float* dy, float*, float* db, float*) {
    CONSTANTS(ConvParams, p, params);
    SHARED(BiasSums, sums);
    const int position = int(blockIdx.y), positions = p.out_h * p.out_w;
    bias_gradient(sums, dy + size_t(position) * p.y_ld, positions * p.y_ld, 0, p.batch, p.out_c,
                  db + size_t(position) * p.out_c);
}
