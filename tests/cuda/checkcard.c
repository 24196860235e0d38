/* Every operation of an NVIDIA card against loops in double precision: `checkcard` prints TAP. Whichever driver is
 * found is asked, a card's or the emulated one (LD_LIBRARY_PATH=build/tests/cuda). --seed N for other numbers, --only
 * TEXT. */
#include "cuda/measuring.h"
#include "kernels/harness.h"

#include "base/half.h"
#include "engine/backend.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct backend *card;

/* ---- to the card and back ---------------------------------------------------------------------------------------- */

enum { MOST_PLACED = 64 };
static void *placed[MOST_PLACED];
static int n_placed;

static void *on_card(const void *host, size_t bytes)
{
    struct ward_error err;
    void *at;
    if (n_placed == MOST_PLACED || card->ops->alloc(card, &at, bytes, "a test", &err)) {
        printf("Bail out! %s\n", err.text);
        exit(1);
    }
    placed[n_placed++] = at;
    if (host)
        card->ops->write(card, at, host, bytes);
    return at;
}

static struct tensor matrix_on_card(const struct tensor *t)
{
    struct tensor out = *t;
    void *at = on_card(NULL, card->ops->placed_bytes(card, t));
    card->ops->place(card, at, t);
    out.data = at;
    return out;
}

/* What the card has at `at`; false when an operation failed. */
static bool fetch(void *host, const void *at, size_t bytes)
{
    struct ward_error err;
    card->ops->read(card, host, at, bytes);
    return card->ops->finish(card, &err) == 0 || fail("%s", err.text);
}

static void release_all(void)
{
    while (n_placed)
        card->ops->release(card, placed[--n_placed]);
    buffers_release();
}

static float *random_floats(size_t n)
{
    float *out = float_buffer(n);
    random_fill(out, n);
    return out;
}

/* ---- linear maps ------------------------------------------------------------------------------------------------- */

static float to_bf16(float x)
{
    return bf16_to_float(bf16_from_float(x));
}

/* A row of x as quantize_rows leaves it: int8 in units of 16. */
static void round_units(float *x, int cols)
{
    for (int first = 0; first < cols; first += 16) {
        float most = 0;
        for (int i = first; i < first + 16 && i < cols; i++)
            most = fmaxf(most, fabsf(x[i]));
        const float scale = most / 127, inverse = most > 0 ? 127 / most : 0;
        for (int i = first; i < first + 16 && i < cols; i++)
            x[i] = scale * rintf(x[i] * inverse);
    }
}

struct product {
    enum tensor_type type;
    int rows, cols, outputs;
    bool exact, many; /* many: on tensor cores */
};

/* What the card multiplies: of the value its parts. Two parts of each give three products, without the smallest. */
static double product_of(const struct product *p, float x, float w)
{
    if (!p->many)
        return (double)x * (double)w;
    const float x0 = to_bf16(x), w0 = to_bf16(w);
    double sum = (double)x0 * (double)w0;
    if (p->exact && tensor_is_float(p->type)) {
        sum += (double)to_bf16(x - x0) * (double)w0;
        sum += (double)x0 * (double)to_bf16(w - w0);
    }
    return sum;
}

/* expected, bound [rows][outputs]: how far off it may be */
static void expect_product(const struct product *p, const float *x, const float *w, const float *bias, double *expected,
                           double *bound)
{
    float *rounded = float_buffer((size_t)p->cols), *of_w = float_buffer((size_t)p->cols);
    for (int r = 0; r < p->rows; r++) {
        memcpy(rounded, x + (size_t)r * (size_t)p->cols, (size_t)p->cols * sizeof *x);
        if (!p->many && !tensor_is_float(p->type))
            round_units(rounded, p->cols);
        for (int o = 0; o < p->outputs; o++) {
            const float *row = w + (size_t)o * (size_t)p->cols;
            double sum = (double)bias[o], absolute = fabs(sum);
            magnitudes(p->type, of_w, row, p->cols);
            for (int i = 0; i < p->cols; i++) {
                sum += product_of(p, rounded[i], row[i]);
                absolute += fabs((double)rounded[i]) * (double)of_w[i];
            }
            /* Quantized weights are d q + m in float32 before they are rounded to bf16: now and then to its other side.
             */
            const double other_side = p->many && !tensor_is_float(p->type) ? 0x1p-12 : 0;
            expected[r * p->outputs + o] = sum;
            bound[r * p->outputs + o] = (2 * SUM_BOUND(p->cols) + other_side) * absolute;
        }
    }
}

static bool check_product(const struct product *p, const float *x, const float *w, const float *bias, const float *out)
{
    const int n = p->rows * p->outputs;
    double *expected = buffer((size_t)n * sizeof *expected, 0), *bound = buffer((size_t)n * sizeof *bound, 0);
    expect_product(p, x, w, bias, expected, bound);
    for (int i = 0; i < n; i++)
        if (!near("linear", i, (double)out[i], expected[i], bound[i]))
            return fail("%s, %d rows, %d to %d%s", tensor_type_name(p->type), p->rows, p->cols, p->outputs,
                        p->exact ? ", exact" : "");
    return true;
}

/* Three maps of one input: of the type, of bf16, of the type again. */
static bool check_maps(enum tensor_type type, int rows, int cols_least, int outputs, bool exact)
{
    enum { N = 3 };
    const int cols = whole_blocks(type, cols_least), n_out[N] = {outputs, outputs / 2 + 1, 3};
    const float *x = random_floats((size_t)rows * (size_t)cols);
    struct tensor weights[N];
    struct linear maps[N];
    float *w[N], *bias[N];
    for (int i = 0; i < N; i++) {
        const enum tensor_type of = i == 1 ? TENSOR_BF16 : type;
        w[i] = float_buffer((size_t)n_out[i] * (size_t)cols);
        bias[i] = random_floats((size_t)n_out[i]);
        const struct tensor host = {random_matrix(of, n_out[i], cols, i == 0, w[i]), of, n_out[i], cols};
        weights[i] = matrix_on_card(&host);
        maps[i] = (struct linear){.out = on_card(NULL, (size_t)rows * (size_t)n_out[i] * sizeof(float)),
                                  .w = &weights[i],
                                  .bias = on_card(bias[i], (size_t)n_out[i] * sizeof(float)),
                                  .exact = exact};
    }
    void *packed = on_card(NULL, card->ops->packed_size(card, rows, cols, exact));
    const float *input = on_card(x, (size_t)rows * (size_t)cols * sizeof *x);
    card->ops->linear(card, input, rows, maps, N, packed);
    bool ok = true;
    for (int i = 0; ok && i < N; i++) {
        const struct product p = {i == 1 ? TENSOR_BF16 : type, rows, cols, n_out[i], exact, rows > GEMV_MAX_N};
        const size_t n = (size_t)rows * (size_t)n_out[i];
        float *out = float_buffer(n), *alone = float_buffer((size_t)n_out[i]);
        ok = fetch(out, maps[i].out, n * sizeof *out) && check_product(&p, x, w[i], bias[i], out);
        /* A row of few is the same bits alone. */
        for (int r = 0; ok && rows > 1 && rows <= GEMV_MAX_N && r < rows; r += rows - 1) {
            card->ops->linear(card, input + (size_t)r * (size_t)cols, 1, &maps[i], 1, packed);
            ok = fetch(alone, maps[i].out, (size_t)n_out[i] * sizeof *alone) &&
                 (memcmp(alone, out + (size_t)r * (size_t)n_out[i], (size_t)n_out[i] * sizeof *alone) == 0 ||
                  fail("row %d of %d gives other bits alone", r, rows));
        }
    }
    release_all();
    return ok;
}

