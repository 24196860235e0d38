/* The configuration of GGUF files: llama.cpp's keys, Ollama's with what these leave out, and every refusal with its
 * sentence. */
#include "model/config.h"
#include "model/tokenizer.h"

#include "gguf_model.h"

#include <math.h>

static struct gguf *parse(const struct gm *m, const char *name)
{
    struct gguf *g;
    struct ward_error err = {0};
    if (gguf_parse(&g, m->w.file, m->w.n_file, name, &err))
        fail_msg("%s", err.text);
    return g;
}

/* The configuration of a file with one value or tensor changed, alone or with an image encoder's file. */
struct pair {
    struct gm *text, *vision;
    struct gguf *text_file, *vision_file;
};

static void pair_open(struct pair *p, const struct gm_value_change *text, const struct gm_value_change *vision,
                      bool with_vision, bool ollama)
{
    *p = (struct pair){.text = gm_new(TENSOR_F16)};
    p->text->value = text;
    p->text->ollama = ollama;
    gm_write(p->text);
    p->text_file = parse(p->text, "text.gguf");
    if (!with_vision)
        return;
    p->vision = gm_new(TENSOR_F16);
    p->vision->value = vision;
    gm_write_mmproj(p->vision);
    p->vision_file = parse(p->vision, "mmproj.gguf");
}

static void pair_close(struct pair *p)
{
    gguf_close(&p->text_file);
    gguf_close(&p->vision_file);
    free(p->text);
    free(p->vision);
}

static struct model_config read_good(const struct gm_value_change *change, bool ollama)
{
    struct pair p;
    struct model_config out;
    struct ward_error err = {0};
    pair_open(&p, change, NULL, false, ollama);
    if (config_from_gguf(&out, p.text_file, ollama ? p.text_file : NULL, &err))
        fail_msg("%s: %s", change ? change->key : "as it is", err.text);
    pair_close(&p);
    return out;
}

/* ---- what is read ------------------------------------------------------------------------------------------------ */

static void test_text(void **state)
{
    (void)state;
    const struct model_config c = read_good(NULL, false);
    assert_int_equal(c.text.hidden_size, GM_HIDDEN);
    assert_int_equal(c.text.intermediate_size, GM_INNER);
    assert_int_equal(c.text.n_layers, GM_LAYERS);
    assert_int_equal(c.text.n_heads, GM_HEADS);
    assert_int_equal(c.text.n_kv_heads, GM_KV_HEADS);
    assert_int_equal(c.text.head_dim, GM_HEAD);
    assert_int_equal(c.text.vocab_size, GM_VOCABULARY);
    assert_int_equal(c.text.sliding_window, GM_WINDOW);
    assert_int_equal(c.text.max_positions, 512);
    assert_true(c.text.rms_norm_eps == 1e-6); /* not the nearest float */
    assert_true(c.text.query_pre_attn_scalar == GM_HEAD);
    assert_true(c.text.final_softcap == 0);
    assert_true(c.text.tied_embeddings);
    assert_true(c.text.rope_global.theta == 200000 && c.text.rope_global.factor == 4);
    assert_true(c.text.rope_sliding.theta == 5000 && c.text.rope_sliding.factor == 1);
    assert_int_equal(c.vision.n_layers, 0);
    assert_int_equal(c.image_tokens, 0);
    assert_int_equal(c.image_token, -1);
}

static void test_mmproj(void **state)
{
    (void)state;
    struct pair p;
    struct model_config c;
    struct ward_error err = {0};
    pair_open(&p, NULL, NULL, true, false);
    if (config_from_gguf(&c, p.text_file, p.vision_file, &err))
        fail_msg("%s", err.text);
    assert_int_equal(c.vision.hidden_size, GM_EYE);
    assert_int_equal(c.vision.intermediate_size, GM_EYE_INNER);
    assert_int_equal(c.vision.n_layers, GM_EYE_LAYERS);
    assert_int_equal(c.vision.n_heads, GM_EYE_HEADS);
    assert_int_equal(c.vision.image_size, GM_PATCH * GM_SIDE);
    assert_int_equal(c.vision.patch_size, GM_PATCH);
    assert_int_equal(c.vision.n_channels, 3);
    assert_true(c.vision.layer_norm_eps == 1e-6);
    assert_int_equal(c.image_tokens, 1); /* four patches a side for each */
    assert_true(c.image.mean[0] == 0.1 && c.image.mean[2] == 0.3);
    assert_true(c.image.std[0] == 0.5 && c.image.std[1] == 0.25 && c.image.std[2] == 1);
    assert_true(c.image.resize && c.image.rescale && c.image.normalize && c.image.rescale_factor == 1.0 / 255);
    pair_close(&p);
}

