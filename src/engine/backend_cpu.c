/* The processor as a backend: its memory is the process's own, its operations are compute.h's. */
#include "engine/backend.h"

#include "base/private.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct backend_cpu {
    struct backend base;
    struct compute compute;
};

static struct compute *compute_of(struct backend *be)
{
    return &((struct backend_cpu *)be)->compute;
}

static void cpu_close(struct backend *be)
{
    compute_close(compute_of(be));
    free(be);
}

/* Large buffers come from mmap: zeroed pages that appear when touched, and go back to the system when released. The
 * size stands in a page before the buffer. */
enum { HEADER = 4096 };

static int cpu_alloc(struct backend *be, void **out, size_t bytes, const char *what, struct ward_error *err)
{
    (void)be;
    *out = NULL;
    const size_t total = bytes + HEADER;
    void *memory =
        total < bytes ? MAP_FAILED : mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return error_no_memory(err, what, bytes);
    memory_keep_private(memory, total);
    *(size_t *)memory = total;
    *out = (char *)memory + HEADER;
    return 0;
}

static void cpu_release(struct backend *be, void *buffer)
{
    (void)be;
    if (!buffer)
        return;
    void *memory = (char *)buffer - HEADER;
    munmap(memory, *(size_t *)memory);
}

static void cpu_copy(struct backend *be, void *to, const void *from, size_t bytes)
{
    (void)be;
    memcpy(to, from, bytes);
}

/* The process's own memory is the system's to tell. */
static void cpu_used(struct backend *be, size_t *now, size_t *peak)
{
    (void)be;
    *now = *peak = 0;
}

static int cpu_finish(struct backend *be, struct ward_error *err)
{
    (void)be;
    (void)err;
    return 0;
}

/* Nothing is gained by recording calls of functions. */
static bool cpu_begin(struct backend *be, void **recording)
{
    (void)be;
    (void)recording;
    return false;
}

static void cpu_end(struct backend *be, void **recording)
{
    (void)be;
    (void)recording;
}

static void cpu_embed(struct backend *be, float *out, const struct tensor *table, const int32_t *ids, int rows,
                      float scale)
{
    const struct kernels *k = &compute_of(be)->k;
    for (int r = 0; r < rows; r++) {
        float *row = out + (size_t)r * (size_t)table->cols;
        k->to_float[table->type](row, tensor_row(table, ids[r]), table->cols);
        k->scale(row, scale, table->cols);
    }
}

static size_t cpu_packed_size(struct backend *be, int rows, int cols, bool exact)
{
    (void)exact;
    return compute_packed_size(compute_of(be), rows, cols);
}

static size_t cpu_sums_size(struct backend *be, int rows)
{
    (void)be;
    (void)rows;
    return 0;
}

static size_t cpu_hand_size(struct backend *be, int rows, int cols)
{
    (void)be;
    return (size_t)rows * (size_t)cols * sizeof(float);
}

struct store_job {
    const struct kernels *k;
    const float *from; /* [rows][heads][head_dim] */
    void *to;          /* [heads][capacity][head_dim] of `type` */
    enum tensor_type type;
    int heads, head_dim, capacity;
    const int *positions; /* of the rows; NULL: their numbers */
};

static void store_row(void *arg, int row, int thread)
{
    (void)thread;
    const struct store_job *job = arg;
    const size_t width = (size_t)job->head_dim, element = tensor_bytes(job->type, 1);
    const size_t slot = (size_t)((job->positions ? job->positions[row] : row) % job->capacity);
    for (int h = 0; h < job->heads; h++) {
        const size_t from = ((size_t)row * (size_t)job->heads + (size_t)h) * width;
        const size_t at = ((size_t)h * (size_t)job->capacity + slot) * width * element;
        job->k->from_float[job->type]((uint8_t *)job->to + at, job->from + from, job->head_dim);
    }
}

static void cpu_linear(struct backend *be, const float *x, int rows, const struct linear *maps, int n,
                       struct scratch scratch)
{
    const struct compute *c = compute_of(be);
    compute_linear(c, x, rows, maps, n, scratch.packed);
    for (const struct linear *map = maps; map < maps + n; map++) {
        const size_t values = (size_t)rows * (size_t)map->w->rows;
        if (map->gelu)
            compute_gelu(c, map->out, values);
        if (map->add)
            compute_add(c, map->add, map->out, values);
        if (map->heads.at) {
            struct store_job job = {.k = &c->k,
                                    .from = map->out,
                                    .to = map->heads.at,
                                    .type = map->heads.type,
                                    .heads = map->w->rows / map->heads.head_dim,
                                    .head_dim = map->heads.head_dim,
                                    .capacity = map->heads.capacity};
            pool_run(c->pool, store_row, &job, rows);
        }
    }
}

static void cpu_gated(struct backend *be, const float *x, int rows, const struct linear gate_up[2],
                      struct scratch scratch)
{
    float *const gate = gate_up[0].out;
    compute_linear(compute_of(be), x, rows, gate_up, 2, scratch.packed);
    compute_gelu_multiply(compute_of(be), gate, gate, gate_up[1].out, (size_t)rows * (size_t)gate_up[0].w->rows);
}

static void cpu_rms_norm(struct backend *be, float *out, const float *x, const float *weight, int rows, int cols,
                         float eps, struct next next)
{
    (void)next;
    compute_rms_norm(compute_of(be), out, x, weight, rows, cols, eps);
}

static void cpu_add_rms_norm(struct backend *be, float *residual, float *x, const float *weight,
                             const float *next_weight, int rows, int cols, float eps, struct next next)
{
    (void)next;
    compute_add_rms_norm(compute_of(be), residual, x, weight, rows, cols, eps);
    if (next_weight)
        compute_rms_norm(compute_of(be), x, residual, next_weight, rows, cols, eps);
}

