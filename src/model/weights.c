#include "model/weights.h"

#include "base/half.h"
#include "model/stored.h"
#include "model/to_float.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* What is being looked up among. */
struct index {
    struct stored_list list; /* sorted by part and name */
    const char *name;        /* of the folder or file, for errors */
    struct ward_error *err;
};

/* All that is allocated hangs together, and is freed together. */
struct open_weights {
    struct weights view; /* first: what callers see */
    struct safetensors *files;
    float *floats; /* norms and biases, one after the other */
    size_t n_floats;
    void *projector;
};

/* ---- names ------------------------------------------------------------------------------------------------------- */

static int compare_stored(const void *a, const void *b)
{
    const struct stored *x = a, *y = b;
    return x->part != y->part ? (int)x->part - (int)y->part : strcmp(x->name, y->name);
}

static int index_sort(struct index *index)
{
    struct stored *at = index->list.at;
    qsort(at, index->list.n, sizeof *at, compare_stored);
    for (size_t i = 1; i < index->list.n; i++)
        if (!compare_stored(&at[i - 1], &at[i]))
            return error_set(index->err, WARD_EFORMAT, "%s: tensor %s is the same as %s", at[i].file, at[i].written,
                             at[i - 1].written);
    return 0;
}

static const struct stored *index_take(struct index *index, enum part part, const char *name)
{
    const struct stored key = {.part = part, .name = name};
    struct stored *found = bsearch(&key, index->list.at, index->list.n, sizeof key, compare_stored);
    if (found)
        found->used = true;
    return found;
}

static int check_all_used(const struct index *index)
{
    for (size_t i = 0; i < index->list.n; i++) {
        const struct stored *entry = &index->list.at[i];
        if (!entry->used && !stored_is_harmless(entry))
            return error_set(index->err, WARD_EUNSUPPORTED, "%s: tensor %s is not part of the model that %s",
                             entry->file, entry->written,
                             index->list.norms_added ? "the file describes" : "config.json describes");
    }
    return 0;
}

/* ---- one tensor -------------------------------------------------------------------------------------------------- */

/* What is being looked up; the first error ends the lookups, as the first missing tensor makes the rest pointless. */
struct loader {
    struct index *index;
    struct open_weights *out;
    char prefix[64]; /* of the layer: "layers.3." */
    int rc;
};

static void write_shape(char text[128], const int64_t *shape, int n)
{
    size_t used = 0;
    text[0] = '\0';
    for (int i = 0; i < n && used < 100; i++)
        used += (size_t)snprintf(text + used, 128 - used, "%s%lld", i ? ", " : "", (long long)shape[i]);
}

/* A part's name before its tensors' names, in Google's files. */
static const char *part_prefix(const struct loader *l, enum part part)
{
    static const char *const parts[] = {"model.", "lm_head.", "vision_tower.vision_model.", "multi_modal_projector."};
    static const char *const nested[] = {"language_model.model.", "lm_head.", "vision_tower.vision_model.",
                                         "multi_modal_projector."};
    return (l->out->view.vision.layers ? nested : parts)[part];
}

/* The tensor `name` of `part` with exactly this shape and a type that ward computes with, or NULL after an error. */
static const struct stored *load(struct loader *l, enum part part, const char *name, const int64_t *shape, int n_dims)
{
    if (l->rc)
        return NULL;
    char full[128], found[128], expected[128];
    snprintf(full, sizeof full, "%s%s", l->prefix, name);
    const struct stored *t = index_take(l->index, part, full);
    struct ward_error *err = l->index->err;
    if (!t) {
        l->rc = error_set(err, WARD_EFORMAT, "%s: tensor %s%s is missing", l->index->name, part_prefix(l, part), full);
        return NULL;
    }
    if (t->n_dims != n_dims || memcmp(t->shape, shape, (size_t)n_dims * sizeof *shape)) {
        write_shape(found, t->shape, t->n_dims);
        write_shape(expected, shape, n_dims);
        l->rc = error_set(err, WARD_EFORMAT, "%s: tensor %s has shape [%s], expected [%s]", t->file, t->written, found,
                          expected);
        return NULL;
    }
    if (t->type < 0) {
        l->rc = error_set(err, WARD_EUNSUPPORTED, "%s: tensor %s has dtype %s, expected BF16, F16 or F32%s", t->file,
                          t->written, t->type_name,
                          l->index->list.norms_added ? ", Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K or Q6_K" : "");
        return NULL;
    }
    return t;
}

static void load_matrix(struct loader *l, struct tensor *out, enum part part, const char *name, int rows, int cols)
{
    const struct stored *t = load(l, part, name, (const int64_t[]){rows, cols}, 2);
    if (t)
        *out = (struct tensor){t->data, (enum tensor_type)t->type, rows, cols};
}

