/* What is said of several runs, and whether two sets of runs differ. */
#ifndef WARD_BENCH_STATS_H
#define WARD_BENCH_STATS_H

#include <stdbool.h>
#include <stddef.h>

/* As numpy computes them by default: the standard deviation of the values themselves (np.std, ddof 0), percentiles
 * interpolated linearly (np.percentile). All NAN of no values. */
struct stats {
    size_t n;
    double mean, std, min, p25, p50, p75, p95, p99, max;
};
struct stats stats_of(const double *values, size_t n);
double stats_percentile(const double *sorted, size_t n, double percent);

/* The two-sided Mann-Whitney test: how probable ranks as uneven as these are if both sets come from the same
 * distribution. Exact for up to 64 values without ties, else by the normal approximation with its corrections for ties
 * and continuity. 1 where a set is empty. */
double stats_mann_whitney(const double *a, size_t n_a, const double *b, size_t n_b);

#endif
