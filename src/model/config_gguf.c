/* The configuration that GGUF files carry: llama.cpp's keys, in a file for the text ("gemma3.") and one for the image
 * encoder ("clip.vision."), and Ollama's, in one file ("gemma3.", "gemma3.vision."). Ollama's files leave out what
 * Ollama itself knows of Gemma 3; that is supplied here. */
#include "model/config.h"
#include "model/gguf.h"
#include "model/tokenizer.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { REQUIRED = -1 /* in place of a default */, MAX_PATCHES = 65536, LAYERS_27B = 62 };

/* Keys of one file below a prefix. The first error ends the reading: what follows does nothing. */
struct reader {
    const struct gguf *file;
    const char *prefix; /* "gemma3.", "clip.vision.", ... */
    struct ward_error *err;
    int *rc;
};

/* ---- keys -------------------------------------------------------------------------------------------------------- */

static const struct gguf_value *get(const struct reader *r, const char *key)
{
    char full[128];
    snprintf(full, sizeof full, "%s%s", r->prefix, key);
    return gguf_value(r->file, full);
}

static void fail_found(const struct reader *r, const char *key, const char *expected)
{
    if (!*r->rc)
        *r->rc = error_set(r->err, WARD_EFORMAT, "%s: %s%s is not %s", gguf_name(r->file), r->prefix, key, expected);
}

static void read_integer(const struct reader *r, int *out, const char *key, int fallback, int low, int high)
{
    const struct gguf_value *value = get(r, key);
    int64_t number = fallback;
    char expected[64];
    snprintf(expected, sizeof expected, "a whole number from %d to %d", low, high);
    if (!value && fallback == REQUIRED && !*r->rc)
        *r->rc = error_set(r->err, WARD_EFORMAT, "%s: %s%s is missing", gguf_name(r->file), r->prefix, key);
    if (value && (value->type == GGUF_ARRAY || !gguf_integer(value, 0, low, high, &number)))
        fail_found(r, key, expected);
    *out = (int)number;
}

/* Accepts low < number <= high. */
static void read_number(const struct reader *r, double *out, const char *key, double fallback, double low, double high)
{
    const struct gguf_value *value = get(r, key);
    double number = fallback;
    char expected[64];
    snprintf(expected, sizeof expected, "a number above %g, at most %g", low, high);
    if (value && (value->type == GGUF_ARRAY || !gguf_number(value, 0, &number) || !(number > low && number <= high)))
        fail_found(r, key, expected);
    *out = number;
}

/* Floats are stored with 32 bits: 1e-6 comes as 9.9999999747e-07, and is 1e-6 in the checkpoint that was converted. */
static double decimal(double number)
{
    char text[32];
    double out = number;
    snprintf(text, sizeof text, "%.7g", number);
    return sscanf(text, "%lf", &out) == 1 ? out : number;
}

/* ---- text -------------------------------------------------------------------------------------------------------- */

/* Which layers see everything: a list that marks the sliding ones, else every n-th layer, counted from 1. Where there
 * is no window, all. */
static void read_layer_types(const struct reader *r, struct text_config *text)
{
    static const char key[] = "attention.sliding_window_pattern";
    const struct gguf_value *list = get(r, key);
    int pattern = 6;
    if (!text->sliding_window) {
        text->sliding_window = text->max_positions;
        pattern = 1;
    } else if (!list || list->type != GGUF_ARRAY) {
        read_integer(r, &pattern, key, 6, 1, INT_MAX);
    } else if (list->n != (uint64_t)text->n_layers) {
        fail_found(r, key, "a list as long as there are layers");
    }
    if (*r->rc)
        return;
    const bool listed = list && list->type == GGUF_ARRAY;
    for (int i = 0; i < text->n_layers; i++) {
        bool sliding = (i + 1) % pattern != 0;
        int64_t number;
        if (listed && pattern > 1 && gguf_integer(list, (uint64_t)i, 0, 1, &number))
            sliding = number != 0;
        else if (listed && pattern > 1 && !gguf_bool(list, (uint64_t)i, &sliding))
            fail_found(r, key, "a list of truths");
        text->global[i] = !sliding;
    }
}