static bool linear_of(enum tensor_type type)
{
    static const int shapes[][3] = {
        {1, 1, 1},     {1, 37, 11},     {1, 1100, 70},   {2, 72, 9},     {3, 588, 40},   {4, 64, 17},
        {5, 260, 33},  {8, 2048, 20},   {9, 33, 20},     {64, 300, 130}, {130, 64, 129}, {300, 72, 40},
        {17, 1300, 5}, {70, 1030, 140}, {1100, 64, 300}, /* more rows of tiles than go together */
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (!check_maps(type, shapes[i][0], shapes[i][1], shapes[i][2], i % 2 == 1))
            return false;
    return true;
}

#define LINEAR(name, type)                                                                                             \
    static bool name(void)                                                                                             \
    {                                                                                                                  \
        return linear_of(type);                                                                                        \
    }
LINEAR(linear_f32, TENSOR_F32)
LINEAR(linear_f16, TENSOR_F16)
LINEAR(linear_bf16, TENSOR_BF16)
LINEAR(linear_q8_0, TENSOR_Q8_0)
LINEAR(linear_q4_0, TENSOR_Q4_0)
LINEAR(linear_q4_1, TENSOR_Q4_1)
LINEAR(linear_q5_0, TENSOR_Q5_0)
LINEAR(linear_q5_1, TENSOR_Q5_1)
LINEAR(linear_q4_k, TENSOR_Q4_K)
LINEAR(linear_q5_k, TENSOR_Q5_K)
LINEAR(linear_q6_k, TENSOR_Q6_K)

static bool compare(const char *what, const void *at, const double *expected, const double *bound, size_t n)
{
    float *got = float_buffer(n);
    bool ok = fetch(got, at, n * sizeof *got);
    for (size_t i = 0; ok && i < n; i++)
        ok = near(what, (int)i, (double)got[i], expected[i], bound[i]);
    return ok;
}

/* ---- what becomes of products ------------------------------------------------------------------------------------ */

static double gelu(double x)
{
    return 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
}

static void activate(double *values, double *bound, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        bound[i] = 1.2 * bound[i] + 2e-6 * (fabs(values[i]) + 1);
        values[i] = gelu(values[i]);
    }
}

/* Where packed rows go; nothing there is a number. */
static void *room_for_packed(int rows, int cols, bool exact)
{
    const size_t bytes = card->ops->packed_size(card, rows, cols, exact);
    return on_card(memset(buffer(bytes, 0), 0xff, bytes), bytes);
}

/* Rows of bf16 [rows][parts][16 units]: the values, and zeros after them. */
static bool check_packed(const char *what, const void *at, const double *expected, const double *bound, int rows,
                         int cols, bool exact)
{
    const int pitch = (cols + 63) / 64 * 64, parts = exact ? 2 : 1;
    const size_t bytes = (size_t)(rows * parts * pitch) * sizeof(uint16_t);
    uint16_t *got = buffer(bytes, 0);
    bool ok = fetch(got, at, bytes);
    for (int i = 0; ok && i < rows * pitch; i++) {
        const uint16_t *value = got + i / pitch * parts * pitch + i % pitch;
        const double sum = (double)bf16_to_float(value[0]) + (exact ? (double)bf16_to_float(value[pitch]) : 0);
        const size_t from = (size_t)(i / pitch) * (size_t)cols + (size_t)(i % pitch);
        ok = i % pitch < cols ? near(what, i, sum, expected[from],
                                     bound[from] + (exact ? 0x1p-16 : 0x1p-8) * (fabs(expected[from]) + bound[from]))
                              : near("filling", i, sum, 0, 0);
    }
    return ok;
}

/* Row r, output o of [rows][outputs] as float16 in [outputs / head_dim][capacity][head_dim]. */
static bool check_heads(const void *at, const double *expected, const double *bound, int rows, int outputs,
                        int head_dim, int capacity)
{
    const size_t bytes = (size_t)(outputs * capacity) * sizeof(uint16_t);
    uint16_t *got = buffer(bytes, 0);
    bool ok = fetch(got, at, bytes);
    for (int i = 0; ok && i < rows * outputs; i++) {
        const int r = i / outputs, o = i % outputs, from = (o / head_dim * capacity + r) * head_dim + o % head_dim;
        const double reached = fmin(fmax(expected[i], -65504), 65504); /* float16's largest */
        ok = near("heads", i, (double)f16_to_float(got[from]), reached,
                  bound[i] + 0x1p-11 * (fabs(expected[i]) + bound[i]) + 0x1p-25);
    }
    return ok;
}

struct outcome_case {
    int rows, cols, outputs, heads, head_dim;
    bool exact;
};

/* In one launch: a plain map, one to heads, one through gelu to packed rows; then one that is added, one through gelu.
 */
