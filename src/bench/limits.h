/* What a machine can do at most, measured in about two seconds: reading memory, and multiplying on registers. Each
 * figure is the best of several runs, spread over that time, since what disturbs only slows. What came of all runs
 * together is kept beside it: what a machine that is shared or hot may be expected to go on doing. */
#ifndef WARD_BENCH_LIMITS_H
#define WARD_BENCH_LIMITS_H

#include "base/error.h"
#include "kernels/kernels.h"

enum limits_multiply { LIMITS_F32, LIMITS_BF16, LIMITS_INT16, LIMITS_INT8, LIMITS_MULTIPLIES };

struct limits {
    enum isa isa;
    int threads;
    double read_bytes;     /* per second, all threads together */
    double read_bytes_one; /* one thread alone */
    /* Operations per second of all threads together (two for a product and its addition), with the multiply that the
     * kernels of `isa` use; 0: they use none of that kind, or its speed is not known. */
    double multiply[LIMITS_MULTIPLIES];
    double read_bytes_mean, multiply_mean[LIMITS_MULTIPLIES]; /* the same over all runs */
    size_t buffer_bytes; /* that were read, again and again: larger than the caches */
    double ms;           /* that measuring took */
};

/* threads, highest: as for compute_open. */
WARD_CHECKED int limits_measure(struct limits *out, int threads, enum isa highest, struct ward_error *err);
const char *limits_multiply_name(enum limits_multiply kind); /* "f32", "bf16", "int16", "int8" */
/* The kind that a matrix product with weights of a type is made of: rows by rows (a prompt, an image). */
enum limits_multiply limits_multiply_of(enum isa isa, enum tensor_type type);
/* And the encoder's attention. */
enum limits_multiply limits_attention_of(enum isa isa);

struct json_writer;
/* {"kernels", "threads", "read_gbs", "read_one_gbs", "read_mean_gbs", "multiply_gops": {"f32", "bf16", "int16",
 * "int8"}, "multiply_mean_gops": {...}, "buffer_bytes", "ms"}; null for what is not there. */
void limits_write_json(struct json_writer *w, const char *key, const struct limits *limits);

#endif
