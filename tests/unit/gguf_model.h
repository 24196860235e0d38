/* A whole small Gemma 3 as GGUF files: configuration, tokenizer, weights, an image encoder in a file of its own
 * (llama.cpp's layout) or in the same (Ollama's); with one value or one tensor changed. */
#ifndef WARD_TESTS_GGUF_MODEL_H
#define WARD_TESTS_GGUF_MODEL_H

#include "gguf_writer.h"
#include "small_tokenizer.h"

enum {
    GM_HIDDEN = 32,
    GM_INNER = 64,
    GM_LAYERS = 2,
    GM_HEADS = 2,
    GM_KV_HEADS = 1,
    GM_HEAD = 16,
    GM_WINDOW = 8,
    GM_EYE = 32,
    GM_EYE_INNER = 64,
    GM_EYE_LAYERS = 2,
    GM_EYE_HEADS = 2,
    GM_PATCH = 2,
    GM_SIDE = 4, /* patches; pooled to one token */
};

static const char *const gm_pieces[] = {"a", "b", "c", "ab", "bc", "abc", "aa", "\xe2\x96\x81", "\xe2\x96\x81" "a",
                                        "\xe2\x96\x81\xe2\x96\x81\xe2\x96\x81", "<image_soft_token>", NULL};
enum { GM_PIECES = sizeof gm_pieces / sizeof *gm_pieces - 1, GM_VOCABULARY = SMALL_PIECES + GM_PIECES };

enum gm_what { GM_NOTHING, GM_DROP, GM_U32, GM_F32, GM_BOOL, GM_STRING, GM_U32S, GM_F32S, GM_BOOLS, GM_STRINGS };

/* The value of `key` is replaced, dropped, or added if there is none. */
struct gm_value_change {
    const char *key;
    enum gm_what what;
    double number;
    const char *text;
    int n; /* of a list of equals */
};

/* The tensor `at` is dropped (DROP), gets what is not 0 of the rest, or stands beside another of that name (ADD). */
struct gm_tensor_change {
    const char *at;
    enum { GM_CHANGE, GM_REMOVE, GM_ADD } what;
    const char *name;
    uint64_t cols, rows;
    enum tensor_type type; /* f32: keep */
};

struct gm {
    struct gguf_writer w;
    const struct gm_value_change *value;
    const struct gm_tensor_change *tensor;
    enum tensor_type type; /* of matrices */
    bool found;            /* the change was applied */
    bool ollama;
    bool swapped;          /* the encoder's maps are called as in old files of llama.cpp's */
    bool plain_marks;      /* of turns and images: typed as normal pieces */
};

/* ---- values ------------------------------------------------------------------------------------------------------ */

static inline void gm_apply(struct gm *m)
{
    const struct gm_value_change *c = m->value;
    uint32_t whole[1024];
    float numbers[1024];
    bool truths[1024];
    const char *texts[1024];
    m->found = true;
    for (int i = 0; i < c->n; i++) {
        whole[i] = (uint32_t)c->number;
        numbers[i] = (float)c->number;
        truths[i] = c->number > 0;
        texts[i] = c->text;
    }
    switch (c->what) {
    case GM_U32:
        gguf_put_u32(&m->w, c->key, (uint32_t)c->number);
        break;
    case GM_F32:
        gguf_put_f32(&m->w, c->key, (float)c->number);
        break;
    case GM_BOOL:
        gguf_put_bool(&m->w, c->key, c->number > 0);
        break;
    case GM_STRING:
        gguf_put_string(&m->w, c->key, c->text);
        break;
    case GM_U32S:
        gguf_put_numbers(&m->w, c->key, GGUF_UINT32, whole, (uint64_t)c->n);
        break;
    case GM_F32S:
        gguf_put_numbers(&m->w, c->key, GGUF_FLOAT32, numbers, (uint64_t)c->n);
        break;
    case GM_BOOLS:
        gguf_put_numbers(&m->w, c->key, GGUF_BOOL, truths, (uint64_t)c->n);
        break;
    case GM_STRINGS:
        gguf_put_strings(&m->w, c->key, texts, (uint64_t)c->n);
        break;
    default:
        break;
    }
}

