/* Attention over cached keys and values, blocked over keys with an online softmax.
 *
 * Several rows: a task takes a block of query rows and one key head, packs its queries once, then goes through blocks
 * of keys: packs keys and values once for all queries, and for each panel of queries computes the scores, their
 * exponentials and the weighted sum of the values while all of it is in the first-level cache.
 *
 * Few rows: a task takes one row, one key head and a piece of the positions.
 *
 * Blocks begin at multiples of a fixed number of positions and end early where the ring wraps, so a block is one piece
 * of memory and the arithmetic depends on positions alone. */
#include "kernels/compute.h"

#include <assert.h>
#include <math.h>
#include <string.h>

enum { KEYS = 256, QUERY_PANELS = 72, PIECE = 512, MAX_PIECES = 32 };

/* What one task works on; pointers into the scratch of its thread. */
struct blocks {
    const struct gemm *scores, *values;        /* the products of queries and keys, of weights and values */
    int mr;                                    /* of both */
    int keys, panels;                          /* of a block */
    int step;                                  /* of keys: a multiple of the tiles of scores and of what values sum */
    int d_padded, d_cols;                      /* head_dim rounded up to k_step of scores, to nr / 2 of values */
    size_t x_panel, k_panel, v_panel, p_panel; /* bytes of a packed panel of queries, keys, values, weights */
    uint8_t *q, *k, *v, *p;
    float *weights;         /* [mr][keys]: scores, then their exponentials */
    float *row;             /* [mr][head_dim]: the scaled queries of a panel */
    float *out;             /* [panels * mr][d_cols]: sums of weighted values */
    float *highest, *total; /* [panels * mr]: of each row, so far */
};

struct attention_job {
    const struct compute *c;
    const struct attention *a;
    struct blocks blocks;
    int group;      /* query heads that share a key head */
    int heads;      /* of them, those of a task: as many as have room */
    int slices;     /* of a group, of so many heads */
    int block_rows; /* query rows of a task */
    int row_blocks;
    int max_pieces, pieces; /* of a row: as many as its sums have room for; the most that one of these rows has */
    float *sums;            /* [rows][n_heads][pieces][head_dim + 2]: weighted values, highest score, total */
};

static size_t round_up(size_t n, size_t step)
{
    return (n + step - 1) / step * step;
}

static int min_int(int a, int b)
{
    return a < b ? a : b;
}

static int max_int(int a, int b)
{
    return a > b ? a : b;
}

/* Lays the blocks out from `base` (NULL: only to measure) and returns the bytes they take. */
static size_t lay_out(struct blocks *b, uint8_t *base, int head_dim)
{
    const struct gemm *s = b->scores, *v = b->values;
    const size_t mr = (size_t)b->mr, panels = (size_t)b->panels, keys = (size_t)b->keys, v_nr = (size_t)v->nr;
    const size_t d_padded = round_up((size_t)head_dim, (size_t)s->k_step), d_groups = d_padded / (size_t)s->k_step;
    const size_t d_cols = round_up((size_t)head_dim, v_nr / 2), key_groups = keys / (size_t)v->k_step;
    size_t used = 0;

    b->d_padded = (int)d_padded;
    b->d_cols = (int)d_cols;
    b->x_panel = d_groups * s->x_group;
    b->k_panel = d_groups * s->w_group;
    b->v_panel = key_groups * v->w_group;
    b->p_panel = key_groups * v->x_group;
    const size_t sizes[] = {panels * b->x_panel,
                            keys / (size_t)s->nr * b->k_panel,
                            round_up(d_cols, v_nr) / v_nr * b->v_panel,
                            b->p_panel,
                            mr * keys * sizeof(float),
                            mr * (size_t)head_dim * sizeof(float),
                            panels * mr * d_cols * sizeof(float),
                            panels * mr * sizeof(float),
                            panels * mr * sizeof(float)};
    uint8_t *at[sizeof sizes / sizeof *sizes];
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        at[i] = base ? base + used : NULL;
        used += round_up(sizes[i], KERNELS_ALIGN);
    }
    b->q = at[0], b->k = at[1], b->v = at[2], b->p = at[3];
    b->weights = (void *)at[4], b->row = (void *)at[5], b->out = (void *)at[6];
    b->highest = (void *)at[7], b->total = (void *)at[8];
    return used;
}

