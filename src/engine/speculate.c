#include "engine/speculate.h"

#include <string.h>

/* The share of an answer's time that drafts may cost where all of them turn out wrong. */
static const double STAKE = 0.01;
/* How fast the estimates follow what is measured. */
static const double LEARN = 0.125;
/* What is assumed of drafts at first, and again little by little while none are made. */
static const double HIT_RATE = 0.5, FORGET = 1.0 / 64;
/* A row more costs something, and never more than a step of its own, whatever the clock says on a busy machine. */
static const double LEAST_ROW_COST = 0.01;
/* After so many steps with a draft, one without measures anew what a row costs. */
enum { MOST_IN_A_ROW = 32 };

void speculator_init(struct speculator *s)
{
    *s = (struct speculator){.row_cost = 0.1, .hit_rate = {HIT_RATE, HIT_RATE}};
}

void speculator_begin(struct speculator *s)
{
    s->spent_ms = s->balance_ms = 0;
    s->n_drafted = 0;
}

/* Where the last `length` tokens ended when they occurred before, the latest time; 0: nowhere. */
static int find_earlier(const int32_t *ids, int n, int length)
{
    const int32_t *last = ids + n - length;
    for (int end = n - 1; end >= length; end--)
        if (ids[end - 1] == ids[n - 1] && memcmp(ids + end - length, last, (size_t)length * sizeof *ids) == 0)
            return end;
    return 0;
}

/* The number of drafted tokens, at most n, that gives the most tokens for the time. */
static int best_count(const struct speculator *s, int n)
{
    int best = 0;
    double tokens = 1, right = 1, best_speed = 1;
    for (int k = 1; k <= n; k++) {
        right *= s->hit_rate[s->kind]; /* it counts only if all before it were right */
        tokens += right;
        const double speed = tokens / (1 + k * s->row_cost);
        if (speed > best_speed) {
            best_speed = speed;
            best = k;
        }
    }
    return best;
}

/* How many of n tokens are worth drafting: as many as pay, while the loss if all were wrong stays within the stake. */
static int worth_drafting(const struct speculator *s, int n)
{
    if (s->step_ms <= 0 || s->in_a_row == MOST_IN_A_ROW)
        return 0;
    const double stake = s->step_ms + STAKE * s->spent_ms + s->balance_ms; /* one step is lent */
    n = best_count(s, n);
    while (n && n * s->row_cost * s->step_ms > stake)
        n--;
    return n;
}

int speculator_draft(struct speculator *s, int32_t *ids, int n, int most, bool always, int32_t never)
{
    s->n_drafted = 0;
    int from = 0, length = 4;
    while (!from && --length >= 2)
        from = n > length ? find_earlier(ids, n, length) : 0;
    if (!from)
        return 0;
    s->kind = length - 2;
    int k = 0; /* a draft may run into itself: a phrase that repeats goes on */
    for (; k < most && ids[from + k] != never; k++)
        ids[n + k] = ids[from + k];
    s->n_drafted = always ? k : worth_drafting(s, k);
    if (!s->n_drafted)
        s->hit_rate[s->kind] += FORGET * (HIT_RATE - s->hit_rate[s->kind]);
    return s->n_drafted;
}

void speculator_note_step(struct speculator *s, double ms)
{
    s->spent_ms += ms;
    if (s->step_ms <= 0) {
        s->step_ms = s->n_drafted ? 0 : ms;
        return;
    }
    if (s->n_drafted == 0) {
        ms = ms < 2 * s->step_ms ? ms : 2 * s->step_ms;
        s->step_ms += LEARN * (ms - s->step_ms);
        s->in_a_row = 0;
        return;
    }
    s->in_a_row += s->in_a_row < MOST_IN_A_ROW;
    double extra = (ms / s->step_ms - 1) / s->n_drafted;
    extra = extra < LEAST_ROW_COST ? LEAST_ROW_COST : extra > 1 ? 1 : extra;
    s->balance_ms -= extra * s->n_drafted * s->step_ms;
    s->row_cost += LEARN * (extra - s->row_cost);
}

void speculator_note_hits(struct speculator *s, int hits)
{
    if (s->n_drafted == 0)
        return;
    double *rate = &s->hit_rate[s->kind];
    for (int i = 0; i < hits; i++)
        *rate += LEARN * (1 - *rate);
    if (hits < s->n_drafted)
        *rate -= LEARN * *rate;
    s->balance_ms += hits * s->step_ms;
    s->n_drafted = 0;
}
