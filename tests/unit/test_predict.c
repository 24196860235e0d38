/* What `ward doctor` foretells: sizes against files that exist, the model's arithmetic against that of `ward bench`,
 * which counts the weights that are open, and the table of devices. Run from the root of the repository. */
#include "bench/devices.h"
#include "bench/footprint.h"
#include "bench/predict.h"
#include "synth/texts.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void is_within(double got, double expected, double share)
{
    if (!(fabs(got - expected) <= share * expected))
        fail_msg("got %.6g, expected %.6g within %g", got, expected, share);
}

static struct model_config medgemma_4b(void)
{
    struct synth_source source;
    struct ward_error err;
    assert_int_equal(synth_source_open(&source, "medgemma-4b", &err), 0);
    const struct model_config config = source.config;
    synth_source_close(&source);
    return config;
}

/* Bytes of the published checkpoint's tensors, and of what `ward quantize` and llama.cpp made of that shape. */
static void sizes_are_those_of_files(void **state)
{
    (void)state;
    static const double bytes[PREDICT_TYPES] = {
        [PREDICT_BF16] = 8600158944, [PREDICT_INT8] = 4595e6, [PREDICT_INT4] = 2840e6, [PREDICT_Q4_0] = 2829e6};
    const struct model_config config = medgemma_4b();
    for (enum predict_type type = 0; type < PREDICT_TYPES; type++) {
        struct predict_need need;
        predict_need(&need, &config, type, 8192);
        is_within((double)(need.text_bytes + need.vision_bytes), bytes[type], 0.01);
        assert_true(need.token_bytes <= need.text_bytes);
        assert_true(need.memory_bytes == need.text_bytes + need.vision_bytes + need.kv_bytes + need.work_bytes);
    }
}

/* Five global layers of 34 hold all positions, the others a window and what a chunk adds. */
static void the_cache_is_that_of_the_layers(void **state)
{
    (void)state;
    const struct model_config config = medgemma_4b();
    struct predict_need need;
    predict_need(&need, &config, PREDICT_BF16, 8192);
    assert_int_equal(need.kv_bytes, (5 * 8192 + 29 * (1023 + 512)) * 2 * 4 * 256 * 2);
    predict_need(&need, &config, PREDICT_INT4, 300);
    assert_int_equal(need.kv_bytes, 34 * 300 * 2 * 4 * 256 * 2);
}

/* An image is 5.5 TFLOP, a token of a prompt 6.4 GFLOP (of it attention grows), a further token reads every weight. */
static void times_follow_from_rates(void **state)
{
    (void)state;
    const struct model_config config = medgemma_4b();
    const struct predict_rates rates = {1e12, 1e12, 1e12, 1e12, 1e12};
    struct predict_latency t;
    struct predict_need need;
    predict_latency(&t, &config, PREDICT_Q4_0, &rates);
    predict_need(&need, &config, PREDICT_Q4_0, 512);
    assert_int_equal(t.prompt_tokens, 256 + 17);
    is_within(t.vision_ms, 5500, 0.03);
    is_within(t.token_ms, (double)need.token_bytes / 1e9, 1e-9);
    is_within(t.prefill_ms - t.token_ms, 273 * 6.4, 0.03);
    is_within(t.first_token_ms, t.vision_ms + t.prefill_ms, 1e-9);
    is_within(t.total_ms, t.first_token_ms + 199 * t.token_ms, 1e-9);
}

/* `ward bench` counts the weights that are open. */
static void both_counts_agree(void **state)
{
    (void)state;
    ward_model *model;
    struct ward_error err;
    struct predict_latency t;
    struct predict_need need;
    assert_int_equal(ward_model_open(&model, "models/phantom", NULL, &err), 0);
    const struct model_config *config = &model->checkpoint.config;
    const struct predict_rates rates = {1e12, 1e12, 1e12, 1e12, 1e12};
    predict_latency(&t, config, PREDICT_BF16, &rates);
    predict_need(&need, config, PREDICT_BF16, 700);
    const struct model_work work = model_work(model, t.prompt_tokens);
    const struct buffer_sizes sizes = buffer_sizes(model, 700, 700);
    is_within(t.vision_ms * 1e9, work.image, 0.02);
    is_within((double)need.token_bytes, (double)work.token_bytes, 0.02);
    is_within((double)need.kv_bytes * (double)tensor_bytes(model->backend->cache_type, 1) / 2, (double)sizes.kv, 0.001);
    ward_model_close(&model);
}