/* Scales and packs the queries of one head from row `first` on, into the panels from `to` on. */
static void pack_queries(const struct attention_job *job, const struct blocks *b, int to, int head, int first, int rows)
{
    const struct attention *a = job->a;
    const size_t d = (size_t)a->head_dim, stride = (size_t)a->n_heads * d;
    for (int panel = 0; panel * b->mr < rows; panel++) {
        const int n = min_int(b->mr, rows - panel * b->mr);
        for (int i = 0; i < n; i++) {
            const size_t row = (size_t)(first + panel * b->mr + i);
            memcpy(b->row + (size_t)i * d, a->q + row * stride + (size_t)head * d, d * sizeof(float));
        }
        job->c->k.scale(b->row, a->scale, n * a->head_dim);
        b->scores->pack_x(b->q + (size_t)(to + panel) * b->x_panel, b->row, d, n, a->head_dim);
    }
}

static void pack_keys_values(const struct attention *a, const struct blocks *b, int key_head, int slot, int n)
{
    const int k_nr = b->scores->nr, v_nr = b->values->nr, d = a->head_dim;
    const size_t row_bytes = tensor_bytes(a->type, (size_t)d);
    const size_t at = ((size_t)key_head * (size_t)a->capacity + (size_t)slot) * row_bytes;
    const uint8_t *k = (const uint8_t *)a->k + at, *v = (const uint8_t *)a->v + at;
    for (int j = 0; j < n; j += k_nr)
        b->scores->pack_w[a->type](b->k + (size_t)(j / k_nr) * b->k_panel, k + (size_t)j * row_bytes, row_bytes,
                                   min_int(k_nr, n - j), d);
    for (int j = 0; j < d; j += v_nr)
        b->values->pack_w_transposed[a->type](b->v + (size_t)(j / v_nr) * b->v_panel,
                                              v + tensor_bytes(a->type, (size_t)j), row_bytes, n,
                                              min_int(v_nr, d - j));
}

/* The softmax of one row of scores over the n keys of a block, of which low .. high - 1 are seen, relative to the
 * highest score so far; what has been summed is scaled when that rises. */
static void soften_row(const struct kernels *k, float *scores, int n, int low, int high, float *out, int d_cols,
                       float *highest, float *total)
{
    if (low >= high) {
        memset(scores, 0, (size_t)n * sizeof *scores);
        return;
    }
    const float most = k->max(scores + low, high - low);
    if (most > *highest) {
        const float factor = expf(*highest - most); /* 0 the first time */
        *total *= factor;
        k->scale(out, factor, d_cols);
        *highest = most;
    }
    *total += k->exp_sum(scores + low, *highest, high - low);
    if (low > 0 || high < n) {
        memset(scores, 0, (size_t)low * sizeof *scores);
        memset(scores + high, 0, (size_t)(n - high) * sizeof *scores);
    }
}

/* One panel of queries against the packed block of positions p0 .. p0 + n - 1. `lo`, `hi` belong to its first row. Of
 * the block only the keys from `start` to `end` are computed: those that some row of the panel sees. */
