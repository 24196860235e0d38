#include "quant/quantize.h"

#include "base/new_file.h"
#include "base/pool.h"
#include "base/text.h"
#include "model/stored.h"
#include "model/to_float.h"
#include "quant/blocks.h"
#include "quant/metadata.h"

#include <errno.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TASK_WEIGHTS = 1 << 18,  /* what a thread converts at a time: with its results 2 MB */
    BATCH_WEIGHTS = 1 << 24, /* between two calls of progress, after which the source's pages are let go */
};

const char *const quant_type_names[QUANT_TYPES] = {"Q4_K_M", "Q4_0", "Q8_0", "BF16", "F16", "F32"};
static const int file_types[QUANT_TYPES] = {15, 2, 7, 32, 1, 0}; /* as llama.cpp numbers them */

enum { TEXT_FILE, VISION_FILE, N_FILES };

/* A tensor of the source, and what becomes of it. rows and cols as written: an MLP of the encoder may have grown. */
struct planned {
    const struct stored *from;
    char name[STORED_NAME_ROOM];
    enum tensor_type type;
    size_t rows, cols, source_rows, source_cols;
    float add; /* to each value: 1 for norms that the source stores without */
    int file;
    uint64_t offset;
};

struct job {
    const struct checkpoint *source;
    const struct quantize_options *options;
    struct ward_error *err;
    struct safetensors *files; /* of a source in Hugging Face's layout */
    struct stored_list list;
    struct planned *plan;
    size_t n_plan;
    struct gguf_writer *writers[N_FILES];
    struct pool *pool;
    float **rows;         /* for each thread: values */
    uint8_t **packed;     /* the same as they are written */
    size_t room;          /* values of each: TASK_WEIGHTS, or the longest row */
    uint64_t done, total; /* bytes of the source */
};

/* ---- the rule ---------------------------------------------------------------------------------------------------- */

static bool is_vision(const struct stored *s)
{
    return s->part == PART_VISION || s->part == PART_PROJECTOR;
}

/* A type whose blocks divide a row, of about as many bits. */
static enum tensor_type fitting(enum tensor_type type, size_t cols)
{
    while (cols % (size_t)tensor_formats[type].block)
        type = type == TENSOR_Q4_K || type == TENSOR_Q5_K ? TENSOR_Q5_0
               : type == TENSOR_Q6_K                      ? TENSOR_Q8_0
                                                          : TENSOR_F16;
    return type;
}

/* Text at 4 bits keeps two kinds of matrices finer: at 6 bits the embedding, which is the output head as well, so that
 * its error falls on every logit; at 5 the values of attention, which are small (2 % of the weights) and are shared by
 * all queries of a group. llama.cpp's Q4_0 keeps the embedding too, so that file is made as there. */
static enum tensor_type text_type(enum quant_type type, const char *name)
{
    const bool head = !strcmp(name, "token_embd.weight") || !strcmp(name, "output.weight");
    switch (type) {
    case QUANT_Q4_K_M: return head ? TENSOR_Q6_K : ends_with(name, "attn_v.weight") ? TENSOR_Q5_K : TENSOR_Q4_K;
    case QUANT_Q4_0: return head ? TENSOR_Q6_K : TENSOR_Q4_0;
    case QUANT_Q8_0: return TENSOR_Q8_0;
    case QUANT_BF16: return TENSOR_BF16;
    case QUANT_F16: return TENSOR_F16;
    default: return TENSOR_F32;
    }
}

/* The encoder stays at 8 bits where text goes to 4: it has a tenth of the weights, and all that is known of an image
 * passes through it. What is added or convolved stays float: llama.cpp reads positions as f32 only, and wants the
 * projector in f16 (it is transposed there, which blocks cannot be). */
static enum tensor_type vision_type(enum quant_type type, const struct stored *s)
{
    const bool quantized = type <= QUANT_Q8_0;
    if (!strcmp(s->name, "embeddings.position_embedding.weight"))
        return TENSOR_F32;
    if (!strcmp(s->name, "embeddings.patch_embedding.weight"))
        return quantized ? TENSOR_F16 : TENSOR_F32;
    if (s->part == PART_PROJECTOR)
        return type == QUANT_F32 ? TENSOR_F32 : TENSOR_F16;
    return quantized ? TENSOR_Q8_0 : type == QUANT_BF16 ? TENSOR_BF16 : type == QUANT_F16 ? TENSOR_F16 : TENSOR_F32;
}

/* 4304 does not divide into blocks. Zeros that pad it change nothing: their activations are gelu(0) = 0, and meet
 * weights that are 0. */
static int padded_inner(const struct job *job)
{
    const int inner = job->source->config.vision.intermediate_size;
    return job->options->type <= QUANT_Q8_0 ? (inner + 31) / 32 * 32 : inner;
}

