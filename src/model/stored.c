#include "model/stored.h"

#include "base/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int allocate(struct stored_list *out, size_t n, bool names, struct ward_error *err)
{
    *out = (struct stored_list){.at = calloc(n + 1, sizeof *out->at), .names = names ? calloc(n + 1, STORED_NAME_ROOM) : NULL};
    return out->at && (out->names || !names) ? 0
                                             : error_no_memory(err, "the list of tensors", (n + 1) * sizeof *out->at);
}

bool stored_is_harmless(const struct stored *s)
{
    if (s->part == PART_VISION)
        return !strcmp(s->name, "embeddings.position_ids") || starts_with(s->name, "head.");
    return s->part == PART_TEXT && ends_with(s->name, "inv_freq");
}

void stored_free(struct stored_list *list)
{
    free(list->at);
    free(list->names);
    *list = (struct stored_list){0};
}

/* ---- safetensors ------------------------------------------------------------------------------------------------- */

static bool skip_prefix(const char **name, const char *prefix)
{
    const size_t length = strlen(prefix);
    if (strncmp(*name, prefix, length))
        return false;
    *name += length;
    return true;
}

/* Names differ by who wrote the file: Google, transformers 4.52 to 4.57, transformers 5. What they share is the part of
 * the model and the name within it: [model.]vision_tower.[vision_model.]X, [model.]multi_modal_projector.X,
 * [language_model.]lm_head.X, [model.][language_model.][model.]X */
static enum part split_name(const char **name)
{
    skip_prefix(name, "model.");
    if (skip_prefix(name, "vision_tower.")) {
        skip_prefix(name, "vision_model.");
        return PART_VISION;
    }
    if (skip_prefix(name, "multi_modal_projector."))
        return PART_PROJECTOR;
    skip_prefix(name, "language_model.");
    if (skip_prefix(name, "lm_head."))
        return PART_HEAD;
    skip_prefix(name, "model.");
    return PART_TEXT;
}

int stored_from_safetensors(struct stored_list *out, const struct safetensors *files, struct ward_error *err)
{
    static const struct {
        const char *dtype;
        enum tensor_type type;
    } types[] = {{"BF16", TENSOR_BF16}, {"F16", TENSOR_F16}, {"F32", TENSOR_F32}};
    const int rc = allocate(out, safetensors_count(files), false, err);
    if (rc)
        return rc;
    for (out->n = 0; out->n < safetensors_count(files); out->n++) {
        const struct safetensor *t = safetensors_at(files, out->n);
        struct stored *s = &out->at[out->n];
        *s = (struct stored){.name = t->name, .file = t->file, .written = t->name, .type = -1, .type_name = t->dtype,
                             .n_dims = t->n_dims, .data = t->data, .size = t->size};
        s->part = split_name(&s->name);
        memcpy(s->shape, t->shape, sizeof t->shape);
        for (size_t i = 0; i < sizeof types / sizeof *types; i++)
            if (!strcmp(t->dtype, types[i].dtype))
                s->type = types[i].type;
    }
    return 0;
}

/* ---- GGUF -------------------------------------------------------------------------------------------------------- */

struct rename {
    const char *from, *to;
};

