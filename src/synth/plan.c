#include "synth/plan.h"

#include "base/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A file takes tensors, in the order of the model's own list, as long as it stays within this; huggingface_hub's
 * default, to which the published files were cut. */
#define FILE_BYTES UINT64_C(5000000000)

enum { MOST_FILES = 4096, LENGTH_BYTES = 8 };

struct builder {
    struct synth_plan *plan;
    size_t capacity;
    bool failed;
};

/* ---- the list ---------------------------------------------------------------------------------------------------- */

static void add_shape(struct builder *b, enum synth_kind kind, const uint64_t shape[4], int n_dims, const char *prefix,
                      const char *name)
{
    struct synth_plan *p = b->plan;
    if (b->failed)
        return;
    if (p->n == b->capacity) {
        const size_t capacity = b->capacity ? 2 * b->capacity : 1024;
        struct synth_tensor *grown = reallocarray(p->tensors, capacity, sizeof *grown);
        b->failed = !grown;
        if (b->failed)
            return;
        p->tensors = grown;
        b->capacity = capacity;
    }
    struct synth_tensor *t = &p->tensors[p->n++];
    *t = (struct synth_tensor){.kind = kind, .n_dims = n_dims, .bytes = 2};
    snprintf(t->name, sizeof t->name, "%s%s", prefix, name);
    for (int d = 0; d < n_dims; d++) {
        t->shape[d] = shape[d];
        t->bytes *= shape[d];
    }
    p->bytes += t->bytes;
}

static void add_matrix(struct builder *b, enum synth_kind kind, const char *prefix, const char *name, int rows,
                       int cols)
{
    add_shape(b, kind, (uint64_t[4]){(uint64_t)rows, (uint64_t)cols}, 2, prefix, name);
}

static void add_vector(struct builder *b, enum synth_kind kind, const char *prefix, const char *name, int n)
{
    add_shape(b, kind, (uint64_t[4]){(uint64_t)n}, 1, prefix, name);
}

/* NAME.weight [rows][cols] and NAME.bias [rows] */
static void add_linear(struct builder *b, enum synth_kind kind, const char *prefix, const char *name, int rows,
                       int cols)
{
    char full[64];
    snprintf(full, sizeof full, "%s.weight", name);
    add_matrix(b, kind, prefix, full, rows, cols);
    snprintf(full, sizeof full, "%s.bias", name);
    add_vector(b, SYNTH_MATRIX, prefix, full, rows);
}

static void add_layer_norm(struct builder *b, const char *prefix, const char *name, int n)
{
    char full[64];
    snprintf(full, sizeof full, "%s.weight", name);
    add_vector(b, SYNTH_UNIT, prefix, full, n);
    snprintf(full, sizeof full, "%s.bias", name);
    add_vector(b, SYNTH_MATRIX, prefix, full, n);
}

static void add_vision(struct builder *b, const struct vision_config *v)
{
    static const char model[] = "vision_tower.vision_model.";
    static const char *const maps[] = {"self_attn.k_proj", "self_attn.v_proj", "self_attn.q_proj"};
    const int side = v->image_size / v->patch_size, e = v->hidden_size;
    char layer[64];
    add_shape(b, SYNTH_MATRIX,
              (uint64_t[4]){(uint64_t)e, (uint64_t)v->n_channels, (uint64_t)v->patch_size, (uint64_t)v->patch_size}, 4,
              model, "embeddings.patch_embedding.weight");
    add_vector(b, SYNTH_MATRIX, model, "embeddings.patch_embedding.bias", e);
    add_matrix(b, SYNTH_MATRIX, model, "embeddings.position_embedding.weight", side * side, e);
    for (int i = 0; i < v->n_layers; i++) {
        snprintf(layer, sizeof layer, "%sencoder.layers.%d.", model, i);
        add_layer_norm(b, layer, "layer_norm1", e);
        for (int k = 0; k < 3; k++)
            add_linear(b, SYNTH_MATRIX, layer, maps[k], e, e);
        add_linear(b, SYNTH_RESIDUAL, layer, "self_attn.out_proj", e, e);
        add_layer_norm(b, layer, "layer_norm2", e);
        add_linear(b, SYNTH_MATRIX, layer, "mlp.fc1", v->intermediate_size, e);
        add_linear(b, SYNTH_RESIDUAL, layer, "mlp.fc2", e, v->intermediate_size);
    }
    add_layer_norm(b, model, "post_layernorm", e);
}