static void attend_panel(const struct kernels *k, const struct blocks *b, int panel, int rows, const int *lo,
                         const int *hi, int p0, int n)
{
    const struct gemm *s = b->scores, *v = b->values;
    const size_t first = (size_t)panel * (size_t)b->mr, d_cols = (size_t)b->d_cols, stride = (size_t)b->keys;
    int start = n, end = 0;
    for (int i = 0; i < rows; i++) {
        start = min_int(start, max_int(lo[i] - p0, 0));
        end = max_int(end, min_int(hi[i] - p0, n));
    }
    if (start >= end)
        return;
    start = start / b->step * b->step;

    for (int j = start; j < end; j += s->nr)
        s->tile(b->weights + j, stride, b->q + (size_t)panel * b->x_panel, b->k + (size_t)(j / s->nr) * b->k_panel,
                b->d_padded, false);
    for (int i = 0; i < rows; i++)
        soften_row(k, b->weights + (size_t)i * stride + start, end - start, max_int(lo[i] - p0 - start, 0),
                   min_int(hi[i] - p0, end) - start, b->out + (first + (size_t)i) * d_cols, b->d_cols,
                   &b->highest[first + (size_t)i], &b->total[first + (size_t)i]);
    v->pack_x(b->p, b->weights + start, stride, rows, end - start);

    const int k_padded = (int)round_up((size_t)(end - start), (size_t)v->k_step);
    const uint8_t *from = b->v + (size_t)(start / v->k_step) * v->w_group;
    for (int j = 0; j < b->d_cols; j += v->nr, from += b->v_panel)
        (b->d_cols - j > v->nr / 2 ? v->tile : v->tile_half)(b->out + first * d_cols + (size_t)j, d_cols, b->p, from,
                                                             k_padded, true);
}

/* Writes out the rows of one head, summed in the panels from `from` on. A row that sees nothing is 0. */
static void finish_rows(const struct kernels *k, const struct attention *a, const struct blocks *b, int from, int head,
                        int first, int rows)
{
    const size_t d = (size_t)a->head_dim;
    for (int i = 0; i < rows; i++) {
        const size_t row = (size_t)(from * b->mr + i);
        float *out = a->out + (size_t)(first + i) * (size_t)a->n_heads * d + (size_t)head * d;
        memcpy(out, b->out + row * (size_t)b->d_cols, d * sizeof *out);
        k->scale(out, b->total[row] > 0 ? 1.0f / b->total[row] : 0.0f, a->head_dim);
    }
}

/* Positions from p on that are one block: up to the next multiple of `keys`, the end of the ring or `high`. */
static int block_length(int p, int high, int capacity, int keys)
{
    return min_int(min_int(keys - p % keys, capacity - p % capacity), high - p);
}

/* A key head, query heads that share it and a block of rows; the panels of one query head follow another's. */
static void rows_task(void *arg, int task, int thread)
{
    const struct attention_job *job = arg;
    const struct attention *a = job->a;
    const struct kernels *k = &job->c->k;
    struct blocks b = job->blocks;
    /* the last rows first: in a causal prompt they take longest */
    const int column = task % (a->n_kv_heads * job->slices), key_head = column / job->slices;
    const int first = (job->row_blocks - 1 - task / (a->n_kv_heads * job->slices)) * job->block_rows;
    const int rows = min_int(job->block_rows, a->rows - first), mr = b.mr, panels = (rows + mr - 1) / mr;
    const int in_group = column % job->slices * job->heads, heads = min_int(job->heads, job->group - in_group);
    const int first_head = key_head * job->group + in_group;
    const int *lo = a->lo + first, *hi = a->hi + first;
    int low = lo[0], high = hi[0];

    lay_out(&b, job->c->scratch[thread], a->head_dim);
    for (int i = 1; i < rows; i++) {
        low = min_int(low, lo[i]);
        high = max_int(high, hi[i]);
    }
    for (int i = 0; i < heads; i++)
        pack_queries(job, &b, i * panels, first_head + i, first, rows);
    memset(b.out, 0, (size_t)(heads * panels * mr) * (size_t)b.d_cols * sizeof *b.out);
    for (int i = 0; i < heads * panels * mr; i++) {
        b.highest[i] = -INFINITY;
        b.total[i] = 0;
    }
    gemm_begin(b.scores); /* where it has to be prepared, both products are one */
    for (int p = low, n; p < high; p += n) {
        n = block_length(p, high, a->capacity, b.keys);
        pack_keys_values(a, &b, key_head, p % a->capacity, n);
        for (int i = 0; i < heads * panels; i++) {
            const int row = i % panels * mr;
            attend_panel(k, &b, i, min_int(mr, rows - row), lo + row, hi + row, p, n);
        }
    }
    gemm_end(b.scores);
    for (int i = 0; i < heads; i++)
        finish_rows(k, a, &b, i * panels, first_head + i, first, rows);
}

