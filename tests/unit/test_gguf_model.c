/* Tokenizer, chat template and weights of GGUF files: what is read, what is refused with which sentence, and that no
 * damage to a file leads to anything else. */
#include "model/chat.h"
#include "model/weights.h"

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

static void expect_sentence(int rc, const struct ward_error *err, const char *expected)
{
    if (!rc || rc != err->code || !strstr(err->text, expected))
        fail_msg("%d, said \"%s\", expected \"%s\"", rc, err->text, expected);
}

/* ---- tokenizer --------------------------------------------------------------------------------------------------- */

static int open_tokenizer(struct tokenizer **out, const struct gm_value_change *change, bool plain_marks,
                          struct ward_error *err)
{
    struct gm *m = gm_new(TENSOR_F16);
    m->value = change;
    m->plain_marks = plain_marks;
    gm_write(m);
    struct gguf *g = parse(m, "m.gguf");
    const int rc = tokenizer_from_gguf(out, g, err);
    gguf_close(&g);
    free(m);
    return rc;
}

/* The merges that the scores stand for, in the order of transformers' conversion; runs of spaces are added tokens. */
static const char *const gm_merges[] = {
    "\xe2\x96\x81 \xe2\x96\x81", "a b", "b c", "ab c", "a bc", "a a", "\xe2\x96\x81 a",
    "\xe2\x96\x81\xe2\x96\x81 \xe2\x96\x81", "\xe2\x96\x81 \xe2\x96\x81\xe2\x96\x81", NULL};

static void expect_same_ids(const struct tokenizer *a, const struct tokenizer *b, const char *text, size_t length)
{
    for (int mode = 0; mode < 2; mode++) {
        struct ids x = {0}, y = {0};
        struct ward_error err;
        assert_int_equal(tokenizer_encode(a, text, length, mode ? TOKENIZE_PLAIN : TOKENIZE_SPECIAL, &x, &err), 0);
        assert_int_equal(tokenizer_encode(b, text, length, mode ? TOKENIZE_PLAIN : TOKENIZE_SPECIAL, &y, &err), 0);
        if (x.n != y.n || (x.n && memcmp(x.at, y.at, x.n * sizeof *x.at)))
            fail_msg("\"%s\" gives other ids", text);
        ids_free(&x);
        ids_free(&y);
    }
}

/* What tokenizer.json gives, of texts put together at random. */
static void check_tokenizer(bool plain_marks)
{
    static const char *const parts[] = {
        "a",     "b",   "c",      "ab",   "abc abc", " ",   "  ",    "\n",         "\n\n\n",          "\t",
        "<bos>", "<b>", "[x",     "x]",   "[x]",     "u",   ">",     "\xc3\xa9",   "<0x41>",          "<unk>",
        "<pad> ", "<unused94>", "<start_of_turn>", "<end_of_image>"};
    const char *pieces[GM_PIECES] = {0};
    struct tokenizer *t, *json;
    struct ward_error err = {0};
    if (open_tokenizer(&t, NULL, plain_marks, &err))
        fail_msg("%s", err.text);
    memcpy(pieces, gm_pieces, sizeof pieces - sizeof *pieces); /* the last, for images, tokenizer.json has anyway */
    json = small_open(&(struct small_tokenizer){.pieces = pieces, .merges = gm_merges});
    assert_int_equal(tokenizer_id(t, "<image_soft_token>"), GM_VOCABULARY - 1);
    assert_int_equal(tokenizer_id(t, "\xe2\x96\x81\xe2\x96\x81"), SMALL_TWO_SPACES); /* spaces got their marks back */
    for (int id = 0; id < GM_VOCABULARY; id++) {
        assert_int_equal(tokenizer_is_special(t, id), tokenizer_is_special(json, id)); /* not <unused94> */
        assert_int_equal(tokenizer_is_control(t, id), tokenizer_is_control(json, id));
    }
    uint64_t random = 1;
    for (int i = 0; i < 20000; i++) {
        char text[256] = "";
        for (int n = (int)(random >> 40) % 12; n >= 0; n--) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            strcat(text, parts[(random >> 33) % (sizeof parts / sizeof *parts)]);
        }
        expect_same_ids(t, json, text, strlen(text));
    }
    tokenizer_close(&t);
    tokenizer_close(&json);
}

