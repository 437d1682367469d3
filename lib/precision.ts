/** The arithmetic of the layers that multiply; sums, norms and the loss are in 32-bit floats everywhere. The processor knows `fp32` only. */
export type Precision = (typeof PRECISIONS)[number];
/** All of them. */
export const PRECISIONS = ['fp32', 'tf32', 'bf16'] as const;
