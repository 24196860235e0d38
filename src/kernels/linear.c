/* Linear maps: matrix times matrix over packed panels; a few rows by matrix times vector, in one pass over the weights,
 * each as if it were alone. */
#include "kernels/compute.h"

enum {
    K_BYTES = 1024,          /* of a row of a panel of weights at a time, at most */
    X_PANEL_BYTES = 1 << 14, /* of a panel of x at a time, at most: it stays in the first-level cache */
    PACK_PANELS = 4,         /* panels of x that one task packs */
    TASKS_PER_THREAD = 6,    /* so that threads end together */
    FEW_PANELS = 32,         /* of x: with fewer, packing the weights begins to show */
    VECTOR_BYTES = 1 << 19,  /* of weights that one task multiplies with a single row */
};

static size_t round_up(size_t n, size_t step)
{
    return (n + step - 1) / step * step;
}

static int min_int(int a, int b)
{
    return a < b ? a : b;
}

static size_t x_panel_bytes(const struct gemm *g, int cols)
{
    return round_up((size_t)cols, (size_t)g->k_step) / (size_t)g->k_step * g->x_group;
}

static uint8_t *align(void *p)
{
    return (uint8_t *)p + (KERNELS_ALIGN - (uintptr_t)p % KERNELS_ALIGN) % KERNELS_ALIGN;
}

/* The product that a map asks for. That of float32 rounds nothing. */
static const struct gemm *product_of(const struct compute *c, const struct linear *map)
{
    return c->k.gemm[map->exact && tensor_is_float(map->w->type) ? TENSOR_F32 : map->w->type];
}

/* What a row of x takes that is rounded for gemv, aligned for the next one. */
static size_t row_bytes_8(int cols)
{
    return round_up(x8_bytes(cols), KERNELS_ALIGN);
}

size_t compute_packed_size(const struct compute *c, int rows, int cols)
{
    size_t most = (size_t)min_int(rows, GEMV_MAX_N) * row_bytes_8(cols);
    for (int type = 0; rows > GEMV_MAX_N && type < TENSOR_TYPES; type++) {
        const struct gemm *g = c->k.gemm[type];
        const size_t bytes = (size_t)((rows + g->mr - 1) / g->mr) * round_up(x_panel_bytes(g, cols), KERNELS_ALIGN);
        most = bytes > most ? bytes : most;
    }
    return most + KERNELS_ALIGN;
}

/* ---- few rows: matrix times vector ---- */

struct vector_job {
    const struct compute *c;
    const float *x;
    const uint8_t *x8; /* the same rounded, where a map's weights ask for it */
    int rows, cols;
    const struct linear *maps;
};

static int vector_rows(const struct linear *map)
{
    const size_t rows = VECTOR_BYTES / tensor_row_bytes(map->w);
    return (int)round_up(rows ? rows : 1, 4);
}

static int vector_tasks(const struct linear *map)
{
    const int rows = vector_rows(map);
    return (map->w->rows + rows - 1) / rows;
}

static void vector_task(void *arg, int task, int thread)
{
    const struct vector_job *job = arg;
    const struct kernels *k = &job->c->k;
    const struct linear *map = job->maps;
    (void)thread;
    while (task >= vector_tasks(map))
        task -= vector_tasks(map++);

    const int first = task * vector_rows(map), rows = min_int(vector_rows(map), map->w->rows - first);
    const bool rounded = k->quantize_x[map->w->type] != NULL;
    const void *x = rounded ? (const void *)job->x8 : job->x;
    const size_t x_stride = rounded ? row_bytes_8(job->cols) : (size_t)job->cols * sizeof(float);
    float *out = map->out + first;
    k->gemv[map->w->type](out, (size_t)map->w->rows, tensor_row(map->w, first), tensor_row_bytes(map->w), rows,
                          map->w->cols, x, x_stride, job->rows);
    for (int i = 0; map->bias && i < job->rows; i++)
        k->add(out + (size_t)i * (size_t)map->w->rows, map->bias + first, rows);
}

