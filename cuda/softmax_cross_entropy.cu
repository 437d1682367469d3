// Softmax and cross-entropy (crates/nn/src/loss.rs), p = exp(z - max) / sum of exp(z - max), in f64. Two kernels each: a block per row makes
// probabilities, or dlogits = (p - onehot) / valid, and what the row adds to the totals; then one block adds that up, in the order of the rows.
#include "common.cuh"

struct LossParams {
    int batch, classes, logits_ld;
};

// What a row adds to the totals: their first fields.
struct Row {
    double loss, top1_errors, top5_errors;
};
SAME_SIZE(Row, 24);

// Threads of a block, as in the Rust file.
static constexpr int THREADS = 128;
using Numbers = double[THREADS];

// Joins what the threads of the block have. The order depends on nothing but their number.
template <class Join> INLINE double joined(Numbers& numbers, double mine, Join join) {
    const int thread = threadIdx.x;
    numbers[thread] = mine;
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (thread < half) numbers[thread] = join(numbers[thread], numbers[thread + half]);
    }
    __syncthreads();
    const double all = numbers[0];
    // The numbers may be overwritten now.
    __syncthreads();
    return all;
}
INLINE double sum(Numbers& numbers, double mine) {
    return joined(numbers, mine, [](double a, double b) { return a + b; });
}

// A softmax relative to the largest logit, so that nothing overflows.
struct Softmax {
    double max, sum;
};

INLINE Softmax softmax_of(Numbers& numbers, const float* logits, int classes) {
    // Minus infinity; a NaN does not count, but makes the sum one.
    float largest = __uint_as_float(0xff800000u);
    for (int i = threadIdx.x; i < classes; i += THREADS) largest = fmaxf(largest, logits[i]);
    Softmax softmax;
    softmax.max = joined(numbers, largest, [](double a, double b) { return a > b ? a : b; });
    double part = 0.0;
    // Not unrolled, here and below: with several exponentials of doubles at a time the compiler spills registers.
#pragma unroll 1
    for (int i = threadIdx.x; i < classes; i += THREADS) part += exp(double(logits[i]) - softmax.max);
    softmax.sum = sum(numbers, part);
    return softmax;
}

INLINE float probability(const Softmax& softmax, float logit) { return float(exp(double(logit) - softmax.max) / softmax.sum); }
// -ln p, finite even where p is too small for a float.
INLINE double minus_log(const Softmax& softmax, float logit) { return log(softmax.sum) - (double(logit) - softmax.max); }

INLINE float not_a_number() { return __uint_as_float(0x7fc00000u); }
INLINE bool is_class(int label, int classes) { return label >= 0 && label < classes; }

// 1 - the share of a hit that a label earns among the k most probable classes: it may tie for the last places.
INLINE double errors(double above, double tied, double k) {
    // A NaN ties with nothing, not even with itself, and earns nothing.
    if (tied == 0.0) return 1.0;
    const double credit = (k > above ? k - above : 0.0) / tied;
    return 1.0 - (credit < 1.0 ? credit : 1.0);
}

// What a row of which these are the probabilities adds to the totals. Every thread reads values that others wrote before a barrier.
INLINE void report(Numbers& numbers, const float* probabilities, int classes, int label, double loss, Row& row) {
    const float own = is_class(label, classes) ? probabilities[label] : not_a_number();
    int above = 0, tied = 0;
    for (int i = threadIdx.x; i < classes; i += THREADS) {
        above += probabilities[i] > own;
        tied += probabilities[i] == own;
    }
    const double all_above = sum(numbers, above), all_tied = sum(numbers, tied);
    if (threadIdx.x == 0) row = {loss, errors(all_above, all_tied, 1.0), errors(all_above, all_tied, 5.0)};
}

INLINE unsigned valid_rows(const LossParams& p, const StepState* state) { return min(state->valid, unsigned(p.batch)); }
INLINE unsigned views(const StepState* state) { return max(state->views, 1u); }
INLINE bool last_view(const StepState* state) { return state->view + 1 >= views(state); }