static bool outcomes_of(enum tensor_type type, const struct outcome_case *s)
{
    enum { PLAIN, HEADS, PACKED, ADDED, ACTIVATED, N };
    const int cols = whole_blocks(type, s->cols), rows = s->rows, capacity = rows + 3;
    const int outputs[N] = {s->outputs, s->heads * s->head_dim, s->outputs, s->outputs, s->outputs + 1};
    const float *x = random_floats((size_t)rows * (size_t)cols);
    struct tensor weights[N];
    struct linear maps[N];
    double *expected[N], *bound[N];
    float *residual = random_floats((size_t)(rows * s->outputs));
    for (int i = 0; i < N; i++) {
        const size_t n = (size_t)rows * (size_t)outputs[i];
        float *w = float_buffer((size_t)outputs[i] * (size_t)cols), *bias = random_floats((size_t)outputs[i]);
        const struct tensor host = {random_matrix(type, outputs[i], cols, false, w), type, outputs[i], cols};
        const struct product p = {type, rows, cols, outputs[i], s->exact, true};
        weights[i] = matrix_on_card(&host);
        maps[i] = (struct linear){.out = on_card(NULL, i == HEADS || i == PACKED ? 1 : n * sizeof(float)),
                                  .w = &weights[i],
                                  .bias = on_card(bias, (size_t)outputs[i] * sizeof *bias),
                                  .exact = s->exact};
        expected[i] = buffer(n * sizeof(double), 0);
        bound[i] = buffer(n * sizeof(double), 0);
        expect_product(&p, x, w, bias, expected[i], bound[i]);
    }
    maps[HEADS].heads.at = on_card(NULL, (size_t)(outputs[HEADS] * capacity) * sizeof(uint16_t));
    maps[HEADS].heads.type = TENSOR_F16;
    maps[HEADS].heads.head_dim = s->head_dim;
    maps[HEADS].heads.capacity = capacity;
    maps[PACKED].gelu = maps[ACTIVATED].gelu = true;
    maps[PACKED].next = (struct next){room_for_packed(rows, s->outputs, s->exact), s->exact};
    maps[ADDED].add = on_card(residual, (size_t)(rows * s->outputs) * sizeof *residual);
    activate(expected[PACKED], bound[PACKED], (size_t)(rows * s->outputs));
    activate(expected[ACTIVATED], bound[ACTIVATED], (size_t)(rows * outputs[ACTIVATED]));
    for (int i = 0; i < rows * s->outputs; i++) {
        expected[ADDED][i] += (double)residual[i];
        bound[ADDED][i] += 1e-6 * fabs(expected[ADDED][i]);
    }
    void *packed = on_card(NULL, card->ops->packed_size(card, rows, cols, s->exact));
    const float *input = on_card(x, (size_t)rows * (size_t)cols * sizeof *x);
    card->ops->linear(card, input, rows, maps, PACKED + 1, packed);
    card->ops->linear(card, input, rows, maps + ADDED, N - ADDED, packed);
    const size_t n = (size_t)(rows * s->outputs);
    const bool ok =
        compare("beside others", maps[PLAIN].out, expected[PLAIN], bound[PLAIN], n) &&
        check_heads(maps[HEADS].heads.at, expected[HEADS], bound[HEADS], rows, outputs[HEADS], s->head_dim, capacity) &&
        check_packed("packed", maps[PACKED].next.packed, expected[PACKED], bound[PACKED], rows, s->outputs, s->exact) &&
        compare("added", maps[ADDED].add, expected[ADDED], bound[ADDED], n) &&
        compare("gelu", maps[ACTIVATED].out, expected[ACTIVATED], bound[ACTIVATED], n + (size_t)rows);
    release_all();
    return ok || fail("%s, %d rows, %d to %d and %d heads of %d%s", tensor_type_name(type), rows, cols, s->outputs,
                      s->heads, s->head_dim, s->exact ? ", exact" : "");
}

