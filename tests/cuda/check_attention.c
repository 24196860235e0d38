/* Attention on a card. */
#include "cuda/checks.h"
#include "kernels/harness.h"

#include "base/half.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct attention_case {
    int rows, heads, kv_heads, d, capacity, first; /* first: position of the first row */
    int window, image;                             /* 0: none; rows from a third on see `image` further ones */
};

static void fill_intervals(const struct attention_case *s, int *positions, int *lo, int *hi)
{
    for (int r = 0; r < s->rows; r++) {
        const int p = s->first + r;
        positions[r] = p;
        hi[r] = p + 1;
        if (s->image && r >= s->rows / 3 && r < s->rows / 3 + s->image)
            hi[r] = s->first + s->rows / 3 + s->image;
        lo[r] = s->window && p - s->window + 1 > 0 ? p - s->window + 1 : 0;
        if (r == s->rows / 2)
            hi[r] = lo[r]; /* sees nothing */
    }
}

/* The row's answer in double precision, of keys and values as the cache holds them. */
static void attend(double *out, const struct attention_case *s, const float *q, const float *k, const float *v, int lo,
                   int hi, float scale, int kv_head)
{
    double most = -INFINITY, total = 0;
    double *scores = malloc((size_t)(hi - lo + 1) * sizeof *scores);
    memset(out, 0, (size_t)s->d * sizeof *out);
    for (int p = lo; p < hi; p++) {
        double sum = 0;
        for (int i = 0; i < s->d; i++)
            sum += (double)q[i] *
                   (double)k[((size_t)p * (size_t)s->kv_heads + (size_t)kv_head) * (size_t)s->d + (size_t)i];
        scores[p - lo] = sum * (double)scale;
        most = fmax(most, scores[p - lo]);
    }
    for (int p = lo; p < hi; p++) {
        const double weight = exp(scores[p - lo] - most);
        total += weight;
        for (int i = 0; i < s->d; i++)
            out[i] +=
                weight * (double)v[((size_t)p * (size_t)s->kv_heads + (size_t)kv_head) * (size_t)s->d + (size_t)i];
    }
    for (int i = 0; i < s->d && total > 0; i++)
        out[i] /= total;
    free(scores);
}

/* Each of few rows gives the same bits alone and beside some of the others. */
static bool same_alone(const struct attention *a, const float *out)
{
    const size_t width = (size_t)a->n_heads * (size_t)a->head_dim;
    float *got = float_buffer((size_t)a->rows * width);
    for (int first = 0; first < a->rows; first++)
        for (int rows = 1; first + rows <= a->rows; rows += 3) {
            struct attention part = *a;
            part.rows = rows;
            part.q += (size_t)first * width;
            part.lo += first;
            part.hi += first;
            card->ops->attention(card, &part);
            const size_t n = (size_t)rows * width;
            if (!fetch(got, a->out, n * sizeof *got) ||
                (memcmp(got, out + (size_t)first * width, n * sizeof *got) != 0 &&
                 !fail("rows %d to %d give other bits alone", first, first + rows - 1)))
                return false;
        }
    return true;
}