static void a_faster_machine_is_foretold_to_be_faster(void **state)
{
    (void)state;
    const struct model_config config = medgemma_4b();
    for (enum isa isa = ISA_AVX2; isa <= ISA_AMX; isa++) {
        struct limits slow = {.isa = isa, .read_bytes_mean = 2e10}, fast = {.isa = isa, .read_bytes_mean = 8e10};
        for (int kind = 0; kind < LIMITS_MULTIPLIES; kind++) {
            slow.multiply_mean[kind] = 2e11 * (kind + 1);
            fast.multiply_mean[kind] = 4 * slow.multiply_mean[kind];
        }
        for (enum predict_type type = 0; type < PREDICT_TYPES; type++) {
            struct predict_rates rates;
            struct predict_latency a, b;
            predict_rates_measured(&rates, &slow, type);
            predict_latency(&a, &config, type, &rates);
            predict_rates_measured(&rates, &fast, type);
            predict_latency(&b, &config, type, &rates);
            is_within(a.total_ms, 4 * b.total_ms, 1e-6);
        }
    }
}

/* What is left of the target after the first token, in tokens: the one before it counts. */
static void an_answer_in_time_is_as_long_as_it_can_be(void **state)
{
    (void)state;
    const struct model_config config = medgemma_4b();
    const struct predict_shares shares = {.vision = 0.5, .vision_attention = 0.5, .prefill = 0.5, .read = {[PREDICT_INT8] = 0.5}};
    struct predict_rates rates;
    struct predict_latency t;
    predict_rates_card(&rates, &shares, 1e14, 1e12, PREDICT_INT8);
    predict_latency(&t, &config, PREDICT_INT8, &rates);
    is_within(t.vision_ms, 5500 / 50.0, 0.03);
    const struct predict_rates twice = {rates.vision * 2, rates.vision_attention * 2, rates.prefill * 2,
                                        rates.prefill_exact * 2, rates.read * 2};
    struct predict_latency half;
    predict_latency(&half, &config, PREDICT_INT8, &twice);
    is_within(half.total_ms, t.total_ms / 2, 1e-9);
    assert_int_equal(predict_tokens_within(&t, t.first_token_ms - 1), 0);
    assert_int_equal(predict_tokens_within(&t, t.first_token_ms + t.token_ms / 2), 1);
    assert_int_equal(predict_tokens_within(&t, t.total_ms + t.token_ms / 2), PREDICT_TOKENS);
}

static void devices_are_found_as_people_write_them(void **state)
{
    (void)state;
    static const char *const spellings[][2] = {
        {"NVIDIA GeForce RTX 3090", "RTX 3090"}, {"rtx3090", "RTX 3090"}, {"Apple M1 Pro", "M1 Pro"},
        {"m1-pro", "M1 Pro"}, {"NVIDIA Jetson AGX Orin", "Jetson AGX Orin"},
        {"NVIDIA H100 80GB HBM3", "H100 80GB HBM3"}};
    for (size_t i = 0; i < sizeof spellings / sizeof *spellings; i++) {
        const struct device *device = device_find(spellings[i][0]);
        assert_non_null(device);
        assert_string_equal(device->name, spellings[i][1]);
    }
    assert_null(device_find("RTX 30"));
    assert_null(device_find(""));
    const struct device *device;
    for (int i = 0; (device = device_at(i)); i++) {
        assert_ptr_equal(device_find(device->name), device); /* no two of one name */
        assert_true(device->memory_gb > 0 && device->read_gbs > 0 && device->tflops > 0);
    }
    assert_null(device_at(-1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_are_those_of_files),
        cmocka_unit_test(the_cache_is_that_of_the_layers),
        cmocka_unit_test(times_follow_from_rates),
        cmocka_unit_test(both_counts_agree),
        cmocka_unit_test(a_faster_machine_is_foretold_to_be_faster),
        cmocka_unit_test(an_answer_in_time_is_as_long_as_it_can_be),
        cmocka_unit_test(devices_are_found_as_people_write_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