static void test_tokenizer(void **state)
{
    (void)state;
    check_tokenizer(false);
    check_tokenizer(true); /* as some exporters have written them */
}

/* Where the file lists merges, scores make none. */
static void test_listed_merges(void **state)
{
    (void)state;
    struct tokenizer *t;
    struct ids ids = {0};
    struct ward_error err = {0};
    if (open_tokenizer(&t, &(struct gm_value_change){"tokenizer.ggml.merges", GM_STRINGS, 0, "b c", 1}, false, &err))
        fail_msg("%s", err.text);
    assert_int_equal(tokenizer_encode(t, "abcaa", 5, TOKENIZE_PLAIN, &ids, &err), 0);
    const int32_t expected[] = {SMALL_PIECES, SMALL_PIECES + 4, SMALL_PIECES, SMALL_PIECES}; /* a bc a a */
    assert_int_equal(ids.n, 4);
    assert_memory_equal(ids.at, expected, sizeof expected);
    ids_free(&ids);
    tokenizer_close(&t);
}

static void test_tokenizer_refused(void **state)
{
    (void)state;
    static char long_text[5000];
    memset(long_text, ' ', sizeof long_text - 1);
    const struct {
        struct gm_value_change change;
        const char *expected;
    } cases[] = {
        {{"tokenizer.ggml.model", GM_DROP, 0, NULL, 0}, "holds no tokenizer: tokenizer.ggml.model is missing"},
        {{"tokenizer.ggml.model", GM_STRING, 0, "gpt2", 0}, "tokenizer.ggml.model is not \"llama\""},
        {{"tokenizer.ggml.tokens", GM_DROP, 0, NULL, 0}, "tokenizer.ggml.tokens is missing"},
        {{"tokenizer.ggml.tokens", GM_STRING, 0, "a", 0}, "tokenizer.ggml.tokens is no list of texts"},
        {{"tokenizer.ggml.tokens", GM_U32S, 0, NULL, 9}, "tokenizer.ggml.tokens is no list of texts"},
        {{"tokenizer.ggml.tokens", GM_STRINGS, 0, "a", 0}, "has 0 tokens, 1 to"},
        {{"tokenizer.ggml.tokens", GM_STRINGS, 0, "a", 9}, "tokenizer.ggml.scores has 284 entries for 9 tokens"},
        {{"tokenizer.ggml.tokens", GM_STRINGS, 0, "a", GM_VOCABULARY}, "same text"},
        {{"tokenizer.ggml.tokens", GM_STRINGS, 0, "\xff", GM_VOCABULARY}, "token 0 is not UTF-8"},
        {{"tokenizer.ggml.scores", GM_DROP, 0, NULL, 0}, "tokenizer.ggml.scores is missing"},
        {{"tokenizer.ggml.scores", GM_STRINGS, 0, "1", GM_VOCABULARY}, "tokenizer.ggml.scores is no list of numbers"},
        {{"tokenizer.ggml.scores", GM_F32S, 0, NULL, 7}, "tokenizer.ggml.scores has 7 entries for 284 tokens"},
        {{"tokenizer.ggml.scores", GM_F32S, NAN, NULL, GM_VOCABULARY}, "token 0 has no proper score and type"},
        {{"tokenizer.ggml.token_type", GM_DROP, 0, NULL, 0}, "tokenizer.ggml.token_type is missing"},
        {{"tokenizer.ggml.token_type", GM_U32S, 7, NULL, GM_VOCABULARY}, "token 0 has no proper score and type"},
        {{"tokenizer.ggml.token_type", GM_U32S, 0, NULL, GM_VOCABULARY}, "token 0 has no proper score and type"},
        {{"tokenizer.ggml.token_type", GM_F32S, 1, NULL, GM_VOCABULARY}, "token 0 has no proper score and type"},
        {{"tokenizer.ggml.token_type", GM_U32S, 5, NULL, GM_VOCABULARY}, "has no tokens"}, /* all unused */
        {{"tokenizer.ggml.merges", GM_STRING, 0, "a b", 0}, "tokenizer.ggml.merges is no list of texts"},
        {{"tokenizer.ggml.merges", GM_U32S, 0, NULL, 2}, "tokenizer.ggml.merges is no list of texts"},
        {{"tokenizer.ggml.merges", GM_STRINGS, 0, "", 1}, "merge 0 is not of two tokens that are one together"},
        {{"tokenizer.ggml.merges", GM_STRINGS, 0, "ab", 1}, "merge 0 is not of two tokens"},
        {{"tokenizer.ggml.merges", GM_STRINGS, 0, "ab ", 1}, "merge 0 is not of two tokens"},
        {{"tokenizer.ggml.merges", GM_STRINGS, 0, " ab", 1}, "merge 0 is not of two tokens"},
        {{"tokenizer.ggml.merges", GM_STRINGS, 0, "b a", 1}, "merge 0 is not of two tokens"},
        {{"tokenizer.ggml.merges", GM_STRINGS, 0, "a b", 2}, "same"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tokenizer *t;
        struct ward_error err = {0};
        const int rc = open_tokenizer(&t, &cases[i].change, false, &err);
        assert_null(t);
        expect_sentence(rc, &err, cases[i].expected);
        assert_true(!strncmp(err.text, "m.gguf: ", 8));
    }
    struct gguf_writer *w = calloc(1, sizeof *w);
    struct gguf *g;
    struct tokenizer *t;
    struct ward_error err = {0};
    gguf_writer_open(w, 3);
    gguf_put_string(w, "tokenizer.ggml.model", "llama");
    gguf_put_strings(w, "tokenizer.ggml.tokens", (const char *const[]){long_text}, 1);
    gguf_put_numbers(w, "tokenizer.ggml.scores", GGUF_FLOAT32, (const float[]){0}, 1);
    gguf_put_numbers(w, "tokenizer.ggml.token_type", GGUF_INT32, (const int32_t[]){4}, 1);
    gguf_writer_finish(w);
    assert_int_equal(gguf_parse(&g, w->file, w->n_file, "m.gguf", &err), 0);
    expect_sentence(tokenizer_from_gguf(&t, g, &err), &err, "token 0 is longer than 4096 bytes");
    gguf_close(&g);
    free(w);
}

/* ---- chat template ----------------------------------------------------------------------------------------------- */

static int open_chat(struct chat_template *out, const struct gm_value_change *change, int image_tokens,
                     struct ward_error *err)
{
    struct gm *m = gm_new(TENSOR_F16);
    struct tokenizer *t;
    m->value = change;
    gm_write(m);
    struct gguf *g = parse(m, "m.gguf");
    struct model_config config = {.image_tokens = image_tokens};
    assert_int_equal(tokenizer_from_gguf(&t, g, err), 0);
    config_add_tokens(&config, g, t);
    const int rc = chat_template_from_gguf(out, g, &config, t, err);
    tokenizer_close(&t);
    gguf_close(&g);
    free(m);
    return rc;
}

static void test_chat(void **state)
{
    (void)state;
    static const char key[] = "tokenizer.chat_template";
    struct chat_template chat;
    struct ward_error err = {0};
    const struct gm_value_change none = {key, GM_DROP, 0, NULL, 0}, other = {key, GM_STRING, 0, "[INST] {{ x }}", 0},
                                 number = {key, GM_U32, 1, NULL, 0};
    for (int i = 0; i < 2; i++) { /* also without one: the vocabulary has turns */
        if (open_chat(&chat, i ? &none : NULL, 1, &err))
            fail_msg("%s", err.text);
        assert_true(chat.present && chat.thinking);
        assert_int_equal(chat.bos, SMALL_BOS);
        assert_int_equal(chat.start_of_turn, SMALL_START_OF_TURN);
        assert_int_equal(chat.end_of_turn, SMALL_END_OF_TURN);
        assert_int_equal(chat.boi, SMALL_BOI);
        assert_int_equal(chat.eoi, SMALL_EOI);
        assert_int_equal(chat.image, GM_VOCABULARY - 1);
    }
    assert_int_equal(open_chat(&chat, NULL, 0, &err), 0);
    assert_int_equal(chat.image, -1);
    expect_sentence(open_chat(&chat, &other, 0, &err), &err, "m.gguf: has a chat template that does not write Gemma's");
    expect_sentence(open_chat(&chat, &number, 0, &err), &err, "m.gguf: its tokenizer.chat_template is not a text");
}

/* ---- weights ----------------------------------------------------------------------------------------------------- */

struct model {
    struct gm *text, *vision;
    struct gguf *text_file, *vision_file;
    struct model_config config;
    struct weights *weights;
};

enum layout { TEXT_ONLY, APART, SWAPPED, OLLAMA };

/* With one change in the file for the text or in that for the encoder. Returns what weights_from_gguf does. */
static int model_open(struct model *m, enum layout layout, enum tensor_type type, const struct gm_tensor_change *text,
                      const struct gm_tensor_change *vision, struct ward_error *err)
{
    *m = (struct model){.text = gm_new(type)};
    m->text->tensor = text;
    m->text->ollama = layout == OLLAMA;
    gm_write(m->text);
    m->text_file = parse(m->text, "text.gguf");
    const struct gguf *encoder = layout == OLLAMA ? m->text_file : NULL;
    if (layout == APART || layout == SWAPPED) {
        m->vision = gm_new(type);
        m->vision->tensor = vision;
        m->vision->swapped = layout == SWAPPED;
        gm_write_mmproj(m->vision);
        encoder = m->vision_file = parse(m->vision, "mmproj.gguf");
    }
    if ((text && !m->text->found) || (vision && !m->vision->found))
        fail_msg("there is no %s", text ? text->at : vision->at);
    const int rc = config_from_gguf(&m->config, m->text_file, encoder, err);
    return rc ? rc : weights_from_gguf(&m->weights, m->text_file, encoder, &m->config, err);
}

static void model_close(struct model *m)
{
    weights_close(&m->weights);
    gguf_close(&m->text_file);
    gguf_close(&m->vision_file);
    free(m->text);
    free(m->vision);
}

static void check_matrix(const struct tensor *t, const struct gguf *file, const char *name, int rows, int cols)
{
    const struct gguf_tensor *stored = gguf_tensor(file, name);
    assert_non_null(stored);
    assert_ptr_equal(t->data, stored->data);
    assert_int_equal(t->type, stored->type);
    assert_int_equal(t->rows, rows);
    assert_int_equal(t->cols, cols);
}

static void check_ones(const float *vector, int n)
{
    for (int i = 0; i < n; i++)
        assert_true(vector[i] == 1 + (float)i / 64); /* as stored: 1 is not added once more */
}

static void check_text(const struct model *m)
{
    const struct text_weights *t = &m->weights->text;
    const struct gguf *file = m->text_file;
    check_matrix(&t->embed, file, "token_embd.weight", GM_VOCABULARY, GM_HIDDEN);
    assert_ptr_equal(t->head.data, t->embed.data);
    check_ones(t->norm, GM_HIDDEN);
    const struct text_layer *l = &t->layers[1];
    check_ones(l->input_norm, GM_HIDDEN);
    check_ones(l->post_attention_norm, GM_HIDDEN);
    check_ones(l->pre_feedforward_norm, GM_HIDDEN);
    check_ones(l->post_feedforward_norm, GM_HIDDEN);
    check_ones(l->q_norm, GM_HEAD);
    check_ones(l->k_norm, GM_HEAD);
    check_matrix(&l->q, file, "blk.1.attn_q.weight", GM_HEADS * GM_HEAD, GM_HIDDEN);
    check_matrix(&l->k, file, "blk.1.attn_k.weight", GM_KV_HEADS * GM_HEAD, GM_HIDDEN);
    check_matrix(&l->v, file, "blk.1.attn_v.weight", GM_KV_HEADS * GM_HEAD, GM_HIDDEN);
    check_matrix(&l->o, file, "blk.1.attn_output.weight", GM_HIDDEN, GM_HEADS * GM_HEAD);
    check_matrix(&l->gate, file, "blk.1.ffn_gate.weight", GM_INNER, GM_HIDDEN);
    check_matrix(&l->up, file, "blk.1.ffn_up.weight", GM_INNER, GM_HIDDEN);
    check_matrix(&l->down, file, "blk.1.ffn_down.weight", GM_HIDDEN, GM_INNER);
}

static void check_vision(const struct model *m, enum layout layout)
{
    const struct vision_weights *v = &m->weights->vision;
    const struct gguf *file = layout == OLLAMA ? m->text_file : m->vision_file;
    const bool o = layout == OLLAMA, s = layout == SWAPPED;
    check_matrix(&v->patch, file, o ? "v.patch_embedding.weight" : "v.patch_embd.weight", GM_EYE,
                 3 * GM_PATCH * GM_PATCH);
    check_ones(v->patch_bias, GM_EYE);
    check_matrix(&v->position, file, o ? "v.position_embedding.weight" : "v.position_embd.weight", GM_SIDE * GM_SIDE,
                 GM_EYE);
    check_ones(v->post_norm, GM_EYE);
    check_ones(v->post_norm_bias, GM_EYE);
    check_ones(v->projector_norm, GM_EYE);
    assert_int_equal(v->projector.rows, GM_HIDDEN);
    assert_int_equal(v->projector.cols, GM_EYE);
    const struct vision_layer *l = &v->layers[1];
    check_ones(l->norm1, GM_EYE);
    check_ones(l->norm2_bias, GM_EYE);
    check_matrix(&l->q, file, "v.blk.1.attn_q.weight", GM_EYE, GM_EYE);
    check_matrix(&l->k, file, "v.blk.1.attn_k.weight", GM_EYE, GM_EYE);
    check_matrix(&l->v, file, "v.blk.1.attn_v.weight", GM_EYE, GM_EYE);
    check_matrix(&l->out, file, o ? "v.blk.1.attn_output.weight" : "v.blk.1.attn_out.weight", GM_EYE, GM_EYE);
    check_matrix(&l->fc1, file, o ? "v.blk.1.mlp.fc1.weight" : s ? "v.blk.1.ffn_down.weight" : "v.blk.1.ffn_up.weight",
                 GM_EYE_INNER, GM_EYE);
    check_matrix(&l->fc2, file, o ? "v.blk.1.mlp.fc2.weight" : s ? "v.blk.1.ffn_up.weight" : "v.blk.1.ffn_down.weight",
                 GM_EYE, GM_EYE_INNER);
    check_ones(l->fc1_bias, GM_EYE_INNER);
    check_ones(l->fc2_bias, GM_EYE);
}

static void test_layouts(void **state)
{
    (void)state;
    static const enum tensor_type types[] = {TENSOR_F16, TENSOR_BF16, TENSOR_Q8_0, TENSOR_Q4_0, TENSOR_Q5_1};
    for (int layout = TEXT_ONLY; layout <= OLLAMA; layout++)
        for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
            struct model m;
            struct ward_error err = {0};
            if (model_open(&m, (enum layout)layout, types[i], NULL, NULL, &err))
                fail_msg("%s", err.text);
            assert_int_equal(m.weights->type, types[i]);
            check_text(&m);
            if (layout == TEXT_ONLY)
                assert_null(m.weights->vision.layers);
            else
                check_vision(&m, (enum layout)layout);
            assert_int_equal(m.weights->mapped_bytes, m.text->w.n_file + (m.vision ? m.vision->w.n_file : 0));
            model_close(&m);
        }
}