/* Positions of global layers are divided by 8 in the models that see images. Ollama's files do not say so. */
static void read_rope(const struct reader *r, struct text_config *text)
{
    const bool sees = text->n_layers == 34 || text->n_layers == 48 || text->n_layers == LAYERS_27B;
    const struct gguf_value *type = get(r, "rope.scaling.type");
    const bool none = gguf_string_is(type, "none");
    if (type && !none && !gguf_string_is(type, "linear") && !*r->rc)
        *r->rc = error_set(r->err, WARD_EUNSUPPORTED, "%s: %srope.scaling.type is neither \"linear\" nor \"none\"",
                           gguf_name(r->file), r->prefix);
    read_number(r, &text->rope_global.factor, "rope.scaling.factor", none || type || !sees ? 1 : 8, 0, 1e6);
    if (none)
        text->rope_global.factor = 1;
    text->rope_sliding.factor = 1;
    read_number(r, &text->rope_global.theta, get(r, "rope.freq_base") ? "rope.freq_base" : "rope.global.freq_base", 1e6,
                1, 1e12);
    read_number(r, &text->rope_sliding.theta,
                get(r, "rope.freq_base_swa") ? "rope.freq_base_swa" : "rope.local.freq_base", 1e4, 1, 1e12);
}

/* Rows of a matrix that must be there. */
static int rows_of(const struct reader *r, const char *name)
{
    const struct gguf_tensor *t = gguf_tensor(r->file, name);
    if (t && t->n_dims == 2 && t->dims[1] <= 1 << 24)
        return (int)t->dims[1];
    if (!*r->rc)
        *r->rc = error_set(r->err, WARD_EFORMAT, t ? "%s: tensor %s is no matrix of a proper size"
                                                   : "%s: tensor %s is missing", gguf_name(r->file), name);
    return 1;
}

static void read_text(const struct reader *r, struct text_config *text)
{
    read_integer(r, &text->hidden_size, "embedding_length", REQUIRED, 1, 65536);
    read_integer(r, &text->intermediate_size, "feed_forward_length", REQUIRED, 1, 1 << 20);
    read_integer(r, &text->n_layers, "block_count", REQUIRED, 1, CONFIG_MAX_LAYERS);
    read_integer(r, &text->sliding_window, "attention.sliding_window", 0, 0, 1 << 30);
    read_integer(r, &text->max_positions, "context_length", 131072, 1, 1 << 30);
    read_integer(r, &text->head_dim, "attention.key_length", 256, 2, 4096);
    read_integer(r, &text->n_heads, "attention.head_count", 0, 1, 1024);
    read_integer(r, &text->n_kv_heads, "attention.head_count_kv", 0, 1, 1024);
    read_number(r, &text->rms_norm_eps, "attention.layer_norm_rms_epsilon", 1e-6, 0, 1);
    read_number(r, &text->final_softcap, "final_logit_softcapping", 0, 0, 1e9);
    text->rms_norm_eps = decimal(text->rms_norm_eps);
    if (*r->rc)
        return;
    text->vocab_size = rows_of(r, "token_embd.weight");
    if (!text->n_heads)
        text->n_heads = rows_of(r, "blk.0.attn_q.weight") / text->head_dim;
    if (!text->n_kv_heads)
        text->n_kv_heads = rows_of(r, "blk.0.attn_k.weight") / text->head_dim;
    text->tied_embeddings = !gguf_tensor(r->file, "output.weight");
    if (!*r->rc && (text->head_dim % 2 || text->n_heads < 1 || text->n_heads > 1024 || text->n_kv_heads < 1 ||
                    text->n_heads % text->n_kv_heads))
        *r->rc = error_set(r->err, WARD_EFORMAT,
                           "%s: %d heads of %d with %d key-value heads, expected a multiple of these and an even size",
                           gguf_name(r->file), text->n_heads, text->head_dim, text->n_kv_heads);
    if (*r->rc)
        return;
    /* As llama.cpp does: the 27B alone scales by the width of a head were they to share the hidden size. */
    text->query_pre_attn_scalar =
        text->n_layers == LAYERS_27B && text->hidden_size >= text->n_heads ? text->hidden_size / text->n_heads
                                                                          : text->head_dim;
    read_layer_types(r, text);
    read_rope(r, text);
}

