/* The sampler against distributions worked out by hand. */
#include "engine/sample.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { VOCAB = 1000 };

/* Token i has probability proportional to weight(i): a long tail after a few large ones. */
static void fill(float *logits)
{
    for (int i = 0; i < VOCAB; i++)
        logits[i] = (float)log(1.0 / (1 + (i * 7919) % VOCAB));
}

static void greedy_takes_the_first_of_equals(void **state)
{
    (void)state;
    struct sampler s;
    assert_int_equal(sampler_open(&s, 5, NULL), 0);
    const float logits[5] = {1, 3, 2, 3, -INFINITY};
    assert_int_equal(sample_token(&s, logits, &(struct sampler_options){0}), 1);
    sampler_close(&s);
}

static void top_is_sorted_and_normalised(void **state)
{
    (void)state;
    struct sampler s;
    float logits[VOCAB];
    struct ward_logprob top[VOCAB];
    fill(logits);
    logits[10] = logits[20] = 0.5f;
    assert_int_equal(sampler_open(&s, VOCAB, NULL), 0);
    const double log_sum = sample_log_sum(logits, VOCAB);
    double total = 0;
    for (int i = 0; i < VOCAB; i++)
        total += exp((double)logits[i] - log_sum);
    assert_true(fabs(total - 1) < 1e-9);
    for (int n = 0; n <= VOCAB; n += 37) {
        sample_top(&s, logits, log_sum, n, top);
        for (int i = 1; i < n; i++)
            assert_true(top[i - 1].logprob > top[i].logprob ||
                        (top[i - 1].logprob == top[i].logprob && top[i - 1].id < top[i].id));
        if (n >= 2) {
            assert_int_equal(top[0].id, 10);
            assert_int_equal(top[1].id, 20);
        }
    }
    sampler_close(&s);
}

/* Draws often and returns how often each token came. */
static void draw(const float *logits, const struct sampler_options *o, int draws, int counts[VOCAB])
{
    struct sampler s;
    assert_int_equal(sampler_open(&s, VOCAB, NULL), 0);
    sampler_seed(&s, 42);
    for (int i = 0; i < VOCAB; i++)
        counts[i] = 0;
    for (int i = 0; i < draws; i++)
        counts[sample_token(&s, logits, o)]++;
    sampler_close(&s);
}

static int distinct(const int counts[VOCAB])
{
    int n = 0;
    for (int i = 0; i < VOCAB; i++)
        n += counts[i] > 0;
    return n;
}

static void frequencies_follow_probabilities(void **state)
{
    (void)state;
    float logits[VOCAB];
    for (int i = 0; i < VOCAB; i++)
        logits[i] = -INFINITY;
    logits[3] = logf(0.5f);
    logits[500] = logf(0.3f);
    logits[999] = logf(0.2f);
    int counts[VOCAB];
    const int draws = 20000;
    draw(logits, &(struct sampler_options){.temperature = 1}, draws, counts);
    assert_true(abs(counts[3] - draws / 2) < draws / 50);
    assert_true(abs(counts[500] - draws * 3 / 10) < draws / 50);
    assert_int_equal(counts[3] + counts[500] + counts[999], draws);
    /* p^(1/0.5), normalised: 0.25 : 0.09 : 0.04 */
    draw(logits, &(struct sampler_options){.temperature = 0.5f}, draws, counts);
    assert_true(abs(counts[3] - draws * 25 / 38) < draws / 50);
}

static void filters_keep_what_they_should(void **state)
{
    (void)state;
    float logits[VOCAB];
    int counts[VOCAB];
    fill(logits);
    draw(logits, &(struct sampler_options){.temperature = 1, .top_k = 5}, 5000, counts);
    assert_int_equal(distinct(counts), 5);
    /* weights 1, 1/2, 1/3, ...: min_p 0.3 keeps the first three */
    draw(logits, &(struct sampler_options){.temperature = 1, .min_p = 0.3f}, 5000, counts);
    assert_int_equal(distinct(counts), 3);
    /* the nucleus of 0.4: H(1000) = 7.4855, 0.4 of it is 2.994; 1 + 1/2 + ... + 1/11 = 3.0199 is the first sum above */
    draw(logits, &(struct sampler_options){.temperature = 1, .top_p = 0.4f}, 5000, counts);
    assert_int_equal(distinct(counts), 11);
    /* one nearly as large as everything needs more than the first 256 candidates */
    draw(logits, &(struct sampler_options){.temperature = 1, .top_p = 0.97f}, 8000, counts);
    assert_true(distinct(counts) > 500 && distinct(counts) < 900);
    /* top-k first, the nucleus within it: 1, 1/2, 1/3 -> 0.545, 0.27, 0.18 */
    draw(logits, &(struct sampler_options){.temperature = 1, .top_k = 3, .top_p = 0.6f}, 5000, counts);
    assert_int_equal(distinct(counts), 2);
}

static void same_seed_same_tokens(void **state)
{
    (void)state;
    float logits[VOCAB];
    fill(logits);
    const struct sampler_options o = {.temperature = 1, .top_p = 0.9f};
    struct sampler a, b;
    assert_int_equal(sampler_open(&a, VOCAB, NULL), 0);
    assert_int_equal(sampler_open(&b, VOCAB, NULL), 0);
    sampler_seed(&a, 7);
    sampler_seed(&b, 7);
    for (int i = 0; i < 100; i++)
        assert_int_equal(sample_token(&a, logits, &o), sample_token(&b, logits, &o));
    sampler_seed(&a, 7);
    sampler_seed(&b, 8);
    int different = 0;
    for (int i = 0; i < 100; i++)
        different += sample_token(&a, logits, &o) != sample_token(&b, logits, &o);
    assert_true(different > 10);
    sampler_close(&a);
    sampler_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_takes_the_first_of_equals), cmocka_unit_test(top_is_sorted_and_normalised),
        cmocka_unit_test(frequencies_follow_probabilities), cmocka_unit_test(filters_keep_what_they_should),
        cmocka_unit_test(same_seed_same_tokens),
    };
    return cmocka_run_group_tests_name("sample", tests, NULL, NULL);
}