static void cpu_layer_norm(struct backend *be, float *out, const float *x, const float *weight, const float *bias,
                           int rows, int cols, float eps, struct next next)
{
    (void)next;
    compute_layer_norm(compute_of(be), out, x, weight, bias, rows, cols, eps);
}

static void cpu_add_table(struct backend *be, float *x, const struct tensor *table)
{
    const struct kernels *k = &compute_of(be)->k;
    enum { BLOCK = 512 };
    float part[BLOCK];
    const size_t n = (size_t)table->rows * (size_t)table->cols;
    for (size_t i = 0; i < n; i += BLOCK) {
        const int count = n - i < BLOCK ? (int)(n - i) : BLOCK;
        k->to_float[table->type](part, (const uint8_t *)table->data + tensor_bytes(table->type, i), count);
        k->add(x + i, part, count);
    }
}

struct rotate_job {
    const struct kernels *k;
    float *x;
    const float *weight, *cosine, *sine;
    int heads, head_dim;
    float eps;
};

static void rotate_row(void *arg, int row, int thread)
{
    (void)thread;
    const struct rotate_job *job = arg;
    const size_t half = (size_t)job->head_dim / 2;
    float *x = job->x + (size_t)row * (size_t)job->heads * (size_t)job->head_dim;
    for (int h = 0; h < job->heads; h++, x += job->head_dim) {
        job->k->rms_norm(x, x, job->weight, job->head_dim, job->eps);
        job->k->rope(x, job->cosine + (size_t)row * half, job->sine + (size_t)row * half, job->head_dim);
    }
}

static void norm_rotate(const struct compute *c, float *x, int heads, const float *weight, const struct heads *h)
{
    struct rotate_job job = {&c->k, x, weight, h->cosine, h->sine, heads, h->to->head_dim, h->eps};
    pool_run(c->pool, rotate_row, &job, h->rows);
}

static void cpu_store(struct backend *be, const struct heads *h)
{
    struct compute *c = compute_of(be);
    if (h->q_norm) {
        norm_rotate(c, h->q, h->n_heads, h->q_norm, h);
        norm_rotate(c, h->k, h->to->n_heads, h->k_norm, h);
    }
    struct store_job job = {.k = &c->k,
                            .from = h->k,
                            .to = h->to->k,
                            .type = h->to->type,
                            .heads = h->to->n_heads,
                            .head_dim = h->to->head_dim,
                            .capacity = h->to->capacity,
                            .positions = h->positions};
    pool_run(c->pool, store_row, &job, h->rows);
    job.from = h->v;
    job.to = h->to->v;
    pool_run(c->pool, store_row, &job, h->rows);
}

static size_t cpu_attention_size(struct backend *be, int rows, int n_heads, int head_dim)
{
    (void)be, (void)rows, (void)n_heads, (void)head_dim;
    return 0;
}

static void cpu_attention(struct backend *be, const struct attention *a)
{
    compute_attention(compute_of(be), a);
}

static void cpu_pool(struct backend *be, float *out, const float *x, int side, int block, int cols)
{
    const struct kernels *k = &compute_of(be)->k;
    const int squares = side / block;
    for (int s = 0; s < squares * squares; s++, out += cols) {
        const int top = s / squares * block, left = s % squares * block;
        memset(out, 0, (size_t)cols * sizeof *out);
        for (int i = 0; i < block * block; i++)
            k->add(out, x + (size_t)((top + i / block) * side + left + i % block) * (size_t)cols, cols);
        k->scale(out, 1.0f / (float)(block * block), cols);
    }
}

static const struct backend_ops cpu_ops = {
    .close = cpu_close,
    .used = cpu_used,
    .alloc = cpu_alloc,
    .release = cpu_release,
    .write = cpu_copy,
    .read = cpu_copy,
    .copy = cpu_copy,
    .finish = cpu_finish,
    .begin = cpu_begin,
    .end = cpu_end,
    .forget = cpu_end,
    .embed = cpu_embed,
    .packed_size = cpu_packed_size,
    .sums_size = cpu_sums_size,
    .linear = cpu_linear,
    .hand_size = cpu_hand_size,
    .rms_norm = cpu_rms_norm,
    .add_rms_norm = cpu_add_rms_norm,
    .layer_norm = cpu_layer_norm,
    .gated = cpu_gated,
    .add_table = cpu_add_table,
    .store = cpu_store,
    .attention_size = cpu_attention_size,
    .attention = cpu_attention,
    .pool = cpu_pool,
};

int backend_cpu_open(struct backend **out, int threads, enum isa highest, struct ward_error *err)
{
    *out = NULL;
    struct backend_cpu *be = calloc(1, sizeof *be);
    if (!be)
        return error_no_memory(err, "the backend", sizeof *be);
    const int rc = compute_open(&be->compute, threads, highest, err);
    if (rc) {
        free(be);
        return rc;
    }
    const enum isa isa = be->compute.k.isa;
    be->base = (struct backend){
        .ops = &cpu_ops,
        .device = "cpu",
        .kernels = isa_name(isa),
        .card = -1,
        .threads = pool_threads(be->compute.pool),
        .pool = be->compute.pool,
        /* float16 keeps 11 bits of a key or value where bfloat16 keeps 8; none of Gemma's leave its range after their
           norms */
        .cache_type = highest == ISA_NONE ? TENSOR_F32 : TENSOR_F16,
        .encoder_type = TENSOR_F32,
    };
    *out = &be->base;
    return 0;
}

void backend_close(struct backend **be)
{
    if (*be)
        (*be)->ops->close(*be);
    *be = NULL;
}