/* A file of Ollama's without its encoder, as when images are not asked for. */
static void test_without_encoder(void **state)
{
    (void)state;
    struct model m;
    struct ward_error err = {0};
    assert_int_equal(model_open(&m, OLLAMA, TENSOR_F16, NULL, NULL, &err), 0);
    weights_close(&m.weights);
    assert_int_equal(config_from_gguf(&m.config, m.text_file, NULL, &err), 0);
    if (weights_from_gguf(&m.weights, m.text_file, NULL, &m.config, &err))
        fail_msg("%s", err.text);
    check_text(&m);
    assert_null(m.weights->vision.layers);
    model_close(&m);
}

/* A head of its own, and tensors of other types than the rest. */
static void test_accepted(void **state)
{
    (void)state;
    static const struct gm_tensor_change changes[] = {
        {.at = "token_embd.weight", .type = TENSOR_Q8_0},
        {.at = "blk.0.ffn_down.weight", .type = TENSOR_Q5_1},
        {.at = "blk.0.attn_norm.weight", .type = TENSOR_F16},
        {.at = "token_embd.weight", .what = GM_ADD, .name = "output.weight"},
    };
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        struct model m;
        struct ward_error err = {0};
        if (model_open(&m, TEXT_ONLY, TENSOR_Q4_0, &changes[i], NULL, &err))
            fail_msg("%s", err.text);
        const bool headed = changes[i].what == GM_ADD;
        assert_int_equal(m.config.text.tied_embeddings, !headed);
        check_matrix(&m.weights->text.head, m.text_file, headed ? "output.weight" : "token_embd.weight", GM_VOCABULARY,
                     GM_HIDDEN);
        model_close(&m);
    }
}

