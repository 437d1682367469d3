// Functions of one number: rows of c elements (crates/nn/src/layers/pointwise.rs).
#pragma once
#include "common.cuh"

struct PointwiseParams {
    int rows, c, y_ld, dy_ld;
};

INLINE size_t elements(const PointwiseParams& p) { return size_t(p.rows) * p.c; }
// Element i of the rows that lie ld elements apart. Without gaps, the usual case, nothing is divided.
INLINE size_t place(const PointwiseParams& p, size_t i, int ld) { return ld == p.c ? i : i / p.c * ld + i % p.c; }
