#include "bench/footprint.h"

#include "base/text.h"
#include "engine/session.h"
#include "model/stored.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the files of a checkpoint ----------------------------------------------------------------------------------- */

static int add_file(struct footprint *f, const char *path, uint64_t *bytes, struct ward_error *err)
{
    struct stat st;
    *bytes = 0;
    if (stat(path, &st) || !S_ISREG(st.st_mode))
        return 0;
    struct footprint_file *files = reallocarray(f->files, f->n_files + 1, sizeof *files);
    char *copy = files ? strdup(path) : NULL;
    if (files)
        f->files = files;
    if (!copy)
        return error_no_memory(err, "the list of files", (f->n_files + 1) * sizeof *files);
    *bytes = (uint64_t)st.st_size;
    f->files[f->n_files++] = (struct footprint_file){copy, *bytes};
    return 0;
}

/* Weights, tokenizer and configuration in Hugging Face's layout; what else lies there is no part of the model. */
static int add_folder(struct footprint *f, const char *folder, struct ward_error *err)
{
    uint64_t spm = 0, json = 0;
    DIR *dir = opendir(folder);
    int rc = dir ? 0 : error_set(err, WARD_EIO, "%s: cannot be opened: %s", folder, strerror(errno));
    for (const struct dirent *entry; !rc && (entry = readdir(dir));) {
        const char *name = entry->d_name;
        char path[4096];
        uint64_t bytes = 0;
        const bool weights = ends_with(name, ".safetensors");
        if (!weights && !ends_with(name, ".json") && !ends_with(name, ".jinja") && strcmp(name, "tokenizer.model") != 0)
            continue;
        if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path)
            continue;
        rc = add_file(f, path, &bytes, err);
        if (weights)
            f->weights += bytes;
        else if (strcmp(name, "tokenizer.model") == 0)
            spm = bytes;
        else if (strcmp(name, "tokenizer.json") == 0)
            json = bytes;
        else
            f->tokenizer_config += bytes;
    }
    if (dir)
        closedir(dir);
    f->tokenizer_config += spm && (!json || spm < json) ? spm : json;
    return rc;
}

/* ---- tensors ----------------------------------------------------------------------------------------------------- */

static int count_tensors(struct footprint *f, const struct checkpoint *c, struct ward_error *err)
{
    struct safetensors *files = NULL;
    struct stored_list list = {0};
    int rc;
    if (c->text) {
        rc = stored_from_gguf(&list, c->text, checkpoint_vision_file(c), err);
    } else {
        rc = safetensors_open(&files, c->place.path, err);
        if (!rc)
            rc = stored_from_safetensors(&list, files, err);
    }
    for (size_t i = 0; !rc && i < list.n; i++) {
        const struct stored *s = &list.at[i];
        f->by_type[s->type < 0 ? TENSOR_TYPES : s->type] += s->size;
        if (s->part == PART_VISION || s->part == PART_PROJECTOR)
            f->vision += s->size;
    }
    stored_free(&list);
    safetensors_close(&files);
    return rc;
}

/* ---- the program ------------------------------------------------------------------------------------------------- */

/* Files mapped for execution: this program and its libraries, each once. */
static void measure_program(struct footprint *f)
{
    char line[4096], own[4096], last[4096] = "";
    const ssize_t n = readlink("/proc/self/exe", own, sizeof own - 1);
    own[n > 0 ? n : 0] = '\0';
    FILE *maps = fopen("/proc/self/maps", "re");
    while (maps && fgets(line, sizeof line, maps)) {
        line[strcspn(line, "\n")] = '\0';
        const char *path = strchr(line, '/');
        struct stat st;
        if (!path || strstr(line, " r-xp ") == NULL || strcmp(path, last) == 0 || stat(path, &st))
            continue;
        snprintf(last, sizeof last, "%s", path);
        *(strcmp(path, own) == 0 ? &f->program : &f->libraries) += (uint64_t)st.st_size;
    }
    if (maps)
        fclose(maps);
    struct stat st;
    char *slash = strrchr(own, '/');
    if (slash && snprintf(last, sizeof last, "%.*s/ward-container.tar", (int)(slash - own), own) < (int)sizeof last &&
        stat(last, &st) == 0)
        f->container = (uint64_t)st.st_size;
}

int footprint_read(struct footprint *out, const struct checkpoint *c, struct ward_error *err)
{
    *out = (struct footprint){0};
    measure_program(out);
    int rc = count_tensors(out, c, err);
    if (rc || !c->place.is_gguf)
        return rc ? rc : add_folder(out, c->place.path, err);
    const char *const files[] = {c->place.path, c->place.mmproj};
    for (int i = 0; !rc && i < 2 && files[i]; i++) {
        uint64_t bytes;
        rc = add_file(out, files[i], &bytes, err);
        out->weights += bytes;
    }
    uint64_t tensors = 0;
    for (int type = 0; type <= TENSOR_TYPES; type++)
        tensors += out->by_type[type];
    out->tokenizer_config = out->weights > tensors ? out->weights - tensors : 0;
    return rc;
}

