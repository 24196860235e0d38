/* The processor backend: opening it, and the operations that go row by row. */
#include "kernels/compute.h"

#include <stdlib.h>
#include <unistd.h>

enum {
    SCRATCH_BYTES = 4 << 20, /* holds the blocks of attention for heads of up to ATTENTION_MAX_HEAD */
    ALONE = 1 << 15,         /* elements below which waking other threads costs more than it saves */
    ELEMENTS_PER_TASK = 1 << 14,
};

/* The second-level cache of one core; what most processors have where the system does not say. */
static size_t second_level_cache(void)
{
    const long bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
    const long least = 256 << 10, most = SCRATCH_BYTES;
    if (bytes <= 0)
        return 512 << 10;
    return (size_t)(bytes < least ? least : bytes > most ? most : bytes);
}

int compute_open(struct compute *c, int threads, enum isa highest, struct ward_error *err)
{
    *c = (struct compute){.scratch_size = SCRATCH_BYTES, .l2_bytes = second_level_cache()};
    kernels_init(&c->k, highest);
    int code = pool_open(&c->pool, threads, err);
    if (code)
        return code;

    const int n = pool_threads(c->pool);
    c->scratch = calloc((size_t)n, sizeof *c->scratch);
    if (!c->scratch) {
        code = error_no_memory(err, "scratch pointers", (size_t)n * sizeof *c->scratch);
        goto fail;
    }
    for (int i = 0; i < n; i++) {
        c->scratch[i] = aligned_alloc(KERNELS_ALIGN, c->scratch_size);
        if (!c->scratch[i]) {
            code = error_no_memory(err, "the scratch of a thread", c->scratch_size);
            goto fail;
        }
    }
    return 0;

fail:
    compute_close(c);
    return code;
}

void compute_close(struct compute *c)
{
    if (c->scratch)
        for (int i = 0; i < pool_threads(c->pool); i++)
            free(c->scratch[i]);
    free(c->scratch);
    pool_close(&c->pool);
    *c = (struct compute){0};
}

/* ---- row by row ---- */

/* An operation on [rows][cols], cut into tasks of whole rows. A plain array is rows of one element. */
struct rowwise {
    const struct kernels *k;
    void (*row)(const struct rowwise *r, size_t first, int n);
    float *out;
    const float *x, *weight, *bias;
    float *residual;
    size_t rows, rows_per_task;
    int cols;
    float eps;
};

static void rowwise_task(void *arg, int task, int thread)
{
    const struct rowwise *r = arg;
    const size_t first = (size_t)task * r->rows_per_task, left = r->rows - first;
    (void)thread;
    r->row(r, first, (int)(left < r->rows_per_task ? left : r->rows_per_task));
}

static void rowwise_run(const struct compute *c, struct rowwise *r)
{
    const size_t elements = r->rows * (size_t)r->cols;
    if (elements == 0)
        return;
    r->k = &c->k;
    r->rows_per_task = ELEMENTS_PER_TASK / (size_t)r->cols + 1;
    if (elements <= ALONE)
        r->rows_per_task = r->rows;
    pool_run(c->pool, rowwise_task, r, (int)((r->rows + r->rows_per_task - 1) / r->rows_per_task));
}

static void rms_norm_rows(const struct rowwise *r, size_t first, int n)
{
    for (size_t at = first * (size_t)r->cols; n > 0; n--, at += (size_t)r->cols)
        r->k->rms_norm(r->out + at, r->x + at, r->weight, r->cols, r->eps);
}

void compute_rms_norm(const struct compute *c, float *out, const float *x, const float *weight, int rows, int cols,
                      float eps)
{
    struct rowwise r = {
        .row = rms_norm_rows, .out = out, .x = x, .weight = weight, .rows = (size_t)rows, .cols = cols, .eps = eps};
    rowwise_run(c, &r);
}

static void add_rms_norm_rows(const struct rowwise *r, size_t first, int n)
{
    for (size_t at = first * (size_t)r->cols; n > 0; n--, at += (size_t)r->cols) {
        r->k->rms_norm(r->out + at, r->out + at, r->weight, r->cols, r->eps);
        r->k->add(r->residual + at, r->out + at, r->cols);
    }
}

void compute_add_rms_norm(const struct compute *c, float *residual, float *x, const float *weight, int rows, int cols,
                          float eps)
{
    struct rowwise r = {.row = add_rms_norm_rows,
                        .out = x,
                        .residual = residual,
                        .weight = weight,
                        .rows = (size_t)rows,
                        .cols = cols,
                        .eps = eps};
    rowwise_run(c, &r);
}

static void layer_norm_rows(const struct rowwise *r, size_t first, int n)
{
    for (size_t at = first * (size_t)r->cols; n > 0; n--, at += (size_t)r->cols)
        r->k->layer_norm(r->out + at, r->x + at, r->weight, r->bias, r->cols, r->eps);
}

void compute_layer_norm(const struct compute *c, float *out, const float *x, const float *weight, const float *bias,
                        int rows, int cols, float eps)
{
    struct rowwise r = {.row = layer_norm_rows,
                        .out = out,
                        .x = x,
                        .weight = weight,
                        .bias = bias,
                        .rows = (size_t)rows,
                        .cols = cols,
                        .eps = eps};
    rowwise_run(c, &r);
}

static void gelu_elements(const struct rowwise *r, size_t first, int n)
{
    r->k->gelu(r->out + first, n);
}

void compute_gelu(const struct compute *c, float *x, size_t n)
{
    struct rowwise r = {.row = gelu_elements, .out = x, .rows = n, .cols = 1};
    rowwise_run(c, &r);
}

static void gelu_multiply_elements(const struct rowwise *r, size_t first, int n)
{
    r->k->gelu_multiply(r->out + first, r->x + first, r->weight + first, n);
}

void compute_gelu_multiply(const struct compute *c, float *out, const float *gate, const float *up, size_t n)
{
    struct rowwise r = {.row = gelu_multiply_elements, .out = out, .x = gate, .weight = up, .rows = n, .cols = 1};
    rowwise_run(c, &r);
}

static void add_elements(const struct rowwise *r, size_t first, int n)
{
    r->k->add(r->out + first, r->x + first, n);
}

void compute_add(const struct compute *c, float *x, const float *y, size_t n)
{
    struct rowwise r = {.row = add_elements, .out = x, .x = y, .rows = n, .cols = 1};
    rowwise_run(c, &r);
}