static void test_weights_refused(void **state)
{
    (void)state;
    static const struct {
        enum layout layout;
        bool vision; /* the change is in its file */
        struct gm_tensor_change change;
        const char *expected;
    } cases[] = {
        {TEXT_ONLY, false, {"blk.1.ffn_up.weight", .what = GM_REMOVE},
         "text.gguf: tensor model.layers.1.mlp.up_proj.weight is missing"},
        {TEXT_ONLY, false, {"output_norm.weight", .what = GM_REMOVE}, "text.gguf: tensor model.norm.weight is missing"},
        {TEXT_ONLY, false, {"blk.1.ffn_up.weight", .rows = GM_INNER - 1},
         "text.gguf: tensor blk.1.ffn_up.weight has shape [63, 32], expected [64, 32]"},
        {TEXT_ONLY, false, {"blk.1.ffn_up.weight", .cols = 2 * GM_HIDDEN}, "has shape [64, 64], expected [64, 32]"},
        {TEXT_ONLY, false, {"blk.0.attn_q_norm.weight", .cols = GM_HEAD + 1}, "has shape [17], expected [16]"},
        {TEXT_ONLY, false, {"blk.0.attn_q_norm.weight", .rows = 1}, "has shape [1, 16], expected [16]"},
        {TEXT_ONLY, false, {"blk.0.attn_norm.weight", .type = TENSOR_Q8_0},
         "text.gguf: tensor blk.0.attn_norm.weight has type q8_0, expected bf16, f16 or f32"},
        {TEXT_ONLY, false, {"blk.0.ffn_up.weight", .what = GM_ADD, .name = "blk.0.ffn_up_exps.weight"},
         "text.gguf: tensor blk.0.ffn_up_exps.weight is not part of the model that the file describes"},
        {TEXT_ONLY, false, {"blk.0.ffn_up.weight", .what = GM_ADD, .name = "blk.2.ffn_up.weight"},
         "text.gguf: tensor blk.2.ffn_up.weight is not part of the model"},
        {TEXT_ONLY, false, {"blk.0.ffn_up.weight", .what = GM_ADD, .name = "blk.00001.ffn_up.weight"},
         "text.gguf: tensor blk.00001.ffn_up.weight is not part of the model"},
        {TEXT_ONLY, false, {"blk.0.ffn_up.weight", .what = GM_ADD, .name = "rope_freqs.weight"}, "is not part of"},
        {TEXT_ONLY, false, {"token_embd.weight", .what = GM_ADD, .name = "output.weight", .rows = 1},
         "text.gguf: tensor output.weight has shape [1, 32]"},
        {APART, true, {"v.blk.1.ffn_down.weight", .what = GM_REMOVE},
         "tensor vision_tower.vision_model.encoder.layers.1.mlp.fc2.weight is missing"},
        {APART, true, {"v.blk.1.ln1.bias", .cols = 3}, "mmproj.gguf: tensor v.blk.1.ln1.bias has shape [3]"},
        {APART, true, {"v.patch_embd.bias", .type = TENSOR_Q8_0}, "has type q8_0, expected bf16, f16 or f32"},
        {APART, true, {"mm.input_projection.weight", .rows = GM_EYE - 1}, "has shape [31, 32], expected [32, 32]"},
        {APART, true, {"v.patch_embd.bias", .what = GM_ADD, .name = "v.patch_embedding.bias"}, " is the same as "},
        {APART, true, {"v.blk.0.attn_out.weight", .what = GM_ADD, .name = "v.blk.0.attn_output.weight"},
         " is the same as "},
        {APART, true, {"v.patch_embd.bias", .what = GM_ADD, .name = "v.class_embd"},
         "mmproj.gguf: tensor v.class_embd is not part of the model"},
        {APART, true, {"v.patch_embd.bias", .what = GM_ADD, .name = "blk.0.attn_norm.weight"}, " is the same as "},
        {OLLAMA, false, {"mm.mm_soft_emb_norm.weight", .what = GM_REMOVE},
         "text.gguf: tensor multi_modal_projector.mm_soft_emb_norm.weight is missing"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct model m;
        struct ward_error err = {0};
        const int rc = model_open(&m, cases[i].layout, TENSOR_Q4_0, cases[i].vision ? NULL : &cases[i].change,
                                  cases[i].vision ? &cases[i].change : NULL, &err);
        expect_sentence(rc, &err, cases[i].expected);
        assert_null(m.weights);
        model_close(&m);
    }
}

/* ---- damage ------------------------------------------------------------------------------------------------------ */

/* All of a file that the program reads; 0, or a code with a sentence that names the file. */
static void open_all(const uint8_t *data, size_t size)
{
    struct gguf *g;
    struct model_config config;
    struct tokenizer *t = NULL;
    struct chat_template chat;
    struct weights *weights = NULL;
    struct ward_error err = {0};
    int rc = gguf_parse(&g, data, size, "m.gguf", &err);
    const struct gguf *vision = !rc && gguf_has_vision(g) ? g : NULL;
    if (!rc)
        rc = config_from_gguf(&config, g, vision, &err);
    if (!rc)
        rc = tokenizer_from_gguf(&t, g, &err);
    if (!rc) {
        config_add_tokens(&config, g, t);
        rc = chat_template_from_gguf(&chat, g, &config, t, &err);
    }
    if (!rc)
        rc = weights_from_gguf(&weights, g, vision, &config, &err);
    if (rc && (rc != err.code || strncmp(err.text, "m.gguf: ", 8)))
        fail_msg("%d, said \"%s\"", rc, err.text);
    assert_true(rc == 0 || rc == WARD_EFORMAT || rc == WARD_EUNSUPPORTED || rc == WARD_EINVAL);
    assert_int_equal(rc == 0, weights != NULL);
    weights_close(&weights);
    tokenizer_close(&t);
    gguf_close(&g);
}

/* Each byte of the header in turn gets other values. The file has exactly its size: a read beyond it is seen. */
static void test_damage(void **state)
{
    (void)state;
    for (int ollama = 0; ollama < 2; ollama++) {
        struct gm *m = gm_new(TENSOR_Q4_0);
        m->ollama = ollama;
        gm_write(m);
        const size_t n = m->w.n_file;
        uint8_t *copy = malloc(n);
        memcpy(copy, m->w.file, n);
        open_all(copy, n);
        for (size_t i = 0; i < n - m->w.n_data; i++) {
            static const uint8_t flips[] = {0x01, 0x80, 0xff};
            for (size_t k = 0; k < sizeof flips; k++) {
                copy[i] = m->w.file[i] ^ flips[k];
                if (k == i % sizeof flips || i < 512)
                    open_all(copy, n);
            }
            copy[i] = m->w.file[i];
        }
        for (size_t size = 0; size < n; size += size % 512 < 500 && size > 512 ? 37 : 1) {
            uint8_t *cut = malloc(size ? size : 1);
            memcpy(cut, m->w.file, size);
            struct gguf *g;
            assert_true(gguf_parse(&g, cut, size, "m.gguf", NULL) < 0);
            free(cut);
        }
        free(copy);
        free(m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tokenizer),     cmocka_unit_test(test_tokenizer_refused),
        cmocka_unit_test(test_listed_merges), cmocka_unit_test(test_chat),
        cmocka_unit_test(test_layouts),       cmocka_unit_test(test_without_encoder),
        cmocka_unit_test(test_accepted),      cmocka_unit_test(test_weights_refused),
        cmocka_unit_test(test_damage),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
