/* Whole operations against naive loops in double precision, and bit for bit the same on one, two and three threads. */
#include "harness.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_THREADS = 3, MAPS = 3, MOST_INPUTS = 2048 };

/* Runs `operation` with 1, 2 and 3 threads into out [n] and checks that all agree. */
struct operation {
    void (*run)(const struct compute *c, void *arg);
    void *arg;
    float *out;
    size_t n;
};

static bool same_on_all_threads(const struct kernels *k, const struct operation *op)
{
    float *first = malloc(op->n * sizeof *first);
    bool ok = first != NULL;
    for (int threads = 1; ok && threads <= MOST_THREADS; threads += quick ? 2 : 1) {
        struct compute c;
        struct ward_error err;
        if (compute_open(&c, threads, k->isa, &err)) {
            ok = fail("%s", err.text);
            break;
        }
        c.k = *k; /* a set may be compiled for the tests in a way of its own */
        op->run(&c, op->arg);
        if (threads == 1)
            memcpy(first, op->out, op->n * sizeof *first);
        else if (memcmp(first, op->out, op->n * sizeof *first) != 0)
            ok = fail("%d threads give another result than one", threads);
        compute_close(&c);
    }
    free(first);
    return ok && buffers_intact();
}

/* ---- linear maps ---- */

struct linear_case {
    const float *x;
    int rows, cols, n;
    struct linear maps[MAPS];
    struct tensor weights[MAPS];
    float *values[MAPS]; /* of the weights */
};

static void run_linear(const struct compute *c, void *arg)
{
    const struct linear_case *l = arg;
    void *packed = buffer(compute_packed_size(c, l->rows, l->cols), 0);
    compute_linear(c, l->x, l->rows, l->maps, l->n, packed);
}

/* How the product of a map rounds x. */
static enum rounding rounding_of(const struct kernels *k, const struct linear_case *l, const struct linear *m)
{
    if (l->rows <= GEMV_MAX_N)
        return k->quantize_x[m->w->type] ? ROUND_X8 : ROUND_NOTHING;
    return m->exact && tensor_is_float(m->w->type) ? ROUND_NOTHING : k->gemm[m->w->type]->rounding;
}

static bool check_map(const struct kernels *k, const struct linear_case *l, int map)
{
    const struct linear *m = &l->maps[map];
    const enum rounding rounding = rounding_of(k, l, m);
    float of_row[MOST_INPUTS], *w = l->values[map], *rounded = float_buffer((size_t)(l->rows * l->cols));
    for (int r = 0; r < l->rows; r++)
        as_rounded(rounding, FIXED_BLOCK, rounded + r * l->cols, l->x + r * l->cols, l->cols);
    for (int j = 0; rounds_weights(rounding) && j < m->w->rows; j++)
        as_rounded(rounding, FIXED_BLOCK, w + j * l->cols, w + j * l->cols, l->cols);
    for (int j = 0; j < m->w->rows; j++) {
        magnitudes(m->w->type, of_row, w + j * l->cols, l->cols);
        for (int r = 0; r < l->rows; r++) {
            const float *x = rounded + r * l->cols;
            double sum = m->bias ? (double)m->bias[j] : 0, absolute = fabs(sum);
            for (int i = 0; i < l->cols; i++) {
                sum += (double)x[i] * (double)w[j * l->cols + i];
                absolute += fabs((double)x[i]) * (double)of_row[i];
            }
            if (!near("linear", r * m->w->rows + j, (double)m->out[r * m->w->rows + j], sum,
                      SUM_BOUND(l->cols) * absolute))
                return fail("map %d of %d, %d rows, %d to %d", map, l->n, l->rows, l->cols, m->w->rows);
        }
    }
    return true;
}

