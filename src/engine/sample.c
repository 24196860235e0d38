#include "engine/sample.h"

#include "base/random.h"

#include <math.h>
#include <stdlib.h>

int sampler_open(struct sampler *s, int vocab, struct ward_error *err)
{
    *s = (struct sampler){.vocab = vocab, .candidates = malloc((size_t)vocab * sizeof *s->candidates)};
    return s->candidates ? 0 : error_no_memory(err, "the sampler", (size_t)vocab * sizeof *s->candidates);
}

void sampler_close(struct sampler *s)
{
    free(s->candidates);
    *s = (struct sampler){0};
}

void sampler_seed(struct sampler *s, uint64_t seed)
{
    s->random = seed;
}

/* 53 random bits. */
double sample_number(const struct sampler *s, int ahead)
{
    const uint64_t state = s->random + ((uint64_t)ahead + 1) * RANDOM_STEP;
    return (double)(random_mix(state) >> 11) * 0x1p-53;
}

void sample_advance(struct sampler *s)
{
    s->random += RANDOM_STEP;
}

static double random_unit(struct sampler *s)
{
    const double number = sample_number(s, 0);
    sample_advance(s);
    return number;
}

static int argmax(const float *logits, int vocab)
{
    int best = 0;
    for (int i = 1; i < vocab; i++)
        if (logits[i] > logits[best])
            best = i;
    return best;
}

double sample_log_sum(const float *logits, int vocab)
{
    const float max = logits[argmax(logits, vocab)];
    double sum = 0;
    for (int i = 0; i < vocab; i++)
        sum += exp((double)(logits[i] - max));
    return (double)max + log(sum);
}

static bool likelier(struct ward_logprob a, struct ward_logprob b)
{
    return a.logprob > b.logprob || (a.logprob == b.logprob && a.id < b.id);
}

static void swap(struct ward_logprob *a, struct ward_logprob *b)
{
    const struct ward_logprob kept = *a;
    *a = *b;
    *b = kept;
}

/* A heap whose first entry is the least likely: moves the entry at `at` down to where it belongs. */
static void sift_down(struct ward_logprob *heap, int n, int at)
{
    for (;;) {
        int least = at;
        for (int child = 2 * at + 1; child <= 2 * at + 2; child++)
            if (child < n && likelier(heap[least], heap[child]))
                least = child;
        if (least == at)
            return;
        swap(&heap[at], &heap[least]);
        at = least;
    }
}

/* The n largest of the values into out, in order: one pass with a heap of n, which is then sorted in place (the
 * library's qsort allocates). */
static void select_largest(const float *values, int count, int n, struct ward_logprob *out)
{
    if (n == 0)
        return;
    for (int i = 0; i < n; i++)
        out[i] = (struct ward_logprob){i, values[i]};
    for (int i = n / 2 - 1; i >= 0; i--)
        sift_down(out, n, i);
    for (int i = n; i < count; i++)
        if (values[i] > out[0].logprob) {
            out[0] = (struct ward_logprob){i, values[i]};
            sift_down(out, n, 0);
        }
    for (int end = n - 1; end > 0; end--) {
        swap(&out[0], &out[end]);
        sift_down(out, end, 0);
    }
}

void sample_top(struct sampler *s, const float *logits, double log_sum, int n, struct ward_logprob *top)
{
    select_largest(logits, s->vocab, n, s->candidates);
    for (int i = 0; i < n; i++)
        top[i] = (struct ward_logprob){s->candidates[i].id, (float)((double)s->candidates[i].logprob - log_sum)};
}

/* How many of the likeliest tokens, in order, reach the cumulative probability top_p; 0 when n of them do not. */
static int nucleus(const struct ward_logprob *candidates, int n, double temperature, double log_sum, double top_p)
{
    double cumulative = 0;
    for (int i = 0; i < n; i++) {
        cumulative += exp((double)candidates[i].logprob / temperature - log_sum);
        if (cumulative >= top_p)
            return i + 1;
    }
    return 0;
}

static double log_sum_of(const struct ward_logprob *candidates, int n, double temperature)
{
    const double max = (double)candidates[0].logprob / temperature;
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += exp((double)candidates[i].logprob / temperature - max);
    return max + log(sum);
}

/* Draws from all tokens, or those within min_p of the likeliest: no order is needed, which would take longer than the
 * model takes for the token. */
static int32_t draw_unordered(struct sampler *s, const float *logits, double temperature, double min_p)
{
    const int best = argmax(logits, s->vocab);
    const double floor = min_p > 0 ? log(min_p) : -INFINITY;
    double total = 0;
    int n = 0;
    for (int i = 0; i < s->vocab; i++) {
        const double below = (double)(logits[i] - logits[best]) / temperature;
        if (below < floor)
            continue;
        s->candidates[n] = (struct ward_logprob){i, (float)exp(below)}; /* its weight, for now */
        total += (double)s->candidates[n++].logprob;
    }
    double left = random_unit(s) * total;
    for (int i = 0; i < n; i++) {
        left -= (double)s->candidates[i].logprob;
        if (left < 0)
            return s->candidates[i].id;
    }
    return best; /* rounding left a crumb of probability */
}

int32_t sample_token(struct sampler *s, const float *logits, const struct sampler_options *o)
{
    if (o->temperature <= 0)
        return argmax(logits, s->vocab);
    const double temperature = (double)o->temperature;
    const bool has_top_k = o->top_k > 0 && o->top_k < s->vocab, has_top_p = o->top_p > 0 && o->top_p < 1;
    if (!has_top_k && !has_top_p)
        return draw_unordered(s, logits, temperature, (double)o->min_p);
    struct ward_logprob *c = s->candidates;
    int n = has_top_k ? o->top_k : s->vocab;

    /* The whole vocabulary is seldom needed in order: the nucleus is looked for among ever more of the likeliest. */
    int ordered = has_top_k || n < 256 ? n : 256;
    select_largest(logits, s->vocab, ordered, c);
    if (has_top_p) {
        double log_sum = 0;
        if (has_top_k) {
            log_sum = log_sum_of(c, n, temperature);
        } else {
            const double max = (double)c[0].logprob / temperature;
            for (int i = 0; i < s->vocab; i++)
                log_sum += exp((double)logits[i] / temperature - max);
            log_sum = max + log(log_sum);
        }
        int kept;
        while (!(kept = nucleus(c, ordered, temperature, log_sum, (double)o->top_p)) && ordered < n) {
            ordered = ordered > n / 8 ? n : ordered * 8;
            select_largest(logits, s->vocab, ordered, c);
        }
        n = kept ? kept : ordered;
    }
    if (o->min_p > 0) {
        const double floor_ratio = log((double)o->min_p);
        int kept = 1;
        while (kept < n && (double)(c[kept].logprob - c[0].logprob) / temperature >= floor_ratio)
            kept++;
        n = kept;
    }
    const double log_sum = log_sum_of(c, n, temperature);
    double left = random_unit(s);
    for (int i = 0; i < n; i++) {
        left -= exp((double)c[i].logprob / temperature - log_sum);
        if (left < 0)
            return c[i].id;
    }
    return c[0].id; /* rounding left a crumb of probability */
}
