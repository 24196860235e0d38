/* A model in GGUF files: configuration, tokenizer, chat template and weights of the text's file and of the encoder's.
 * The parts: the file for the text, that for the encoder (none: Ollama's layout, or text only), a text to be tokenized.
 * Each file has zeros behind it, so that inputs need no weights; the target `gguf` reads files as they are. */
#include "fuzz.h"

#include "model/chat.h"
#include "model/gguf.h"
#include "model/weights.h"

#include <stdlib.h>
#include <string.h>

enum { ZEROS = 1 << 16 };

struct file {
    uint8_t *data;
    struct gguf *gguf;
};

static int open_file(struct file *out, const uint8_t *data, size_t size, const char *name, struct ward_error *err)
{
    out->data = calloc(size + ZEROS, 1);
    REQUIRE(out->data);
    if (size)
        memcpy(out->data, data, size);
    return gguf_parse(&out->gguf, out->data, size + ZEROS, name, err);
}

static void close_file(struct file *file)
{
    gguf_close(&file->gguf);
    free(file->data);
}

/* ---- weights: all of them are there, and can be read ------------------------------------------------------------- */

static volatile unsigned sink;

static void read_matrix(const struct tensor *t, int rows, int cols)
{
    REQUIRE(t->data && t->rows == rows && t->cols == cols && t->type < TENSOR_TYPES);
    REQUIRE(cols % tensor_formats[t->type].block == 0);
    const uint8_t *end = tensor_row(t, rows - 1);
    for (size_t i = 0; i < tensor_row_bytes(t); i++)
        sink += end[i];
    sink += *(const uint8_t *)t->data;
}

static void read_vector(const float *vector, int n)
{
    REQUIRE(vector);
    for (int i = 0; i < n; i++)
        sink += vector[i] > 0;
}

static void read_text(const struct weights *w, const struct text_config *c)
{
    read_matrix(&w->text.embed, c->vocab_size, c->hidden_size);
    read_matrix(&w->text.head, c->vocab_size, c->hidden_size);
    read_vector(w->text.norm, c->hidden_size);
    for (int i = 0; i < c->n_layers; i++) {
        const struct text_layer *l = &w->text.layers[i];
        const float *const norms[] = {l->input_norm, l->post_attention_norm, l->pre_feedforward_norm,
                                      l->post_feedforward_norm};
        for (int k = 0; k < 4; k++)
            read_vector(norms[k], c->hidden_size);
        read_vector(l->q_norm, c->head_dim);
        read_vector(l->k_norm, c->head_dim);
        read_matrix(&l->q, c->n_heads * c->head_dim, c->hidden_size);
        read_matrix(&l->k, c->n_kv_heads * c->head_dim, c->hidden_size);
        read_matrix(&l->v, c->n_kv_heads * c->head_dim, c->hidden_size);
        read_matrix(&l->o, c->hidden_size, c->n_heads * c->head_dim);
        read_matrix(&l->gate, c->intermediate_size, c->hidden_size);
        read_matrix(&l->up, c->intermediate_size, c->hidden_size);
        read_matrix(&l->down, c->hidden_size, c->intermediate_size);
    }
}

static void read_vision(const struct weights *w, const struct model_config *config)
{
    const struct vision_config *c = &config->vision;
    const int side = c->image_size / c->patch_size;
    read_matrix(&w->vision.patch, c->hidden_size, c->n_channels * c->patch_size * c->patch_size);
    read_matrix(&w->vision.position, side * side, c->hidden_size);
    read_matrix(&w->vision.projector, config->text.hidden_size, c->hidden_size);
    read_vector(w->vision.projector_norm, c->hidden_size);
    read_vector(w->vision.post_norm_bias, c->hidden_size);
    for (int i = 0; i < c->n_layers; i++) {
        const struct vision_layer *l = &w->vision.layers[i];
        read_vector(l->norm2_bias, c->hidden_size);
        read_matrix(&l->out, c->hidden_size, c->hidden_size);
        read_matrix(&l->fc1, c->intermediate_size, c->hidden_size);
        read_vector(l->fc1_bias, c->intermediate_size);
        read_matrix(&l->fc2, c->hidden_size, c->intermediate_size);
        read_vector(l->fc2_bias, c->hidden_size);
    }
}

/* ---- the model --------------------------------------------------------------------------------------------------- */

static void open_weights(const struct gguf *text, const struct gguf *vision, const struct model_config *config)
{
    struct weights *weights;
    struct ward_error err = {0};
    const int rc = weights_from_gguf(&weights, text, vision, config, &err);
    fuzz_check_result(rc, &err);
    REQUIRE(!rc == (weights != NULL));
    if (weights) {
        read_text(weights, &config->text);
        REQUIRE(!weights->vision.layers == !vision);
        if (vision)
            read_vision(weights, config);
    }
    weights_close(&weights);
}

static void open_model(const struct gguf *text, const struct gguf *vision, const uint8_t *words, size_t n_words)
{
    struct model_config config;
    struct tokenizer *tokenizer;
    struct chat_template chat;
    struct ward_error err = {0};
    const int config_rc = config_from_gguf(&config, text, vision, &err);
    fuzz_check_result(config_rc, &err);
    err = (struct ward_error){0};
    int rc = tokenizer_from_gguf(&tokenizer, text, &err);
    fuzz_check_result(rc, &err);
    REQUIRE(!rc == (tokenizer != NULL));
    if (!rc)
        fuzz_use_tokenizer(tokenizer, words, n_words);
    if (!rc && !config_rc) {
        config_add_tokens(&config, text, tokenizer);
        rc = chat_template_from_gguf(&chat, text, &config, tokenizer, &err);
        fuzz_check_result(rc, &err);
        if (!rc) {
            fuzz_check_config(&config);
            REQUIRE(chat.bos >= 0 && (!chat.present || (chat.start_of_turn >= 0 && chat.end_of_turn >= 0)));
        }
    }
    if (!config_rc)
        open_weights(text, vision, &config);
    tokenizer_close(&tokenizer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_parts parts;
    struct file text = {0}, vision = {0};
    struct ward_error err = {0};
    fuzz_split(&parts, data, size);
    int rc = open_file(&text, parts.data[0], parts.size[0], "text.gguf", &err);
    fuzz_check_result(rc, &err);
    if (!rc && parts.size[1])
        rc = open_file(&vision, parts.data[1], parts.size[1], "mmproj.gguf", &err);
    fuzz_check_result(rc, &err);
    if (!rc) {
        const struct gguf *encoder = vision.gguf ? vision.gguf : gguf_has_vision(text.gguf) ? text.gguf : NULL;
        open_model(text.gguf, encoder, parts.data[2], parts.size[2]);
    }
    close_file(&text);
    close_file(&vision);
    fuzz_parts_free(&parts);
    return 0;
}