/* ---- vision ------------------------------------------------------------------------------------------------------ */

static void read_triple(const struct reader *r, double out[3], const char *key, bool divisor)
{
    const struct gguf_value *value = get(r, key);
    bool sound = !value || value->n == 3;
    for (uint64_t i = 0; i < 3 && value && sound; i++) {
        sound = gguf_number(value, i, &out[i]) && isfinite(out[i]) && (!divisor || out[i] > 0);
        out[i] = decimal(out[i]);
    }
    if (!sound)
        fail_found(r, key, divisor ? "three numbers above 0" : "three numbers");
}

static void read_vision(const struct reader *r, struct vision_config *vision)
{
    read_integer(r, &vision->hidden_size, "embedding_length", REQUIRED, 1, 65536);
    read_integer(r, &vision->intermediate_size, "feed_forward_length", REQUIRED, 1, 1 << 20);
    read_integer(r, &vision->n_layers, "block_count", REQUIRED, 1, CONFIG_MAX_LAYERS);
    read_integer(r, &vision->n_heads, "attention.head_count", REQUIRED, 1, 1024);
    read_integer(r, &vision->n_channels, "num_channels", 3, 3, 3);
    read_integer(r, &vision->image_size, "image_size", REQUIRED, 1, 16384);
    read_integer(r, &vision->patch_size, "patch_size", REQUIRED, 1, 1024);
    read_number(r, &vision->layer_norm_eps, "attention.layer_norm_epsilon", 1e-6, 0, 1);
    vision->layer_norm_eps = decimal(vision->layer_norm_eps);
}

/* How many tokens the patches of an image are pooled to: Ollama's files say it, llama.cpp's by how many patches a side
 * is divided. */
static void read_pooling(const struct reader *text, const struct reader *r, struct model_config *out)
{
    const struct vision_config *vision = &out->vision;
    const char *name = gguf_name(r->file);
    if (*r->rc)
        return;
    if (vision->hidden_size % vision->n_heads || vision->image_size % vision->patch_size) {
        *r->rc = error_set(r->err, WARD_EFORMAT,
                           "%s: an encoder of width %d and %d heads, images of %d and patches of %d pixels: multiples "
                           "are expected",
                           name, vision->hidden_size, vision->n_heads, vision->image_size, vision->patch_size);
        return;
    }
    const int side = vision->image_size / vision->patch_size;
    int factor = 4, tokens;
    read_integer(r, &factor, "projector.scale_factor", 4, 1, 1024);
    read_integer(text, &tokens, "mm.tokens_per_image", 0, 1, MAX_PATCHES);
    int root = 0;
    while (tokens && root * root < tokens)
        root++;
    if (tokens && root * root == tokens && side % root == 0)
        factor = side / root;
    else if (tokens)
        factor = side + 1;
    if (!*r->rc && (side > 256 || side % factor))
        *r->rc = error_set(r->err, WARD_EFORMAT,
                           "%s: the %d patches of an image's side, at most 256, cannot be pooled to the tokens that an "
                           "image takes",
                           name, side);
    if (!*r->rc)
        out->image_tokens = side / factor * (side / factor);
}

/* llama.cpp's image encoder, in a file of its own. */
static void check_mmproj(const struct reader *r, const struct text_config *text)
{
    const char *name = gguf_name(r->file);
    const char *key = gguf_value(r->file, "clip.projector_type") ? "clip.projector_type" : "clip.vision.projector_type";
    int width;
    if (!gguf_string_is(gguf_value(r->file, "general.architecture"), "clip"))
        *r->rc = error_set(r->err, WARD_EUNSUPPORTED,
                           "%s: is no image encoder: its general.architecture is not \"clip\"", name);
    else if (!gguf_string_is(gguf_value(r->file, key), "gemma3"))
        *r->rc = error_set(r->err, WARD_EUNSUPPORTED,
                           "%s: is an image encoder of another model: its %s is not \"gemma3\"; --mmproj names another "
                           "file, or none",
                           name, key);
    read_integer(r, &width, "projection_dim", text->hidden_size, 1, 65536);
    if (!*r->rc && width != text->hidden_size)
        *r->rc = error_set(r->err, WARD_EUNSUPPORTED,
                           "%s: is the image encoder of a text model of width %d, not of %d; --mmproj names another "
                           "file, or none",
                           name, width, text->hidden_size);
}

