/* Linear maps on a card, and what becomes of their results. */
#include "cuda/checks.h"
#include "kernels/harness.h"

#include "base/half.h"

#include <math.h>
#include <string.h>

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
void expect_product(const struct product *p, const float *x, const float *w, const float *bias, double *expected,
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
    const struct scratch scratch = room_for_products(rows, cols, exact);
    const float *input = on_card(x, (size_t)rows * (size_t)cols * sizeof *x);
    card->ops->linear(card, input, rows, maps, N, scratch);
    bool ok = true;
    for (int i = 0; ok && i < N; i++) {
        const struct product p = {i == 1 ? TENSOR_BF16 : type, rows, cols, n_out[i], exact, rows > GEMV_MAX_N};
        const size_t n = (size_t)rows * (size_t)n_out[i];
        float *out = float_buffer(n), *alone = float_buffer((size_t)n_out[i]);
        ok = fetch(out, maps[i].out, n * sizeof *out) && check_product(&p, x, w[i], bias[i], out);
        /* A row of few is the same bits alone. */
        for (int r = 0; ok && rows > 1 && rows <= GEMV_MAX_N && r < rows; r += rows - 1) {
            card->ops->linear(card, input + (size_t)r * (size_t)cols, 1, &maps[i], 1, scratch);
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
    bool name(void)                                                                                                    \
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

/* ---- what becomes of products ------------------------------------------------------------------------------------ */

double gelu(double x)
{
    return 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
}

void activate(double *values, double *bound, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        bound[i] = 1.2 * bound[i] + 2e-6 * (fabs(values[i]) + 1);
        values[i] = gelu(values[i]);
    }
}

struct scratch room_for_products(int rows, int cols, bool exact)
{
    const size_t sums = card->ops->sums_size(card, rows);
    return (struct scratch){on_card(NULL, card->ops->packed_size(card, rows, cols, exact)),
                            sums ? on_card(NULL, sums) : NULL};
}

/* Where packed rows go; nothing there is a number. */
void *room_for_packed(int rows, int cols, bool exact)
{
    const size_t bytes = card->ops->packed_size(card, rows, cols, exact);
    return on_card(memset(buffer(bytes, 0), 0xff, bytes), bytes);
}

/* Rows of bf16 [rows][parts][16 units]: the values, and zeros after them. */
bool check_packed(const char *what, const void *at, const double *expected, const double *bound, int rows, int cols,
                  bool exact)
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
    const struct scratch scratch = room_for_products(rows, cols, s->exact);
    const float *input = on_card(x, (size_t)rows * (size_t)cols * sizeof *x);
    card->ops->linear(card, input, rows, maps, PACKED + 1, scratch);
    card->ops->linear(card, input, rows, maps + ADDED, N - ADDED, scratch);
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

bool outcomes(void)
{
    static const struct outcome_case cases[] = {
        {20, 70, 70, 2, 24, false},
        {200, 300, 20, 1, 24, false},
        {3, 70, 33, 3, 10, true},
        {130, 40, 129, 1, 7, false},
        {65, 300, 64, 5, 32, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int type = 0; type < TENSOR_TYPES; type++)
            if ((i <= 1 || type == TENSOR_BF16 || type == TENSOR_F16 || type == TENSOR_Q4_0) &&
                !outcomes_of((enum tensor_type)type, &cases[i]))
                return false;
    return true;
}