/* The length of the pieces of row `row`: a multiple of PIECE that gives at most max_pieces. The pieces begin at multiples
 * of it, so what each holds depends on what the row sees and on the shape of the heads alone. */
static int piece_length(const struct attention_job *job, int row)
{
    const int low = job->a->lo[row] / PIECE, high = (job->a->hi[row] + PIECE - 1) / PIECE;
    int units = 1;
    while ((high + units - 1) / units - low / units > job->max_pieces)
        units++;
    return units * PIECE;
}

static int piece_count(const struct attention_job *job, int row)
{
    const int length = piece_length(job, row);
    if (job->max_pieces == 1 || job->a->lo[row] >= job->a->hi[row])
        return 1;
    return (job->a->hi[row] + length - 1) / length - job->a->lo[row] / length;
}

/* A query row, a key head with the query heads that share it, and a piece of the positions, by matrix times vector. The
 * sum of a row in one piece goes where its result belongs, those of several to `sums`, for combine_task. */
static void row_task(void *arg, int task, int thread)
{
    const struct attention_job *job = arg;
    const struct attention *a = job->a;
    const struct kernels *k = &job->c->k;
    const int key_head = task % a->n_kv_heads, piece = task / a->n_kv_heads % job->pieces;
    const int row = task / a->n_kv_heads / job->pieces;
    const size_t d = (size_t)a->head_dim, row_bytes = tensor_bytes(a->type, d);
    const size_t head_bytes = (size_t)key_head * (size_t)a->capacity * row_bytes;
    const size_t at_head = (size_t)row * (size_t)a->n_heads + (size_t)key_head * (size_t)job->group;
    const float *q = a->q + at_head * d;
    float *scores = job->c->scratch[thread], *highest = scores + KEYS, *total = highest + job->group;
    float *out = a->out + at_head * d;
    size_t out_stride = d;
    int low = a->lo[row], high = a->hi[row];

    if (job->pieces > 1) {
        if (piece >= piece_count(job, row))
            return;
        const int length = piece_length(job, row), begin = (low / length + piece) * length;
        low = max_int(low, begin);
        high = min_int(high, begin + length);
        out_stride = (size_t)job->pieces * (d + 2);
        out = job->sums + at_head * out_stride + (size_t)piece * (d + 2);
    }
    for (int i = 0; i < job->group; i++) {
        highest[i] = -INFINITY;
        total[i] = 0;
        memset(out + (size_t)i * out_stride, 0, d * sizeof *out);
    }
    for (int p = low, n; p < high; p += n) {
        n = block_length(p, high, a->capacity, KEYS);
        const size_t at = head_bytes + (size_t)(p % a->capacity) * row_bytes;
        for (int i = 0; i < job->group; i++) {
            float *sum = out + (size_t)i * out_stride;
            k->gemv[a->type](scores, 0, (const uint8_t *)a->k + at, row_bytes, n, a->head_dim, q + (size_t)i * d, 0, 1);
            k->scale(scores, a->scale, n);
            soften_row(k, scores, n, 0, n, sum, a->head_dim, &highest[i], &total[i]);
            k->weighted_rows[a->type](sum, scores, (const uint8_t *)a->v + at, row_bytes, n, a->head_dim);
        }
    }
    for (int i = 0; i < job->group; i++, out += out_stride) {
        if (job->pieces > 1) {
            out[d] = highest[i];
            out[d + 1] = total[i];
        } else {
            k->scale(out, total[i] > 0 ? 1.0f / total[i] : 0.0f, a->head_dim);
        }
    }
}

