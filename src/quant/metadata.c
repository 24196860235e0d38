#include "quant/metadata.h"

#include "base/text.h"
#include "model/vocabulary.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void put_text(struct gguf_head *head, const char *key, const char *text)
{
    gguf_put_text(head, key, text, strlen(text));
}

/* ---- who made it, under which terms ------------------------------------------------------------------------------ */

char *metadata_notice(const struct metadata *m)
{
    char *text;
    if (!m->source->terms.hai_def)
        return NULL;
    if (asprintf(&text,
                 "HAI-DEF is provided under and subject to the Health AI Developer Foundations Terms of Use found at\n"
                 HAI_DEF_LINK "\n\n"
                 "MODIFIED FILES: the weights were converted to %s by `ward quantize` (ward " WARD_VERSION ").\n\n"
                 "Not for clinical use.\n",
                 m->type) < 0)
        return NULL;
    return text;
}

static void put_general(struct gguf_head *head, const struct metadata *m)
{
    const struct terms *terms = &m->source->terms;
    gguf_put_u32(head, "general.quantization_version", 2);
    gguf_put_u32(head, "general.file_type", (uint32_t)m->file_type);
    put_text(head, "general.quantized_by", "ward " WARD_VERSION);
    if (m->source->config.random_weights && !m->source->text) { /* a GGUF file's own tags are copied */
        gguf_put_list(head, "general.tags", GGUF_STRING, NULL, 1);
        gguf_put_entry(head, CONFIG_RANDOM_TAG, strlen(CONFIG_RANDOM_TAG));
    }
    if (*terms->license)
        put_text(head, "general.license", terms->license);
    if (*terms->name)
        put_text(head, "general.license.name", terms->name);
    if (*terms->link)
        put_text(head, "general.license.link", terms->link);
    char *notice = metadata_notice(m);
    if (notice)
        put_text(head, "ward.notice", notice);
    free(notice);
}

/* ---- the source's own keys --------------------------------------------------------------------------------------- */

static bool is_replaced(const char *key, bool renamed)
{
    static const char *const starts[] = {"gemma3.", "clip.", "general.license", "ward.", "split."};
    static const char *const keys[] = {"general.architecture", "general.type", "general.quantization_version",
                                       "general.file_type", "general.quantized_by"};
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++)
        if (starts_with(key, starts[i]))
            return true;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (!strcmp(key, keys[i]))
            return true;
    return renamed && !strcmp(key, "general.name");
}

static void copy_keys(struct gguf_head *head, const struct gguf *from, bool renamed, bool tokenizer)
{
    for (size_t i = 0; i < gguf_n_values(from); i++) {
        const struct gguf_value *value = gguf_value_at(from, i);
        if (!is_replaced(value->name, renamed) && (tokenizer || !starts_with(value->name, "tokenizer.")))
            gguf_put_copy(head, value);
    }
}

/* ---- text -------------------------------------------------------------------------------------------------------- */

static void put_text_shape(struct gguf_head *head, const struct text_config *c)
{
    gguf_put_u32(head, "gemma3.context_length", (uint32_t)c->max_positions);
    gguf_put_u32(head, "gemma3.embedding_length", (uint32_t)c->hidden_size);
    gguf_put_u32(head, "gemma3.block_count", (uint32_t)c->n_layers);
    gguf_put_u32(head, "gemma3.feed_forward_length", (uint32_t)c->intermediate_size);
    gguf_put_u32(head, "gemma3.attention.head_count", (uint32_t)c->n_heads);
    gguf_put_u32(head, "gemma3.attention.head_count_kv", (uint32_t)c->n_kv_heads);
    gguf_put_u32(head, "gemma3.attention.key_length", (uint32_t)c->head_dim);
    gguf_put_u32(head, "gemma3.attention.value_length", (uint32_t)c->head_dim);
    gguf_put_f32(head, "gemma3.attention.layer_norm_rms_epsilon", c->rms_norm_eps);
    gguf_put_f32(head, "gemma3.rope.freq_base", c->rope_global.theta);
    gguf_put_f32(head, "gemma3.rope.freq_base_swa", c->rope_sliding.theta);
    put_text(head, "gemma3.rope.scaling.type", c->rope_global.factor != 1 ? "linear" : "none");
    gguf_put_f32(head, "gemma3.rope.scaling.factor", c->rope_global.factor);
    if (c->final_softcap)
        gguf_put_f32(head, "gemma3.final_logit_softcapping", c->final_softcap);
}