static void test_ollama(void **state)
{
    (void)state;
    struct pair p;
    pair_open(&p, NULL, NULL, false, true);
    assert_true(gguf_has_vision(p.text_file));
    pair_close(&p);
    const struct model_config c = read_good(NULL, true);
    assert_int_equal(c.text.n_heads, GM_HEADS); /* by the rows of the matrices */
    assert_int_equal(c.text.n_kv_heads, GM_KV_HEADS);
    assert_true(c.text.rms_norm_eps == 1e-6);
    assert_true(c.text.rope_global.theta == 300000 && c.text.rope_sliding.theta == 7000);
    assert_true(c.text.rope_global.factor == 1);
    assert_int_equal(c.vision.n_layers, GM_EYE_LAYERS);
    assert_true(c.vision.layer_norm_eps == 1e-6);
    assert_int_equal(c.image_tokens, 4); /* as the file says */
    assert_true(c.image.mean[0] == 0.5 && c.image.std[2] == 0.5);
}

/* What is missing is what llama.cpp, or Ollama, supplies. */
static void test_defaults(void **state)
{
    (void)state;
#define WITHOUT(key) read_good(&(struct gm_value_change){key, GM_DROP, 0, NULL, 0}, false).text
    assert_true(WITHOUT("gemma3.rope.freq_base").rope_global.theta == 1e6);
    assert_true(WITHOUT("gemma3.rope.freq_base_swa").rope_sliding.theta == 1e4);
    assert_true(WITHOUT("gemma3.attention.layer_norm_rms_epsilon").rms_norm_eps == 1e-6);
    assert_int_equal(WITHOUT("gemma3.context_length").max_positions, 131072);
    assert_int_equal(WITHOUT("gemma3.attention.head_count").n_heads, GM_HEADS);
    assert_int_equal(WITHOUT("gemma3.attention.head_count_kv").n_kv_heads, GM_KV_HEADS);
    assert_true(WITHOUT("gemma3.rope.scaling.factor").rope_global.factor == 1);
    assert_true(WITHOUT("gemma3.rope.scaling.type").rope_global.factor == 4);
    /* the width of a head is 256 in every Gemma 3: these have then fewer of them */
    struct pair p;
    struct model_config out;
    struct ward_error err = {0};
    pair_open(&p, &(struct gm_value_change){"gemma3.attention.key_length", GM_DROP, 0, NULL, 0}, NULL, false, false);
    assert_int_equal(config_from_gguf(&out, p.text_file, NULL, &err), 0);
    assert_int_equal(out.text.head_dim, 256);
    pair_close(&p);
}

/* The models that see images divide global positions by 8, whether their files say so or not. */
static void test_rope_scaling(void **state)
{
    (void)state;
    static const struct {
        int layers;
        double factor;
    } cases[] = {{2, 1}, {26, 1}, {34, 8}, {48, 8}, {62, 8}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct gm_value_change layers = {"gemma3.block_count", GM_U32, cases[i].layers, NULL, 0};
        const struct model_config c = read_good(&layers, true);
        assert_true(c.text.rope_global.factor == cases[i].factor);
        assert_true(c.text.rope_sliding.factor == 1);
        assert_true(read_good(&layers, false).text.rope_global.factor == 4); /* said by the file */
    }
    assert_true(read_good(&(struct gm_value_change){"gemma3.rope.scaling.type", GM_STRING, 0, "none", 0}, false)
                    .text.rope_global.factor == 1);
    /* the 27B scales its queries by hidden size over heads */
    assert_true(read_good(&(struct gm_value_change){"gemma3.block_count", GM_U32, 62, NULL, 0}, false)
                    .text.query_pre_attn_scalar == (double)GM_HIDDEN / GM_HEADS);
}