/* What is not multiplied as blocks of quantized values must be floats: vectors, patches, positions. */
static bool expect_float(struct loader *l, const struct stored *t)
{
    if (t && !tensor_is_float((enum tensor_type)t->type)) {
        l->rc = error_set(l->index->err, WARD_EUNSUPPORTED, "%s: tensor %s has type %s, expected bf16, f16 or f32",
                          t->file, t->written, t->type_name);
        return false;
    }
    return t != NULL;
}

/* Widened to float32, with `add` added: 1 for Gemma's norms. */
static const float *load_vector(struct loader *l, enum part part, const char *name, int n, float add)
{
    const struct stored *t = load(l, part, name, (const int64_t[]){n}, 1);
    if (!expect_float(l, t))
        return NULL;
    float *out = l->out->floats + l->out->n_floats;
    l->out->n_floats += (size_t)n;
    tensor_to_float[t->type](out, t->data, n);
    for (int i = 0; i < n; i++)
        out[i] += add;
    return out;
}

/* A norm of Gemma's, which multiplies by 1 + w. */
static const float *load_norm(struct loader *l, enum part part, const char *name, int n)
{
    return load_vector(l, part, name, n, l->index->list.norms_added ? 0 : 1);
}

/* ---- text -------------------------------------------------------------------------------------------------------- */

static void load_text_layer(struct loader *l, struct text_layer *layer, const struct text_config *c)
{
    const int hidden = c->hidden_size, inner = c->intermediate_size;
    const int queries = c->n_heads * c->head_dim, keys = c->n_kv_heads * c->head_dim;
    const enum part part = PART_TEXT;
    layer->input_norm = load_norm(l, part, "input_layernorm.weight", hidden);
    layer->post_attention_norm = load_norm(l, part, "post_attention_layernorm.weight", hidden);
    layer->pre_feedforward_norm = load_norm(l, part, "pre_feedforward_layernorm.weight", hidden);
    layer->post_feedforward_norm = load_norm(l, part, "post_feedforward_layernorm.weight", hidden);
    layer->q_norm = load_norm(l, part, "self_attn.q_norm.weight", c->head_dim);
    layer->k_norm = load_norm(l, part, "self_attn.k_norm.weight", c->head_dim);
    load_matrix(l, &layer->q, part, "self_attn.q_proj.weight", queries, hidden);
    load_matrix(l, &layer->k, part, "self_attn.k_proj.weight", keys, hidden);
    load_matrix(l, &layer->v, part, "self_attn.v_proj.weight", keys, hidden);
    load_matrix(l, &layer->o, part, "self_attn.o_proj.weight", hidden, queries);
    load_matrix(l, &layer->gate, part, "mlp.gate_proj.weight", inner, hidden);
    load_matrix(l, &layer->up, part, "mlp.up_proj.weight", inner, hidden);
    load_matrix(l, &layer->down, part, "mlp.down_proj.weight", hidden, inner);
}

/* A head that is stored is used, also where config.json ties it: transformers unties them when they differ. */
static void load_text(struct loader *l, struct text_weights *text, const struct text_config *c)
{
    load_matrix(l, &text->embed, PART_TEXT, "embed_tokens.weight", c->vocab_size, c->hidden_size);
    text->norm = load_norm(l, PART_TEXT, "norm.weight", c->hidden_size);
    if (c->tied_embeddings && !index_take(l->index, PART_HEAD, "weight"))
        text->head = text->embed;
    else
        load_matrix(l, &text->head, PART_HEAD, "weight", c->vocab_size, c->hidden_size);
    for (int i = 0; i < c->n_layers && !l->rc; i++) {
        snprintf(l->prefix, sizeof l->prefix, "layers.%d.", i);
        load_text_layer(l, &text->layers[i], c);
    }
    l->prefix[0] = '\0';
}

/* ---- vision ------------------------------------------------------------------------------------------------------ */

static void load_vision_layer(struct loader *l, struct vision_layer *layer, const struct vision_config *c)
{
    const int hidden = c->hidden_size, inner = c->intermediate_size;
    const enum part part = PART_VISION;
    layer->norm1 = load_vector(l, part, "layer_norm1.weight", hidden, 0);
    layer->norm1_bias = load_vector(l, part, "layer_norm1.bias", hidden, 0);
    layer->norm2 = load_vector(l, part, "layer_norm2.weight", hidden, 0);
    layer->norm2_bias = load_vector(l, part, "layer_norm2.bias", hidden, 0);
    load_matrix(l, &layer->q, part, "self_attn.q_proj.weight", hidden, hidden);
    load_matrix(l, &layer->k, part, "self_attn.k_proj.weight", hidden, hidden);
    load_matrix(l, &layer->v, part, "self_attn.v_proj.weight", hidden, hidden);
    load_matrix(l, &layer->out, part, "self_attn.out_proj.weight", hidden, hidden);
    layer->q_bias = load_vector(l, part, "self_attn.q_proj.bias", hidden, 0);
    layer->k_bias = load_vector(l, part, "self_attn.k_proj.bias", hidden, 0);
    layer->v_bias = load_vector(l, part, "self_attn.v_proj.bias", hidden, 0);
    layer->out_bias = load_vector(l, part, "self_attn.out_proj.bias", hidden, 0);
    load_matrix(l, &layer->fc1, part, "mlp.fc1.weight", inner, hidden);
    load_matrix(l, &layer->fc2, part, "mlp.fc2.weight", hidden, inner);
    layer->fc1_bias = load_vector(l, part, "mlp.fc1.bias", inner, 0);
    layer->fc2_bias = load_vector(l, part, "mlp.fc2.bias", hidden, 0);
}