static bool outcomes(void)
{
    static const struct outcome_case cases[] = {
        {20, 70, 70, 2, 24, false},
        {3, 70, 33, 3, 10, true},
        {130, 40, 129, 1, 7, false},
        {65, 300, 64, 5, 32, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int type = 0; type < TENSOR_TYPES; type++)
            if ((i == 0 || type == TENSOR_BF16 || type == TENSOR_F16 || type == TENSOR_Q4_0) &&
                !outcomes_of((enum tensor_type)type, &cases[i]))
                return false;
    return true;
}

/* ---- attention --------------------------------------------------------------------------------------------------- */

struct attention_case {
    int rows, heads, kv_heads, d, capacity, first; /* first: position of the first row */
    int window, image;                             /* 0: none; rows from a third on see `image` further ones */
};

static void fill_intervals(const struct attention_case *s, int *positions, int *lo, int *hi)
{
    for (int r = 0; r < s->rows; r++) {
        const int p = s->first + r;
        positions[r] = p;
        hi[r] = p + 1;
        if (s->image && r >= s->rows / 3 && r < s->rows / 3 + s->image)
            hi[r] = s->first + s->rows / 3 + s->image;
        lo[r] = s->window && p - s->window + 1 > 0 ? p - s->window + 1 : 0;
        if (r == s->rows / 2)
            hi[r] = lo[r]; /* sees nothing */
    }
}

/* The row's answer in double precision, of keys and values as the cache holds them. */
static void attend(double *out, const struct attention_case *s, const float *q, const float *k, const float *v, int lo,
                   int hi, float scale, int kv_head)
{
    double most = -INFINITY, total = 0;
    double *scores = malloc((size_t)(hi - lo + 1) * sizeof *scores);
    memset(out, 0, (size_t)s->d * sizeof *out);
    for (int p = lo; p < hi; p++) {
        double sum = 0;
        for (int i = 0; i < s->d; i++)
            sum += (double)q[i] *
                   (double)k[((size_t)p * (size_t)s->kv_heads + (size_t)kv_head) * (size_t)s->d + (size_t)i];
        scores[p - lo] = sum * (double)scale;
        most = fmax(most, scores[p - lo]);
    }
    for (int p = lo; p < hi; p++) {
        const double weight = exp(scores[p - lo] - most);
        total += weight;
        for (int i = 0; i < s->d; i++)
            out[i] +=
                weight * (double)v[((size_t)p * (size_t)s->kv_heads + (size_t)kv_head) * (size_t)s->d + (size_t)i];
    }
    for (int i = 0; i < s->d && total > 0; i++)
        out[i] /= total;
    free(scores);
}

/* Each of few rows gives the same bits alone and beside some of the others. */
static bool same_alone(const struct attention *a, const float *out)
{
    const size_t width = (size_t)a->n_heads * (size_t)a->head_dim;
    float *got = float_buffer((size_t)a->rows * width);
    for (int first = 0; first < a->rows; first++)
        for (int rows = 1; first + rows <= a->rows; rows += 3) {
            struct attention part = *a;
            part.rows = rows;
            part.q += (size_t)first * width;
            part.lo += first;
            part.hi += first;
            card->ops->attention(card, &part);
            const size_t n = (size_t)rows * width;
            if (!fetch(got, a->out, n * sizeof *got) ||
                (memcmp(got, out + (size_t)first * width, n * sizeof *got) != 0 &&
                 !fail("rows %d to %d give other bits alone", first, first + rows - 1)))
                return false;
        }
    return true;
}

static bool check_attention(const struct attention_case *s)
{
    const int length = s->first + s->rows, kv_width = s->kv_heads * s->d, width = s->heads * s->d;
    const size_t n_kv = (size_t)length * (size_t)kv_width, n = (size_t)s->rows * (size_t)width;
    float *k = float_buffer(n_kv), *v = float_buffer(n_kv), *q = float_buffer(n), *out = float_buffer(n);
    for (size_t i = 0; i < n_kv; i++) {
        /* of many rows the later keys weigh more, so that what was summed first shrinks; with a window the first */
        const float rise = 10 * (float)i / (float)n_kv;
        const float size = s->rows <= GEMV_MAX_N ? 2 : s->window ? 12 - rise : 2 + rise;
        k[i] = f16_to_float(f16_from_float(size * random_float()));
        v[i] = f16_to_float(f16_from_float(random_float()));
    }
    for (size_t i = 0; i < n; i++)
        q[i] = 2 * random_float();
    int *positions = buffer((size_t)length * sizeof(int), 0), *lo = buffer((size_t)s->rows * sizeof(int), 0),
        *hi = buffer((size_t)s->rows * sizeof(int), 0);
    const size_t cache = (size_t)s->capacity * (size_t)kv_width * 2;
    const void *unused = buffer(cache, 0); /* slots that hold nothing are not to be looked at: they hold no numbers */
    struct kv_layer layer = {
        on_card(unused, cache), on_card(unused, cache), TENSOR_F16, s->kv_heads, s->d, s->capacity};
    float *card_k = on_card(k, n_kv * sizeof *k), *card_v = on_card(v, n_kv * sizeof *v);
    for (int p = 0; p < length; p++)
        positions[p] = p;
    int *card_positions = on_card(positions, (size_t)length * sizeof(int));
    for (int p = 0; p < length; p += 7) { /* in pieces, so that no slot is written twice at once */
        const struct heads heads = {.k = card_k + (size_t)p * (size_t)kv_width,
                                    .v = card_v + (size_t)p * (size_t)kv_width,
                                    .rows = length - p < 7 ? length - p : 7,
                                    .to = &layer,
                                    .positions = card_positions + p};
        card->ops->store(card, &heads);
    }
    fill_intervals(s, positions, lo, hi);
    const struct attention a = {
        .out = on_card(NULL, n * sizeof(float)),
        .q = on_card(q, n * sizeof(float)),
        .k = layer.k,
        .v = layer.v,
        .type = TENSOR_F16,
        .rows = s->rows,
        .n_heads = s->heads,
        .n_kv_heads = s->kv_heads,
        .head_dim = s->d,
        .capacity = s->capacity,
        .lo = on_card(lo, (size_t)s->rows * sizeof(int)),
        .hi = on_card(hi, (size_t)s->rows * sizeof(int)),
        .scale = (float)(1 / sqrt(s->d)),
        .exact = true,
        .scratch = on_card(NULL, card->ops->attention_size(card, s->rows, s->heads, s->d)),
    };
    card->ops->attention(card, &a);
    bool ok = fetch(out, a.out, n * sizeof *out) && (s->rows > GEMV_MAX_N || same_alone(&a, out));
    double *expected = malloc((size_t)s->d * sizeof *expected);
    for (int r = 0; ok && r < s->rows; r++)
        for (int h = 0; ok && h < s->heads; h++) {
            const size_t at = ((size_t)r * (size_t)s->heads + (size_t)h) * (size_t)s->d;
            attend(expected, s, q + at, k, v, lo[r], hi[r], a.scale, h / (s->heads / s->kv_heads));
            for (int i = 0; ok && i < s->d; i++) /* float16 queries and weights where there are many rows */
                ok = near("attention", (int)at + i, (double)out[at + (size_t)i], expected[i],
                          s->rows > GEMV_MAX_N ? 4e-3 : 2e-6);
        }
    free(expected);
    release_all();
    return ok || fail("%d rows from %d, %d heads on %d of %d, %d slots", s->rows, s->first, s->heads, s->kv_heads, s->d,
                      s->capacity);
}

static bool attention(void)
{
    static const struct attention_case cases[] = {
        /* few rows: the decoder's heads, odd ones, many keys, some that share keys by three, longer than a block's */
        {1, 4, 2, 16, 40, 0, 0, 0},
        {1, 2, 1, 256, 600, 511, 0, 0},
        {8, 8, 4, 64, 300, 250, 0, 0},
        {3, 2, 2, 30, 64, 200, 50, 0},
        {5, 4, 1, 72, 128, 400, 100, 0},
        {4, 4, 2, 256, 700, 650, 0, 0},
        {5, 3, 1, 256, 90, 200, 70, 0},
        {2, 2, 1, 600, 64, 50, 40, 0},
        {6, 2, 1, 8, 3000, 2500, 0, 0},
        /* many: the encoder's heads and the decoder's, from the middle of a step on, in a cache that turns round */
        {64, 4, 2, 64, 64, 0, 0, 0},
        {100, 2, 1, 256, 256, 90, 0, 40},
        {130, 2, 2, 72, 130, 0, 0, 0},
        {70, 4, 2, 32, 200, 300, 100, 30},
        {33, 2, 1, 128, 80, 100, 40, 0},
        {20, 2, 1, 30, 64, 40, 0, 0},
        {12, 1, 1, 264, 64, 3, 0, 0},
        {65, 2, 1, 80, 100, 7, 0, 0},
        {40, 2, 1, 24, 64, 9, 0, 0},
        {150, 2, 2, 72, 230, 300, 75, 0},
        {130, 1, 1, 72, 400, 255, 0, 60},
        {65, 8, 2, 72, 65, 0, 0, 0},
        {40, 2, 1, 256, 340, 290, 0, 0},
        {70, 2, 1, 256, 190, 500, 110, 9},
        {20, 2, 1, 24, 40, 61, 17, 0},
        {40, 1, 1, 128, 300, 210, 200, 20},
        /* a warp's rows all see but the last of a step's positions, but the first (and above, of 65, only the first)
         */
        {160, 1, 1, 72, 160, 0, 0, 74},
        {120, 8, 2, 72, 120, 0, 95, 80},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (!check_attention(&cases[i]))
            return false;
    return true;
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

/* A row's norm: expected and how far off it may be. */
static void norm_row(double *out, const double *x, const float *weight, int cols)
{
    double squares = 0;
    for (int c = 0; c < cols; c++)
        squares += x[c] * x[c];
    const double scale = 1 / sqrt(squares / cols + 1e-6);
    for (int c = 0; c < cols; c++)
        out[c] = x[c] * scale * (double)weight[c];
}

static void layer_norm_row(double *out, double *bound, const float *x, const float *weight, const float *bias, int cols)
{
    double sum = 0, spread = 0;
    for (int c = 0; c < cols; c++)
        sum += (double)x[c];
    const double mean = sum / cols;
    for (int c = 0; c < cols; c++)
        spread += ((double)x[c] - mean) * ((double)x[c] - mean);
    const double deviation = 1 / sqrt(spread / cols + 1e-6);
    for (int c = 0; c < cols; c++) {
        const double w = (double)weight[c];
        out[c] = ((double)x[c] - mean) * deviation * w + (double)bias[c];
        bound[c] = 2e-5 * (fabs((double)x[c]) + fabs(mean)) * deviation * fabs(w) + 1e-6 * fabs((double)bias[c]) + 1e-9;
    }
}

static bool norms_of(int rows, int cols)
{
    const size_t n = (size_t)rows * (size_t)cols;
    float *x = random_floats(n), *residual = random_floats(n), *weight = random_floats((size_t)cols),
          *next = random_floats((size_t)cols), *bias = random_floats((size_t)cols);
    double *of_x = buffer(n * sizeof(double), 0), *expected[4], *bound[4];
    for (int i = 0; i < 4; i++) {
        expected[i] = buffer(n * sizeof(double), 0);
        bound[i] = buffer(n * sizeof(double), 0);
    }
    for (size_t i = 0; i < n; i++)
        of_x[i] = (double)x[i];
    for (size_t at = 0; at < n; at += (size_t)cols) {
        norm_row(expected[0] + at, of_x + at, weight, cols);
        for (size_t i = at; i < at + (size_t)cols; i++) {
            expected[1][i] = (double)residual[i] + expected[0][i];
            bound[0][i] = 1e-5 * fabs(expected[0][i]) + 1e-9;
            bound[1][i] = bound[0][i] + 1e-6 * fabs((double)residual[i]);
        }
        norm_row(expected[2] + at, expected[1] + at, next, cols);
        for (size_t i = at; i < at + (size_t)cols; i++)
            bound[2][i] = 2e-5 * (fabs(expected[2][i]) + fabs((double)next[i - at]) * bound[1][i]) + 1e-6;
        layer_norm_row(expected[3] + at, bound[3] + at, x + at, weight, bias, cols);
    }
    float *in = on_card(x, n * sizeof *x), *out = on_card(NULL, n * sizeof *x), *to = on_card(residual, n * sizeof *x);
    const float *w = on_card(weight, (size_t)cols * sizeof *x), *b = on_card(bias, (size_t)cols * sizeof *x),
                *following = on_card(next, (size_t)cols * sizeof *x);
    const struct next nobody = {0};
    card->ops->rms_norm(card, out, in, w, rows, cols, 1e-6f, nobody);
    bool ok = compare("rms_norm", out, expected[0], bound[0], n);
    card->ops->layer_norm(card, out, in, w, b, rows, cols, 1e-6f, nobody);
    ok = ok && compare("layer_norm", out, expected[3], bound[3], n);
    card->ops->add_rms_norm(card, to, in, w, following, rows, cols, 1e-6f, nobody);
    ok = ok && compare("add_rms_norm", to, expected[1], bound[1], n) &&
         compare("its norm", in, expected[2], bound[2], n);
    card->ops->write(card, in, x, n * sizeof *x);
    card->ops->write(card, to, residual, n * sizeof *x);
    card->ops->add_rms_norm(card, to, in, w, NULL, rows, cols, 1e-6f, nobody);
    ok = ok && compare("add_rms_norm alone", to, expected[1], bound[1], n);
    release_all();
    return ok || fail("%d rows of %d", rows, cols);
}

static bool norms(void)
{
    return norms_of(1, 1) && norms_of(3, 31) && norms_of(2, 2560) && norms_of(17, 300) && norms_of(2, 3201) &&
           norms_of(1, 4096);
}

/* gelu(x gate^T) * (x up^T), of weights of two types. */
static bool gated_of(enum tensor_type type, enum tensor_type up_type, int rows, int cols_least, int outputs, bool exact)
{
    const int cols = whole_blocks(type, whole_blocks(up_type, cols_least));
    const size_t n = (size_t)rows * (size_t)outputs;
    const float *x = random_floats((size_t)rows * (size_t)cols);
    float *no_bias = float_buffer((size_t)outputs);
    memset(no_bias, 0, (size_t)outputs * sizeof *no_bias);
    struct tensor weights[2];
    struct linear maps[2];
    double *expected[2], *bound[2];
    for (int i = 0; i < 2; i++) {
        const enum tensor_type of = i ? up_type : type;
        float *w = float_buffer((size_t)outputs * (size_t)cols);
        const struct tensor host = {random_matrix(of, outputs, cols, false, w), of, outputs, cols};
        const struct product p = {of, rows, cols, outputs, exact, rows > GEMV_MAX_N};
        weights[i] = matrix_on_card(&host);
        maps[i] = (struct linear){.out = on_card(NULL, n * sizeof(float)), .w = &weights[i], .exact = exact};
        expected[i] = buffer(n * sizeof(double), 0);
        bound[i] = buffer(n * sizeof(double), 0);
        expect_product(&p, x, w, no_bias, expected[i], bound[i]);
    }
    activate(expected[0], bound[0], n);
    for (size_t i = 0; i < n; i++) {
        bound[0][i] = bound[0][i] * (fabs(expected[1][i]) + bound[1][i]) + fabs(expected[0][i]) * bound[1][i] +
                      1e-6 * fabs(expected[0][i] * expected[1][i]);
        expected[0][i] *= expected[1][i];
    }
    const float *input = on_card(x, (size_t)rows * (size_t)cols * sizeof *x);
    void *packed = on_card(NULL, card->ops->packed_size(card, rows, cols, exact));
    card->ops->gated(card, input, rows, maps, packed);
    bool ok = compare("gated", maps[0].out, expected[0], bound[0], n);
    if (rows > GEMV_MAX_N) {
        maps[0].next = (struct next){room_for_packed(rows, outputs, exact), exact};
        card->ops->gated(card, input, rows, maps, packed);
        ok = ok && check_packed("gated, packed", maps[0].next.packed, expected[0], bound[0], rows, outputs, exact);
    }
    release_all();
    return ok || fail("%s and %s, %d rows, %d to %d%s", tensor_type_name(type), tensor_type_name(up_type), rows, cols,
                      outputs, exact ? ", exact" : "");
}

static bool gated(void)
{
    return gated_of(TENSOR_BF16, TENSOR_BF16, 1, 70, 50, false) &&
           gated_of(TENSOR_Q8_0, TENSOR_Q8_0, 8, 64, 33, false) &&
           gated_of(TENSOR_Q4_0, TENSOR_BF16, 3, 64, 20, false) &&
           gated_of(TENSOR_BF16, TENSOR_BF16, 9, 70, 51, false) &&
           gated_of(TENSOR_Q4_K, TENSOR_Q6_K, 70, 256, 140, false) &&
           gated_of(TENSOR_F16, TENSOR_F16, 20, 72, 130, true);
}

/* x [ROWS][heads][D]: an RMS norm over each head, and its rotation. */
static void rotate(double *out, double *bound, const float *x, const float *weight, const float *cosine,
                   const float *sine, int rows, int heads, int d)
{
    double *head = malloc((size_t)d * sizeof *head), *normed = malloc((size_t)d * sizeof *normed);
    for (int h = 0; h < rows * heads; h++) {
        const size_t at = (size_t)h * (size_t)d;
        for (int i = 0; i < d; i++)
            head[i] = (double)x[at + (size_t)i];
        norm_row(normed, head, weight, d);
        for (int i = 0; i < d / 2; i++) {
            const double a = normed[i], b = normed[d / 2 + i];
            const double c = (double)cosine[h / heads * d / 2 + i], s = (double)sine[h / heads * d / 2 + i];
            out[at + (size_t)i] = a * c - b * s;
            out[at + (size_t)(d / 2 + i)] = b * c + a * s;
            bound[at + (size_t)i] = bound[at + (size_t)(d / 2 + i)] = 1e-5 * (fabs(a) + fabs(b)) + 1e-9;
        }
    }
    free(head);
    free(normed);
}

static bool rotation(void)
{
    enum { ROWS = 5, HEADS = 3, KV = 2, D = 26, N = ROWS * HEADS * D, N_KV = ROWS * KV * D, SLOTS = 7 };
    static const int positions[ROWS] = {12, 13, 14, 15, 16};
    float *q = random_floats(N), *k = random_floats(N_KV), *v = random_floats(N_KV), *q_norm = random_floats(D),
          *k_norm = random_floats(D), *cosine = float_buffer(ROWS * D / 2), *sine = float_buffer(ROWS * D / 2);
    double *expected = buffer(N * sizeof *expected, 0), *bound = buffer(N * sizeof *bound, 0);
    for (int i = 0; i < ROWS * D / 2; i++) {
        cosine[i] = cosf((float)i);
        sine[i] = sinf((float)i);
    }
    const size_t cache = SLOTS * KV * D;
    struct kv_layer layer = {on_card(NULL, 2 * cache), on_card(NULL, 2 * cache), TENSOR_F16, KV, D, SLOTS};
    const struct heads heads = {
        .q = on_card(q, N * sizeof *q),
        .k = on_card(k, N_KV * sizeof *k),
        .v = on_card(v, N_KV * sizeof *v),
        .rows = ROWS,
        .n_heads = HEADS,
        .to = &layer,
        .positions = on_card(positions, sizeof positions),
        .q_norm = on_card(q_norm, D * sizeof *q_norm),
        .k_norm = on_card(k_norm, D * sizeof *k_norm),
        .eps = 1e-6f,
        .cosine = on_card(cosine, ROWS * D / 2 * sizeof *cosine),
        .sine = on_card(sine, ROWS * D / 2 * sizeof *sine),
    };
    card->ops->store(card, &heads);
    rotate(expected, bound, q, q_norm, cosine, sine, ROWS, HEADS, D);
    bool ok = compare("queries", heads.q, expected, bound, N);
    uint16_t *keys = buffer(2 * cache, 0), *values = buffer(2 * cache, 0);
    ok = ok && fetch(keys, layer.k, 2 * cache) && fetch(values, layer.v, 2 * cache);
    rotate(expected, bound, k, k_norm, cosine, sine, ROWS, KV, D);
    for (int i = 0; ok && i < N_KV; i++) { /* row, head, dimension to head, slot, dimension */
        const int at = (i / D % KV * SLOTS + positions[i / D / KV] % SLOTS) * D + i % D;
        ok = near("key", i, (double)f16_to_float(keys[at]), expected[i],
                  bound[i] + 0x1p-11 * fabs(expected[i]) + 0x1p-25) &&
             near("value", i, (double)f16_to_float(values[at]), (double)v[i], 0x1p-11 * fabs((double)v[i]) + 0x1p-25);
    }
    release_all();
    return ok;
}

/* ---- results for the products after them ------------------------------------------------------------------------- */

/* The product of a result that was written as float32, and of one that the operation has left in `packed` for it: the
 * same bits. */
struct preparing {
    int rows, heads, d;
    struct linear map;
    void *packed, *scratch;
    float *x, *y, *residual, *residual_again, *out;
    const float *norm;
    struct kv_layer layer;
    int *lo, *hi;
};

static void attend_prepared(const struct preparing *p, struct next next)
{
    const struct attention a = {
        .out = p->out,
        .q = p->y,
        .k = p->layer.k,
        .v = p->layer.v,
        .type = TENSOR_F16,
        .rows = p->rows,
        .n_heads = p->heads,
        .n_kv_heads = p->heads,
        .head_dim = p->d,
        .capacity = p->rows,
        .lo = p->lo,
        .hi = p->hi,
        .scale = 0.1f,
        .scratch = p->scratch,
        .next = next,
    };
    card->ops->attention(card, &a);
}

enum { RMS_NORM, ADD_RMS_NORM, LAYER_NORM, ATTENTION, PREPARING };

/* Where the result is. */
static const float *prepare(const struct preparing *p, int operation, struct next next)
{
    const int cols = p->heads * p->d;
    const size_t bytes = (size_t)(p->rows * cols) * sizeof(float);
    switch (operation) {
    case RMS_NORM: card->ops->rms_norm(card, p->out, p->x, p->norm, p->rows, cols, 1e-6f, next); break;
    case ADD_RMS_NORM:
        card->ops->copy(card, p->residual_again, p->residual, bytes);
        card->ops->copy(card, p->out, p->x, bytes);
        card->ops->add_rms_norm(card, p->residual_again, p->out, p->norm, p->norm, p->rows, cols, 1e-6f, next);
        break;
    case LAYER_NORM: card->ops->layer_norm(card, p->out, p->x, p->norm, p->norm, p->rows, cols, 1e-6f, next); break;
    default: attend_prepared(p, next);
    }
    return p->out;
}

static bool preparing_of(enum tensor_type type, int rows, int heads, int d, bool exact)
{
    static const char *const names[PREPARING] = {"rms_norm", "add_rms_norm", "layer_norm", "attention"};
    const int cols = heads * d, outputs = 20;
    const size_t n = (size_t)rows * (size_t)cols, n_out = (size_t)(rows * outputs);
    float *values = float_buffer((size_t)(outputs * cols));
    const struct tensor host = {random_matrix(type, outputs, cols, false, values), type, outputs, cols};
    const struct tensor w = matrix_on_card(&host);
    struct preparing p = {.rows = rows, .heads = heads, .d = d, .packed = room_for_packed(rows, cols, exact)};
    p.map = (struct linear){.out = on_card(NULL, n_out * sizeof(float)), .w = &w, .exact = exact};
    float **const rows_of[] = {&p.x, &p.y, &p.residual, &p.residual_again, &p.out};
    for (int i = 0; i < 5; i++)
        *rows_of[i] = on_card(random_floats(n), n * sizeof(float));
    p.norm = on_card(random_floats((size_t)cols), (size_t)cols * sizeof(float));
    p.scratch = on_card(NULL, card->ops->attention_size(card, rows, heads, d));
    p.layer = (struct kv_layer){on_card(NULL, n * 2), on_card(NULL, n * 2), TENSOR_F16, heads, d, rows};
    int *numbers = buffer((size_t)rows * sizeof *numbers, 0);
    for (int r = 0; r < rows; r++)
        numbers[r] = r;
    int *positions = on_card(numbers, (size_t)rows * sizeof *numbers);
    p.lo = on_card(NULL, (size_t)rows * sizeof *numbers);
    for (int r = 0; r < rows; r++)
        numbers[r] = r + 1;
    p.hi = on_card(numbers, (size_t)rows * sizeof *numbers);
    const struct heads kv = {.k = p.y, .v = p.x, .rows = rows, .to = &p.layer, .positions = positions};
    card->ops->store(card, &kv);

    float *plain = float_buffer(n_out), *prepared = float_buffer(n_out), *nothing = float_buffer(n);
    memset(nothing, 0xff, n * sizeof *nothing);
    bool ok = true;
    for (int i = 0; ok && i < PREPARING; i++) {
        card->ops->linear(card, prepare(&p, i, (struct next){0}), rows, &p.map, 1, p.packed);
        ok = fetch(plain, p.map.out, n_out * sizeof *plain);
        if (i != ADD_RMS_NORM && rows > GEMV_MAX_N && !(exact && i == ATTENTION))
            card->ops->write(card, p.out, nothing, n * sizeof *nothing); /* nobody looks there */
        card->ops->linear(card, prepare(&p, i, (struct next){p.packed, exact}), rows, &p.map, 1, p.packed);
        ok = ok && fetch(prepared, p.map.out, n_out * sizeof *prepared) &&
             (memcmp(prepared, plain, n_out * sizeof *plain) == 0 || fail("%s leaves others", names[i]));
    }
    release_all();
    return ok ||
           fail("%s, %d rows of %d heads of %d%s", tensor_type_name(type), rows, heads, d, exact ? ", exact" : "");
}

static bool preparing(void)
{
    return preparing_of(TENSOR_Q8_0, 1, 4, 32, false) && preparing_of(TENSOR_Q8_0, 8, 2, 80, false) &&
           preparing_of(TENSOR_Q8_0, 3, 2, 16, false) && preparing_of(TENSOR_Q8_0, 20, 4, 32, false) &&
           preparing_of(TENSOR_BF16, 70, 3, 24, false) && preparing_of(TENSOR_BF16, 9, 5, 10, true) &&
           preparing_of(TENSOR_F16, 17, 40, 80, true);
}

static bool tables(void)
{
    enum { ROWS = 9, IDS = 4 };
    static const int32_t ids[IDS] = {8, 0, 3, 3};
    bool ok = true;
    for (int type = 0; ok && type < TENSOR_TYPES; type++) {
        const int cols = whole_blocks((enum tensor_type)type, 70);
        float *values = float_buffer((size_t)(ROWS * cols)), *x = random_floats((size_t)(ROWS * cols));
        const struct tensor host = {random_matrix((enum tensor_type)type, ROWS, cols, true, values),
                                    (enum tensor_type)type, ROWS, cols};
        const struct tensor table = matrix_on_card(&host);
        double *expected = buffer((size_t)(ROWS * cols) * sizeof *expected, 0),
               *bound = buffer((size_t)(ROWS * cols) * sizeof *bound, 0);
        float *of = float_buffer((size_t)(ROWS * cols));
        magnitudes((enum tensor_type)type, of, values, ROWS * cols);
        for (int i = 0; i < IDS * cols; i++) {
            expected[i] = 3.5 * (double)values[ids[i / cols] * cols + i % cols];
            bound[i] = 1e-6 * 3.5 * (double)of[ids[i / cols] * cols + i % cols];
        }
        float *out = on_card(NULL, (size_t)(IDS * cols) * sizeof *out),
              *to = on_card(x, (size_t)(ROWS * cols) * sizeof *x);
        card->ops->embed(card, out, &table, on_card(ids, sizeof ids), IDS, 3.5f);
        ok = compare("embed", out, expected, bound, (size_t)(IDS * cols));
        for (int i = 0; i < ROWS * cols; i++) {
            expected[i] = (double)x[i] + (double)values[i];
            bound[i] = 1e-6 * (fabs((double)x[i]) + (double)of[i]);
        }
        card->ops->add_table(card, to, &table);
        ok = ok && compare("add_table", to, expected, bound, (size_t)(ROWS * cols));
        if (!ok)
            fail("%s", tensor_type_name((enum tensor_type)type));
        release_all();
    }
    return ok;
}

static bool pooling(void)
{
    enum { SIDE = 6, BLOCK = 3, COLS = 37, OUT = (SIDE / BLOCK) * (SIDE / BLOCK) * COLS };
    float *x = random_floats(SIDE * SIDE * COLS);
    double *expected = buffer(OUT * sizeof *expected, 0), *bound = buffer(OUT * sizeof *bound, 0);
    for (int i = 0; i < OUT; i++) {
        const int square = i / COLS, top = square / 2 * BLOCK, left = square % 2 * BLOCK;
        expected[i] = bound[i] = 0;
        for (int k = 0; k < BLOCK * BLOCK; k++) {
            const double value = (double)x[((top + k / BLOCK) * SIDE + left + k % BLOCK) * COLS + i % COLS];
            expected[i] += value / (BLOCK * BLOCK);
            bound[i] += 1e-6 * fabs(value);
        }
    }
    float *out = on_card(NULL, OUT * sizeof *out);
    card->ops->pool(card, out, on_card(x, SIDE * SIDE * COLS * sizeof *x), SIDE, BLOCK, COLS);
    const bool ok = compare("pool", out, expected, bound, OUT);
    release_all();
    return ok;
}

static bool choice_of(int rows, int n, float cap)
{
    float *logits = float_buffer((size_t)rows * (size_t)n);
    struct choice *got = buffer((size_t)rows * sizeof *got, 0), *out = on_card(NULL, (size_t)rows * sizeof *got);
    for (int i = 0; i < rows * n; i++)
        logits[i] = 12 * random_float();
    for (int r = 0; r < rows; r++) /* two that are the likeliest: the first is to be taken */
        logits[r * n + n / 3] = logits[r * n + n - 1] = 13;
    card->ops->choose(card, out, on_card(logits, (size_t)rows * (size_t)n * sizeof *logits), NULL, rows, n, cap);
    bool ok = fetch(got, out, (size_t)rows * sizeof *got);
    for (int r = 0; ok && r < rows; r++) {
        double sum = 0;
        for (int i = 0; i < n; i++) {
            const double x = (double)logits[r * n + i];
            sum += exp(cap > 0 ? (double)cap * tanh(x / (double)cap) : x);
        }
        const double most = cap > 0 ? (double)cap * tanh(13 / (double)cap) : 13;
        ok = (got[r].id == n / 3 || fail("token %d was chosen, expected %d", got[r].id, n / 3)) &&
             near("logit", r, (double)got[r].logit, most, 1e-5) && near("log_sum", r, got[r].log_sum, log(sum), 1e-5);
    }
    release_all();
    return ok || fail("%d rows of %d logits", rows, n);
}

static bool choice(void)
{
    return choice_of(1, 3, 0) && choice_of(8, 1000, 30) && choice_of(2, 70001, 0) && choice_of(1, 65, 5);
}

/* Draws of the card beside sample_token's, by the same numbers: at least `least` of them are the card's own. */
static bool drawing_of(int n, float spread, const struct sampler_options *options, int least)
{
    enum { TURNS = 4, ROWS = GEMV_MAX_N };
    struct sampler s;
    struct ward_error err;
    float *logits = float_buffer((size_t)ROWS * (size_t)n);
    if (sampler_open(&s, n, &err))
        return fail("%s", err.text);
    sampler_seed(&s, (uint64_t)n + (uint64_t)options->top_k);
    struct choice got[ROWS], *out = on_card(NULL, sizeof got);
    struct draw draws[ROWS], *card_draws = on_card(NULL, sizeof draws);
    float *card_logits = on_card(NULL, (size_t)ROWS * (size_t)n * sizeof *logits);
    int drawn = 0;
    bool ok = true;
    for (int turn = 0; ok && turn < TURNS; turn++) {
        for (int i = 0; i < ROWS * n; i++) /* a few stand out, many are equal, some are out of the question */
            logits[i] = i % 31 == 0  ? spread * (1.5f + 0.5f * random_float())
                        : i % 97 == 0 ? -INFINITY
                        : i % 3 == 0  ? spread
                                      : spread * random_float();
        for (int r = 0; r < ROWS; r++)
            draws[r] = (struct draw){sample_number(&s, r), *options};
        card->ops->write(card, card_draws, draws, sizeof draws);
        card->ops->write(card, card_logits, logits, (size_t)ROWS * (size_t)n * sizeof *logits);
        card->ops->choose(card, out, card_logits, card_draws, ROWS, n, 0);
        ok = fetch(got, out, sizeof got);
        for (int r = 0; ok && r < ROWS; r++) {
            const int32_t expected = sample_token(&s, logits + (size_t)r * (size_t)n, options);
            if (got[r].id < 0)
                continue;
            drawn++;
            ok = (got[r].id == expected || fail("token %d was drawn, expected %d", got[r].id, expected)) &&
                 near("logit", r, (double)got[r].logit, (double)logits[r * n + expected], 0);
        }
    }
    sampler_close(&s);
    release_all();
    ok = ok && (drawn >= least || fail("%d of %d tokens were drawn on the card", drawn, TURNS * ROWS));
    return ok || fail("%d logits, temperature %g, top-k %d, top-p %g, min-p %g", n, (double)options->temperature,
                      options->top_k, (double)options->top_p, (double)options->min_p);
}

static bool drawing(void)
{
    enum { ALL = 32 };
    static const struct {
        int n;
        float spread;
        struct sampler_options options;
        int least;
    } cases[] = {
        {1, 5, {1, 0, 0, 0}, ALL},           {70, 5, {1, 64, 0.95f, 0}, ALL},     {3000, 8, {0.2f, 40, 0, 0}, ALL},
        {3000, 8, {2, 1, 0, 0}, ALL},        {3000, 8, {1, 64, 0.5f, 0.02f}, ALL}, {3000, 12, {0.7f, 0, 0.95f, 0}, ALL},
        {3000, 8, {1, 0, 0.5f, 0.3f}, ALL},  {3000, 2, {2, 0, 0.999f, 0}, 0},     {3000, 2, {1, 2900, 0, 0}, 0},
        {3000, 3, {1, 0, 0, 0}, ALL},        {3000, 9, {0.5f, 0, 1, 0.05f}, ALL}, {70001, 6, {0.8f, 64, 0.95f, 0}, ALL},
        {70001, 1, {2, 0, 0, 0}, ALL},       {3000, 0, {1, 5, 0.9f, 0}, 0},       {1500, 0, {1, 5, 0.9f, 0}, ALL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (!drawing_of(cases[i].n, cases[i].spread, &cases[i].options, cases[i].least))
            return false;
    return true;
}

/* What the card leaves to the processor: a row whose logits are no numbers, and no other. */
static bool undrawn(void)
{
    enum { N = 500, ROWS = 4 };
    float *logits = random_floats(ROWS * N);
    logits[N + 77] = NAN;
    logits[2 * N + 3] = INFINITY;
    for (int i = 0; i < N; i++)
        logits[3 * N + i] = -INFINITY;
    const float *in = on_card(logits, ROWS * N * sizeof *logits);
    struct choice got[ROWS], *out = on_card(NULL, sizeof got);
    bool ok = true;
    for (int top_k = 0; ok && top_k < 10; top_k += 5) {
        struct draw draws[ROWS];
        for (int r = 0; r < ROWS; r++)
            draws[r] = (struct draw){0.5, {.temperature = 1, .top_k = top_k}};
        card->ops->choose(card, out, in, on_card(draws, sizeof draws), ROWS, N, 0);
        ok = fetch(got, out, sizeof got);
        for (int r = 0; ok && r < ROWS; r++)
            ok = (got[r].id >= 0) == (r == 0) || fail("of row %d token %d was drawn", r, got[r].id);
    }
    release_all();
    return ok;
}

/* A recording gives what the calls gave, on the contents of its time. */
static bool recording(void)
{
    enum { N = 300 };
    float *x = random_floats(N), *y = random_floats(N), got[N];
    float *to = on_card(NULL, N * sizeof *x);
    const struct tensor host = {y, TENSOR_F32, 1, N}, table = matrix_on_card(&host);
    void *recorded = NULL;
    bool ok = true;
    for (int turn = 0; ok && turn < 3; turn++) {
        card->ops->write(card, to, turn == 1 ? y : x, N * sizeof *x);
        if (!card->ops->begin(card, &recorded)) {
            ok = turn == 0 || fail("turn %d was not played from the recording", turn);
            card->ops->add_table(card, to, &table);
            card->ops->add_table(card, to, &table);
            card->ops->end(card, &recorded);
        }
        ok = ok && fetch(got, to, sizeof got);
        for (int i = 0; ok && i < N; i++)
            ok = near("recording", i, (double)got[i], (double)((turn == 1 ? y : x)[i] + y[i] + y[i]), 0);
    }
    card->ops->forget(card, &recorded);
    release_all();
    return ok;
}

static const struct {
    const char *name;
    bool (*run)(void);
} checks[] = {
    {"linear f32", linear_f32},
    {"linear f16", linear_f16},
    {"linear bf16", linear_bf16},
    {"linear q8_0", linear_q8_0},
    {"linear q4_0", linear_q4_0},
    {"linear q4_1", linear_q4_1},
    {"linear q5_0", linear_q5_0},
    {"linear q5_1", linear_q5_1},
    {"linear q4_k", linear_q4_k},
    {"linear q5_k", linear_q5_k},
    {"linear q6_k", linear_q6_k},
    {"outcomes", outcomes},
    {"attention", attention},
    {"norms", norms},
    {"gated", gated},
    {"rotation", rotation},
    {"preparing", preparing},
    {"tables", tables},
    {"pooling", pooling},
    {"choice", choice},
    {"drawing", drawing},
    {"undrawn", undrawn},
    {"recording", recording},
    {"measuring", measuring},
};

int main(int argc, char **argv)
{
    const char *only = "";
    uint64_t seed = 1;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--only") == 0)
            only = argv[i + 1];
        else if (strcmp(argv[i], "--seed") == 0)
            seed = strtoull(argv[i + 1], NULL, 10);
    }
    struct ward_error err;
    if (backend_cuda_open(&card, -1, 1, &err)) {
        printf("1..0 # SKIP %s\n", err.text);
        return 0;
    }
    enum { N = sizeof checks / sizeof *checks };
    bool passed = true;
    printf("# %s, %s, seed %llu\n1..%d\n", card->device_name, card->kernels, (unsigned long long)seed, N);
    for (int i = 0; i < N; i++) {
        if (!strstr(checks[i].name, only)) {
            printf("ok %d - %s # SKIP not asked for\n", i + 1, checks[i].name);
            continue;
        }
        random_seed(seed + (uint64_t)i);
        const bool ok = checks[i].run();
        passed &= ok;
        printf("%sok %d - %s\n", ok ? "" : "not ", i + 1, checks[i].name);
        fflush(stdout);
    }
    backend_close(&card);
    return !passed;
}
