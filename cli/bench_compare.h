/* What changed between two results of `ward bench`. */
#ifndef WARD_CLI_BENCH_COMPARE_H
#define WARD_CLI_BENCH_COMPARE_H

#include "bench_view.h"

/* A table for each pair of results that measured the same test of the same model, or of two models where there is one
 * result each, figure by figure. One is called slower or faster when all of this holds: a Mann-Whitney test finds the
 * runs of the two sets unevenly ranked (p < 0.01); the medians differ by more than 3 %; and by more than the spread of
 * either set, from its 25th to its 75th percentile; and by more than 0.5 % of the whole answer. */
void bench_compare(struct tables *out, const struct json *a, const struct json *b);

#endif
