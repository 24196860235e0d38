/* What a card can do at most, measured in about a second by kernels of ward's own: copying in its memory, and
 * multiplying bf16 on registers. Best and mean as in limits.h. */
#ifndef WARD_BENCH_CARD_LIMITS_H
#define WARD_BENCH_CARD_LIMITS_H

#include "base/error.h"

#include <stddef.h>

/* The instructions that products are made of. */
enum card_multiply { CARD_MMA, CARD_WGMMA, CARD_MULTIPLIES };

struct card_limits {
    double copy_bytes, copy_bytes_mean; /* per second, those read and those written */
    /* Operations per second, two for a product and its addition; 0: the card has no such instruction. */
    double multiply[CARD_MULTIPLIES], multiply_mean[CARD_MULTIPLIES];
    size_t buffer_bytes; /* that were copied, again and again: larger than the cache */
    double ms;           /* that measuring took */
};

/* index: as card_open. Takes up to half of the memory that is free, for as long as it measures. */
WARD_CHECKED int card_limits_measure(struct card_limits *out, int index, struct ward_error *err);
/* Of each figure the better. */
void card_limits_keep_best(struct card_limits *best, const struct card_limits *now);
const char *card_multiply_name(enum card_multiply kind); /* "mma.sync", "wgmma" */
/* The fastest multiply there is, and its mean. */
double card_limits_peak(const struct card_limits *limits);
double card_limits_peak_mean(const struct card_limits *limits);

struct json_writer;
/* {"copy_gbs", "copy_mean_gbs", "multiply_gops": {"bf16"}, "multiply_mean_gops": {"bf16"}, "instruction_gops":
 * {"mma.sync", "wgmma"}, "buffer_bytes", "ms"}; null for what is not there. bf16: by the fastest instruction. */
void card_limits_write_json(struct json_writer *w, const char *key, const struct card_limits *limits);

#endif
