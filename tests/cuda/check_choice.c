/* The choice of tokens on a card, and recordings. */
#include "cuda/checks.h"
#include "kernels/harness.h"

#include "engine/sample.h"

#include <math.h>

static bool choice_of(int rows, int n, float cap)
{
    float *logits = float_buffer((size_t)rows * (size_t)n);
    struct choice *got = buffer((size_t)rows * sizeof *got, 0), *out = on_card(NULL, (size_t)rows * sizeof *got);
    for (int i = 0; i < rows * n; i++)
        logits[i] = 12 * random_float();
    for (int r = 0; r < rows; r++) /* two that are the likeliest: the first is to be taken */
        logits[r * n + n / 3] = logits[r * n + n - 1] = 13;
    card->ops->choose(card, out, on_card(logits, (size_t)rows * (size_t)n * sizeof *logits), NULL, rows, n, cap);
    bool ok = fetch(got, out, (size_t)rows * sizeof *got);
    for (int r = 0; ok && r < rows; r++) {
        double sum = 0;
        for (int i = 0; i < n; i++) {
            const double x = (double)logits[r * n + i];
            sum += exp(cap > 0 ? (double)cap * tanh(x / (double)cap) : x);
        }
        const double most = cap > 0 ? (double)cap * tanh(13 / (double)cap) : 13;
        ok = (got[r].id == n / 3 || fail("token %d was chosen, expected %d", got[r].id, n / 3)) &&
             near("logit", r, (double)got[r].logit, most, 1e-5) && near("log_sum", r, got[r].log_sum, log(sum), 1e-5);
    }
    release_all();
    return ok || fail("%d rows of %d logits", rows, n);
}

bool choice(void)
{
    return choice_of(1, 3, 0) && choice_of(8, 1000, 30) && choice_of(2, 70001, 0) && choice_of(1, 65, 5);
}

/* Draws of the card beside sample_token's, by the same numbers: at least `least` of them are the card's own. */
static bool drawing_of(int n, float spread, const struct sampler_options *options, int least)
{
    enum { TURNS = 2, ROWS = GEMV_MAX_N };
    struct sampler s;
    struct ward_error err;
    float *logits = float_buffer((size_t)ROWS * (size_t)n);
    if (sampler_open(&s, n, &err))
        return fail("%s", err.text);
    sampler_seed(&s, (uint64_t)n + (uint64_t)options->top_k);
    struct choice got[ROWS], *out = on_card(NULL, sizeof got);
    struct draw draws[ROWS], *card_draws = on_card(NULL, sizeof draws);
    float *card_logits = on_card(NULL, (size_t)ROWS * (size_t)n * sizeof *logits);
    int drawn = 0;
    bool ok = true;
    for (int turn = 0; ok && turn < TURNS; turn++) {
        for (int i = 0; i < ROWS * n; i++) /* a few stand out, many are equal, some are out of the question */
            logits[i] = i % 31 == 0   ? spread * (1.5f + 0.5f * random_float())
                        : i % 97 == 0 ? -INFINITY
                        : i % 3 == 0  ? spread
                                      : spread * random_float();
        for (int r = 0; r < ROWS; r++)
            draws[r] = (struct draw){sample_number(&s, r), *options};
        card->ops->write(card, card_draws, draws, sizeof draws);
        card->ops->write(card, card_logits, logits, (size_t)ROWS * (size_t)n * sizeof *logits);
        card->ops->choose(card, out, card_logits, card_draws, ROWS, n, 0);
        ok = fetch(got, out, sizeof got);
        for (int r = 0; ok && r < ROWS; r++) {
            const int32_t expected = sample_token(&s, logits + (size_t)r * (size_t)n, options);
            if (got[r].id < 0)
                continue;
            drawn++;
            ok = (got[r].id == expected || fail("token %d was drawn, expected %d", got[r].id, expected)) &&
                 near("logit", r, (double)got[r].logit, (double)logits[r * n + expected], 0);
        }
    }
    sampler_close(&s);
    release_all();
    ok = ok && (drawn >= least || fail("%d of %d tokens were drawn on the card", drawn, TURNS * ROWS));
    return ok || fail("%d logits, temperature %g, top-k %d, top-p %g, min-p %g", n, (double)options->temperature,
                      options->top_k, (double)options->top_p, (double)options->min_p);
}