static bool check_attention(const struct attention_case *s)
{
    const int length = s->first + s->rows, kv_width = s->kv_heads * s->d, width = s->heads * s->d;
    const size_t n_kv = (size_t)length * (size_t)kv_width, n = (size_t)s->rows * (size_t)width;
    float *k = float_buffer(n_kv), *v = float_buffer(n_kv), *q = float_buffer(n), *out = float_buffer(n);
    for (size_t i = 0; i < n_kv; i++) {
        /* of many rows the later keys weigh more, so that what was summed first shrinks; with a window the first */
        const float rise = 10 * (float)i / (float)n_kv;
        const float size = s->rows <= GEMV_MAX_N ? 2 : s->window ? 12 - rise : 2 + rise;
        k[i] = f16_to_float(f16_from_float(size * random_float()));
        v[i] = f16_to_float(f16_from_float(random_float()));
    }
    for (size_t i = 0; i < n; i++)
        q[i] = 2 * random_float();
    int *positions = buffer((size_t)length * sizeof(int), 0), *lo = buffer((size_t)s->rows * sizeof(int), 0),
        *hi = buffer((size_t)s->rows * sizeof(int), 0);
    const size_t cache = (size_t)s->capacity * (size_t)kv_width * 2;
    const void *unused = buffer(cache, 0); /* slots that hold nothing are not to be looked at: they hold no numbers */
    struct kv_layer layer = {
        on_card(unused, cache), on_card(unused, cache), TENSOR_F16, s->kv_heads, s->d, s->capacity};
    float *card_k = on_card(k, n_kv * sizeof *k), *card_v = on_card(v, n_kv * sizeof *v);
    for (int p = 0; p < length; p++)
        positions[p] = p;
    int *card_positions = on_card(positions, (size_t)length * sizeof(int));
    for (int p = 0; p < length; p += 7) { /* in pieces, so that no slot is written twice at once */
        const struct heads heads = {.k = card_k + (size_t)p * (size_t)kv_width,
                                    .v = card_v + (size_t)p * (size_t)kv_width,
                                    .rows = length - p < 7 ? length - p : 7,
                                    .to = &layer,
                                    .positions = card_positions + p};
        card->ops->store(card, &heads);
    }
    fill_intervals(s, positions, lo, hi);
    const struct attention a = {
        .out = on_card(NULL, n * sizeof(float)),
        .q = on_card(q, n * sizeof(float)),
        .k = layer.k,
        .v = layer.v,
        .type = TENSOR_F16,
        .rows = s->rows,
        .n_heads = s->heads,
        .n_kv_heads = s->kv_heads,
        .head_dim = s->d,
        .capacity = s->capacity,
        .lo = on_card(lo, (size_t)s->rows * sizeof(int)),
        .hi = on_card(hi, (size_t)s->rows * sizeof(int)),
        .scale = (float)(1 / sqrt(s->d)),
        .exact = true,
        .scratch = on_card(NULL, card->ops->attention_size(card, s->rows, s->heads, s->d)),
    };
    card->ops->attention(card, &a);
    bool ok = fetch(out, a.out, n * sizeof *out) && (s->rows > GEMV_MAX_N || same_alone(&a, out));
    double *expected = malloc((size_t)s->d * sizeof *expected);
    for (int r = 0; ok && r < s->rows; r++)
        for (int h = 0; ok && h < s->heads; h++) {
            const size_t at = ((size_t)r * (size_t)s->heads + (size_t)h) * (size_t)s->d;
            attend(expected, s, q + at, k, v, lo[r], hi[r], a.scale, h / (s->heads / s->kv_heads));
            for (int i = 0; ok && i < s->d; i++) /* float16 queries and weights where there are many rows */
                ok = near("attention", (int)at + i, (double)out[at + (size_t)i], expected[i],
                          s->rows > GEMV_MAX_N ? 4e-3 : 2e-6);
        }
    free(expected);
    release_all();
    return ok || fail("%d rows from %d, %d heads on %d of %d, %d slots", s->rows, s->first, s->heads, s->kv_heads, s->d,
                      s->capacity);
}

bool attention(void)
{
    static const struct attention_case cases[] = {
        /* few rows: the decoder's heads, odd ones, many keys, some that share keys by three, longer than a block's */
        {1, 4, 2, 16, 40, 0, 0, 0},
        {1, 2, 1, 256, 600, 511, 0, 0},
        {8, 8, 4, 64, 300, 250, 0, 0},
        {3, 2, 2, 30, 64, 200, 50, 0},
        {5, 4, 1, 72, 128, 400, 100, 0},
        {4, 4, 2, 256, 700, 650, 0, 0},
        {5, 3, 1, 256, 90, 200, 70, 0},
        {2, 2, 1, 600, 64, 50, 40, 0},
        {6, 2, 1, 8, 3000, 2500, 0, 0},
        /* many: the encoder's heads and the decoder's, from the middle of a step on, in a cache that turns round */
        {64, 4, 2, 64, 64, 0, 0, 0},
        {100, 2, 1, 256, 256, 90, 0, 40},
        {130, 2, 2, 72, 130, 0, 0, 0},
        {70, 4, 2, 32, 200, 300, 100, 30},
        {33, 2, 1, 128, 80, 100, 40, 0},
        {20, 2, 1, 30, 64, 40, 0, 0},
        {12, 1, 1, 264, 64, 3, 0, 0},
        {65, 2, 1, 80, 100, 7, 0, 0},
        {40, 2, 1, 24, 64, 9, 0, 0},
        {150, 2, 2, 72, 230, 300, 75, 0},
        {130, 1, 1, 72, 400, 255, 0, 60},
        {65, 8, 2, 72, 65, 0, 0, 0},
        {40, 2, 1, 256, 340, 290, 0, 0},
        {70, 2, 1, 256, 190, 500, 110, 9},
        {20, 2, 1, 24, 40, 61, 17, 0},
        {40, 1, 1, 128, 300, 210, 200, 20},
        /* a warp's rows all see but the last of a step's positions, but the first (and above, of 65, only the first)
         */
        {160, 1, 1, 72, 160, 0, 0, 74},
        {120, 8, 2, 72, 120, 0, 95, 80},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (!check_attention(&cases[i]))
            return false;
    return true;
}