/* The convolution over patches is a linear map of their pixels: [E][3][P][P] is [E][3*P*P]. */
static void load_patch(struct loader *l, struct tensor *out, const struct vision_config *c)
{
    const int64_t shape[] = {c->hidden_size, c->n_channels, c->patch_size, c->patch_size};
    const struct stored *t = load(l, PART_VISION, "embeddings.patch_embedding.weight", shape, 4);
    if (expect_float(l, t))
        *out = (struct tensor){t->data, (enum tensor_type)t->type, c->hidden_size,
                               c->n_channels * c->patch_size * c->patch_size};
}

/* out[col][row] = in[row][col], in blocks that stay in the cache. `size` is a constant at each call, which makes memcpy
 * a move. */
static inline void transpose(uint8_t *out, const uint8_t *in, size_t rows, size_t cols, size_t size)
{
    enum { BLOCK = 32 };
    for (size_t row0 = 0; row0 < rows; row0 += BLOCK)
        for (size_t col0 = 0; col0 < cols; col0 += BLOCK)
            for (size_t col = col0; col < cols && col < col0 + BLOCK; col++)
                for (size_t row = row0; row < rows && row < row0 + BLOCK; row++)
                    memcpy(out + (col * rows + row) * size, in + (row * cols + col) * size, size);
}

/* Blocks run along the rows that are to become columns: such a matrix is widened. */
static void load_projector(struct loader *l, struct tensor *out, int vision_hidden, int text_hidden)
{
    const int64_t shape[] = {vision_hidden, text_hidden};
    const struct stored *t = load(l, PART_PROJECTOR, "mm_input_projection_weight", shape, 2);
    if (!t)
        return;
    const enum tensor_type stored = (enum tensor_type)t->type, type = tensor_is_float(stored) ? stored : TENSOR_F32;
    const size_t n = (size_t)vision_hidden * (size_t)text_hidden;
    float *wide = type == stored ? NULL : malloc(n * sizeof *wide);
    l->out->projector = malloc(tensor_bytes(type, n));
    if (!l->out->projector || (type != stored && !wide)) {
        l->rc = error_no_memory(l->index->err, "the image projector", tensor_bytes(type, n));
        free(wide);
        return;
    }
    const uint8_t *in = t->data;
    if (wide) {
        tensor_to_float[stored](wide, t->data, (int)n);
        in = (const uint8_t *)wide;
    }
    if (tensor_bytes(type, 1) == 2)
        transpose(l->out->projector, in, (size_t)vision_hidden, (size_t)text_hidden, 2);
    else
        transpose(l->out->projector, in, (size_t)vision_hidden, (size_t)text_hidden, 4);
    free(wide);
    *out = (struct tensor){l->out->projector, type, text_hidden, vision_hidden};
}

static void load_vision(struct loader *l, struct vision_weights *vision, const struct model_config *config)
{
    const struct vision_config *c = &config->vision;
    const int side = c->image_size / c->patch_size, hidden = c->hidden_size;
    load_patch(l, &vision->patch, c);
    vision->patch_bias = load_vector(l, PART_VISION, "embeddings.patch_embedding.bias", hidden, 0);
    load_matrix(l, &vision->position, PART_VISION, "embeddings.position_embedding.weight", side * side, hidden);
    vision->post_norm = load_vector(l, PART_VISION, "post_layernorm.weight", hidden, 0);
    vision->post_norm_bias = load_vector(l, PART_VISION, "post_layernorm.bias", hidden, 0);
    for (int i = 0; i < c->n_layers && !l->rc; i++) {
        snprintf(l->prefix, sizeof l->prefix, "encoder.layers.%d.", i);
        load_vision_layer(l, &vision->layers[i], c);
    }
    l->prefix[0] = '\0';
    vision->projector_norm = load_norm(l, PART_PROJECTOR, "mm_soft_emb_norm.weight", hidden);
    load_projector(l, &vision->projector, hidden, config->text.hidden_size);
}