/* ---- the plan ---------------------------------------------------------------------------------------------------- */

static int plan_tensor(struct job *job, struct planned *p, const struct stored *s)
{
    const bool vision = is_vision(s), vector = s->n_dims == 1;
    *p = (struct planned){.from = s, .file = vision ? VISION_FILE : TEXT_FILE, .rows = 1, .cols = 1};
    if (!stored_gguf_name(p->name, s))
        return error_set(job->err, WARD_EUNSUPPORTED, "%s: tensor %s has no name in a GGUF file", s->file, s->written);
    for (int d = 0; d < s->n_dims; d++)
        *(d ? &p->cols : &p->rows) *= (size_t)s->shape[d];
    if (vector) {
        p->cols = p->rows;
        p->rows = 1;
    }
    p->source_rows = p->rows;
    p->source_cols = p->cols;
    const size_t inner = (size_t)padded_inner(job);
    if (vision && strstr(s->name, ".mlp.fc1."))
        *(vector ? &p->cols : &p->rows) = inner;
    if (vision && ends_with(s->name, ".mlp.fc2.weight"))
        p->cols = inner;
    const bool gemma_norm = s->part != PART_VISION && ends_with(s->name, "norm.weight");
    p->add = gemma_norm && !job->list.norms_added;
    p->type = vector   ? TENSOR_F32
              : vision ? vision_type(job->options->type, s)
                       : text_type(job->options->type, p->name);
    p->type = fitting(p->type, p->cols);
    if (!vector && !tensor_is_float((enum tensor_type)s->type) && !job->options->requantize)
        return error_set(job->err, WARD_EUNSUPPORTED,
                         "%s: its weights are quantized already (tensor %s is %s), and would lose more by it than "
                         "those of the original; --allow-requantize does it all the same",
                         s->file, s->written, s->type_name);
    return 0;
}

/* token_embd first, then by layer: the order of the file, in which weights are read. */
static int compare_planned(const void *a, const void *b)
{
    const struct planned *x = a, *y = b;
    if (x->file != y->file)
        return x->file - y->file;
    const char *layer = x->file == VISION_FILE ? "v.blk." : "blk.";
    const bool in_x = starts_with(x->name, layer), in_y = starts_with(y->name, layer);
    if (in_x != in_y)
        return in_x - in_y;
    const long number_x = in_x ? atol(x->name + strlen(layer)) : 0, number_y = in_y ? atol(y->name + strlen(layer)) : 0;
    return number_x != number_y ? (number_x > number_y) - (number_x < number_y) : strcmp(x->name, y->name);
}

/* What the engine knows to leave out, no file needs. */
static bool is_left_out(const struct job *job, const struct stored *s)
{
    return stored_is_harmless(s) || (is_vision(s) && !job->options->vision_path);
}

static int make_plan(struct job *job)
{
    const struct checkpoint *c = job->source;
    int rc = 0;
    if (c->text) {
        rc = stored_from_gguf(&job->list, c->text, checkpoint_vision_file(c), job->err);
    } else {
        rc = safetensors_open(&job->files, c->place.path, job->err);
        if (!rc)
            rc = stored_from_safetensors(&job->list, job->files, job->err);
    }
    if (rc)
        return rc;
    job->plan = calloc(job->list.n + 1, sizeof *job->plan);
    if (!job->plan)
        return error_no_memory(job->err, "the list of tensors", job->list.n * sizeof *job->plan);
    for (size_t i = 0; i < job->list.n && !rc; i++)
        if (!is_left_out(job, &job->list.at[i])) {
            rc = plan_tensor(job, &job->plan[job->n_plan++], &job->list.at[i]);
            job->total += job->list.at[i].size;
        }
    qsort(job->plan, job->n_plan, sizeof *job->plan, compare_planned);
    return rc;
}

/* What GGUF has no key for must be as its readers take it. */
static int check_expressible(const struct job *job)
{
    const struct text_config *c = &job->source->config.text;
    const bool is_27b = c->n_layers == 62; /* scales by the width of a head were they to share the hidden size */
    const double scalar = is_27b ? (double)(c->hidden_size / c->n_heads) : c->head_dim;
    if (job->source->text || (c->query_pre_attn_scalar == scalar && c->rope_sliding.factor == 1))
        return 0;
    return error_set(job->err, WARD_EUNSUPPORTED,
                     "%s: scales its attention in a way that a GGUF file cannot say (query_pre_attn_scalar %g with "
                     "heads of %d, positions of sliding layers divided by %g)",
                     job->source->place.path, c->query_pre_attn_scalar, c->head_dim, c->rope_sliding.factor);
}

