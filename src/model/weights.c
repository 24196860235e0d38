#include "model/weights.h"

#include "base/half.h"
#include "model/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Names on disk differ by who wrote the file: Google, transformers 4.52 to 4.57, transformers 5. What they share is the
 * part of the model and the name within it. */
enum part { PART_TEXT, PART_HEAD, PART_VISION, PART_PROJECTOR };

struct entry {
    enum part part;
    const char *name; /* within its part, in the safetensors' memory */
    const struct safetensor *tensor;
    bool used;
};

struct index {
    struct entry *entries; /* sorted by part and name */
    size_t n;
    const char *folder;
    struct ward_error *err;
};

/* All that is allocated hangs together, and is freed together. */
struct open_weights {
    struct weights view; /* first: what callers see */
    struct safetensors *files;
    float *floats; /* norms and biases, one after the other */
    size_t n_floats, room;
    void *projector;
};

/* ---- names ------------------------------------------------------------------------------------------------------- */

static bool skip_prefix(const char **name, const char *prefix)
{
    const size_t length = strlen(prefix);
    if (strncmp(*name, prefix, length))
        return false;
    *name += length;
    return true;
}

/* [model.]vision_tower.[vision_model.]X, [model.]multi_modal_projector.X, [language_model.]lm_head.X,
 * [model.][language_model.][model.]X */
static struct entry entry_of(const struct safetensor *tensor)
{
    const char *name = tensor->name;
    enum part part = PART_TEXT;
    skip_prefix(&name, "model.");
    if (skip_prefix(&name, "vision_tower.")) {
        skip_prefix(&name, "vision_model.");
        part = PART_VISION;
    } else if (skip_prefix(&name, "multi_modal_projector.")) {
        part = PART_PROJECTOR;
    } else {
        skip_prefix(&name, "language_model.");
        if (skip_prefix(&name, "lm_head."))
            part = PART_HEAD;
        else
            skip_prefix(&name, "model.");
    }
    return (struct entry){part, name, tensor, false};
}

static int compare_entries(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    return x->part != y->part ? (int)x->part - (int)y->part : strcmp(x->name, y->name);
}

static int index_build(struct index *index, const struct safetensors *files)
{
    index->n = safetensors_count(files);
    index->entries = calloc(index->n + 1, sizeof *index->entries);
    if (!index->entries)
        return error_no_memory(index->err, "the list of tensors", (index->n + 1) * sizeof *index->entries);
    for (size_t i = 0; i < index->n; i++)
        index->entries[i] = entry_of(safetensors_at(files, i));
    qsort(index->entries, index->n, sizeof *index->entries, compare_entries);
    for (size_t i = 1; i < index->n; i++) {
        const struct safetensor *one = index->entries[i - 1].tensor, *other = index->entries[i].tensor;
        if (!compare_entries(&index->entries[i - 1], &index->entries[i]))
            return error_set(index->err, WARD_EFORMAT, "%s: tensor %s is the same as %s", other->file, other->name,
                             one->name);
    }
    return 0;
}

static const struct safetensor *index_take(struct index *index, enum part part, const char *name)
{
    const struct entry key = {.part = part, .name = name};
    struct entry *entry = bsearch(&key, index->entries, index->n, sizeof key, compare_entries);
    if (!entry)
        return NULL;
    entry->used = true;
    return entry->tensor;
}

static bool ends_with(const char *text, const char *end)
{
    const size_t length = strlen(text), tail = strlen(end);
    return length >= tail && !strcmp(text + length - tail, end);
}

/* Buffers that old versions stored and that are computed anyway, and SigLIP's pooling head, which Gemma 3 does not run.
 */
static bool is_harmless(const struct entry *entry)
{
    if (entry->part == PART_VISION)
        return !strcmp(entry->name, "embeddings.position_ids") || !strncmp(entry->name, "head.", 5);
    return entry->part == PART_TEXT && ends_with(entry->name, "inv_freq");
}