/* The pieces of a row and a query head, in order, to its result. */
static void combine_task(void *arg, int task, int thread)
{
    const struct attention_job *job = arg;
    const struct attention *a = job->a;
    const struct kernels *k = &job->c->k;
    const size_t d = (size_t)a->head_dim;
    const int n = piece_count(job, task / a->n_heads);
    float *sum = job->sums + (size_t)task * (size_t)job->pieces * (d + 2), *out = a->out + (size_t)task * d;
    float highest = sum[d], total = 0;
    (void)thread;
    for (int i = 1; i < n; i++)
        highest = sum[(size_t)i * (d + 2) + d] > highest ? sum[(size_t)i * (d + 2) + d] : highest;
    for (int i = 0; i < n; i++, sum += d + 2) {
        const float factor = highest > -INFINITY ? expf(sum[d] - highest) : 0;
        k->scale(sum, factor, a->head_dim);
        total += factor * sum[d + 1];
        if (i == 0)
            memcpy(out, sum, d * sizeof *out);
        else
            k->add(out, sum, a->head_dim);
    }
    k->scale(out, total > 0 ? 1.0f / total : 0.0f, a->head_dim);
}

/* Few rows: the positions that a row sees are cut into pieces as well, so that there is work for more threads than there
 * are key heads. The sums of the pieces lie in the first thread's scratch, behind what its own tasks use. */
static void attend_rows_alone(struct attention_job *job)
{
    const struct attention *a = job->a;
    const size_t used = round_up((KEYS + 2 * (size_t)job->group) * sizeof(float), KERNELS_ALIGN);
    const size_t piece_bytes = (size_t)GEMV_MAX_N * (size_t)a->n_heads * ((size_t)a->head_dim + 2) * sizeof(float);
    job->sums = (void *)((uint8_t *)job->c->scratch[0] + used);
    job->max_pieces = max_int(min_int(MAX_PIECES, (int)((job->c->scratch_size - used) / piece_bytes)), 1);
    job->pieces = 1;
    for (int row = 0; row < a->rows; row++)
        job->pieces = max_int(job->pieces, piece_count(job, row));
    pool_run(job->c->pool, row_task, job, a->rows * job->pieces * a->n_kv_heads);
    if (job->pieces > 1)
        pool_run(job->c->pool, combine_task, job, a->rows * a->n_heads);
}

/* As many queries as fit the second-level cache together with a block of keys; as many heads as fit the scratch. How
 * many keys make a block decides the order of summation, so that follows from the shape of the heads alone. */
static void plan_blocks(struct attention_job *job)
{
    struct blocks *b = &job->blocks;
    const int mr = b->mr, row_panels = (job->a->rows + mr - 1) / mr;

    b->keys = KEYS;
    job->heads = b->panels = job->group;
    while (job->heads > 1 && lay_out(b, NULL, job->a->head_dim) > job->c->scratch_size)
        job->heads = b->panels = (job->heads + 1) / 2;
    while (b->keys > b->step && lay_out(b, NULL, job->a->head_dim) > job->c->scratch_size)
        b->keys /= 2;
    assert(lay_out(b, NULL, job->a->head_dim) <= job->c->scratch_size);
    job->slices = (job->group + job->heads - 1) / job->heads;

    /* of an image many, since each task packs the keys and values anew; of a prompt fewer, so that there are tasks */
    const int most = row_panels < 8 * QUERY_PANELS ? QUERY_PANELS / 2 : QUERY_PANELS;
    int panels = min_int(max_int(most / job->heads, 1), row_panels);
    b->panels = panels * job->heads;
    while (panels > 1 && lay_out(b, NULL, job->a->head_dim) > job->c->l2_bytes) {
        panels = (panels + 1) / 2;
        b->panels = panels * job->heads;
    }
    job->block_rows = panels * mr;
    job->row_blocks = (job->a->rows + job->block_rows - 1) / job->block_rows;
}

void compute_attention(const struct compute *c, const struct attention *a)
{
    const struct gemm *f32 = c->k.gemm[TENSOR_F32], *scores = a->exact ? f32 : c->k.gemm_scores,
                      *values = a->exact ? f32 : c->k.gemm_values;
    struct attention_job job = {
        .c = c, .a = a,
        .blocks = {.scores = scores, .values = values, .mr = scores->mr, .step = max_int(scores->nr, values->k_step)},
        .group = a->n_heads / a->n_kv_heads};
    if (a->rows <= GEMV_MAX_N) {
        attend_rows_alone(&job);
        return;
    }
    plan_blocks(&job);
    pool_run(c->pool, rows_task, &job, job.row_blocks * a->n_kv_heads * job.slices);
}