/* ---- the files --------------------------------------------------------------------------------------------------- */

static void put_tensor(struct gguf_head *head, struct planned *p)
{
    uint64_t shape[GGUF_MAX_DIMS] = {p->cols, p->rows};
    int n_dims = p->from->n_dims == 1 ? 1 : 2;
    if (p->from->n_dims > 2) { /* patches, whose rows are not whole blocks of anything */
        n_dims = p->from->n_dims;
        for (int d = 0; d < n_dims; d++)
            shape[d] = (uint64_t)p->from->shape[n_dims - 1 - d];
    }
    p->offset = gguf_put_tensor(head, p->name, p->type, shape, n_dims);
}

static int open_file(struct job *job, int file, const char *path, const struct metadata *m)
{
    struct gguf_head head = {0};
    int rc = 0;
    if (file == TEXT_FILE)
        rc = metadata_put_text(&head, m, job->err);
    else
        metadata_put_vision(&head, m);
    for (size_t i = 0; i < job->n_plan && !rc; i++)
        if (job->plan[i].file == file)
            put_tensor(&head, &job->plan[i]);
    if (!rc)
        rc = gguf_write_open(&job->writers[file], path, &head, job->err);
    gguf_head_free(&head);
    return rc;
}

/* ---- the weights ------------------------------------------------------------------------------------------------- */

/* A stretch of one tensor's rows, divided into tasks. */
struct batch {
    struct job *job;
    const struct planned *p;
    size_t row, end, rows_a_task;
    atomic_int error;      /* errno of a failed write */
    atomic_bool not_finite;
};

/* Infinities, NaN, and what float16, in which scales are stored, cannot hold. Sums rather than branches: quick. */
static bool is_sound(const float *x, size_t n, enum tensor_type type)
{
    const float limit = type == TENSOR_F32 || type == TENSOR_BF16 ? INFINITY : 65504;
    int bad = 0;
    for (size_t i = 0; i < n; i++)
        bad += !(fabsf(x[i]) <= limit) | (fabsf(x[i]) == INFINITY);
    return !bad;
}

static void read_row(float *out, const struct planned *p, size_t row)
{
    if (row >= p->source_rows) {
        memset(out, 0, p->cols * sizeof *out);
        return;
    }
    const enum tensor_type type = (enum tensor_type)p->from->type;
    tensor_to_float[type](out, p->from->data + row * tensor_bytes(type, p->source_cols), (int)p->source_cols);
    for (size_t i = p->source_cols; i < p->cols; i++)
        out[i] = 0;
    for (size_t i = 0; i < p->source_cols && p->add != 0; i++)
        out[i] += p->add;
}

static void run_task(void *arg, int task, int thread)
{
    struct batch *batch = arg;
    struct job *job = batch->job;
    const struct planned *p = batch->p;
    const size_t begin = batch->row + (size_t)task * batch->rows_a_task;
    const size_t end = begin + batch->rows_a_task < batch->end ? begin + batch->rows_a_task : batch->end;
    const size_t n = (end - begin) * p->cols;
    float *values = job->rows[thread];
    for (size_t row = begin; row < end; row++)
        read_row(values + (row - begin) * p->cols, p, row);
    if (!is_sound(values, n, p->type)) {
        atomic_store(&batch->not_finite, true);
        return;
    }
    quantize_row(p->type, job->packed[thread], values, n);
    const int error = gguf_write_data(job->writers[p->file], p->offset + tensor_bytes(p->type, begin * p->cols),
                                      job->packed[thread], tensor_bytes(p->type, n));
    if (error)
        atomic_store(&batch->error, error);
}

static int run_batch(struct job *job, const struct planned *p, size_t row, size_t end)
{
    struct batch batch = {.job = job, .p = p, .row = row, .end = end};
    batch.rows_a_task = job->room / p->cols;
    pool_run(job->pool, run_task, &batch, (int)((end - row + batch.rows_a_task - 1) / batch.rows_a_task));
    const int error = atomic_load(&batch.error);
    const char *path = p->file == TEXT_FILE ? job->options->text_path : job->options->vision_path;
    if (error)
        return error_set(job->err, WARD_EIO, "%s: cannot be written: %s", path, strerror(error));
    if (atomic_load(&batch.not_finite))
        return error_set(job->err, WARD_EFORMAT,
                         "%s: tensor %s holds a value that is no number, or too large for the type %s", p->from->file,
                         p->from->written, tensor_type_name(p->type));
    return 0;
}