KERNEL(THREADS) softmax_cross_entropy_train(LossParams params, const float* logits, const int* labels, StepState* state, Totals* totals,
                                            float* dlogits, Row* rows) {
    CONSTANTS(LossParams, p, params);
    SHARED(Numbers, numbers);
    const size_t row = blockIdx.x;
    const unsigned valid = valid_rows(p, state);
    dlogits += row * p.classes;
    if (row >= valid) {
        for (int i = threadIdx.x; i < p.classes; i += THREADS) dlogits[i] = 0.0f;
        return;
    }
    logits += row * p.logits_ld;
    const Softmax softmax = softmax_of(numbers, logits, p.classes);
#pragma unroll 1
    for (int i = threadIdx.x; i < p.classes; i += THREADS) dlogits[i] = probability(softmax, logits[i]);
    __syncthreads();
    const int label = labels[row];
    const double loss = is_class(label, p.classes) ? minus_log(softmax, logits[label]) : not_a_number();
    report(numbers, dlogits, p.classes, label, loss, rows[row]);
    for (int i = threadIdx.x; i < p.classes; i += THREADS) dlogits[i] = (dlogits[i] - (i == label ? 1.0f : 0.0f)) / float(valid);
}

KERNEL(THREADS) softmax_cross_entropy_eval(LossParams params, const float* logits, const int* labels, const StepState* state, Totals* totals,
                                           float* probabilities, Row* rows) {
    CONSTANTS(LossParams, p, params);
    SHARED(Numbers, numbers);
    const size_t row = blockIdx.x;
    logits += row * p.logits_ld;
    probabilities += row * p.classes;
    const Softmax softmax = softmax_of(numbers, logits, p.classes);
#pragma unroll 1
    for (int i = threadIdx.x; i < p.classes; i += THREADS) {
        const float share = probability(softmax, logits[i]) / float(views(state));
        probabilities[i] = state->view == 0 ? share : probabilities[i] + share;
    }
    if (row >= valid_rows(p, state) || !last_view(state)) return;
    __syncthreads();
    const int label = labels[row];
    double loss = not_a_number();
    // Of one view the logits tell even where the probability is too small for a float.
    if (is_class(label, p.classes)) loss = views(state) == 1 ? minus_log(softmax, logits[label]) : -log(double(probabilities[label]));
    report(numbers, probabilities, p.classes, label, loss, rows[row]);
}

// Rows that are read at once.
using Rows = double[THREADS][3];

// Adds the rows to the totals, in their order: a thread for each field. Thread 3 returns the loss of the rows alone.
INLINE double add_rows(Rows& chunk, const Row* rows, unsigned count, Totals* totals) {
    const unsigned thread = threadIdx.x;
    double* total = reinterpret_cast<double*>(totals) + thread;
    double sum = thread < 3 ? *total : 0.0;
    for (unsigned first = 0; first < count; first += THREADS) {
        const unsigned n = min(count - first, unsigned(THREADS));
        const double* from = reinterpret_cast<const double*>(rows + first);
        for (unsigned i = thread; i < 3 * n; i += THREADS) chunk[i / 3][i % 3] = from[i];
        __syncthreads();
        for (unsigned i = 0; thread < 4 && i < n; i++) sum += chunk[i][thread % 3];
        __syncthreads();
    }
    if (thread < 3) *total = sum;
    if (thread == 0) totals->samples += double(count);
    return sum;
}

KERNEL(THREADS) softmax_cross_entropy_train_totals(LossParams params, const float* logits, const int* labels, StepState* state, Totals* totals,
                                                   float* dlogits, const Row* rows) {
    CONSTANTS(LossParams, p, params);
    SHARED(Rows, chunk);
    const double loss = add_rows(chunk, rows, valid_rows(p, state), totals);
    // Infinity minus itself is a NaN, too.
    if (threadIdx.x == 3 && loss - loss != 0.0 && state->diverged == 0) state->diverged = state->step + 1;
}

KERNEL(THREADS) softmax_cross_entropy_eval_totals(LossParams params, const float* logits, const int* labels, const StepState* state,
                                                  Totals* totals, float* probabilities, const Row* rows) {
    CONSTANTS(LossParams, p, params);
    SHARED(Rows, chunk);
    if (last_view(state)) add_rows(chunk, rows, valid_rows(p, state), totals);
}