/* A group of three maps: of the given type, of another, of the given type without bias and in float32. */
static bool check_linear_size(const struct kernels *k, enum tensor_type type, int rows, int cols_least, int outputs)
{
    const enum tensor_type other = (enum tensor_type)((type + 1) % TENSOR_TYPES);
    const int cols = whole_blocks(type, whole_blocks(other, cols_least));
    struct linear_case l = {.rows = rows, .cols = cols, .n = MAPS};
    const int n_out[MAPS] = {outputs, outputs / 2 + 1, 5};
    float *x = float_buffer((size_t)(rows * cols)),
          *all = float_buffer((size_t)(rows * (n_out[0] + n_out[1] + n_out[2])));
    float *out = all;
    random_fill(x, (size_t)(rows * cols));
    l.x = x;
    for (int i = 0; i < MAPS; i++) {
        const enum tensor_type of = i == 1 ? other : type;
        float *bias = float_buffer((size_t)n_out[i]);
        random_fill(bias, (size_t)n_out[i]);
        l.values[i] = float_buffer((size_t)(n_out[i] * cols));
        l.weights[i] = (struct tensor){random_matrix(of, n_out[i], cols, i == 0, l.values[i]), of, n_out[i], cols};
        l.maps[i] = (struct linear){.out = out, .w = &l.weights[i], .bias = i == 2 ? NULL : bias, .exact = i == 2};
        out += (size_t)rows * (size_t)n_out[i];
    }
    const struct operation op = {run_linear, &l, all, (size_t)(out - all)};
    bool ok = same_on_all_threads(k, &op);
    for (int i = 0; ok && i < MAPS; i++)
        ok = check_map(k, &l, i);
    buffers_release();
    return ok;
}