static inline bool gm_is_changed(struct gm *m, const char *key)
{
    if (!m->value || strcmp(m->value->key, key))
        return false;
    gm_apply(m);
    return true;
}

static inline void gm_u32(struct gm *m, const char *key, uint32_t value)
{
    if (!gm_is_changed(m, key))
        gguf_put_u32(&m->w, key, value);
}

static inline void gm_f32(struct gm *m, const char *key, float value)
{
    if (!gm_is_changed(m, key))
        gguf_put_f32(&m->w, key, value);
}

static inline void gm_string(struct gm *m, const char *key, const char *text)
{
    if (!gm_is_changed(m, key))
        gguf_put_string(&m->w, key, text);
}

/* Ollama's files leave out what Ollama itself knows. */
static inline void gm_text_values(struct gm *m)
{
    gm_string(m, "general.architecture", "gemma3");
    gm_u32(m, "gemma3.block_count", GM_LAYERS);
    gm_u32(m, "gemma3.context_length", 512);
    gm_u32(m, "gemma3.embedding_length", GM_HIDDEN);
    gm_u32(m, "gemma3.feed_forward_length", GM_INNER);
    gm_u32(m, "gemma3.attention.key_length", GM_HEAD);
    gm_u32(m, "gemma3.attention.sliding_window", GM_WINDOW);
    if (m->ollama) {
        gm_f32(m, "gemma3.rope.local.freq_base", 7000);
        gm_f32(m, "gemma3.rope.global.freq_base", 300000);
        return;
    }
    gm_u32(m, "gemma3.attention.head_count", GM_HEADS);
    gm_u32(m, "gemma3.attention.head_count_kv", GM_KV_HEADS);
    gm_f32(m, "gemma3.attention.layer_norm_rms_epsilon", 1e-6f);
    gm_f32(m, "gemma3.rope.freq_base", 200000);
    gm_f32(m, "gemma3.rope.freq_base_swa", 5000);
    gm_string(m, "gemma3.rope.scaling.type", "linear");
    gm_f32(m, "gemma3.rope.scaling.factor", 4);
}

/* small_tokenizer.h's; added tokens have spaces where pieces have their marks, as llama.cpp's converter writes them. */
static inline void gm_tokenizer(struct gm *m)
{
    const char *tokens[GM_VOCABULARY];
    static char bytes[256][8];
    float scores[GM_VOCABULARY] = {0};
    int32_t types[GM_VOCABULARY];
    for (int id = 0; id < SMALL_BYTES; id++) {
        tokens[id] = id == SMALL_TWO_SPACES ? "  " : small_fixed[id];
        types[id] = id == 3 ? 2 : small_is_special(id) || small_fixed[id][1] == 'u' ? 3 : 4;
        scores[id] = -1000;
    }
    for (int byte = 0; byte < 256; byte++) {
        snprintf(bytes[byte], sizeof bytes[byte], "<0x%02X>", (unsigned)byte);
        tokens[SMALL_BYTES + byte] = bytes[byte];
        types[SMALL_BYTES + byte] = 6;
    }
    for (int i = 0; i < GM_PIECES; i++) {
        tokens[SMALL_PIECES + i] = gm_pieces[i];
        types[SMALL_PIECES + i] = gm_pieces[i][0] == '<' ? 3 : 1;
        scores[SMALL_PIECES + i] = (float)-i - 1;
    }
    for (int id = SMALL_START_OF_TURN; id <= SMALL_EOI && m->plain_marks; id++)
        types[id] = 1;
    if (m->plain_marks)
        types[GM_VOCABULARY - 1] = 1;
    gm_string(m, "tokenizer.ggml.model", "llama");
    if (!gm_is_changed(m, "tokenizer.ggml.tokens"))
        gguf_put_strings(&m->w, "tokenizer.ggml.tokens", tokens, GM_VOCABULARY);
    if (!gm_is_changed(m, "tokenizer.ggml.scores"))
        gguf_put_numbers(&m->w, "tokenizer.ggml.scores", GGUF_FLOAT32, scores, GM_VOCABULARY);
    if (!gm_is_changed(m, "tokenizer.ggml.token_type"))
        gguf_put_numbers(&m->w, "tokenizer.ggml.token_type", GGUF_INT32, types, GM_VOCABULARY);
    gm_u32(m, "tokenizer.ggml.eos_token_id", SMALL_END_OF_TURN);
    if (!m->ollama)
        gm_string(m, "tokenizer.chat_template", "... <start_of_turn> ...");
}