static void linear_vector(const struct compute *c, const float *x, int rows, const struct linear *maps, int n,
                          void *packed)
{
    const int cols = maps->w->cols;
    uint8_t *x8 = align(packed);
    struct vector_job job = {.c = c, .x = x, .x8 = x8, .rows = rows, .cols = cols, .maps = maps};
    int tasks = 0;
    bool rounded = false;
    for (int i = 0; i < n; i++) {
        tasks += vector_tasks(&maps[i]);
        if (c->k.quantize_x[maps[i].w->type] && !rounded) {
            for (int r = 0; r < rows; r++)
                c->k.quantize_x[maps[i].w->type](x8 + (size_t)r * row_bytes_8(cols), x + (size_t)r * (size_t)cols,
                                                 cols);
            rounded = true;
        }
    }
    pool_run(c->pool, vector_task, &job, tasks);
}

/* ---- several rows ---- */

struct matrix_job {
    const struct compute *c;
    const struct gemm *g;
    const float *x;
    const struct linear *maps;
    uint8_t *packed;    /* panels of x */
    size_t panel_bytes; /* of x */
    int rows, cols, n;
    int panels;       /* of x */
    int block_panels; /* of x for one task */
    int block_cols;   /* outputs of one task */
};

static void pack_task(void *arg, int task, int thread)
{
    const struct matrix_job *job = arg;
    const int mr = job->g->mr, last = min_int((task + 1) * PACK_PANELS, job->panels);
    (void)thread;
    for (int p = task * PACK_PANELS; p < last; p++)
        job->g->pack_x(job->packed + (size_t)p * job->panel_bytes, job->x + (size_t)p * (size_t)mr * (size_t)job->cols,
                       (size_t)job->cols, min_int(mr, job->rows - p * mr), job->cols);
}

static int matrix_row_blocks(const struct matrix_job *job)
{
    return (job->panels + job->block_panels - 1) / job->block_panels;
}

static int matrix_tasks(const struct matrix_job *job, const struct linear *map)
{
    if (product_of(job->c, map) != job->g)
        return 0;
    return (map->w->rows + job->block_cols - 1) / job->block_cols * matrix_row_blocks(job);
}

static int matrix_all_tasks(const struct matrix_job *job)
{
    int tasks = 0;
    for (int i = 0; i < job->n; i++)
        tasks += matrix_tasks(job, &job->maps[i]);
    return tasks;
}

/* Columns of k at a time. */
static int k_block_of(const struct gemm *g)
{
    const size_t column = g->w_group / (size_t)(g->nr * g->k_step) ? g->w_group / (size_t)(g->nr * g->k_step) : 1;
    const size_t of_w = K_BYTES / column, of_x = X_PANEL_BYTES / g->x_group * (size_t)g->k_step;
    return (int)(of_w < of_x ? of_w : of_x) / GEMM_K_PARTS * GEMM_K_PARTS;
}

/* c = or += one tile of which only rows x cols exist. */
static void edge_tile(const struct gemm *g, float *c, size_t c_stride, const void *x, const void *w, int k,
                      bool accumulate, int rows, int cols)
{
    _Alignas(KERNELS_ALIGN) float whole[GEMM_MAX_MR * GEMM_MAX_NR];
    g->tile(whole, (size_t)g->nr, x, w, k, false);
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < cols; j++) {
            float *to = &c[(size_t)i * c_stride + (size_t)j];
            *to = accumulate ? *to + whole[i * g->nr + j] : whole[i * g->nr + j];
        }
}

/* One panel of x times the packed block of weights: k columns, for outputs first .. first + cols of a map. */
static void multiply_panel(const struct matrix_job *job, const struct linear *map, int panel, const uint8_t *w,
                           int first, int cols, int k0, int k)
{
    const struct gemm *g = job->g;
    const size_t stride = (size_t)map->w->rows, w_panel_bytes = (size_t)(k / g->k_step) * g->w_group;
    const uint8_t *x = job->packed + (size_t)panel * job->panel_bytes + (size_t)(k0 / g->k_step) * g->x_group;
    const int rows = min_int(g->mr, job->rows - panel * g->mr);
    float *out = map->out + (size_t)panel * (size_t)g->mr * stride + (size_t)first;

    for (int j = 0; j < cols; j += g->nr, w += w_panel_bytes) {
        if (rows == g->mr && cols - j >= g->nr)
            g->tile(out + j, stride, x, w, k, k0 > 0);
        else
            edge_tile(g, out + j, stride, x, w, k, k0 > 0, rows, min_int(g->nr, cols - j));
    }
    if (map->bias && k0 + k >= job->cols)
        for (int i = 0; i < rows; i++)
            job->c->k.add(out + (size_t)i * stride, map->bias + first, cols);
}