/* ---- the files --------------------------------------------------------------------------------------------------- */

static int check_text_file(const struct gguf *text, struct ward_error *err)
{
    const struct gguf_value *architecture = gguf_value(text, "general.architecture");
    int64_t parts;
    if (gguf_string_is(architecture, "clip"))
        return error_set(err, WARD_EINVAL,
                         "%s: is the image encoder alone; give the text model's GGUF file, and this one with --mmproj",
                         gguf_name(text));
    if (!gguf_string_is(architecture, "gemma3"))
        return error_set(err, WARD_EUNSUPPORTED, "%s: its general.architecture is not \"gemma3\"", gguf_name(text));
    if (gguf_integer(gguf_value(text, "split.count"), 0, 2, INT_MAX, &parts))
        return error_set(err, WARD_EUNSUPPORTED,
                         "%s: is one of %d parts; expected a whole file, as llama-gguf-split --merge makes",
                         gguf_name(text), (int)parts);
    return 0;
}

bool gguf_has_vision(const struct gguf *text)
{
    return gguf_value(text, "gemma3.vision.block_count") != NULL;
}

/* Whether general.tags holds one. */
static bool has_tag(const struct gguf *file, const char *tag)
{
    const struct gguf_value *tags = gguf_value(file, "general.tags");
    const char *text;
    size_t at = 0, length;
    while (tags && gguf_next_string(tags, &at, &text, &length))
        if (length == strlen(tag) && !memcmp(text, tag, length))
            return true;
    return false;
}

int config_from_gguf(struct model_config *out, const struct gguf *text, const struct gguf *vision,
                     struct ward_error *err)
{
    *out = (struct model_config){.image = {.mean = {0.5, 0.5, 0.5},
                                           .std = {0.5, 0.5, 0.5},
                                           .rescale_factor = 1.0 / 255,
                                           .resize = true,
                                           .rescale = true,
                                           .normalize = true},
                                 .image_token = -1,
                                 .random_weights = has_tag(text, CONFIG_RANDOM_TAG)};
    int rc = check_text_file(text, err);
    const struct reader r = {text, "gemma3.", err, &rc};
    if (!rc)
        read_text(&r, &out->text);
    if (rc || !vision)
        return rc;
    const struct reader v = {vision, vision == text ? "gemma3.vision." : "clip.vision.", err, &rc};
    if (vision != text)
        check_mmproj(&v, &out->text);
    if (!rc)
        read_vision(&v, &out->vision);
    read_triple(&v, out->image.mean, "image_mean", false);
    read_triple(&v, out->image.std, "image_std", true);
    read_pooling(&r, &v, out);
    return rc;
}

static void add_end(struct model_config *out, int64_t id)
{
    for (int i = 0; i < out->n_eos; i++)
        if (out->eos[i] == id)
            return;
    out->eos[out->n_eos++] = (int)id;
}

void config_add_tokens(struct model_config *out, const struct gguf *text, const struct tokenizer *tokenizer)
{
    static const char *const ends[] = {"<eos>", "<end_of_turn>"};
    static const char *const keys[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        const int32_t id = tokenizer_id(tokenizer, ends[i]);
        if (id >= 0)
            add_end(out, id);
    }
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        int64_t id;
        if (gguf_integer(gguf_value(text, keys[i]), 0, 0, INT_MAX, &id))
            add_end(out, id);
    }
    if (out->image_tokens)
        out->image_token = tokenizer_id(tokenizer, "<image_soft_token>");
}
