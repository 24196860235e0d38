#include "bench/stats.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double stats_percentile(const double *sorted, size_t n, double percent)
{
    if (!n)
        return NAN;
    const double at = percent / 100 * (double)(n - 1);
    const size_t below = (size_t)at, above = below + 1 < n ? below + 1 : below;
    return sorted[below] + (at - (double)below) * (sorted[above] - sorted[below]);
}

struct stats stats_of(const double *values, size_t n)
{
    struct stats s = {n, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN};
    double *sorted = n ? malloc(n * sizeof *sorted) : NULL;
    if (!sorted)
        return s;
    memcpy(sorted, values, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, by_value);
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++)
        sum += values[i];
    s.mean = sum / (double)n;
    for (size_t i = 0; i < n; i++)
        squares += (values[i] - s.mean) * (values[i] - s.mean);
    s.std = sqrt(squares / (double)n);
    s.min = sorted[0];
    s.max = sorted[n - 1];
    s.p25 = stats_percentile(sorted, n, 25);
    s.p50 = stats_percentile(sorted, n, 50);
    s.p75 = stats_percentile(sorted, n, 75);
    s.p95 = stats_percentile(sorted, n, 95);
    s.p99 = stats_percentile(sorted, n, 99);
    free(sorted);
    return s;
}

/* ---- Mann-Whitney ------------------------------------------------------------------------------------------------ */

enum { EXACT_MOST = 64 };

/* The probability of at most u wins, a value of one set above one of the other, if every order of the n_a + n_b values
 * is as likely. ways[i][w]: how many orders of the values so far, i of them of set a, have w wins of a; divided by all
 * orders along the way, so that nothing grows large. */
static double exact_tail(size_t n_a, size_t n_b, size_t u)
{
    const size_t width = n_a * n_b + 1;
    double *p = calloc((n_a + 1) * width, sizeof *p), sum = 0;
    if (!p)
        return NAN;
    p[0] = 1;
    for (size_t taken = 0; taken < n_a + n_b; taken++)
        for (size_t i = (taken < n_a ? taken : n_a) + 1; i-- > 0;) {
            const size_t b = taken - i; /* values of set b so far: a value of a that comes now beats them all */
            if (b > n_b)
                continue;
            double *row = p + i * width;
            const double left = (double)(n_a + n_b - taken);
            const double to_a = (double)(n_a - i) / left, to_b = (double)(n_b - b) / left;
            if (i < n_a)
                for (size_t w = 0; w + b < width; w++)
                    row[width + w + b] += row[w] * to_a;
            for (size_t w = 0; w < width; w++)
                row[w] *= to_b;
        }
    for (size_t w = 0; w <= u; w++)
        sum += p[n_a * width + w];
    free(p);
    return sum;
}

/* Sum over the groups of equal values of t^3 - t. */
static double ties(const double *a, size_t n_a, const double *b, size_t n_b)
{
    const size_t n = n_a + n_b;
    double *all = malloc(n * sizeof *all), sum = 0;
    if (!all)
        return 0;
    memcpy(all, a, n_a * sizeof *all);
    memcpy(all + n_a, b, n_b * sizeof *all);
    qsort(all, n, sizeof *all, by_value);
    for (size_t i = 0; i < n;) {
        size_t j = i + 1;
        while (j < n && !(all[i] < all[j]))
            j++;
        const double t = (double)(j - i);
        sum += t * t * t - t;
        i = j;
    }
    free(all);
    return sum;
}

double stats_mann_whitney(const double *a, size_t n_a, const double *b, size_t n_b)
{
    if (!n_a || !n_b)
        return 1;
    double wins = 0; /* of a over b, a tie being half of one */
    for (size_t i = 0; i < n_a; i++)
        for (size_t j = 0; j < n_b; j++)
            wins += a[i] > b[j] ? 1 : a[i] < b[j] ? 0 : 0.5;
    const double all = (double)n_a * (double)n_b, fewer = wins < all - wins ? wins : all - wins;
    const double tied = ties(a, n_a, b, n_b), n = (double)(n_a + n_b);
    double p;
    if (tied <= 0 && n_a + n_b <= EXACT_MOST) {
        p = 2 * exact_tail(n_a, n_b, (size_t)fewer);
    } else {
        const double variance = all / 12 * (n + 1 - tied / (n * (n - 1)));
        const double z = variance > 0 ? (all / 2 - fewer - 0.5) / sqrt(variance) : 0;
        p = z > 0 ? erfc(z / sqrt(2)) : 1;
    }
    return p < 1 ? p : 1;
}