/* ---- tensors ----------------------------------------------------------------------------------------------------- */

static inline void gm_put(struct gm *m, const char *name, enum tensor_type type, const uint64_t *dims, uint32_t n_dims)
{
    static float ones[GM_EYE_INNER];
    for (int i = 0; i < GM_EYE_INNER; i++)
        ones[i] = 1 + (float)i / 64;
    gguf_put_dims(&m->w, name, type, dims, n_dims, n_dims == 1 && type == TENSOR_F32 ? ones : NULL);
}

static inline void gm_add(struct gm *m, const char *name, enum tensor_type type, uint64_t cols, uint64_t rows)
{
    const struct gm_tensor_change *c = m->tensor;
    uint64_t dims[] = {cols, rows};
    if (!c || strcmp(c->at, name)) {
        gm_put(m, name, type, dims, rows ? 2 : 1);
        return;
    }
    m->found = true;
    if (c->what == GM_ADD)
        gm_put(m, name, type, dims, rows ? 2 : 1);
    if (c->cols)
        dims[0] = c->cols;
    if (c->rows)
        dims[1] = c->rows;
    if (c->what != GM_REMOVE)
        gm_put(m, c->name ? c->name : name, c->type ? c->type : type, dims, dims[1] ? 2 : 1);
}

static inline void gm_text_tensors(struct gm *m)
{
    static const struct {
        const char *name;
        uint64_t cols, rows;
    } parts[] = {
        {"attn_norm", GM_HIDDEN, 0},
        {"post_attention_norm", GM_HIDDEN, 0},
        {"ffn_norm", GM_HIDDEN, 0},
        {"post_ffw_norm", GM_HIDDEN, 0},
        {"attn_q_norm", GM_HEAD, 0},
        {"attn_k_norm", GM_HEAD, 0},
        {"attn_q", GM_HIDDEN, GM_HEADS * GM_HEAD},
        {"attn_k", GM_HIDDEN, GM_KV_HEADS * GM_HEAD},
        {"attn_v", GM_HIDDEN, GM_KV_HEADS * GM_HEAD},
        {"attn_output", GM_HEADS * GM_HEAD, GM_HIDDEN},
        {"ffn_gate", GM_HIDDEN, GM_INNER},
        {"ffn_up", GM_HIDDEN, GM_INNER},
        {"ffn_down", GM_INNER, GM_HIDDEN},
    };
    gm_add(m, "token_embd.weight", m->type, GM_HIDDEN, GM_VOCABULARY);
    gm_add(m, "output_norm.weight", TENSOR_F32, GM_HIDDEN, 0);
    for (int layer = 0; layer < GM_LAYERS; layer++)
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
            char name[64];
            snprintf(name, sizeof name, "blk.%d.%s.weight", layer, parts[i].name);
            gm_add(m, name, parts[i].rows ? m->type : TENSOR_F32, parts[i].cols, parts[i].rows);
        }
}

/* ---- the image encoder ------------------------------------------------------------------------------------------- */

static inline void gm_vision_values(struct gm *m)
{
    static const struct {
        const char *key;
        uint32_t value;
    } values[] = {{"embedding_length", GM_EYE},
                  {"feed_forward_length", GM_EYE_INNER},
                  {"block_count", GM_EYE_LAYERS},
                  {"attention.head_count", GM_EYE_HEADS},
                  {"image_size", GM_PATCH * GM_SIDE},
                  {"patch_size", GM_PATCH}};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        char key[64];
        snprintf(key, sizeof key, "%s%s", m->ollama ? "gemma3.vision." : "clip.vision.", values[i].key);
        gm_u32(m, key, values[i].value);
    }
    if (m->ollama) {
        gm_u32(m, "gemma3.mm.tokens_per_image", 4);
        return;
    }
    gm_string(m, "general.architecture", "clip");
    gm_string(m, "clip.projector_type", "gemma3");
    gm_u32(m, "clip.vision.projection_dim", GM_HIDDEN);
    gm_f32(m, "clip.vision.attention.layer_norm_epsilon", 1e-6f);
    if (!gm_is_changed(m, "clip.vision.image_mean"))
        gguf_put_numbers(&m->w, "clip.vision.image_mean", GGUF_FLOAT32, (const float[]){0.1f, 0.2f, 0.3f}, 3);
    if (!gm_is_changed(m, "clip.vision.image_std"))
        gguf_put_numbers(&m->w, "clip.vision.image_std", GGUF_FLOAT32, (const float[]){0.5f, 0.25f, 1}, 3);
}