static void check_pattern(enum gm_what what, double number, int n, const char *expected)
{
    const struct gm_value_change change = {"gemma3.attention.sliding_window_pattern", what, number, NULL, n};
    struct gm *m = gm_new(TENSOR_F16);
    struct gguf *g;
    struct model_config out;
    struct ward_error err = {0};
    m->value = what == GM_NOTHING ? NULL : &change;
    gm_write(m);
    /* seven layers are said, two are there: the weights are another matter */
    uint8_t *at = memmem(m->w.file, m->w.n_file, "gemma3.block_count", 18);
    at[18 + 4] = 7;
    g = parse(m, "text.gguf");
    if (config_from_gguf(&out, g, NULL, &err))
        fail_msg("%s", err.text);
    for (int i = 0; i < 7; i++)
        if (out.text.global[i] != (expected[i] == 'g'))
            fail_msg("layer %d: %s", i, expected);
    gguf_close(&g);
    free(m);
}

static void test_patterns(void **state)
{
    (void)state;
    check_pattern(GM_NOTHING, 0, 0, "sssssgs");
    check_pattern(GM_U32, 3, 0, "ssgssgs");
    check_pattern(GM_U32, 1, 0, "ggggggg");
    check_pattern(GM_BOOLS, 1, 7, "sssssss");
    check_pattern(GM_BOOLS, 0, 7, "ggggggg");
    check_pattern(GM_U32S, 1, 7, "sssssss");
    const struct model_config c =
        read_good(&(struct gm_value_change){"gemma3.attention.sliding_window", GM_DROP, 0, NULL, 0}, false);
    assert_true(c.text.global[0] && c.text.global[1]); /* no window: all is seen */
    assert_int_equal(c.text.sliding_window, c.text.max_positions);
}

static void test_tokens(void **state)
{
    (void)state;
    struct pair p;
    struct model_config c;
    struct tokenizer *t;
    struct ward_error err = {0};
    pair_open(&p, &(struct gm_value_change){"tokenizer.ggml.eot_token_id", GM_U32, 77, NULL, 0}, NULL, true, false);
    assert_int_equal(config_from_gguf(&c, p.text_file, p.vision_file, &err), 0);
    if (tokenizer_from_gguf(&t, p.text_file, &err))
        fail_msg("%s", err.text);
    config_add_tokens(&c, p.text_file, t);
    assert_int_equal(c.n_eos, 3); /* both texts that end an answer, whichever of them the file names, and its own */
    assert_int_equal(c.eos[0], 1);
    assert_int_equal(c.eos[1], SMALL_END_OF_TURN);
    assert_int_equal(c.eos[2], 77);
    assert_int_equal(c.image_token, GM_VOCABULARY - 1);
    tokenizer_close(&t);
    pair_close(&p);
}

/* ---- refusals ---------------------------------------------------------------------------------------------------- */

struct refusal {
    struct gm_value_change change;
    const char *expected;
};

static void expect_refused(const struct pair *p, const struct gguf *vision, const char *file, const char *expected)
{
    struct model_config out;
    struct ward_error err = {0};
    const int rc = config_from_gguf(&out, p->text_file, vision, &err);
    if (!rc || rc != err.code || strncmp(err.text, file, strlen(file)) || !strstr(err.text, expected))
        fail_msg("%d, said \"%s\", expected \"%s\"", rc, err.text, expected);
    assert_int_equal(config_from_gguf(&out, p->text_file, vision, NULL), rc);
}