/* llama.cpp's names. */
static const struct rename text_layer[] = {
    {"attn_norm.", "input_layernorm."},
    {"post_attention_norm.", "post_attention_layernorm."},
    {"ffn_norm.", "pre_feedforward_layernorm."},
    {"post_ffw_norm.", "post_feedforward_layernorm."},
    {"attn_q_norm.", "self_attn.q_norm."},
    {"attn_k_norm.", "self_attn.k_norm."},
    {"attn_q.", "self_attn.q_proj."},
    {"attn_k.", "self_attn.k_proj."},
    {"attn_v.", "self_attn.v_proj."},
    {"attn_output.", "self_attn.o_proj."},
    {"ffn_gate.", "mlp.gate_proj."},
    {"ffn_up.", "mlp.up_proj."},
    {"ffn_down.", "mlp.down_proj."},
};
/* llama.cpp's names, then Ollama's where they differ. */
static const struct rename vision_layer[] = {
    {"ln1.", "layer_norm1."},
    {"ln2.", "layer_norm2."},
    {"attn_q.", "self_attn.q_proj."},
    {"attn_k.", "self_attn.k_proj."},
    {"attn_v.", "self_attn.v_proj."},
    {"attn_out.", "self_attn.out_proj."},
    {"ffn_up.", "mlp.fc1."},
    {"ffn_down.", "mlp.fc2."},
    {"layer_norm1.", "layer_norm1."},
    {"layer_norm2.", "layer_norm2."},
    {"attn_output.", "self_attn.out_proj."},
    {"mlp.fc1.", "mlp.fc1."},
    {"mlp.fc2.", "mlp.fc2."},
};
static const struct {
    enum part part;
    const char *from, *to;
} whole_names[] = {
    {PART_TEXT, "token_embd.weight", "embed_tokens.weight"},
    {PART_TEXT, "output_norm.weight", "norm.weight"},
    {PART_HEAD, "output.weight", "weight"},
    {PART_VISION, "v.patch_embd.weight", "embeddings.patch_embedding.weight"},
    {PART_VISION, "v.patch_embd.bias", "embeddings.patch_embedding.bias"},
    {PART_VISION, "v.position_embd.weight", "embeddings.position_embedding.weight"},
    {PART_VISION, "v.post_ln.weight", "post_layernorm.weight"},
    {PART_VISION, "v.post_ln.bias", "post_layernorm.bias"},
    {PART_VISION, "v.patch_embedding.weight", "embeddings.patch_embedding.weight"},
    {PART_VISION, "v.patch_embedding.bias", "embeddings.patch_embedding.bias"},
    {PART_VISION, "v.position_embedding.weight", "embeddings.position_embedding.weight"},
    {PART_VISION, "v.post_layernorm.weight", "post_layernorm.weight"},
    {PART_VISION, "v.post_layernorm.bias", "post_layernorm.bias"},
    {PART_PROJECTOR, "mm.input_projection.weight", "mm_input_projection_weight"},
    {PART_PROJECTOR, "mm.soft_emb_norm.weight", "mm_soft_emb_norm.weight"},
    {PART_PROJECTOR, "mm.mm_input_projection.weight", "mm_input_projection_weight"},
    {PART_PROJECTOR, "mm.mm_soft_emb_norm.weight", "mm_soft_emb_norm.weight"},
};

/* blk.3.attn_q.weight -> layers.3.self_attn.q_proj.weight */
static bool rename_layer(char *out, const char *name, const char *layers, const struct rename *list, size_t n)
{
    const size_t digits = strspn(name, "0123456789");
    if (!digits || digits > 4 || name[digits] != '.')
        return false;
    const char *rest = name + digits + 1;
    for (size_t i = 0; i < n; i++) {
        const char *end = rest;
        if (skip_prefix(&end, list[i].from) && (!strcmp(end, "weight") || !strcmp(end, "bias"))) {
            snprintf(out, STORED_NAME_ROOM, "%s%.*s.%s%s", layers, (int)digits, name, list[i].to, end);
            return true;
        }
    }
    return false;
}

/* layers.3.self_attn.q_proj.weight -> blk.3.attn_q.weight */
static bool name_layer(char *out, const char *name, const char *layers, const struct rename *list, size_t n)
{
    const char *rest = name;
    if (!skip_prefix(&rest, layers[0] == 'v' ? "encoder.layers." : "layers."))
        return false;
    const size_t digits = strspn(rest, "0123456789");
    for (size_t i = 0; i < n && rest[digits] == '.'; i++) {
        const char *end = rest + digits + 1;
        if (skip_prefix(&end, list[i].to)) {
            snprintf(out, STORED_NAME_ROOM, "%s%.*s.%s%s", layers, (int)digits, rest, list[i].from, end);
            return true;
        }
    }
    return false;
}