static int convert(struct job *job, const struct planned *p)
{
    const size_t rows = BATCH_WEIGHTS / p->cols > 1 ? BATCH_WEIGHTS / p->cols : 1;
    const struct quantize_options *o = job->options;
    const size_t row_bytes = tensor_bytes((enum tensor_type)p->from->type, p->source_cols);
    int rc = 0;
    for (size_t row = 0; row < p->rows && !rc; row += rows) {
        const size_t end = row + rows < p->rows ? row + rows : p->rows;
        const size_t from = row < p->source_rows ? row : p->source_rows;
        const size_t to = end < p->source_rows ? end : p->source_rows;
        rc = run_batch(job, p, row, end);
        mapping_release(p->from->data + from * row_bytes, (to - from) * row_bytes);
        job->done += (to - from) * row_bytes;
        if (!rc && o->progress && o->progress(o->user, job->done, job->total))
            rc = error_set(job->err, WARD_ECANCELLED, "stopped on request; nothing was written");
    }
    return rc;
}

static int allocate(struct job *job)
{
    int rc = pool_open(&job->pool, job->options->threads, job->err);
    if (rc)
        return rc;
    const size_t n = (size_t)pool_threads(job->pool);
    job->room = TASK_WEIGHTS;
    for (size_t i = 0; i < job->n_plan; i++)
        job->room = job->plan[i].cols > job->room ? job->plan[i].cols : job->room;
    job->rows = calloc(n, sizeof *job->rows);
    job->packed = calloc(n, sizeof *job->packed);
    bool failed = !job->rows || !job->packed;
    for (size_t i = 0; i < n && !failed; i++) {
        job->rows[i] = malloc(job->room * sizeof **job->rows);
        job->packed[i] = malloc(job->room * sizeof(float));
        failed = !job->rows[i] || !job->packed[i];
    }
    return failed ? error_no_memory(job->err, "the weights being converted", n * job->room * 8) : 0;
}

/* ---- all --------------------------------------------------------------------------------------------------------- */

static int write_notice(const struct job *job, const struct metadata *m, bool *written)
{
    char *text = metadata_notice(m);
    *written = text != NULL;
    const int rc = text ? new_file_put(job->options->notice_path, text, strlen(text), job->err) : 0;
    free(text);
    return rc;
}

static int convert_all(struct job *job, struct quantize_result *result)
{
    int rc = 0;
    for (size_t i = 0; i < job->n_plan && !rc; i++) {
        const struct planned *p = &job->plan[i];
        rc = convert(job, p);
        if (p->rows > 1) {
            result->by_type[p->type].weights += p->rows * p->cols;
            result->by_type[p->type].bytes += tensor_bytes(p->type, p->rows * p->cols);
        }
    }
    for (int file = 0; file < N_FILES && !rc; file++)
        if (job->writers[file])
            rc = gguf_write_sync(job->writers[file], job->err);
    return rc;
}

/* The encoder's file first: a text file that is there means that all is. */
static int commit(struct job *job, struct quantize_result *result)
{
    uint64_t *const sizes[N_FILES] = {&result->text_bytes, &result->vision_bytes};
    int rc = 0;
    for (int file = N_FILES - 1; file >= 0 && !rc; file--)
        if (job->writers[file]) {
            *sizes[file] = gguf_writer_size(job->writers[file]);
            rc = gguf_write_commit(&job->writers[file], job->err);
        }
    return rc;
}

static void clear(struct job *job)
{
    const int threads = job->pool ? pool_threads(job->pool) : 0;
    for (int i = 0; i < threads; i++) {
        if (job->rows)
            free(job->rows[i]);
        if (job->packed)
            free(job->packed[i]);
    }
    free(job->rows);
    free(job->packed);
    for (int file = 0; file < N_FILES; file++)
        gguf_write_close(&job->writers[file]);
    pool_close(&job->pool);
    free(job->plan);
    stored_free(&job->list);
    safetensors_close(&job->files);
}

int quantize_checkpoint(const struct checkpoint *source, const struct quantize_options *options,
                        struct quantize_result *result, struct ward_error *err)
{
    struct job job = {.source = source, .options = options, .err = err};
    struct metadata m = {.source = source,
                         .name = options->name,
                         .file_type = file_types[options->type],
                         .type = quant_type_names[options->type],
                         .vision_inner = padded_inner(&job)};
    *result = (struct quantize_result){0};
    int rc = check_expressible(&job);
    if (!rc)
        rc = make_plan(&job);
    if (!rc)
        rc = allocate(&job);
    if (!rc)
        rc = open_file(&job, TEXT_FILE, options->text_path, &m);
    if (!rc && options->vision_path)
        rc = open_file(&job, VISION_FILE, options->vision_path, &m);
    if (!rc)
        rc = convert_all(&job, result);
    if (!rc)
        rc = write_notice(&job, &m, &result->notice);
    if (!rc)
        rc = commit(&job, result);
    result->source_bytes = job.total;
    clear(&job);
    return rc;
}