static void test_text_refused(void **state)
{
    (void)state;
#define TEXT(key, what, number, text, n, expected) {{key, what, number, text, n}, expected}
    static const struct refusal cases[] = {
        TEXT("general.architecture", GM_STRING, 0, "llama", 0, "its general.architecture is not \"gemma3\""),
        TEXT("general.architecture", GM_DROP, 0, NULL, 0, "its general.architecture is not \"gemma3\""),
        TEXT("general.architecture", GM_U32, 3, NULL, 0, "its general.architecture is not \"gemma3\""),
        TEXT("general.architecture", GM_STRING, 0, "clip", 0, "is the image encoder alone; give the text model's"),
        TEXT("split.count", GM_U32, 3, NULL, 0, "is one of 3 parts; expected a whole file"),
        TEXT("gemma3.embedding_length", GM_DROP, 0, NULL, 0, "gemma3.embedding_length is missing"),
        TEXT("gemma3.feed_forward_length", GM_DROP, 0, NULL, 0, "gemma3.feed_forward_length is missing"),
        TEXT("gemma3.block_count", GM_DROP, 0, NULL, 0, "gemma3.block_count is missing"),
        TEXT("gemma3.embedding_length", GM_U32, 0, NULL, 0,
             "gemma3.embedding_length is not a whole number from 1 to 65536"),
        TEXT("gemma3.embedding_length", GM_U32, 65537, NULL, 0, "is not a whole number from 1 to 65536"),
        TEXT("gemma3.embedding_length", GM_F32, 32, NULL, 0, "is not a whole number from 1 to 65536"),
        TEXT("gemma3.embedding_length", GM_STRING, 0, "32", 0, "is not a whole number from 1 to 65536"),
        TEXT("gemma3.embedding_length", GM_U32S, 32, NULL, 2, "is not a whole number from 1 to 65536"),
        TEXT("gemma3.block_count", GM_U32, 513, NULL, 0, "gemma3.block_count is not a whole number from 1 to 512"),
        TEXT("gemma3.context_length", GM_U32, 0, NULL, 0, "gemma3.context_length is not a whole number"),
        TEXT("gemma3.attention.key_length", GM_U32, 4097, NULL, 0, "key_length is not a whole number from 2 to 4096"),
        TEXT("gemma3.attention.key_length", GM_U32, 15, NULL, 0, "2 heads of 15 with 1 key-value heads, expected"),
        TEXT("gemma3.attention.head_count", GM_U32, 0, NULL, 0, "head_count is not a whole number from 1 to 1024"),
        TEXT("gemma3.attention.head_count_kv", GM_U32, 3, NULL, 0, "2 heads of 16 with 3 key-value heads, expected"),
        TEXT("gemma3.attention.layer_norm_rms_epsilon", GM_F32, 0, NULL, 0, "is not a number above 0, at most 1"),
        TEXT("gemma3.attention.layer_norm_rms_epsilon", GM_F32, NAN, NULL, 0, "is not a number above 0, at most 1"),
        TEXT("gemma3.attention.layer_norm_rms_epsilon", GM_STRING, 0, "", 0, "is not a number above 0, at most 1"),
        TEXT("gemma3.rope.freq_base", GM_F32, INFINITY, NULL, 0, "gemma3.rope.freq_base is not a number above 1"),
        TEXT("gemma3.rope.freq_base_swa", GM_F32, -1, NULL, 0, "gemma3.rope.freq_base_swa is not a number above 1"),
        TEXT("gemma3.rope.scaling.type", GM_STRING, 0, "yarn", 0, "scaling.type is neither \"linear\" nor \"none\""),
        TEXT("gemma3.rope.scaling.factor", GM_F32, 0, NULL, 0, "scaling.factor is not a number above 0"),
        TEXT("gemma3.final_logit_softcapping", GM_F32, -3, NULL, 0, "softcapping is not a number above 0"),
        TEXT("gemma3.attention.sliding_window_pattern", GM_U32, 0, NULL, 0, "pattern is not a whole number from 1"),
        TEXT("gemma3.attention.sliding_window_pattern", GM_BOOLS, 1, NULL, 3,
             "pattern is not a list as long as there are layers"),
        TEXT("gemma3.attention.sliding_window_pattern", GM_F32S, 1, NULL, 2, "pattern is not a list of truths"),
        TEXT("gemma3.attention.sliding_window_pattern", GM_STRINGS, 1, "yes", 2, "pattern is not a list of truths"),
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct pair p;
        pair_open(&p, &cases[i].change, NULL, false, false);
        expect_refused(&p, NULL, "text.gguf: ", cases[i].expected);
        pair_close(&p);
    }
}

