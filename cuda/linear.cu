// Fully connected layer (crates/nn/src/layers/linear/): y[n, o] = bias[o] + sum over i of x[n, i] w[o, i], i = pixel and channel.
// Every pass is a product (gemm.cuh).
//   forward:          samples  x outputs, over inputs
//   data gradient:    samples  x inputs, over outputs
//   weight gradient:  outputs  x inputs, over samples
#include "convolution.cuh"
#include "dropout.cuh"

// crates/nn/src/layers/linear/mod.rs, Params.
struct LinearParams {
    int batch, pixels, in_c, x_ld, out, y_ld, relu;
    DropoutEpilogue dropout;
};

INLINE int inputs(const LinearParams& p) { return p.pixels * p.in_c; }
// Where input i of a sample lies within the sample.
INLINE size_t position(const LinearParams& p, int i) {
    return p.x_ld == p.in_c ? size_t(i) : size_t(i / p.in_c) * p.x_ld + i % p.in_c;
}

// Samples: row = sample, k = input.
struct Samples {
    static constexpr int VECTOR = WIDTH;
    static constexpr bool ALONG_K = true;
    const LinearParams& p;
    const float* x;
    struct Row {
        const float* sample;
    };
    __device__ __forceinline__ Row row(int i) const {
        return {i < p.batch ? x + size_t(i) * p.pixels * p.x_ld : nullptr};
    }
    __device__ __forceinline__ const float* at(const Row& row, int k) const {
        return row.sample && k < inputs(p) ? row.sample + position(p, k) : nullptr;
    }
};

// Samples, transposed: row = input, k = sample.
struct Inputs {
    static constexpr int VECTOR = WIDTH;
    static constexpr bool ALONG_K = false;
    const LinearParams& p;
    const float* x;
    struct Row {
        const float* first;
    };
    __device__ __forceinline__ Row row(int i) const { return {i < inputs(p) ? x + position(p, i) : nullptr}; }
    __device__ __forceinline__ const float* at(const Row& row, int k) const {
        return row.first && k < p.batch ? row.first + size_t(k) * p.pixels * p.x_ld : nullptr;
    }
};

KERNEL(THREADS) linear_forward(
    LinearParams params, const float* x, const float* w, const float* bias, float* y, float*, const StepState* state, const unsigned* ids) {
    CONSTANTS(LinearParams, p, params);
    SHARED(Tiles, tiles);
    const Samples a = {p, x};
    const Dense b = {w, size_t(inputs(p)), p.out, inputs(p)};
    const Corner tile = corner(p.out);
    product(tiles, a, b, tile.m, tile.n, 0, inputs(p), [&](int n, int o, float sum) {
        if (n >= p.batch || o >= p.out) return;
        const float value = sum + bias[o];
        y[size_t(n) * p.y_ld + o] = dropout(p.dropout, state, ids[n], o, p.relu ? relu(value) : value);
    });
}

KERNEL(THREADS) linear_data_gradient(LinearParams params, const float* dy, const float* w, float* dx, float*) {
    CONSTANTS(LinearParams, p, params);
    SHARED(Tiles, tiles);
    const Dense a = {dy, size_t(p.y_ld), p.batch, p.out};
    const Transposed b = {w, size_t(inputs(p)), inputs(p), p.out};
    const Corner tile = corner(inputs(p));
    product(tiles, a, b, tile.m, tile.n, 0, p.out, [&](int n, int i, float sum) {
        if (n < p.batch && i < inputs(p)) dx[size_t(n) * p.pixels * p.x_ld + position(p, i)] = sum;
    });
}

KERNEL(THREADS) linear_weight_gradient(LinearParams params, const float* x, const float* dy, float* dw, float*, float*) {
    CONSTANTS(LinearParams, p, params);
    SHARED(Tiles, tiles);
    const Transposed a = {dy, size_t(p.y_ld), p.out, p.batch};
    const Inputs b = {p, x};
    const Corner tile = corner(inputs(p));
    product(tiles, a, b, tile.m, tile.n, 0, p.batch, [&](int o, int i, float sum) {
        if (o < p.out && i < inputs(p)) dw[size_t(o) * inputs(p) + i] = sum;
    });
}

KERNEL(256) linear_bias_gradient(LinearParams params, const float*, const float* dy, float*, float* db, float*) {
    CONSTANTS(LinearParams, p, params);
    SHARED(BiasSums, sums);
    bias_gradient(sums, dy, p.y_ld, 0, p.batch, p.out, db);
}
