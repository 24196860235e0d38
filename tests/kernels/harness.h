/* What the kernel tests share: buffers between guards, random numbers, the list of cases. */
#ifndef WARD_TESTS_KERNELS_HARNESS_H
#define WARD_TESTS_KERNELS_HARNESS_H

#include "kernels/compute.h"

#define EPS 0x1p-24 /* of rounding to float32 */

/* How far a float32 sum of n products may be off, relative to the sum of the absolute products. Each addition rounds
 * what has been summed so far, so n roundings is the limit; they go both ways, which leaves the square root, times a
 * margin for the unluckiest of many outputs. A product left out or counted twice is off by 1 / n. */
#define SUM_BOUND(n) ((8 + 2 * sqrt(n)) * EPS)

/* One case checks one entry of the table, or one operation built on it. False after fail() has said why. */
struct check {
    const char *name;
    bool (*run)(const struct kernels *k, int type); /* type: of the weights, for the entries that have one each */
    int type;                                       /* -1: none */
};

/* Without repetitions, for programs that check more: each shape once, on one thread and on three. */
extern bool quick;

extern const struct check matrix_checks[], row_checks[], compute_checks[]; /* end with a NULL name */

/* Prints the reason as a comment of TAP; returns false. */
bool fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- random numbers: the same sequence for the same seed and case ---- */

void random_seed(uint64_t seed);
uint32_t random_bits(void);
int random_int(int low, int high);      /* low <= n <= high */
float random_float(void);               /* in -1 .. 1 */
void random_fill(float *out, size_t n); /* mostly of that size, some up to a thousand times larger or smaller */

/* ---- buffers: an access beyond the end is a fault, a write before the start or into the slack is found ---- */

/* `size` bytes that end `slack` bytes before a page that cannot be touched; filled with NaN. Lives until
 * buffers_release. */
void *buffer(size_t size, size_t slack);
float *float_buffer(size_t n);
/* False (after fail) when something was written around a buffer. */
bool buffers_intact(void);
void buffers_release(void);

/* A random matrix of a type in a buffer, at an odd address when `odd`; `values` gets what it holds. cols is a number of
 * whole blocks of the type. */
void *random_matrix(enum tensor_type type, int rows, int cols, bool odd, float *values);
int whole_blocks(enum tensor_type type, int n); /* n rounded up to whole blocks */
/* What the rounding of a product with each value is measured by: its size, and for quantized values the largest of 32
 * that are stored together, since a scale's and a minimum's part of them are summed apart. */
void magnitudes(enum tensor_type type, float *out, const float *values, int n);
/* Whether a product rounds w as it does x. */
bool rounds_weights(enum rounding rounding);
/* x as a product that rounds it sees it, or w where that is rounded likewise: a row. In fixed point `block` columns
 * share a scale. out may be x. */
void as_rounded(enum rounding rounding, int block, float *out, const float *x, int n);

/* Within bound of expected, or both NaN; says what and where otherwise. */
bool near(const char *what, int at, double got, double expected, double bound);

#endif