static void add_text_layer(struct builder *b, const struct text_config *t, const char *layer)
{
    static const char *const norms[] = {"input_layernorm.weight", "post_attention_layernorm.weight",
                                        "pre_feedforward_layernorm.weight", "post_feedforward_layernorm.weight"};
    const int d = t->hidden_size, queries = t->n_heads * t->head_dim, keys = t->n_kv_heads * t->head_dim;
    add_matrix(b, SYNTH_MATRIX, layer, "self_attn.q_proj.weight", queries, d);
    add_matrix(b, SYNTH_MATRIX, layer, "self_attn.k_proj.weight", keys, d);
    add_matrix(b, SYNTH_MATRIX, layer, "self_attn.v_proj.weight", keys, d);
    add_matrix(b, SYNTH_RESIDUAL, layer, "self_attn.o_proj.weight", d, queries);
    add_vector(b, SYNTH_MATRIX, layer, "self_attn.q_norm.weight", t->head_dim);
    add_vector(b, SYNTH_MATRIX, layer, "self_attn.k_norm.weight", t->head_dim);
    add_matrix(b, SYNTH_MATRIX, layer, "mlp.gate_proj.weight", t->intermediate_size, d);
    add_matrix(b, SYNTH_MATRIX, layer, "mlp.up_proj.weight", t->intermediate_size, d);
    add_matrix(b, SYNTH_RESIDUAL, layer, "mlp.down_proj.weight", d, t->intermediate_size);
    for (int k = 0; k < 4; k++)
        add_vector(b, SYNTH_MATRIX, layer, norms[k], d);
}

static void add_text(struct builder *b, const struct model_config *config)
{
    const struct text_config *t = &config->text;
    const char *outer = config->vision.n_layers ? "language_model." : "";
    char model[64], layer[64];
    snprintf(model, sizeof model, "%smodel.", outer);
    add_matrix(b, SYNTH_MATRIX, model, "embed_tokens.weight", t->vocab_size, t->hidden_size);
    for (int i = 0; i < t->n_layers; i++) {
        snprintf(layer, sizeof layer, "%.32slayers.%d.", model, i);
        add_text_layer(b, t, layer);
    }
    add_vector(b, SYNTH_MATRIX, model, "norm.weight", t->hidden_size);
    if (!t->tied_embeddings)
        add_matrix(b, SYNTH_MATRIX, outer, "lm_head.weight", t->vocab_size, t->hidden_size);
}

/* ---- the files --------------------------------------------------------------------------------------------------- */

static int compare_tensors(const void *a, const void *b)
{
    const struct synth_tensor *x = a, *y = b;
    return x->file != y->file ? (x->file > y->file) - (x->file < y->file) : strcmp(x->name, y->name);
}

/* Gives each tensor its file, and returns how many files there are. */
static int divide(struct synth_plan *p)
{
    uint64_t filled = 0;
    int file = 0;
    for (size_t i = 0; i < p->n; i++) {
        struct synth_tensor *t = &p->tensors[i];
        if (filled && filled + t->bytes > FILE_BYTES) {
            filled = 0;
            file++;
        }
        t->file = file;
        filled += t->bytes;
    }
    return file + 1;
}

/* As the safetensors library writes it. */
static int make_header(struct synth_file *f, const struct synth_tensor *tensors, struct ward_error *err)
{
    struct json_writer *w = json_writer_new(false);
    size_t length = 0;
    if (!w)
        return error_no_memory(err, f->name, f->n * 128);
    json_write_open(w, NULL, '{');
    json_write_open(w, "__metadata__", '{');
    json_write_text(w, "format", "pt");
    json_write_close(w, '}');
    for (size_t i = 0; i < f->n; i++) {
        const struct synth_tensor *t = &tensors[i];
        json_write_open(w, t->name, '{');
        json_write_text(w, "dtype", "BF16");
        json_write_open(w, "shape", '[');
        for (int d = 0; d < t->n_dims; d++)
            json_write_integer(w, NULL, (int64_t)t->shape[d]);
        json_write_close(w, ']');
        json_write_open(w, "data_offsets", '[');
        json_write_integer(w, NULL, (int64_t)t->offset);
        json_write_integer(w, NULL, (int64_t)(t->offset + t->bytes));
        json_write_close(w, ']');
        json_write_close(w, '}');
    }
    json_write_close(w, '}');
    const char *text = json_writer_text(w, &length);
    f->header_size = (length + 7) / 8 * 8;
    f->header = text ? malloc(f->header_size) : NULL;
    if (f->header) {
        memcpy(f->header, text, length);
        memset(f->header + length, ' ', f->header_size - length);
    }
    json_writer_free(&w);
    return f->header ? 0 : error_no_memory(err, f->name, f->header_size);
}

