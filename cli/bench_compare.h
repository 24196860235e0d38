/* What changed between two results of `ward bench`. */
#ifndef WARD_CLI_BENCH_COMPARE_H
#define WARD_CLI_BENCH_COMPARE_H

#include "bench_view.h"

/* A table for each pair of results that measured the same test of the same model, or of two models where there is one
 * result each, figure by figure. One is called slower or faster when all of this holds: a Mann-Whitney test finds the
 * runs of the two sets unevenly ranked (p < 0.01); the medians differ by more than 3 %; and by more than the spreads of
 * both sets, from the 25th to the 75th percentile, together; and by more than 0.5 % of the whole answer. Where other
 * programs used more than 5 % of the machine during either, or that is not known, only a factor of two is; what is less
 * is unsure. */
void bench_compare(struct tables *out, const struct json *a, const struct json *b);

#endif