static int check_all_used(const struct index *index)
{
    for (size_t i = 0; i < index->n; i++) {
        const struct entry *entry = &index->entries[i];
        if (!entry->used && !is_harmless(entry))
            return error_set(index->err, WARD_EUNSUPPORTED,
                             "%s: tensor %s is not part of the model that config.json describes", entry->tensor->file,
                             entry->tensor->name);
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

/* The tensor `name` of `part` with exactly this shape and a float dtype, or NULL after an error. */
static const struct safetensor *load(struct loader *l, enum part part, const char *name, const int64_t *shape,
                                     int n_dims, enum tensor_type *type)
{
    static const char *const parts[] = {"model.", "lm_head.", "vision_tower.vision_model.", "multi_modal_projector."};
    static const struct {
        const char *dtype;
        enum tensor_type type;
    } types[] = {{"BF16", TENSOR_BF16}, {"F16", TENSOR_F16}, {"F32", TENSOR_F32}};
    if (l->rc)
        return NULL;
    char full[128], found[128], expected[128];
    snprintf(full, sizeof full, "%s%s", l->prefix, name);
    const struct safetensor *t = index_take(l->index, part, full);
    struct ward_error *err = l->index->err;
    if (!t) {
        l->rc = error_set(err, WARD_EFORMAT, "%s: tensor %s%s%s is missing", l->index->folder,
                          l->out->view.vision.layers && part == PART_TEXT ? "language_model." : "", parts[part], full);
        return NULL;
    }
    if (t->n_dims != n_dims || memcmp(t->shape, shape, (size_t)n_dims * sizeof *shape)) {
        write_shape(found, t->shape, t->n_dims);
        write_shape(expected, shape, n_dims);
        l->rc = error_set(err, WARD_EFORMAT, "%s: tensor %s has shape [%s], expected [%s]", t->file, t->name, found,
                          expected);
        return NULL;
    }
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (!strcmp(t->dtype, types[i].dtype)) {
            *type = types[i].type;
            return t;
        }
    l->rc = error_set(err, WARD_EUNSUPPORTED, "%s: tensor %s has dtype %s, expected BF16, F16 or F32", t->file, t->name,
                      t->dtype);
    return NULL;
}

static void load_matrix(struct loader *l, struct tensor *out, enum part part, const char *name, int rows, int cols)
{
    enum tensor_type type = TENSOR_F32;
    const struct safetensor *t = load(l, part, name, (const int64_t[]){rows, cols}, 2, &type);
    if (t)
        *out = (struct tensor){t->data, type, rows, cols};
}

/* Widened to float32, with `add` added: 1 for Gemma's norms. */
static const float *load_vector(struct loader *l, enum part part, const char *name, int n, float add)
{
    enum tensor_type type;
    const struct safetensor *t = load(l, part, name, (const int64_t[]){n}, 1, &type);
    if (!t)
        return NULL;
    float *out = l->out->floats + l->out->n_floats;
    l->out->n_floats += (size_t)n;
    for (int i = 0; i < n; i++) {
        uint16_t half;
        if (type == TENSOR_F32) {
            memcpy(&out[i], t->data + (size_t)i * 4, 4);
        } else {
            memcpy(&half, t->data + (size_t)i * 2, 2);
            out[i] = type == TENSOR_BF16 ? bf16_to_float(half) : f16_to_float(half);
        }
        out[i] += add;
    }
    return out;
}

/* ---- text -------------------------------------------------------------------------------------------------------- */

static void load_text_layer(struct loader *l, struct text_layer *layer, const struct text_config *c)
{
    const int hidden = c->hidden_size, inner = c->intermediate_size;
    const int queries = c->n_heads * c->head_dim, keys = c->n_kv_heads * c->head_dim;
    const enum part part = PART_TEXT;
    layer->input_norm = load_vector(l, part, "input_layernorm.weight", hidden, 1);
    layer->post_attention_norm = load_vector(l, part, "post_attention_layernorm.weight", hidden, 1);
    layer->pre_feedforward_norm = load_vector(l, part, "pre_feedforward_layernorm.weight", hidden, 1);
    layer->post_feedforward_norm = load_vector(l, part, "post_feedforward_layernorm.weight", hidden, 1);
    layer->q_norm = load_vector(l, part, "self_attn.q_norm.weight", c->head_dim, 1);
    layer->k_norm = load_vector(l, part, "self_attn.k_norm.weight", c->head_dim, 1);
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
    text->norm = load_vector(l, PART_TEXT, "norm.weight", c->hidden_size, 1);
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

static size_t text_floats(const struct text_config *c)
{
    return (size_t)c->n_layers * (4 * (size_t)c->hidden_size + 2 * (size_t)c->head_dim) + (size_t)c->hidden_size;
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
    enum tensor_type type;
    const int64_t shape[] = {c->hidden_size, c->n_channels, c->patch_size, c->patch_size};
    const struct safetensor *t = load(l, PART_VISION, "embeddings.patch_embedding.weight", shape, 4, &type);
    if (t)
        *out = (struct tensor){t->data, type, c->hidden_size, c->n_channels * c->patch_size * c->patch_size};
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

static void load_projector(struct loader *l, struct tensor *out, int vision_hidden, int text_hidden)
{
    enum tensor_type type;
    const int64_t shape[] = {vision_hidden, text_hidden};
    const struct safetensor *t = load(l, PART_PROJECTOR, "mm_input_projection_weight", shape, 2, &type);
    if (!t)
        return;
    l->out->projector = malloc(t->size);
    if (!l->out->projector) {
        l->rc = error_no_memory(l->index->err, "the image projector", t->size);
        return;
    }
    if (tensor_bytes(type, 1) == 2)
        transpose(l->out->projector, t->data, (size_t)vision_hidden, (size_t)text_hidden, 2);
    else
        transpose(l->out->projector, t->data, (size_t)vision_hidden, (size_t)text_hidden, 4);
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
    vision->projector_norm = load_vector(l, PART_PROJECTOR, "mm_soft_emb_norm.weight", hidden, 1);
    load_projector(l, &vision->projector, hidden, config->text.hidden_size);
}

static size_t vision_floats(const struct vision_config *c)
{
    return (size_t)c->n_layers * (9 * (size_t)c->hidden_size + (size_t)c->intermediate_size) +
           4 * (size_t)c->hidden_size;
}

/* ---- all --------------------------------------------------------------------------------------------------------- */

static int allocate(struct open_weights *w, const struct model_config *config, struct ward_error *err)
{
    const bool vision = config->vision.n_layers > 0;
    const size_t n_floats = text_floats(&config->text) + (vision ? vision_floats(&config->vision) : 0);
    w->floats = malloc(n_floats * sizeof *w->floats);
    w->view.text.layers = calloc((size_t)config->text.n_layers, sizeof *w->view.text.layers);
    if (vision)
        w->view.vision.layers = calloc((size_t)config->vision.n_layers, sizeof *w->view.vision.layers);
    if (!w->floats || !w->view.text.layers || (vision && !w->view.vision.layers))
        return error_no_memory(err, "the norms and biases", n_floats * sizeof *w->floats);
    return 0;
}

static int load_all(struct open_weights *w, const char *folder, const struct model_config *config,
                    struct ward_error *err)
{
    struct index index = {.folder = folder, .err = err};
    struct loader loader = {.index = &index, .out = w};
    loader.rc = index_build(&index, w->files);
    if (!loader.rc)
        load_text(&loader, &w->view.text, &config->text);
    if (!loader.rc && config->vision.n_layers)
        load_vision(&loader, &w->view.vision, config);
    if (!loader.rc)
        loader.rc = check_all_used(&index);
    free(index.entries);
    return loader.rc;
}

/* Norms and biases are strewn over the files: asking for all of them before the first is touched lets a cold disk read
 * them side by side. The matrices are left to come as they are used. */
static void prefetch_small(const struct safetensors *files)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    for (size_t i = 0; i < safetensors_count(files); i++) {
        const struct safetensor *t = safetensors_at(files, i);
        const uintptr_t begin = (uintptr_t)t->data & ~(page - 1);
        if (t->n_dims == 1)
            (void)madvise((void *)begin, (uintptr_t)t->data + t->size - begin, MADV_WILLNEED);
    }
}

int weights_open(struct weights **out, const char *folder, const struct model_config *config, struct ward_error *err)
{
    *out = NULL;
    struct open_weights *w = calloc(1, sizeof *w);
    if (!w)
        return error_no_memory(err, "the weights", sizeof *w);
    struct weights *view = &w->view;
    int rc = safetensors_open(&w->files, folder, err);
    if (!rc)
        rc = allocate(w, config, err);
    if (!rc) {
        prefetch_small(w->files);
        rc = load_all(w, folder, config, err);
    }
    if (rc) {
        weights_close(&view);
        return rc;
    }
    view->type = view->text.embed.type;
    view->mapped_bytes = safetensors_mapped_bytes(w->files);
    *out = view;
    return 0;
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
