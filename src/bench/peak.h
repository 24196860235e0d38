/* Loops that do nothing but what they measure: multiplies on registers, as many independent sums as hide how long one
 * takes; reading memory. */
#ifndef WARD_BENCH_PEAK_H
#define WARD_BENCH_PEAK_H

#include "kernels/kernels.h"

struct peak_loop {
    void (*run)(long turns); /* NULL: not known */
    double operations;       /* of one turn; a product and its addition are two */
};

/* The multiply that products of a set with a rounding are made of. */
struct peak_loop peak_multiply(enum isa isa, enum rounding rounding);
/* Reads all of `data`, whose size is a multiple of 256; the sum is there so that reading cannot be left out. */
uint64_t peak_read(const void *data, size_t bytes);

#endif
