// A convolution whose channels cannot be loaded in vectors, as one whose channels can: stride x stride pixels become one, their channels follow each other and are
// filled up with zeros to a multiple of four. The kernel covers ceil(kernel / stride) of these pixels each way and moves by one. Nothing is padded any more: what lies
// outside of the image is a zero like others. The paper's first layer, 11 x 11 x 3 with stride 4, becomes 3 x 3 x 48 over 57 x 57 pixels; with stride 1 only
// channels are filled up. Images and weights are rearranged in scratch memory first.
#pragma once
#include "convolution.cuh"

// The convolution that it becomes: `Params::packed` of crates/nn/src/layers/conv2d/device.rs.
INLINE ConvParams packed(const ConvParams& p) {
    const int kernel = ceil_div(p.kernel, p.stride), channels = ceil_div(p.stride * p.stride * group_in(p), 4) * 4 * p.groups;
    return {p.batch, p.out_h + kernel - 1, p.out_w + kernel - 1, channels, channels, p.out_h, p.out_w, p.out_c, p.y_ld, kernel, 1, 0, p.groups, p.relu};
}
INLINE size_t images(const ConvParams& q) { return size_t(q.batch) * q.in_h * q.in_w * q.in_c; }
INLINE size_t weights(const ConvParams& q) { return size_t(q.out_c) * taps(q) * group_in(q); }

// Where a packed channel of a group comes from: a pixel of those that became one, and its channel. Fillers are beyond all pixels.
struct Origin {
    int down, right, channel;
};
INLINE Origin origin(const ConvParams& p, int packed_channel) {
    const int pixel = packed_channel / group_in(p);
    return {pixel / p.stride, pixel % p.stride, packed_channel % group_in(p)};
}

// Four elements of the packed images, from element `at` on.
INLINE float4 packed_images(const ConvParams& p, const ConvParams& q, const float* x, size_t at) {
    const int first = int(at % q.in_c), pixel = int(at / q.in_c);
    const int column = pixel % q.in_w, row = pixel / q.in_w % q.in_h, image = pixel / q.in_w / q.in_h;
    float values[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int group = (first + i) / group_in(q);
        const Origin from = origin(p, (first + i) % group_in(q));
        const int h = row * p.stride + from.down - p.padding, w = column * p.stride + from.right - p.padding;
        const bool inside = from.down < p.stride && h >= 0 && h < p.in_h && w >= 0 && w < p.in_w;
        const float* of = x + (size_t(image) * p.in_h * p.in_w + size_t(h) * p.in_w + w) * p.x_ld + group * group_in(p);
        values[i] = inside ? of[from.channel] : 0.0f;
    }
    return make_float4(values[0], values[1], values[2], values[3]);
}

// Four elements of the packed weights, from element `at` on.
INLINE float4 packed_weights(const ConvParams& p, const ConvParams& q, const float* w, size_t at) {
    const int first = int(at % group_in(q)), tap = int(at / group_in(q)) % taps(q), output = int(at / group_in(q)) / taps(q);
    float values[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const Origin from = origin(p, first + i);
        const int r = tap / q.kernel * p.stride + from.down, s = tap % q.kernel * p.stride + from.right;
        const bool inside = from.down < p.stride && r < p.kernel && s < p.kernel;
        values[i] = inside ? w[((size_t(output) * p.kernel + r) * p.kernel + s) * group_in(p) + from.channel] : 0.0f;
    }
    return make_float4(values[0], values[1], values[2], values[3]);
}

// Where element `at` of the weights lies among the packed ones.
INLINE size_t place_of_weight(const ConvParams& p, const ConvParams& q, size_t at) {
    const int channel = int(at % group_in(p)), tap = int(at / group_in(p)) % taps(p), output = int(at / group_in(p)) / taps(p);
    const int r = tap / p.kernel, s = tap % p.kernel;
    const size_t pixel = (size_t(output) * q.kernel + r / p.stride) * q.kernel + s / p.stride;
    return pixel * group_in(q) + (r % p.stride * p.stride + s % p.stride) * group_in(p) + channel;
}
