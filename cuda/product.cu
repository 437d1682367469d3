// A product of two matrices that lie in memory, c = a b^T, each along k or along its rows: gemm.cuh alone, in any tile and precision.
#include "gemm.cuh"

// crates/nn/src/testing/product.rs, Params.
struct ProductParams {
    int m, n, k, tile, vectors;
};

// Rows of c follow each other without gaps.
template <class A, class B> INLINE void product_of(const ProductParams& p, Tiles& tiles, const A& a, const B& b, float* c) {
    const Corner tile = corner(p.n);
    product(tiles, a, b, tile.m, tile.n, 0, p.k, [&](int m, int n, float sum) {
        if (m < p.m && n < p.n) c[size_t(m) * p.n + n] = sum;
    });
}

KERNEL(THREADS) product_along_k(ProductParams params, const float* a, const float* b, float* c) {
    CONSTANTS(ProductParams, p, params);
    SHARED(Tiles, tiles);
    product_of(p, tiles, Dense{a, size_t(p.k), p.m, p.k}, Dense{b, size_t(p.k), p.n, p.k}, c);
}
KERNEL(THREADS) product_along_rows(ProductParams params, const float* a, const float* b, float* c) {
    CONSTANTS(ProductParams, p, params);
    SHARED(Tiles, tiles);
    product_of(p, tiles, Transposed{a, size_t(p.m), p.m, p.k}, Transposed{b, size_t(p.n), p.n, p.k}, c);
}
