// Convolution with groups, stride, zero padding and bias (crates/nn/src/layers/conv2d/):
//   y[n, p, q, o] = bias[o] + sum over r, s, i of x[n, p stride + r - padding, q stride + s - padding, i] w[o, r, s, i]
// Every pass is a product (gemm.cuh) for each group, blockIdx.z; taps are numbered r * kernel + s.
//   forward:          pixels of y  x output channels, over taps and input channels
//   data gradient:    pixels of x  x input channels, over taps and output channels
//   weight gradient:  output channels  x taps and input channels, over the pixels of y in parts, which are then added in order
#include "convolution.cuh"
#include "space_to_depth.cuh"

// Set by the launch: whether forward and weight gradient are those of the packed convolution (space_to_depth.cuh). Then scratch memory begins with its images.
#ifndef PACKED
#define PACKED 0
#endif
INLINE ConvParams effective(const ConvParams& p) { return PACKED ? packed(p) : p; }
INLINE size_t packed_size(const ConvParams& q) { return PACKED ? images(q) : 0; }

// Windows over x: row = pixel of y, k = tap and input channel.
struct Windows {
    static constexpr int VECTOR = WIDTH;
    static constexpr bool ALONG_K = true;
    const ConvParams& p;
    const float* x;
    struct Row {
        const float* image;
        int top, left;
    };
    __device__ __forceinline__ Row row(int i) const {
        const int pixels = p.out_h * p.out_w;
        if (i >= p.batch * pixels) return {nullptr, 0, 0};
        const int image = i / pixels, pixel = i % pixels;
        return {x + size_t(image) * p.in_h * p.in_w * p.x_ld, pixel / p.out_w * p.stride - p.padding,
                pixel % p.out_w * p.stride - p.padding};
    }
    __device__ __forceinline__ const float* at(const Row& row, int k) const {
        if (!row.image || k >= taps(p) * group_in(p)) return nullptr;
        const Term of = term(k, taps(p), group_in(p));
        return pixel_of_x(p, row.image, row.top, row.left, of.tap, of.channel);
    }
};

// Weights: row = output channel, k = tap and input channel.
struct Weights {
    static constexpr int VECTOR = WIDTH;
    static constexpr bool ALONG_K = true;
    const ConvParams& p;
    const float* w;
    struct Row {
        const float* kernel;
    };
    __device__ __forceinline__ Row row(int i) const {
        return {i < group_out(p) ? w + size_t(i) * taps(p) * group_in(p) : nullptr};
    }
    __device__ __forceinline__ const float* at(const Row& row, int k) const {
        if (!row.kernel || k >= taps(p) * group_in(p)) return nullptr;
        const Term of = term(k, taps(p), group_in(p));
        return row.kernel + of.tap * group_in(p) + of.channel;
    }
};

// Gradients of y seen from x: row = pixel of x, k = tap and output channel.
struct Gradients {
    static constexpr int VECTOR = WIDTH;
    static constexpr bool ALONG_K = true;
    const ConvParams& p;
    const float* dy;
    struct Row {
        const float* image;
        int h, w;
    };
    __device__ __forceinline__ Row row(int i) const {
        const int pixels = p.in_h * p.in_w;
        if (i >= p.batch * pixels) return {nullptr, 0, 0};
        const int image = i / pixels, pixel = i % pixels;
        return {dy + size_t(image) * p.out_h * p.out_w * p.y_ld, pixel / p.in_w, pixel % p.in_w};
    }
    __device__ __forceinline__ const float* at(const Row& row, int k) const {
        if (!row.image || k >= taps(p) * group_out(p)) return nullptr;
        const Term of = term(k, taps(p), group_out(p));
        const int window = window_of(p, row.h, row.w, of.tap);
        return window < 0 ? nullptr : row.image + size_t(window) * p.y_ld + of.channel;
    }
};