/* ---- all --------------------------------------------------------------------------------------------------------- */

/* Room for all vectors that the files hold: of those that the config speaks of many may be missing. */
static int allocate(struct open_weights *w, const struct stored_list *list, const struct model_config *config,
                    struct ward_error *err)
{
    const bool vision = config->vision.n_layers > 0;
    size_t n_floats = 1;
    for (size_t i = 0; i < list->n; i++) {
        const struct stored *t = &list->at[i];
        if (t->n_dims == 1 && t->type >= 0 && tensor_is_float((enum tensor_type)t->type))
            n_floats += t->size / tensor_bytes((enum tensor_type)t->type, 1);
    }
    w->floats = malloc(n_floats * sizeof *w->floats);
    w->view.text.layers = calloc((size_t)config->text.n_layers, sizeof *w->view.text.layers);
    if (vision)
        w->view.vision.layers = calloc((size_t)config->vision.n_layers, sizeof *w->view.vision.layers);
    if (!w->floats || !w->view.text.layers || (vision && !w->view.vision.layers))
        return error_no_memory(err, "the norms and biases", n_floats * sizeof *w->floats);
    return 0;
}

static int load_all(struct open_weights *w, struct index *index, const struct model_config *config)
{
    struct loader loader = {.index = index, .out = w};
    loader.rc = index_sort(index);
    if (!loader.rc)
        load_text(&loader, &w->view.text, &config->text);
    if (!loader.rc && config->vision.n_layers)
        load_vision(&loader, &w->view.vision, config);
    return loader.rc ? loader.rc : check_all_used(index);
}

/* Norms and biases are strewn over the files: asking for all of them before the first is touched lets a cold disk read
 * them side by side. The matrices are left to come as they are used. */
static void prefetch_small(const struct stored_list *list)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    for (size_t i = 0; i < list->n; i++) {
        const struct stored *t = &list->at[i];
        const uintptr_t begin = (uintptr_t)t->data & ~(page - 1);
        if (t->n_dims == 1)
            (void)madvise((void *)begin, (uintptr_t)t->data + t->size - begin, MADV_WILLNEED);
    }
}

/* The type in which most bytes of the decoder's matrices are stored. */
static enum tensor_type main_type(const struct stored_list *list)
{
    size_t bytes[TENSOR_TYPES] = {0};
    int best = 0;
    for (size_t i = 0; i < list->n; i++)
        if (list->at[i].part == PART_TEXT && list->at[i].n_dims == 2 && list->at[i].type >= 0)
            bytes[list->at[i].type] += list->at[i].size;
    for (int type = 1; type < TENSOR_TYPES; type++)
        if (bytes[type] > bytes[best])
            best = type;
    return (enum tensor_type)best;
}

static int open_list(struct open_weights *w, struct index *index, const struct model_config *config)
{
    int rc = allocate(w, &index->list, config, index->err);
    if (!rc) {
        prefetch_small(&index->list);
        rc = load_all(w, index, config);
        w->view.type = main_type(&index->list);
    }
    return rc;
}

int weights_open(struct weights **out, const char *folder, const struct model_config *config, struct ward_error *err)
{
    *out = NULL;
    struct open_weights *w = calloc(1, sizeof *w);
    if (!w)
        return error_no_memory(err, "the weights", sizeof *w);
    struct index index = {.name = folder, .err = err};
    int rc = safetensors_open(&w->files, folder, err);
    if (!rc)
        rc = stored_from_safetensors(&index.list, w->files, err);
    if (!rc)
        rc = open_list(w, &index, config);
    stored_free(&index.list);
    *out = &w->view;
    if (rc)
        weights_close(out);
    else
        (*out)->mapped_bytes = safetensors_mapped_bytes(w->files);
    return rc;
}

int weights_from_gguf(struct weights **out, const struct gguf *text, const struct gguf *vision,
                      const struct model_config *config, struct ward_error *err)
{
    *out = NULL;
    struct open_weights *w = calloc(1, sizeof *w);
    if (!w)
        return error_no_memory(err, "the weights", sizeof *w);
    struct index index = {.name = gguf_name(text), .err = err};
    int rc = stored_from_gguf(&index.list, text, vision, err);
    if (!rc)
        rc = open_list(w, &index, config);
    stored_free(&index.list);
    *out = &w->view;
    if (rc)
        weights_close(out);
    else
        (*out)->mapped_bytes = gguf_size(text) + (vision && vision != text ? gguf_size(vision) : 0);
    return rc;
}

void weights_close(struct weights **weights)
{
    struct open_weights *w = (struct open_weights *)*weights;
    if (!w)
        return;
    safetensors_close(&w->files);
    free(w->floats);
    free(w->projector);
    free(w->view.text.layers);
    free(w->view.vision.layers);
    free(w);
    *weights = NULL;
}