/* Which layers see only a window: the usual sixth layer that sees all goes without saying, another distance is a
 * number, anything else a list. */
static void put_layer_types(struct gguf_head *head, const struct text_config *c)
{
    uint8_t sliding[CONFIG_MAX_LAYERS];
    int pattern = 0; /* every which layer sees all; 0: none does, as far as seen */
    for (int i = 0; i < c->n_layers; i++) {
        sliding[i] = !c->global[i];
        if (c->global[i] && !pattern)
            pattern = i + 1;
    }
    if (pattern == 1 && !memchr(sliding, 1, (size_t)c->n_layers))
        return; /* no window, no pattern: all see all */
    gguf_put_u32(head, "gemma3.attention.sliding_window", (uint32_t)c->sliding_window);
    bool regular = true;
    for (int i = 0; i < c->n_layers; i++)
        regular = regular && c->global[i] == (pattern && (i + 1) % pattern == 0);
    if (!regular)
        gguf_put_list(head, "gemma3.attention.sliding_window_pattern", GGUF_BOOL, sliding, (size_t)c->n_layers);
    else if (pattern != 6)
        gguf_put_u32(head, "gemma3.attention.sliding_window_pattern",
                     (uint32_t)(pattern ? pattern : c->n_layers + 1));
}

/* Pieces as llama.cpp wants them: what the user may write with plain spaces, and a filler for each id up to the rows of
 * the embedding. */
static void put_pieces(struct gguf_head *head, const struct tokenizer *t, const uint8_t *types, int32_t n)
{
    gguf_put_list(head, "tokenizer.ggml.tokens", GGUF_STRING, NULL, (size_t)n);
    for (int32_t id = 0; id < n; id++) {
        char text[VOCABULARY_MAX_PIECE];
        size_t length, m = 0;
        const char *piece = tokenizer_piece(t, id, &length);
        for (size_t i = 0; i < length;) {
            const bool mark = types[id] == PIECE_USER && length - i >= SPACE_MARK_LENGTH &&
                              !memcmp(piece + i, SPACE_MARK, SPACE_MARK_LENGTH);
            text[m++] = mark ? ' ' : piece[i];
            i += mark ? SPACE_MARK_LENGTH : 1;
        }
        if (types[id] == PIECE_UNUSED)
            m = (size_t)snprintf(text, sizeof text, "[PAD%d]", (int)id);
        gguf_put_entry(head, text, m);
    }
}

static void put_special_tokens(struct gguf_head *head, const struct tokenizer *t, const struct model_config *config)
{
    static const struct {
        const char *text, *key;
    } tokens[] = {{"<bos>", "tokenizer.ggml.bos_token_id"},
                  {"<unk>", "tokenizer.ggml.unknown_token_id"},
                  {"<pad>", "tokenizer.ggml.padding_token_id"},
                  {"<end_of_turn>", "tokenizer.ggml.eot_token_id"}};
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) {
        const int32_t id = tokenizer_id(t, tokens[i].text);
        if (id >= 0)
            gguf_put_u32(head, tokens[i].key, (uint32_t)id);
    }
    if (config->n_eos)
        gguf_put_u32(head, "tokenizer.ggml.eos_token_id", (uint32_t)config->eos[0]);
    gguf_put_bool(head, "tokenizer.ggml.add_bos_token", true);
    gguf_put_bool(head, "tokenizer.ggml.add_eos_token", false);
    gguf_put_bool(head, "tokenizer.ggml.add_space_prefix", false);
}

/* Where scores do not make the merges, ward reads them from a list; llama.cpp goes by the scores all the same. */
static void put_merges(struct gguf_head *head, const struct tokenizer *t)
{
    gguf_put_list(head, "tokenizer.ggml.merges", GGUF_STRING, NULL, t->n_merges);
    for (size_t i = 0; i < t->n_merges; i++) {
        char text[2 * VOCABULARY_MAX_PIECE + 1];
        size_t left, right;
        const char *first = tokenizer_piece(t, t->merges[i].left, &left);
        const char *second = tokenizer_piece(t, t->merges[i].right, &right);
        memcpy(text, first, left);
        text[left] = ' ';
        memcpy(text + left + 1, second, right);
        gguf_put_entry(head, text, left + 1 + right);
    }
}