// Weights seen from x: row = input channel, k = tap and output channel.
struct BackWeights {
    static constexpr int VECTOR = WIDTH;
    static constexpr bool ALONG_K = false;
    const ConvParams& p;
    const float* w;
    struct Row {
        int channel;
    };
    __device__ __forceinline__ Row row(int i) const { return {i < group_in(p) ? i : -1}; }
    __device__ __forceinline__ const float* at(const Row& row, int k) const {
        if (row.channel < 0 || k >= taps(p) * group_out(p)) return nullptr;
        const Term of = term(k, taps(p), group_out(p));
        return w + (size_t(of.channel) * taps(p) + of.tap) * group_in(p) + row.channel;
    }
};

// Windows over x, transposed: row = tap and input channel, k = pixel of y.
struct Columns {
    static constexpr int VECTOR = WIDTH;
    static constexpr bool ALONG_K = false;
    const ConvParams& p;
    const float* x;
    int end; // of the part
    struct Row {
        int tap, channel;
    };
    __device__ __forceinline__ Row row(int i) const {
        const int tap = i / group_in(p);
        return {tap < taps(p) ? tap : -1, i % group_in(p)};
    }
    __device__ __forceinline__ const float* at(const Row& row, int k) const {
        if (row.tap < 0 || k >= end) return nullptr;
        const int pixels = p.out_h * p.out_w, image = k / pixels, pixel = k % pixels;
        return pixel_of_x(p, x + size_t(image) * p.in_h * p.in_w * p.x_ld, pixel / p.out_w * p.stride - p.padding,
                          pixel % p.out_w * p.stride - p.padding, row.tap, row.channel);
    }
};

// For forward and weight gradient: x becomes the packed images.
KERNEL(256) conv2d_pack_images(ConvParams params, const float* x, const float*, const float*, const float*, float* scratch) {
    CONSTANTS(ConvParams, p, params);
    const ConvParams q = packed(p);
    const size_t at = 4 * item();
    if (at < images(q)) *reinterpret_cast<float4*>(scratch + at) = packed_images(p, q, x, at);
}
// For forward: w becomes the packed weights, behind the images.
KERNEL(256) conv2d_pack_weights(ConvParams params, const float*, const float* w, const float*, const float*, float* scratch) {
    CONSTANTS(ConvParams, p, params);
    const ConvParams q = packed(p);
    const size_t at = 4 * item();
    if (at < weights(q)) *reinterpret_cast<float4*>(scratch + images(q) + at) = packed_weights(p, q, w, at);
}

KERNEL(THREADS) conv2d_forward(ConvParams params, const float* x, const float* w, const float* bias, float* y, float* scratch) {
    CONSTANTS(ConvParams, given, params);
    SHARED(Tiles, tiles);
    const ConvParams p = effective(given);
    if (PACKED) x = scratch, w = scratch + images(p);
    const int group = int(blockIdx.z), inner = taps(p) * group_in(p), outputs = group_out(p);
    const Windows a = {p, x + group * group_in(p)};
    const Weights b = {p, w + size_t(group) * outputs * inner};
    const Corner tile = corner(outputs);
    product(tiles, a, b, tile.m, tile.n, 0, inner, [&](int pixel, int o, float sum) {
        if (pixel >= p.batch * p.out_h * p.out_w || o >= outputs) return;
        const int channel = group * outputs + o;
        const float value = sum + bias[channel];
        y[size_t(pixel) * p.y_ld + channel] = p.relu ? relu(value) : value;
    });
}

KERNEL(THREADS) conv2d_data_gradient(ConvParams params, const float* dy, const float* w, float* dx, float*) {
    CONSTANTS(ConvParams, p, params);
    SHARED(Tiles, tiles);
    const int group = int(blockIdx.z), inner = taps(p) * group_out(p), inputs = group_in(p);
    const Gradients a = {p, dy + group * group_out(p)};
    const BackWeights b = {p, w + size_t(group) * group_out(p) * taps(p) * inputs};
    const Corner tile = corner(inputs);
    product(tiles, a, b, tile.m, tile.n, 0, inner, [&](int pixel, int i, float sum) {
        if (pixel < p.batch * p.in_h * p.in_w && i < inputs) dx[size_t(pixel) * p.x_ld + group * inputs + i] = sum;
    });
}

