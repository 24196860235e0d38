/* How often something was done, and how long all of it took. */
#ifndef WARD_BENCH_TALLY_H
#define WARD_BENCH_TALLY_H

#include <math.h>

struct tally {
    double best, amount, ms; /* best: per second, of one time */
};

static inline void tally_add(struct tally *t, double amount, double ms)
{
    t->best = fmax(t->best, amount / ms * 1e3);
    t->amount += amount;
    t->ms += ms;
}

static inline double tally_mean(const struct tally *t)
{
    return t->ms > 0 ? t->amount / t->ms * 1e3 : 0;
}

#endif