static bool check_linear(const struct kernels *k, int type)
{
    static const int shapes[][3] = {
        /* rows, inputs, outputs */
        {1, 1, 1},    {1, 37, 11},   {1, 588, 70},   {1, 2048, 300}, {2, 1, 1},    {3, 37, 11},   {13, 72, 33},
        {14, 64, 32}, {15, 255, 64}, {33, 588, 150}, {29, 1300, 97}, {500, 3, 40}, {450, 40, 70}, {2, 513, 1100},
        {1100, 33, 40},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (!check_linear_size(k, (enum tensor_type)type, shapes[i][0], shapes[i][1], shapes[i][2]))
            return false;
    return true;
}

/* ---- attention ---- */

enum mask { FULL, CAUSAL, WINDOW, IMAGE, RANDOM }; /* IMAGE: causal, but a block in the middle sees all of itself */

struct shape {
    int rows, heads, kv_heads, d, capacity;
    int first; /* position of the first row */
    enum mask mask;
    int window;
};

static void fill_mask(const struct shape *s, int *lo, int *hi)
{
    const int block = s->first + s->rows / 3, block_end = s->first + s->rows * 2 / 3;
    for (int r = 0; r < s->rows; r++) {
        const int p = s->first + r, oldest = s->first + s->rows - s->capacity;
        lo[r] = oldest > 0 ? oldest : 0;
        hi[r] = s->mask == FULL ? s->first + s->rows : p + 1;
        if (s->mask == WINDOW && p + 1 - s->window > lo[r])
            lo[r] = p + 1 - s->window;
        if (s->mask == IMAGE && p >= block && p < block_end)
            hi[r] = block_end;
        if (s->mask == RANDOM) { /* some rows see nothing */
            lo[r] = random_int(lo[r], p);
            hi[r] = random_int(lo[r], s->first + s->rows);
        }
    }
}

static void run_attention(const struct compute *c, void *arg)
{
    compute_attention(c, arg);
}

/* One row and head, naively. A rounding of u of both factors changes a score by 2 u sum |q k|, a weight twice as much
 * relative to itself; the weights and values are rounded too. In fixed point all of that is relative to the largest of a
 * block: of the queries and keys, of the weights, which reach 1, and of the values, those included that are not seen. */
static bool check_row(const struct attention *a, const float *keys, const float *values, double u, bool fixed, int r,
                      int h)
{
    const int d = a->head_dim, head = h / (a->n_heads / a->n_kv_heads);
    const float *q = a->q + (r * a->n_heads + h) * d, *out = a->out + (r * a->n_heads + h) * d;
    double *scores = calloc((size_t)a->capacity, sizeof *scores), highest = -INFINITY, total = 0, absolute = 0,
           largest = 0;
    bool ok = scores != NULL;

    for (int p = a->lo[r]; ok && p < a->hi[r]; p++) {
        double score = 0, sum = 0, most_q = 0, most_k = 0;
        for (int i = 0; i < d; i++) {
            const double key = (double)keys[(head * a->capacity + p % a->capacity) * d + i];
            score += (double)q[i] * key;
            sum += fabs((double)q[i] * key);
            most_q = fmax(most_q, fabs((double)q[i]));
            most_k = fmax(most_k, fabs(key));
        }
        sum = fixed ? d * most_q * most_k : sum;
        scores[p - a->lo[r]] = score * (double)a->scale;
        highest = fmax(highest, score * (double)a->scale);
        absolute = fmax(absolute, sum * (double)a->scale);
    }
    for (int p = a->lo[r]; ok && p < a->hi[r]; p++)
        total += scores[p - a->lo[r]] = exp(scores[p - a->lo[r]] - highest);
    for (int i = 0; ok && i < d; i++) {
        double sum = 0;
        for (int p = a->lo[r]; p < a->hi[r]; p++) {
            const double v = (double)values[(head * a->capacity + p % a->capacity) * d + i];
            sum += scores[p - a->lo[r]] / total * v;
            largest = fmax(largest, fabs(v));
        }
        for (int slot = 0; fixed && slot < a->capacity; slot++)
            largest = fmax(largest, fabs((double)values[(head * a->capacity + slot) * d + i]));
        const double of_weights = fixed ? u * (a->hi[r] - a->lo[r]) / total : 0;
        const double bound = (4 * u * absolute + of_weights + 4 * u + 8 * EPS) * largest;
        ok = near("attention", (r * a->n_heads + h) * d + i, (double)out[i], sum, bound);
    }
    free(scores);
    return ok;
}

struct alone_case {
    struct attention a;
    float *out; /* of all rows, each computed by itself */
};

static void run_rows_alone(const struct compute *c, void *arg)
{
    const struct alone_case *alone = arg;
    const size_t width = (size_t)(alone->a.n_heads * alone->a.head_dim);
    for (int r = 0; r < alone->a.rows; r++) {
        struct attention one = alone->a;
        one.rows = 1;
        one.out = alone->out + (size_t)r * width;
        one.q += (size_t)r * width;
        one.lo += r;
        one.hi += r;
        compute_attention(c, &one);
    }
}

static bool check_shape(const struct kernels *k, enum tensor_type type, const struct shape *s, bool exact)
{
    const size_t n_q = (size_t)(s->rows * s->heads * s->d);
    const int cache_rows = s->kv_heads * s->capacity;
    float *q = float_buffer(n_q), *out = float_buffer(n_q);
    float *keys = float_buffer((size_t)(cache_rows * s->d)), *values = float_buffer((size_t)(cache_rows * s->d));
    int *lo = buffer((size_t)s->rows * sizeof *lo, 0), *hi = buffer((size_t)s->rows * sizeof *hi, 0);
    for (size_t i = 0; i < n_q; i++)
        q[i] = 2 * random_float();
    struct attention a = {
        .out = out,
        .q = q,
        .type = type,
        .rows = s->rows,
        .n_heads = s->heads,
        .n_kv_heads = s->kv_heads,
        .head_dim = s->d,
        .capacity = s->capacity,
        .lo = lo,
        .hi = hi,
        .scale = 1 / sqrtf((float)s->d),
        .exact = exact,
    };
    a.k = random_matrix(type, cache_rows, s->d, false, keys);
    a.v = random_matrix(type, cache_rows, s->d, false, values);
    fill_mask(s, lo, hi);

    const struct operation op = {run_attention, &a, out, n_q};
    bool ok = same_on_all_threads(k, &op);
    const enum rounding rounding = s->rows > GEMV_MAX_N && !exact ? k->gemm_scores->rounding : ROUND_NOTHING;
    const double u = rounding == ROUND_BF16 ? 0x1p-9 : rounding == ROUND_FIXED ? 0.5 / FIXED_MOST : 4 * EPS;
    for (int r = 0; ok && r < s->rows; r++)
        for (int h = 0; ok && h < s->heads; h++)
            ok = check_row(&a, keys, values, u, rounding == ROUND_FIXED, r, h);
    if (ok && s->rows <= GEMV_MAX_N) {
        struct alone_case alone = {a, float_buffer(n_q)};
        const struct operation each = {run_rows_alone, &alone, alone.out, n_q};
        ok = same_on_all_threads(k, &each) &&
             (memcmp(out, alone.out, n_q * sizeof *out) == 0 || fail("rows together differ from each alone"));
    }
    buffers_release();
    return ok || fail("%d rows from %d, heads %d/%d of %d, capacity %d, mask %d", s->rows, s->first, s->heads,
                      s->kv_heads, s->d, s->capacity, (int)s->mask);
}

static bool check_attention(const struct kernels *k, int type)
{
    static const struct shape shapes[] = {
        {.rows = 1, .heads = 1, .kv_heads = 1, .d = 1, .capacity = 1, .mask = FULL},
        {.rows = 1, .heads = 8, .kv_heads = 4, .d = 256, .capacity = 40, .first = 30, .mask = CAUSAL},
        {.rows = 1, .heads = 4, .kv_heads = 4, .d = 10, .capacity = 600, .first = 5000, .mask = CAUSAL},
        {.rows = 1, .heads = 6, .kv_heads = 2, .d = 33, .capacity = 300, .first = 700, .mask = WINDOW, .window = 290},
        {.rows = 2, .heads = 2, .kv_heads = 1, .d = 8, .capacity = 2, .mask = FULL},
        {.rows = 8, .heads = 4, .kv_heads = 2, .d = 12, .capacity = 1100, .first = 1019, .mask = CAUSAL},
        {.rows = 8, .heads = 2, .kv_heads = 2, .d = 16, .capacity = 1535, .first = 5630, .mask = WINDOW, .window = 1024},
        {.rows = 6, .heads = 2, .kv_heads = 1, .d = 9, .capacity = 2000, .first = 1990, .mask = RANDOM},
        {.rows = 3, .heads = 2, .kv_heads = 1, .d = 8, .capacity = 40000, .first = 36000, .mask = CAUSAL},
        {.rows = 2, .heads = 32, .kv_heads = 8, .d = 512, .capacity = 4200, .first = 4100, .mask = CAUSAL},
        {.rows = 300, .heads = 2, .kv_heads = 2, .d = 72, .capacity = 300, .mask = FULL},
        {.rows = 70, .heads = 8, .kv_heads = 4, .d = 64, .capacity = 900, .first = 600, .mask = CAUSAL},
        {.rows = 33, .heads = 4, .kv_heads = 1, .d = 256, .capacity = 64, .mask = CAUSAL},
        {.rows = 90, .heads = 2, .kv_heads = 1, .d = 80, .capacity = 217, .first = 1000, .mask = WINDOW, .window = 120},
        {.rows = 290, .heads = 2, .kv_heads = 1, .d = 10, .capacity = 777, .first = 480, .mask = IMAGE},
        {.rows = 60, .heads = 2, .kv_heads = 2, .d = 24, .capacity = 500, .first = 440, .mask = RANDOM},
        {.rows = 530, .heads = 1, .kv_heads = 1, .d = 7, .capacity = 530, .mask = RANDOM},
        {.rows = 9, .heads = 80, .kv_heads = 1, .d = 1024, .capacity = 10, .mask = CAUSAL},
        {.rows = 9, .heads = 5, .kv_heads = 1, .d = 4096, .capacity = 10, .mask = CAUSAL},
        {.rows = 9, .heads = 1, .kv_heads = 1, .d = 1030, .capacity = 40, .mask = CAUSAL},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int exact = 0; exact < 2; exact++)
            if ((!quick || exact == (int)i % 2) && !check_shape(k, (enum tensor_type)type, &shapes[i], exact))
                return false;
    return true;
}

/* ---- row by row: that every row is reached once, in parallel too; the arithmetic is checked kernel by kernel ---- */

struct rows_case {
    int rows, cols;
    const float *x, *y, *weight, *bias;
    float *out, *residual;
    int which;
};

enum { RMS_NORM, ADD_RMS_NORM, LAYER_NORM, GELU, GELU_MULTIPLY, ADD, ROW_OPERATIONS };

static void run_rows(const struct compute *c, void *arg)
{
    const struct rows_case *r = arg;
    const size_t n = (size_t)r->rows * (size_t)r->cols;
    const float eps = 1e-6f;
    memcpy(r->out, r->x, n * sizeof *r->out);
    switch (r->which) {
    case RMS_NORM:
        compute_rms_norm(c, r->out, r->out, r->weight, r->rows, r->cols, eps);
        break;
    case ADD_RMS_NORM:
        memcpy(r->residual, r->y, n * sizeof *r->out);
        compute_add_rms_norm(c, r->residual, r->out, r->weight, r->rows, r->cols, eps);
        memcpy(r->out, r->residual, n * sizeof *r->out);
        break;
    case LAYER_NORM:
        compute_layer_norm(c, r->out, r->x, r->weight, r->bias, r->rows, r->cols, eps);
        break;
    case GELU:
        compute_gelu(c, r->out, n);
        break;
    case GELU_MULTIPLY:
        compute_gelu_multiply(c, r->out, r->out, r->y, n);
        break;
    default:
        compute_add(c, r->out, r->y, n);
    }
}

static void expected_row(const struct kernels *k, const struct rows_case *r, float *row, const float *x, const float *y)
{
    const float eps = 1e-6f;
    memcpy(row, x, (size_t)r->cols * sizeof *row);
    switch (r->which) {
    case RMS_NORM:
        k->rms_norm(row, x, r->weight, r->cols, eps);
        break;
    case ADD_RMS_NORM:
        k->rms_norm(row, x, r->weight, r->cols, eps);
        k->add(row, y, r->cols);
        break;
    case LAYER_NORM:
        k->layer_norm(row, x, r->weight, r->bias, r->cols, eps);
        break;
    case GELU:
        k->gelu(row, r->cols);
        break;
    case GELU_MULTIPLY:
        k->gelu_multiply(row, row, y, r->cols);
        break;
    default:
        k->add(row, y, r->cols);
    }
}

static bool check_rows_size(const struct kernels *k, int which, int rows, int cols)
{
    const size_t n = (size_t)rows * (size_t)cols;
    float *x = float_buffer(n), *y = float_buffer(n), *weight = float_buffer((size_t)cols),
          *bias = float_buffer((size_t)cols);
    float *row = float_buffer((size_t)cols);
    random_fill(x, n);
    random_fill(y, n);
    random_fill(weight, (size_t)cols);
    random_fill(bias, (size_t)cols);
    struct rows_case r = {.rows = rows,
                          .cols = cols,
                          .x = x,
                          .y = y,
                          .weight = weight,
                          .bias = bias,
                          .out = float_buffer(n),
                          .residual = float_buffer(n),
                          .which = which};
    const struct operation op = {run_rows, &r, r.out, n};
    bool ok = same_on_all_threads(k, &op);
    for (int i = 0; ok && i < rows; i++) {
        expected_row(k, &r, row, x + (size_t)i * (size_t)cols, y + (size_t)i * (size_t)cols);
        for (int j = 0; ok && j < cols; j++)
            ok = near("row operation", i * cols + j, (double)r.out[i * cols + j], (double)row[j], 0);
    }
    buffers_release();
    return ok || fail("operation %d, %d x %d", which, rows, cols);
}

static bool check_row_operations(const struct kernels *k, int type)
{
    static const int shapes[][2] = {{1, 1}, {3, 17}, {1, 2560}, {300, 333}, {70000, 1}};
    (void)type;
    for (int which = 0; which < ROW_OPERATIONS; which++)
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            if (!check_rows_size(k, which, shapes[i][0], shapes[i][1]))
                return false;
    return true;
}

const struct check compute_checks[] = {
    {"compute_linear of f32", check_linear, TENSOR_F32},
    {"compute_linear of f16", check_linear, TENSOR_F16},
    {"compute_linear of bf16", check_linear, TENSOR_BF16},
    {"compute_linear of q8_0", check_linear, TENSOR_Q8_0},
    {"compute_linear of q4_0", check_linear, TENSOR_Q4_0},
    {"compute_linear of q5_1", check_linear, TENSOR_Q5_1},
    {"compute_linear of q4_k", check_linear, TENSOR_Q4_K},
    {"compute_linear of q6_k", check_linear, TENSOR_Q6_K},
    {"compute_attention of f32", check_attention, TENSOR_F32},
    {"compute_attention of f16", check_attention, TENSOR_F16},
    {"compute_attention of bf16", check_attention, TENSOR_BF16},
    {"row by row operations", check_row_operations, -1},
    {0},
};