void footprint_clear(struct footprint *f)
{
    for (size_t i = 0; i < f->n_files; i++)
        free(f->files[i].path);
    free(f->files);
    *f = (struct footprint){0};
}

/* ---- memory by arithmetic ---------------------------------------------------------------------------------------- */

/* As session_open allocates: work buffers, and logits in host memory. */
static uint64_t decoder_bytes(const struct ward_model *m, int rows)
{
    const struct text_config *t = &m->checkpoint.config.text;
    return text_work_bytes(m->backend, t, &m->checkpoint.weights->text, rows) + sizeof(float) * (uint64_t)t->vocab_size;
}

/* As encoder_open and session_open allocate: work buffers; pixels as bytes and, patch by patch, as floats. */
static uint64_t encoder_bytes(const struct ward_model *m)
{
    const struct vision_config *v = &m->checkpoint.config.vision;
    const uint64_t image = (uint64_t)v->n_channels * (uint64_t)v->image_size * (uint64_t)v->image_size;
    return v->n_layers ? vision_work_bytes(m->backend, &m->checkpoint.config) + (1 + sizeof(float)) * image : 0;
}

struct buffer_sizes buffer_sizes(const struct ward_model *model, int context, int positions)
{
    const struct model_config *c = &model->checkpoint.config;
    const struct text_config *t = &c->text;
    const int chunk = session_chunk(model, context), room = session_room(model, context);
    const uint64_t head = tensor_bytes(model->backend->cache_type, (size_t)t->head_dim);
    const uint64_t position = 2 * (uint64_t)t->n_kv_heads * head;
    struct buffer_sizes sizes = {.decoder = decoder_bytes(model, chunk), .encoder = encoder_bytes(model)};
    for (int l = 0; l < t->n_layers; l++) {
        const int capacity = kv_capacity(t, l, context, room);
        sizes.kv += position * (uint64_t)capacity;
        sizes.kv_touched += position * (uint64_t)(positions < capacity ? positions : capacity);
    }
    return sizes;
}

/* ---- arithmetic -------------------------------------------------------------------------------------------------- */

static double weights_of(const struct tensor *const *maps, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)maps[i]->rows * maps[i]->cols;
    return sum;
}

static double image_operations(const struct model_config *c, const struct vision_weights *w)
{
    const double side = c->vision.image_size / c->vision.patch_size, n = side * side, e = c->vision.hidden_size;
    double weights = (double)w->patch.rows * w->patch.cols;
    for (int l = 0; l < c->vision.n_layers; l++) {
        const struct vision_layer *layer = &w->layers[l];
        const struct tensor *const maps[] = {&layer->q, &layer->k, &layer->v, &layer->out, &layer->fc1, &layer->fc2};
        weights += weights_of(maps, sizeof maps / sizeof *maps);
    }
    return 2 * n * weights + 4 * n * n * e * c->vision.n_layers +
           2.0 * c->image_tokens * w->projector.rows * w->projector.cols;
}

/* Pairs of a query and a key that a layer computes. */
static double pairs(double tokens, bool global, double window)
{
    if (global || tokens <= window)
        return tokens * (tokens + 1) / 2;
    return window * (window + 1) / 2 + (tokens - window) * window;
}

struct model_work model_work(const struct ward_model *model, int prompt_tokens)
{
    const struct model_config *c = &model->checkpoint.config;
    const struct text_config *t = &c->text;
    const struct weights *w = model->checkpoint.weights;
    struct model_work out = {.text_type = w->type, .vision_type = w->type};
    const double head = (double)w->text.head.rows * w->text.head.cols;
    out.prompt = 2 * head;
    out.token_bytes = (uint64_t)w->text.head.rows * tensor_row_bytes(&w->text.head);
    for (int l = 0; l < t->n_layers; l++) {
        const struct text_layer *layer = &w->text.layers[l];
        const struct tensor *const maps[] = {&layer->q,    &layer->k,  &layer->v,   &layer->o,
                                             &layer->gate, &layer->up, &layer->down};
        out.prompt += 2.0 * prompt_tokens * weights_of(maps, sizeof maps / sizeof *maps);
        out.prompt += 4 * pairs(prompt_tokens, t->global[l], t->sliding_window) * t->n_heads * t->head_dim;
        for (size_t i = 0; i < sizeof maps / sizeof *maps; i++)
            out.token_bytes += (uint64_t)maps[i]->rows * tensor_row_bytes(maps[i]);
    }
    if (c->vision.n_layers) {
        out.image = image_operations(c, &w->vision);
        out.vision_type = w->vision.layers[0].fc1.type;
    }
    return out;
}