static void matrix_task(void *arg, int task, int thread)
{
    const struct matrix_job *job = arg;
    const struct gemm *g = job->g;
    const struct linear *map = job->maps;
    for (; task >= matrix_tasks(job, map); map++)
        task -= matrix_tasks(job, map);

    const int first = task / matrix_row_blocks(job) * job->block_cols;
    const int cols = min_int(job->block_cols, map->w->rows - first);
    const int first_panel = task % matrix_row_blocks(job) * job->block_panels;
    const int last_panel = min_int(first_panel + job->block_panels, job->panels);
    const int k_block = k_block_of(g);
    const size_t row_bytes = tensor_row_bytes(map->w);

    gemm_begin(g);
    for (int k0 = 0; k0 < job->cols; k0 += k_block) {
        const int k = min_int(k_block, job->cols - k0), k_padded = (int)round_up((size_t)k, (size_t)g->k_step);
        uint8_t *packed = job->c->scratch[thread];
        for (int j = 0; j < cols; j += g->nr, packed += (size_t)(k_padded / g->k_step) * g->w_group)
            g->pack_w[map->w->type](
                packed, (const uint8_t *)tensor_row(map->w, first + j) + tensor_bytes(map->w->type, (size_t)k0),
                row_bytes, min_int(g->nr, cols - j), k);
        for (int panel = first_panel; panel < last_panel; panel++)
            multiply_panel(job, map, panel, job->c->scratch[thread], first, cols, k0, k_padded);
    }
    gemm_end(g);
}

/* Blocks of weights that fill half of the second-level cache, or with the outputs of block_rows three quarters, cut
 * smaller until there are tasks enough for all threads: by rows of x while there are many, else by outputs. Which block
 * an output falls into does not change how it is summed. */
static void plan_blocks(struct matrix_job *job)
{
    const struct gemm *g = job->g;
    const int wanted = TASKS_PER_THREAD * pool_threads(job->c->pool);
    const size_t w_panel_bytes = (size_t)(k_block_of(g) / g->k_step) * g->w_group, l2 = job->c->l2_bytes;
    job->block_panels = job->panels;
    job->block_cols = (int)(l2 / 2 / w_panel_bytes) * g->nr;
    if (g->block_rows) {
        job->block_panels = min_int(job->panels, g->block_rows / g->mr);
        const size_t out_bytes = (size_t)(job->block_panels * g->mr * g->nr) * sizeof(float);
        job->block_cols = min_int(job->block_cols, (int)(l2 * 3 / 4 / (w_panel_bytes + out_bytes)) * g->nr);
        job->block_cols = job->block_cols ? job->block_cols : g->nr;
    }
    while (matrix_all_tasks(job) < wanted && job->block_panels > FEW_PANELS)
        job->block_panels = (job->block_panels + 1) / 2;
    while (matrix_all_tasks(job) < wanted && job->block_cols > 2 * g->nr)
        job->block_cols = (int)round_up((size_t)job->block_cols / 2, (size_t)g->nr);
}

static void linear_matrix(const struct compute *c, const struct gemm *g, const float *x, int rows,
                          const struct linear *maps, int n, void *packed)
{
    const int cols = maps->w->cols;
    struct matrix_job job = {.c = c,
                             .g = g,
                             .x = x,
                             .maps = maps,
                             .n = n,
                             .packed = align(packed),
                             .rows = rows,
                             .cols = cols,
                             .panels = (rows + g->mr - 1) / g->mr,
                             .panel_bytes = round_up(x_panel_bytes(g, cols), KERNELS_ALIGN)};
    plan_blocks(&job);
    pool_run(c->pool, pack_task, &job, (job.panels + PACK_PANELS - 1) / PACK_PANELS);
    pool_run(c->pool, matrix_task, &job, matrix_all_tasks(&job));
}

void compute_linear(const struct compute *c, const float *x, int rows, const struct linear *maps, int n, void *packed)
{
    if (rows <= GEMV_MAX_N) {
        linear_vector(c, x, rows, maps, n, packed);
        return;
    }
    for (int i = 0; i < n; i++) { /* once for each kind of product among the maps */
        const struct gemm *g = product_of(c, &maps[i]);
        int earlier = 0;
        while (product_of(c, &maps[earlier]) != g)
            earlier++;
        if (earlier == i)
            linear_matrix(c, g, x, rows, maps, n, packed);
    }
}