static int put_tokenizer(struct gguf_head *head, const struct checkpoint *c, struct ward_error *err)
{
    const struct tokenizer *t = c->tokenizer;
    const int32_t n = c->config.text.vocab_size, size = tokenizer_size(t), most = n > size ? n : size;
    float *scores = calloc((size_t)most, sizeof *scores);
    uint8_t *types = calloc((size_t)most, 1);
    int32_t *wide = calloc((size_t)most, sizeof *wide);
    int rc = scores && types && wide ? 0 : error_no_memory(err, c->place.path, (size_t)most * 9);
    bool exact;
    if (!rc)
        rc = vocabulary_marks(t, scores, types, &exact, c->place.path, err);
    if (!rc) {
        for (int32_t id = 0; id < n; id++) {
            types[id] = id < size ? types[id] : PIECE_UNUSED;
            wide[id] = types[id];
            if (types[id] != PIECE_NORMAL && types[id] != PIECE_BYTE)
                scores[id] = -1000; /* as the converter has it: never merged to */
        }
        put_text(head, "tokenizer.ggml.model", "llama");
        put_text(head, "tokenizer.ggml.pre", "default");
        put_pieces(head, t, types, n);
        gguf_put_list(head, "tokenizer.ggml.scores", GGUF_FLOAT32, scores, (size_t)n);
        gguf_put_list(head, "tokenizer.ggml.token_type", GGUF_INT32, wide, (size_t)n);
        if (!exact)
            put_merges(head, t);
        put_special_tokens(head, t, &c->config);
    }
    free(scores);
    free(types);
    free(wide);
    return rc;
}

/* An empty one where there is none: readers would guess one from the vocabulary. */
static int put_chat_template(struct gguf_head *head, const struct checkpoint *c, struct ward_error *err)
{
    char *text;
    const int rc = chat_template_read(&text, c->place.path, err);
    if (!rc)
        put_text(head, "tokenizer.chat_template", text ? text : "");
    free(text);
    return rc;
}

int metadata_put_text(struct gguf_head *head, const struct metadata *m, struct ward_error *err)
{
    const struct checkpoint *c = m->source;
    put_text(head, "general.architecture", "gemma3");
    put_text(head, "general.type", "model");
    if (m->name)
        put_text(head, "general.name", m->name);
    put_general(head, m);
    put_text_shape(head, &c->config.text);
    put_layer_types(head, &c->config.text);
    if (c->text) {
        copy_keys(head, c->text, m->name != NULL, true);
        return 0;
    }
    const int rc = put_tokenizer(head, c, err);
    return rc ? rc : put_chat_template(head, c, err);
}

/* ---- vision ------------------------------------------------------------------------------------------------------ */

void metadata_put_vision(struct gguf_head *head, const struct metadata *m)
{
    const struct model_config *config = &m->source->config;
    const struct vision_config *v = &config->vision;
    const struct gguf *from = m->source->vision;
    put_text(head, "general.architecture", "clip");
    put_text(head, "general.type", "mmproj");
    if (m->name)
        put_text(head, "general.name", m->name);
    put_general(head, m);
    if (from)
        copy_keys(head, from, m->name != NULL, false);
    gguf_put_bool(head, "clip.has_vision_encoder", true);
    put_text(head, "clip.projector_type", "gemma3");
    gguf_put_bool(head, "clip.use_gelu", true);
    gguf_put_u32(head, "clip.vision.image_size", (uint32_t)v->image_size);
    gguf_put_u32(head, "clip.vision.patch_size", (uint32_t)v->patch_size);
    gguf_put_u32(head, "clip.vision.embedding_length", (uint32_t)v->hidden_size);
    gguf_put_u32(head, "clip.vision.feed_forward_length", (uint32_t)m->vision_inner);
    gguf_put_u32(head, "clip.vision.block_count", (uint32_t)v->n_layers);
    gguf_put_u32(head, "clip.vision.projection_dim", (uint32_t)config->text.hidden_size);
    gguf_put_u32(head, "clip.vision.attention.head_count", (uint32_t)v->n_heads);
    gguf_put_f32(head, "clip.vision.attention.layer_norm_epsilon", v->layer_norm_eps);
    const int side = v->image_size / v->patch_size;
    int pooled = 1;
    while (pooled * pooled < config->image_tokens)
        pooled++;
    gguf_put_u32(head, "clip.vision.projector.scale_factor", (uint32_t)(side / pooled));
    float mean[3], std[3];
    for (int i = 0; i < 3; i++) {
        mean[i] = (float)config->image.mean[i];
        std[i] = (float)config->image.std[i];
    }
    gguf_put_list(head, "clip.vision.image_mean", GGUF_FLOAT32, mean, 3);
    gguf_put_list(head, "clip.vision.image_std", GGUF_FLOAT32, std, 3);
}