// The weight gradient cuts the pixels of y into parts, so that small kernels keep a large device busy too: two blocks for each of 132 multiprocessors. The same
// numbers as crates/nn/src/layers/conv2d/device.rs, from the shape alone: they decide the order of the sums.
INLINE int pixels_of_part(const ConvParams& q) {
    const int blocks = ceil_div(group_out(q), 128) * ceil_div(taps(q) * group_in(q), 128) * q.groups;
    const int parts = max(1, min(64, 264 / blocks)), pixels = q.batch * q.out_h * q.out_w;
    return max(256, ceil_div(ceil_div(pixels, parts), 64) * 64);
}
INLINE int parts(const ConvParams& q) { return ceil_div(q.batch * q.out_h * q.out_w, pixels_of_part(q)); }
// Likewise the bias gradient.
constexpr int BIAS_PARTS = 64;

// Scratch: the sums of every part, first of the biases, then of the weights.
INLINE float* part_of_biases(const ConvParams& q, float* scratch, int part) {
    return scratch + packed_size(q) + size_t(part) * q.out_c;
}
INLINE float* part_of_weights(const ConvParams& q, float* scratch, int part) {
    return scratch + packed_size(q) + size_t(BIAS_PARTS) * q.out_c + part * weights(q);
}

KERNEL(THREADS) conv2d_weight_gradient(ConvParams params, const float* x, const float* dy, float*, float*, float* scratch) {
    CONSTANTS(ConvParams, given, params);
    SHARED(Tiles, tiles);
    const ConvParams p = effective(given);
    if (PACKED) x = scratch;
    const int group = int(blockIdx.z) / parts(p), part = int(blockIdx.z) % parts(p);
    const int outputs = group_out(p), inner = taps(p) * group_in(p), pixels = p.batch * p.out_h * p.out_w;
    const int first = part * pixels_of_part(p), end = min(pixels, first + pixels_of_part(p));
    const Transposed a = {dy + group * outputs, size_t(p.y_ld), outputs, end};
    const Columns b = {p, x + group * group_in(p), end};
    float* to = part_of_weights(p, scratch, part) + size_t(group) * outputs * inner;
    const Corner tile = corner(inner);
    product(tiles, a, b, tile.m, tile.n, first, end, [&](int o, int i, float sum) {
        if (o < outputs && i < inner) to[size_t(o) * inner + i] = sum;
    });
}

// The sums of part blockIdx.y of the pixels, for 32 channels.
KERNEL(256) conv2d_bias_gradient(ConvParams params, const float*, const float* dy, float*, float*, float* scratch) {
    CONSTANTS(ConvParams, p, params);
    SHARED(BiasSums, sums);
    const int pixels = p.batch * p.out_h * p.out_w, each = ceil_div(pixels, BIAS_PARTS), part = int(blockIdx.y);
    float* db = part_of_biases(effective(p), scratch, part);
    bias_gradient(sums, dy, p.y_ld, part * each, min(pixels, (part + 1) * each), p.out_c, db);
}

// dw and dbias: the sums of the parts, in order.
KERNEL(256) conv2d_gradient_sums(ConvParams params, const float*, const float*, float* dw, float* db, float* scratch) {
    CONSTANTS(ConvParams, p, params);
    const ConvParams q = effective(p);
    const size_t i = item(), biases = size_t(p.out_c);
    if (i >= biases + weights(p)) return;
    float sum = 0.0f;
    if (i < biases) {
        for (int part = 0; part < BIAS_PARTS; part++) sum += part_of_biases(q, scratch, part)[i];
        db[i] = sum;
    } else {
        const size_t at = PACKED ? place_of_weight(p, q, i - biases) : i - biases;
        for (int part = 0; part < parts(q); part++) sum += part_of_weights(q, scratch, part)[at];
        dw[i - biases] = sum;
    }
}
