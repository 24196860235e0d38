/* Checkpoints of random weights: the files that Google published in size and order, noise that is the same from
 * everywhere, a tokenizer that ward reads. */
#include "base/half.h"
#include "base/json.h"
#include "model/tokenizer.h"
#include "synth/noise.h"
#include "synth/plan.h"
#include "synth/texts.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void open_source(struct synth_source *source, const char *preset)
{
    struct ward_error err = {0};
    if (synth_source_open(source, preset, &err))
        fail_msg("%s", err.text);
}

static const struct synth_tensor *find(const struct synth_plan *plan, const char *name)
{
    for (size_t i = 0; i < plan->n; i++)
        if (!strcmp(plan->tensors[i].name, name))
            return &plan->tensors[i];
    fail_msg("there is no %s", name);
    return NULL;
}

/* What is known of google/medgemma-1.5-4b-it's files: sizes, number of tensors, where they are cut. */
static void files_of_the_4b_are_those_published(void **state)
{
    (void)state;
    struct synth_source source;
    struct synth_plan plan;
    open_source(&source, "medgemma-4b");
    assert_int_equal(synth_plan(&plan, &source.config, NULL), 0);
    assert_int_equal(plan.n, 883);
    assert_int_equal(plan.weights, 4300079472);
    assert_int_equal(plan.bytes, 8600158944);
    assert_int_equal(plan.n_files, 2);
    assert_int_equal(plan.files[0].n, 630);
    assert_int_equal(plan.files[1].n, 253);
    assert_int_equal(8 + plan.files[0].header_size, 85704);
    assert_int_equal(8 + plan.files[1].header_size, 33232);
    assert_int_equal(synth_file_size(&plan.files[0]), 4961251752);
    assert_int_equal(synth_file_size(&plan.files[1]), 3639026128);
    assert_string_equal(plan.files[1].name, "model-00002-of-00002.safetensors");
    assert_int_equal(find(&plan, "language_model.model.layers.14.mlp.up_proj.weight")->file, 0);
    assert_int_equal(find(&plan, "language_model.model.layers.14.mlp.down_proj.weight")->file, 1);
    char *index = synth_index(&plan), *preprocessor = synth_preprocessor_config(&source);
    assert_int_equal(strlen(index), 90558);
    assert_int_equal(strlen(preprocessor), 570);
    free(index);
    free(preprocessor);
    synth_plan_free(&plan);
    synth_source_close(&source);
}

static void every_byte_of_a_file_belongs_to_one_tensor(void **state)
{
    (void)state;
    for (int i = 0; synth_presets[i]; i++) {
        struct synth_source source;
        struct synth_plan plan;
        open_source(&source, synth_presets[i]);
        assert_true(source.config.random_weights);
        assert_int_equal(synth_plan(&plan, &source.config, NULL), 0);
        size_t n = 0;
        for (int f = 0; f < plan.n_files; f++) {
            uint64_t at = 0;
            assert_int_equal(plan.files[f].first, n);
            for (size_t k = 0; k < plan.files[f].n; k++, n++) {
                assert_int_equal(plan.tensors[n].file, f);
                assert_int_equal(plan.tensors[n].offset, at);
                assert_true(!k || strcmp(plan.tensors[n - 1].name, plan.tensors[n].name) < 0);
                at += plan.tensors[n].bytes;
            }
            assert_int_equal(plan.files[f].bytes, at);
            assert_true(at <= 5000000000);
        }
        assert_int_equal(n, plan.n);
        synth_plan_free(&plan);
        synth_source_close(&source);
    }
}

static void noise_is_normal(void **state)
{
    (void)state;
    enum { N = 1 << 20 };
    struct noise noise;
    uint16_t *out = malloc(N * sizeof *out);
    double sum = 0, squares = 0, fourth = 0;
    assert_non_null(out);
    noise_init(&noise, 1, 0.5);
    noise_fill(&noise, out, N, noise_key(7, "a.weight"), 0);
    for (int i = 0; i < N; i++) {
        const double z = (bf16_to_float(out[i]) - 1) / 0.5;
        sum += z;
        squares += z * z;
        fourth += z * z * z * z;
    }
    assert_true(fabs(sum / N) < 0.005); /* five deviations of a mean of so many */
    assert_true(fabs(squares / N - 1) < 0.01);
    assert_true(fabs(fourth / N - 3) < 0.06); /* a uniform one has 1.8 */
    assert_true(fabs(bf16_to_float(noise.level[NOISE_LEVELS - 1]) - (1 + 0.5 * 3.668)) < 0.01); /* its last quantile */
    free(out);
}