bool drawing(void)
{
    enum { ALL = 16 };
    static const struct {
        int n;
        float spread;
        struct sampler_options options;
        int least;
    } cases[] = {
        {1, 5, {1, 0, 0, 0}, ALL},          {70, 5, {1, 64, 0.95f, 0}, ALL},      {3000, 8, {0.2f, 40, 0, 0}, ALL},
        {3000, 8, {2, 1, 0, 0}, ALL},       {3000, 8, {1, 64, 0.5f, 0.02f}, ALL}, {3000, 12, {0.7f, 0, 0.95f, 0}, ALL},
        {3000, 8, {1, 0, 0.5f, 0.3f}, ALL}, {3000, 2, {2, 0, 0.999f, 0}, 0},      {3000, 2, {1, 2900, 0, 0}, 0},
        {3000, 3, {1, 0, 0, 0}, ALL},       {3000, 9, {0.5f, 0, 1, 0.05f}, ALL},  {20011, 6, {0.8f, 64, 0.95f, 0}, ALL},
        {20011, 1, {2, 0, 0, 0}, ALL},      {3000, 0, {1, 5, 0.9f, 0}, 0},        {1500, 0, {1, 5, 0.9f, 0}, ALL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (!drawing_of(cases[i].n, cases[i].spread, &cases[i].options, cases[i].least))
            return false;
    return true;
}

/* What the card leaves to the processor: a row whose logits are no numbers, and no other. */
bool undrawn(void)
{
    enum { N = 500, ROWS = 4 };
    float *logits = random_floats(ROWS * N);
    logits[N + 77] = NAN;
    logits[2 * N + 3] = INFINITY;
    for (int i = 0; i < N; i++)
        logits[3 * N + i] = -INFINITY;
    const float *in = on_card(logits, ROWS * N * sizeof *logits);
    struct choice got[ROWS], *out = on_card(NULL, sizeof got);
    bool ok = true;
    for (int top_k = 0; ok && top_k < 10; top_k += 5) {
        struct draw draws[ROWS];
        for (int r = 0; r < ROWS; r++)
            draws[r] = (struct draw){0.5, {.temperature = 1, .top_k = top_k}};
        card->ops->choose(card, out, in, on_card(draws, sizeof draws), ROWS, N, 0);
        ok = fetch(got, out, sizeof got);
        for (int r = 0; ok && r < ROWS; r++)
            ok = (got[r].id >= 0) == (r == 0) || fail("of row %d token %d was drawn", r, got[r].id);
    }
    release_all();
    return ok;
}

/* A recording gives what the calls gave, on the contents of its time. */
bool recording(void)
{
    enum { N = 300 };
    float *x = random_floats(N), *y = random_floats(N), got[N];
    float *to = on_card(NULL, N * sizeof *x);
    const struct tensor host = {y, TENSOR_F32, 1, N}, table = matrix_on_card(&host);
    void *recorded = NULL;
    bool ok = true;
    for (int turn = 0; ok && turn < 3; turn++) {
        card->ops->write(card, to, turn == 1 ? y : x, N * sizeof *x);
        if (!card->ops->begin(card, &recorded)) {
            ok = turn == 0 || fail("turn %d was not played from the recording", turn);
            card->ops->add_table(card, to, &table);
            card->ops->add_table(card, to, &table);
            card->ops->end(card, &recorded);
        }
        ok = ok && fetch(got, to, sizeof got);
        for (int i = 0; ok && i < N; i++)
            ok = near("recording", i, (double)got[i], (double)((turn == 1 ? y : x)[i] + y[i] + y[i]), 0);
    }
    card->ops->forget(card, &recorded);
    release_all();
    return ok;
}