static void test_vision_refused(void **state)
{
    (void)state;
#define EYE(key, what, number, text, n, expected) {{key, what, number, text, n}, expected}
    static const struct refusal cases[] = {
        EYE("general.architecture", GM_STRING, 0, "gemma3", 0, "is no image encoder: its general.architecture is not"),
        EYE("clip.projector_type", GM_STRING, 0, "mlp", 0, "is an image encoder of another model: its clip.projector"),
        EYE("clip.projector_type", GM_DROP, 0, NULL, 0, "clip.vision.projector_type is not \"gemma3\""),
        EYE("clip.vision.projection_dim", GM_U32, 33, NULL, 0, "is the image encoder of a text model of width 33, not"),
        EYE("clip.vision.embedding_length", GM_DROP, 0, NULL, 0, "clip.vision.embedding_length is missing"),
        EYE("clip.vision.embedding_length", GM_U32, 33, NULL, 0, "an encoder of width 33 and 2 heads"),
        EYE("clip.vision.attention.head_count", GM_U32, 0, NULL, 0, "head_count is not a whole number from 1"),
        EYE("clip.vision.image_size", GM_U32, 9, NULL, 0, "images of 9 and patches of 2 pixels: multiples"),
        EYE("clip.vision.image_size", GM_U32, 10, NULL, 0, "the 5 patches of an image's side, at most 256, cannot"),
        EYE("clip.vision.image_size", GM_U32, 1024, NULL, 0, "the 512 patches of an image's side, at most 256"),
        EYE("clip.vision.patch_size", GM_DROP, 0, NULL, 0, "clip.vision.patch_size is missing"),
        EYE("clip.vision.projector.scale_factor", GM_U32, 3, NULL, 0, "cannot be pooled"),
        EYE("clip.vision.num_channels", GM_U32, 1, NULL, 0, "num_channels is not a whole number from 3 to 3"),
        EYE("clip.vision.image_mean", GM_F32S, 0.5, NULL, 2, "clip.vision.image_mean is not three numbers"),
        EYE("clip.vision.image_mean", GM_F32S, NAN, NULL, 3, "clip.vision.image_mean is not three numbers"),
        EYE("clip.vision.image_mean", GM_STRINGS, 0, "0", 3, "clip.vision.image_mean is not three numbers"),
        EYE("clip.vision.image_std", GM_F32S, 0, NULL, 3, "clip.vision.image_std is not three numbers above 0"),
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct pair p;
        pair_open(&p, NULL, &cases[i].change, true, false);
        expect_refused(&p, p.vision_file, "mmproj.gguf: ", cases[i].expected);
        pair_close(&p);
    }
    static const double counts[] = {2, 3, 9, 36};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        struct pair p;
        pair_open(&p, &(struct gm_value_change){"gemma3.mm.tokens_per_image", GM_U32, counts[i], NULL, 0}, NULL, false,
                  true);
        expect_refused(&p, p.text_file, "text.gguf: ", "cannot be pooled to the tokens that an image takes");
        pair_close(&p);
    }
}

/* Ollama's files tell some sizes by their matrices only. */
static void test_matrices_refused(void **state)
{
    (void)state;
    static const struct {
        struct gm_tensor_change change;
        const char *expected;
    } cases[] = {
        {{.at = "token_embd.weight", .what = GM_REMOVE}, "tensor token_embd.weight is missing"},
        {{.at = "blk.0.attn_q.weight", .what = GM_REMOVE}, "tensor blk.0.attn_q.weight is missing"},
        {{.at = "blk.0.attn_k.weight", .what = GM_REMOVE}, "tensor blk.0.attn_k.weight is missing"},
        {{.at = "blk.0.attn_k.weight", .rows = 8}, "2 heads of 16 with 0 key-value heads"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct pair p = {.text = gm_new(TENSOR_F16)};
        p.text->tensor = &cases[i].change;
        p.text->ollama = true;
        gm_write(p.text);
        p.text_file = parse(p.text, "text.gguf");
        expect_refused(&p, p.text_file, "text.gguf: ", cases[i].expected);
        pair_close(&p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),          cmocka_unit_test(test_mmproj),
        cmocka_unit_test(test_ollama),        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_rope_scaling),  cmocka_unit_test(test_patterns),
        cmocka_unit_test(test_tokens),        cmocka_unit_test(test_text_refused),
        cmocka_unit_test(test_vision_refused), cmocka_unit_test(test_matrices_refused),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