static void noise_is_the_same_from_everywhere(void **state)
{
    (void)state;
    enum { N = 1000 };
    struct noise noise;
    uint16_t whole[N], part[N];
    noise_init(&noise, 0, 0.02);
    const uint64_t key = noise_key(0, "b.weight");
    noise_fill(&noise, whole, N, key, 0);
    for (size_t first = 0; first < 9; first++)
        for (size_t n = 0; n < 40; n++) {
            noise_fill(&noise, part, n, key, first);
            assert_memory_equal(part, whole + first, n * sizeof *part);
        }
    noise_fill(&noise, part, N, noise_key(1, "b.weight"), 0);
    assert_memory_not_equal(part, whole, sizeof part);
    noise_fill(&noise, part, N, noise_key(0, "c.weight"), 0);
    assert_memory_not_equal(part, whole, sizeof part);
    /* On any machine: what this one made when the test was written. */
    static const uint16_t known[] = {0x3c80, 0xbbc0, 0x3d2a, 0xbb21, 0xbcdd, 0x3c76, 0x3b48, 0x3b6d};
    assert_memory_equal(whole, known, sizeof known);
}

static void check_id(const struct tokenizer *t, const char *text, int32_t id)
{
    if (tokenizer_id(t, text) != id)
        fail_msg("%s is %d, not %d", text, (int)tokenizer_id(t, text), (int)id);
}

static void tokenizer_has_gemmas_control_tokens(void **state)
{
    (void)state;
    struct synth_source source;
    struct tokenizer *t;
    struct ids ids = {0};
    char *json;
    open_source(&source, "medgemma-4b");
    assert_int_equal(synth_tokenizer(&json, &source, NULL), 0);
    assert_int_equal(tokenizer_from_json(&t, json, strlen(json), "tokenizer.json", NULL), 0);
    assert_int_equal(tokenizer_size(t), 262145);
    check_id(t, "<pad>", 0), check_id(t, "<eos>", 1), check_id(t, "<bos>", 2), check_id(t, "<unk>", 3);
    check_id(t, "<start_of_turn>", 105), check_id(t, "<end_of_turn>", 106), check_id(t, "\n", 107);
    check_id(t, "\n\n", 108);
    check_id(t, "<start_of_image>", 255999), check_id(t, "<end_of_image>", 256000);
    check_id(t, "<image_soft_token>", 262144), check_id(t, "<random200000>", 200000);
    static const char text[] = "A b\n\xc3\xa9";
    assert_int_equal(tokenizer_encode(t, text, sizeof text - 1, TOKENIZE_PLAIN, &ids, NULL), 0);
    assert_int_equal(ids.n, 6);
    char *back;
    size_t length;
    assert_int_equal(tokenizer_decode(t, ids.at, ids.n, false, &back, &length, NULL), 0);
    assert_string_equal(back, text);
    free(back);
    ids_free(&ids);
    tokenizer_close(&t);
    free(json);
    synth_source_close(&source);
}

/* Ids that the configuration gives are kept, however odd; where there is no room the tokenizer is refused. */
static void tokenizer_follows_the_configuration(void **state)
{
    (void)state;
    struct synth_source source;
    struct tokenizer *t;
    char *json;
    struct ward_error err;
    open_source(&source, "tiny");
    source.config.text.vocab_size = 400;
    source.config.image_token = 399;
    source.config.eos[0] = 390;
    source.config.eos[1] = 398;
    source.boi = 20;
    source.eoi = 100000;
    assert_int_equal(synth_tokenizer(&json, &source, NULL), 0);
    assert_int_equal(tokenizer_from_json(&t, json, strlen(json), "tokenizer.json", NULL), 0);
    check_id(t, "<eos>", 390), check_id(t, "<end_of_turn>", 398), check_id(t, "<start_of_image>", 20);
    check_id(t, "<image_soft_token>", 399);
    assert_true(tokenizer_id(t, "<end_of_image>") >= 0);
    tokenizer_close(&t);
    free(json);
    source.config.text.vocab_size = source.config.image_token = 300;
    assert_int_equal(synth_tokenizer(&json, &source, &err), WARD_EUNSUPPORTED);
    assert_non_null(strstr(err.text, "too small"));
    source.config.image_token = 2000000000;
    assert_int_equal(synth_tokenizer(&json, &source, &err), WARD_EUNSUPPORTED);
    assert_null(json);
    synth_source_close(&source);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_of_the_4b_are_those_published),
        cmocka_unit_test(every_byte_of_a_file_belongs_to_one_tensor),
        cmocka_unit_test(noise_is_normal),
        cmocka_unit_test(noise_is_the_same_from_everywhere),
        cmocka_unit_test(tokenizer_has_gemmas_control_tokens),
        cmocka_unit_test(tokenizer_follows_the_configuration),
    };
    return cmocka_run_group_tests_name("synth", tests, NULL, NULL);
}