bool stored_gguf_name(char out[STORED_NAME_ROOM], const struct stored *s)
{
    for (size_t i = 0; i < sizeof whole_names / sizeof *whole_names; i++)
        if (s->part == whole_names[i].part && !strcmp(s->name, whole_names[i].to)) {
            snprintf(out, STORED_NAME_ROOM, "%s", whole_names[i].from);
            return true;
        }
    return s->part == PART_VISION
               ? name_layer(out, s->name, "v.blk.", vision_layer, sizeof vision_layer / sizeof *vision_layer)
               : name_layer(out, s->name, "blk.", text_layer, sizeof text_layer / sizeof *text_layer);
}

/* Old files of llama.cpp's swap the two maps of the encoder's MLP. */
static void swap_maps(char *name)
{
    char *at = strstr(name, ".mlp.fc");
    if (at)
        at[7] = at[7] == '1' ? '2' : '1';
}

/* Sets part and name; a tensor that is none of the model's keeps its own name. */
static void rename_tensor(struct stored *s, char *room, bool swapped)
{
    const char *layer = s->written;
    s->name = s->written;
    for (size_t i = 0; i < sizeof whole_names / sizeof *whole_names; i++)
        if (!strcmp(s->written, whole_names[i].from)) {
            s->part = whole_names[i].part;
            s->name = whole_names[i].to;
        }
    if (skip_prefix(&layer, "blk.")) {
        if (rename_layer(room, layer, "layers.", text_layer, sizeof text_layer / sizeof *text_layer))
            s->name = room;
    } else if (skip_prefix(&layer, "v.blk.")) {
        s->part = PART_VISION;
        if (rename_layer(room, layer, "encoder.layers.", vision_layer, sizeof vision_layer / sizeof *vision_layer))
            s->name = room;
        if (swapped)
            swap_maps(room);
    } else if (!strncmp(s->written, "v.", 2)) {
        s->part = PART_VISION;
    } else if (!strncmp(s->written, "mm.", 3)) {
        s->part = PART_PROJECTOR;
    }
}

/* Then what is called the second map takes the encoder's width. */
static bool is_swapped(const struct gguf *vision)
{
    const struct gguf_tensor *down = gguf_tensor(vision, "v.blk.0.ffn_down.weight");
    const struct gguf_tensor *query = gguf_tensor(vision, "v.blk.0.attn_q.weight");
    const struct gguf_tensor *up = gguf_tensor(vision, "v.blk.0.ffn_up.weight");
    return down && query && up && down->dims[0] == query->dims[0] && up->dims[0] != query->dims[0];
}

/* Of a file for both that is opened for its text alone, the encoder is left out. */
static void add_file(struct stored_list *out, const struct gguf *file, bool vision)
{
    const bool swapped = vision && is_swapped(file);
    for (size_t i = 0; i < gguf_n_tensors(file); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(file, i);
        struct stored *s = &out->at[out->n];
        *s = (struct stored){.file = gguf_name(file), .written = t->name, .type = t->type, .type_name = t->type_name,
                             .n_dims = t->n_dims, .data = t->data, .size = t->size};
        rename_tensor(s, out->names + out->n * STORED_NAME_ROOM, swapped);
        for (int d = 0; d < t->n_dims; d++)
            s->shape[d] = (int64_t)t->dims[t->n_dims - 1 - d];
        out->n += vision || (s->part != PART_VISION && s->part != PART_PROJECTOR);
    }
}

int stored_from_gguf(struct stored_list *out, const struct gguf *text, const struct gguf *vision,
                     struct ward_error *err)
{
    const bool apart = vision && vision != text;
    const size_t n = gguf_n_tensors(text) + (apart ? gguf_n_tensors(vision) : 0);
    const int rc = allocate(out, n, true, err);
    if (rc)
        return rc;
    out->norms_added = true;
    add_file(out, text, vision == text);
    if (apart)
        add_file(out, vision, true);
    return 0;
}