static inline void gm_both(struct gm *m, const char *name, uint64_t cols, uint64_t rows)
{
    char full[80];
    snprintf(full, sizeof full, "%s.weight", name);
    gm_add(m, full, rows ? m->type : TENSOR_F32, cols, rows);
    snprintf(full, sizeof full, "%s.bias", name);
    gm_add(m, full, TENSOR_F32, rows ? rows : cols, 0);
}

static inline void gm_vision_tensors(struct gm *m)
{
    const bool o = m->ollama;
    const struct {
        const char *name;
        uint64_t cols, rows;
    } parts[] = {
        {o ? "layer_norm1" : "ln1", GM_EYE, 0},
        {o ? "layer_norm2" : "ln2", GM_EYE, 0},
        {"attn_q", GM_EYE, GM_EYE},
        {"attn_k", GM_EYE, GM_EYE},
        {"attn_v", GM_EYE, GM_EYE},
        {o ? "attn_output" : "attn_out", GM_EYE, GM_EYE},
        {o ? "mlp.fc1" : m->swapped ? "ffn_down" : "ffn_up", GM_EYE, GM_EYE_INNER},
        {o ? "mlp.fc2" : m->swapped ? "ffn_up" : "ffn_down", GM_EYE_INNER, GM_EYE},
    };
    gm_put(m, o ? "v.patch_embedding.weight" : "v.patch_embd.weight", TENSOR_F32,
           (const uint64_t[]){GM_PATCH, GM_PATCH, 3, GM_EYE}, 4);
    gm_add(m, o ? "v.patch_embedding.bias" : "v.patch_embd.bias", TENSOR_F32, GM_EYE, 0);
    gm_add(m, o ? "v.position_embedding.weight" : "v.position_embd.weight", TENSOR_F32, GM_EYE, GM_SIDE * GM_SIDE);
    gm_both(m, o ? "v.post_layernorm" : "v.post_ln", GM_EYE, 0);
    gm_add(m, o ? "mm.mm_soft_emb_norm.weight" : "mm.soft_emb_norm.weight", TENSOR_F32, GM_EYE, 0);
    gm_add(m, o ? "mm.mm_input_projection.weight" : "mm.input_projection.weight", m->type, GM_HIDDEN, GM_EYE);
    for (int layer = 0; layer < GM_EYE_LAYERS; layer++)
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
            char name[64];
            snprintf(name, sizeof name, "v.blk.%d.%s", layer, parts[i].name);
            gm_both(m, name, parts[i].cols, parts[i].rows);
        }
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

/* Room for a file, to be changed and then written; free() it. */
static inline struct gm *gm_new(enum tensor_type type)
{
    struct gm *m = calloc(1, sizeof *m);
    if (!m)
        abort();
    gguf_writer_open(&m->w, 3);
    m->type = type;
    return m;
}

static inline void gm_finish(struct gm *m)
{
    if (m->value && !m->found)
        gm_apply(m);
    gguf_writer_finish(&m->w);
}

/* The text model, with the encoder if the layout is Ollama's. */
static inline void gm_write(struct gm *m)
{
    gm_text_values(m);
    gm_tokenizer(m);
    if (m->ollama)
        gm_vision_values(m);
    gm_text_tensors(m);
    if (m->ollama)
        gm_vision_tensors(m);
    gm_finish(m);
}

static inline void gm_write_mmproj(struct gm *m)
{
    gm_vision_values(m);
    gm_vision_tensors(m);
    gm_finish(m);
}

#endif