static int make_files(struct synth_plan *p, struct ward_error *err)
{
    p->n_files = divide(p);
    if (p->n_files > MOST_FILES)
        return error_set(err, WARD_EUNSUPPORTED, "the checkpoint would have %d files of weights, at most %d are read",
                         p->n_files, MOST_FILES);
    p->files = calloc((size_t)p->n_files, sizeof *p->files);
    if (!p->files)
        return error_no_memory(err, "the list of files", (size_t)p->n_files * sizeof *p->files);
    qsort(p->tensors, p->n, sizeof *p->tensors, compare_tensors);
    size_t at = 0;
    int rc = 0;
    for (int i = 0; i < p->n_files && !rc; i++) {
        struct synth_file *f = &p->files[i];
        f->first = at;
        if (p->n_files == 1)
            snprintf(f->name, sizeof f->name, "model.safetensors");
        else
            snprintf(f->name, sizeof f->name, "model-%05d-of-%05d.safetensors", i + 1, p->n_files);
        for (; at < p->n && p->tensors[at].file == i; at++) {
            p->tensors[at].offset = f->bytes;
            f->bytes += p->tensors[at].bytes;
        }
        f->n = at - f->first;
        rc = make_header(f, p->tensors + f->first, err);
    }
    return rc;
}

int synth_plan(struct synth_plan *out, const struct model_config *config, struct ward_error *err)
{
    *out = (struct synth_plan){0};
    struct builder b = {.plan = out};
    if (config->vision.n_layers) {
        add_vision(&b, &config->vision);
        add_matrix(&b, SYNTH_MATRIX, "multi_modal_projector.", "mm_input_projection_weight",
                   config->vision.hidden_size, config->text.hidden_size);
        add_vector(&b, SYNTH_MATRIX, "multi_modal_projector.", "mm_soft_emb_norm.weight",
                   config->vision.hidden_size);
    }
    add_text(&b, config);
    out->weights = out->bytes / 2;
    int rc = b.failed ? error_no_memory(err, "the list of tensors", out->n * sizeof *out->tensors) : 0;
    if (!rc)
        rc = make_files(out, err);
    if (rc)
        synth_plan_free(out);
    return rc;
}

void synth_plan_free(struct synth_plan *plan)
{
    for (int i = 0; plan->files && i < plan->n_files; i++)
        free(plan->files[i].header);
    free(plan->files);
    free(plan->tensors);
    *plan = (struct synth_plan){0};
}

uint64_t synth_file_size(const struct synth_file *file)
{
    return LENGTH_BYTES + file->header_size + file->bytes;
}

static int compare_names(const void *a, const void *b)
{
    const struct synth_tensor *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

/* As json.dumps(indent=2, sort_keys=True) of huggingface_hub. */
char *synth_index(const struct synth_plan *plan)
{
    struct json_writer *w = json_writer_new(true);
    const struct synth_tensor **sorted = calloc(plan->n + 1, sizeof *sorted);
    char *out = NULL;
    if (w && sorted) {
        for (size_t i = 0; i < plan->n; i++)
            sorted[i] = &plan->tensors[i];
        qsort(sorted, plan->n, sizeof *sorted, compare_names);
        json_write_open(w, NULL, '{');
        json_write_open(w, "metadata", '{');
        json_write_integer(w, "total_size", (int64_t)plan->bytes);
        json_write_close(w, '}');
        json_write_open(w, "weight_map", '{');
        for (size_t i = 0; i < plan->n; i++)
            json_write_text(w, sorted[i]->name, plan->files[sorted[i]->file].name);
        json_write_close(w, '}');
        json_write_close(w, '}');
        const char *text = json_writer_text(w, NULL);
        if (!text || asprintf(&out, "%s\n", text) < 0)
            out = NULL;
    }
    free(sorted);
    json_writer_free(&w);
    return out;
}
