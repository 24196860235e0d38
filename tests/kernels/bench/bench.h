/* What the benchmark of the kernels measures them against. */
#ifndef WARD_TESTS_KERNELS_BENCH_H
#define WARD_TESTS_KERNELS_BENCH_H

#include "kernels/compute.h"

typedef void work_fn(const struct compute *c, void *arg);

/* Nanoseconds of one call: the best of several. */
double time_ns(const struct compute *c, work_fn *work, void *arg);

/* Operations (two for a product and its addition) that all threads together do in a second of nothing but the multiply
 * that a product is made of, on registers: the most so far. 0: not known. */
double multiply_peak(const struct compute *c, const struct gemm *g);
/* Bytes per second that all threads together read: the most so far. */
double read_peak(const struct compute *c, const void *data, size_t bytes);

/* oneDNN's time in nanoseconds for x [rows][cols] times weights [outputs][cols] in float32, bf16 or whole numbers of 8
 * bits (for block types), summed in 32 bits, with as many threads; the weights in whichever layout it prefers, made
 * beforehand. 0: not built with it, or it does not know the product. */
double onednn_ns(const struct compute *c, enum tensor_type type, int rows, int cols, int outputs);

#endif
