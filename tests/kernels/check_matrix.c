/* Packing, the tile product, matrix times vector and the weighted sum of rows. */
#include "harness.h"

#include <math.h>
#include <string.h>

static const int sizes[] = {1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 37, 64, 65, 72, 100, 257, 588};
enum { SIZES = sizeof sizes / sizeof *sizes };

static int round_up(int n, int step)
{
    return (n + step - 1) / step * step;
}

struct product {
    const struct gemm *g;
    const float *x, *w;      /* [rows][k], [cols][k], as packed; w [k][cols] when transposed */
    const float *magnitudes; /* of w */
    int rows, cols, k;
    bool transposed;
};

/* Compares c [mr][stride] with c0 + x w^T; what lies beyond `width` columns must still be `untouched`. */
static bool check_tile(const struct product *p, const float *c, int stride, int width, double c0, float untouched)
{
    for (int i = 0; i < p->g->mr; i++)
        for (int j = 0; j < (i + 1 < p->g->mr ? stride : width); j++) {
            double sum = j < width ? c0 : (double)untouched, absolute = fabs(c0);
            for (int q = 0; q < p->k && i < p->rows && j < p->cols && j < width; q++) {
                const int at = p->transposed ? q * p->cols + j : j * p->k + q;
                const double x = (double)p->x[i * p->k + q];
                sum += x * (double)p->w[at];
                absolute += fabs(x) * (double)p->magnitudes[at];
            }
            if (!near("tile", i * stride + j, (double)c[i * stride + j], sum,
                      j < width ? SUM_BOUND(p->k) * absolute : 0))
                return false;
        }
    return true;
}

static void *panel_buffer(size_t size)
{
    uint8_t *at = buffer(size + KERNELS_ALIGN, 0);
    return at + (KERNELS_ALIGN - (uintptr_t)at % KERNELS_ALIGN) % KERNELS_ALIGN;
}

/* The whole product, then the same in two parts of k, then half a tile. */
static bool check_products(const struct product *p, const void *x_panel, const void *w_panel)
{
    const struct gemm *g = p->g;
    const int stride = g->nr + 3, k = round_up(p->k, g->k_step), part = k / 2 / g->k_step * g->k_step;
    const float untouched = 12345.0f;
    float *c = float_buffer((size_t)((g->mr - 1) * stride + g->nr));
    for (int i = 0; i < (g->mr - 1) * stride + g->nr; i++)
        c[i] = untouched;
    gemm_begin(g);
    g->tile(c, (size_t)stride, x_panel, w_panel, k, false);
    gemm_end(g);
    if (!check_tile(p, c, stride, g->nr, 0, untouched))
        return false;

    gemm_begin(g);
    g->tile(c, (size_t)stride, x_panel, w_panel, part, false);
    g->tile(c, (size_t)stride, (const uint8_t *)x_panel + (size_t)(part / g->k_step) * g->x_group,
            (const uint8_t *)w_panel + (size_t)(part / g->k_step) * g->w_group, k - part, true);
    gemm_end(g);
    if (!check_tile(p, c, stride, g->nr, 0, untouched))
        return false;

    for (int i = 0; i < (g->mr - 1) * stride + g->nr; i++)
        c[i] = i % stride < g->nr / 2 ? 2.0f : untouched;
    gemm_begin(g);
    g->tile_half(c, (size_t)stride, x_panel, w_panel, k, true);
    gemm_end(g);
    return check_tile(p, c, stride, g->nr / 2, 2.0, untouched);
}

/* Rows of x or w as the panels hold them. */
static void round_rows(const struct gemm *g, float *x, int rows, int k)
{
    for (int r = 0; r < rows; r++)
        as_rounded(g->rounding, g->k_step, x + (size_t)(r * k), x + (size_t)(r * k), k);
}

/* Of w transposed: its columns. */
static void round_columns(const struct gemm *g, float *w, int k, int cols)
{
    float *column = float_buffer((size_t)k);
    for (int c = 0; c < cols; c++) {
        for (int i = 0; i < k; i++)
            column[i] = w[i * cols + c];
        round_rows(g, column, 1, k);
        for (int i = 0; i < k; i++)
            w[i * cols + c] = column[i];
    }
}

static bool check_gemm_size(const struct gemm *g, enum tensor_type type, int rows, int cols, int k_least)
{
    const int k = whole_blocks(type, k_least);
    const int k_padded = round_up(k, g->k_step);
    float *x = float_buffer((size_t)(rows * k)), *w = float_buffer((size_t)(cols * k)),
          *of_w = float_buffer((size_t)(cols * k));
    void *x_panel = panel_buffer((size_t)(k_padded / g->k_step) * g->x_group);
    void *w_panel = panel_buffer((size_t)(k_padded / g->k_step) * g->w_group);
    random_fill(x, (size_t)(rows * k));
    g->pack_x(x_panel, x, (size_t)k, rows, k);

    const void *matrix = random_matrix(type, cols, k, cols % 2 == 0, w);
    g->pack_w[type](w_panel, matrix, tensor_bytes(type, (size_t)k), cols, k);
    round_rows(g, x, rows, k);
    if (rounds_weights(g->rounding))
        round_rows(g, w, cols, k);
    magnitudes(type, of_w, w, cols * k);
    const struct product straight = {.g = g, .x = x, .w = w, .magnitudes = of_w, .rows = rows, .cols = cols, .k = k};
    if (!check_products(&straight, x_panel, w_panel))
        return fail("pack_w of %s, %d x %d x %d", tensor_type_name(type), rows, cols, k);
    if (!buffers_intact())
        return fail("%s, %d x %d x %d", tensor_type_name(type), rows, cols, k);
    if (!g->pack_w_transposed[type]) {
        buffers_release();
        return true;
    }

    matrix = random_matrix(type, k, cols, k % 2 == 0, w);
    g->pack_w_transposed[type](w_panel, matrix, tensor_bytes(type, (size_t)cols), k, cols);
    if (rounds_weights(g->rounding))
        round_columns(g, w, k, cols);
    magnitudes(type, of_w, w, cols * k);
    const struct product transposed = {
        .g = g, .x = x, .w = w, .magnitudes = of_w, .rows = rows, .cols = cols, .k = k, .transposed = true};
    if (!check_products(&transposed, x_panel, w_panel))
        return fail("pack_w_transposed of %s, %d x %d x %d", tensor_type_name(type), rows, cols, k);
    if (!buffers_intact())
        return fail("%s, %d x %d x %d", tensor_type_name(type), rows, cols, k);
    buffers_release();
    return true;
}

/* A product from panels packed of every type that it takes. */
static bool check_product(const struct gemm *g)
{
    if (g->mr > GEMM_MAX_MR || g->nr > GEMM_MAX_NR || g->nr % 2)
        return fail("tiles of %d x %d are larger than GEMM_MAX allows", g->mr, g->nr);
    for (int packed = 0; packed < TENSOR_TYPES; packed++) {
        if (!g->pack_w[packed])
            continue;
        for (int i = 0; i < SIZES; i++)
            if (!check_gemm_size(g, (enum tensor_type)packed, random_int(1, g->mr), random_int(1, g->nr), sizes[i]))
                return false;
        for (int rows = 1; rows <= g->mr; rows++)
            if (!check_gemm_size(g, (enum tensor_type)packed, rows, g->nr, 19))
                return false;
        for (int cols = 1; cols <= g->nr; cols++)
            if (!check_gemm_size(g, (enum tensor_type)packed, g->mr, cols, 21))
                return false;
    }
    return true;
}

/* The product for weights of one type. */
static bool check_gemm(const struct kernels *k, int type)
{
    const struct gemm *g = k->gemm[type];
    if (!g->pack_w[type] || (rounds_weights(g->rounding) && !k->gemm[TENSOR_F32]->pack_w[type]))
        return fail("a product does not take its own type");
    return check_product(g);
}

/* Those of attention take keys and values of the float types. */
static bool check_gemm_attention(const struct kernels *k, int type)
{
    const struct gemm *s = k->gemm_scores, *v = k->gemm_values;
    if (!s->pack_w[type] || !v->pack_w_transposed[type] || s->mr != v->mr)
        return fail("the products of attention do not take the type, or differ in their rows");
    return check_product(s) && check_product(v);
}

/* n rows of x through gemv: each against double precision, and bit for bit as it comes out alone. */
static bool check_gemv_size(const struct kernels *k, enum tensor_type type, int rows, int cols_least, int n)
{
    const int cols = whole_blocks(type, cols_least), stride = rows + 3;
    const enum rounding rounding = k->quantize_x[type] ? ROUND_X8 : ROUND_NOTHING;
    const size_t x_stride = rounding ? x8_bytes(cols) + 64 : (size_t)(cols + 5) * sizeof(float);
    float *w = float_buffer((size_t)(rows * cols)), *x = float_buffer((size_t)cols),
          *out = float_buffer((size_t)((n - 1) * stride + rows)), *alone = float_buffer((size_t)rows);
    uint8_t *all = panel_buffer((size_t)(n - 1) * x_stride + (rounding ? x8_bytes(cols) : (size_t)cols * sizeof(float)));
    float *exact = float_buffer((size_t)(n * cols)), *of_w = float_buffer((size_t)(rows * cols));
    const void *matrix = random_matrix(type, rows, cols, rows % 2 == 0, w);
    magnitudes(type, of_w, w, rows * cols);
    for (int i = 0; i < n; i++) {
        random_fill(x, (size_t)cols);
        if (rounding)
            k->quantize_x[type](all + (size_t)i * x_stride, x, cols);
        else
            memcpy(all + (size_t)i * x_stride, x, (size_t)cols * sizeof(float));
        as_rounded(rounding, 0, exact + (size_t)(i * cols), x, cols);
    }
    const size_t row_bytes = tensor_bytes(type, (size_t)cols);
    k->gemv[type](out, (size_t)stride, matrix, row_bytes, rows, cols, all, x_stride, n);
    for (int i = 0; i < n; i++) {
        k->gemv[type](alone, 0, matrix, row_bytes, rows, cols, all + (size_t)i * x_stride, x_stride, 1);
        if (memcmp(alone, out + i * stride, (size_t)rows * sizeof *out) != 0)
            return fail("row %d of %d is not what it is alone, %d x %d", i, n, rows, cols);
        for (int r = 0; r < rows; r++) {
            double sum = 0, absolute = 0;
            for (int j = 0; j < cols; j++) {
                sum += (double)w[r * cols + j] * (double)exact[i * cols + j];
                absolute += (double)of_w[r * cols + j] * fabs((double)exact[i * cols + j]);
            }
            if (!near("gemv", r, (double)alone[r], sum, SUM_BOUND(cols) * absolute))
                return fail("%d x %d", rows, cols);
        }
    }
    const bool intact = buffers_intact();
    buffers_release();
    return intact;
}

static bool check_gemv(const struct kernels *k, int type)
{
    for (int cols = 1; cols <= 70; cols++)
        if (!check_gemv_size(k, (enum tensor_type)type, random_int(1, 9), cols, 1))
            return false;
    for (int rows = 1; rows <= 9; rows++)
        if (!check_gemv_size(k, (enum tensor_type)type, rows, 1152 + 32 * rows + 1, random_int(1, 2)))
            return false;
    for (int rows = 1; rows <= 9; rows++) /* long ones may be summed in another way */
        if (!check_gemv_size(k, (enum tensor_type)type, rows, 5000 + rows, 1))
            return false;
    for (int n = 1; n <= GEMV_MAX_N; n++)
        if (!check_gemv_size(k, (enum tensor_type)type, random_int(1, 13), 320, n) ||
            !check_gemv_size(k, (enum tensor_type)type, random_int(1, 13), random_int(1, 2000), n))
            return false;
    return true;
}

/* What a row is rounded to is defined to the bit. */
static bool check_quantize_x(const struct kernels *k, int type)
{
    for (int cols = X8_BLOCK; k->quantize_x[type] && cols <= 20 * X8_BLOCK; cols += X8_BLOCK) {
        float *x = float_buffer((size_t)cols), *expected = float_buffer((size_t)cols);
        void *rounded = buffer(x8_bytes(cols), 0);
        random_fill(x, (size_t)cols);
        memset(x, 0, cols % 64 ? X8_BLOCK * sizeof *x : 0);
        k->quantize_x[type](rounded, x, cols);
        as_rounded(ROUND_X8, 0, expected, x, cols);
        const struct x8 got = x8_at(rounded, cols);
        for (int i = 0; i < cols; i++)
            if (got.scale[i / X8_BLOCK] * (float)got.q[i] != expected[i])
                return fail("element %d of %d: %d times %g, expected %g", i, cols, got.q[i],
                            (double)got.scale[i / X8_BLOCK], (double)expected[i]);
        for (int i = 0; i < cols / 16; i++) {
            int sum = 0;
            for (int j = 0; j < 16; j++)
                sum += got.q[i * 16 + j];
            if (got.sum[i] != sum)
                return fail("sum %d is %d, expected %d", i, (int)got.sum[i], sum);
        }
        if (!buffers_intact())
            return false;
        buffers_release();
    }
    return true;
}

/* Blocks are widened to the bit as portable C does it. */
static bool check_to_float(const struct kernels *k, int type)
{
    for (int n = 1; n <= 3000; n = n * 3 / 2 + 1) {
        const int cols = whole_blocks((enum tensor_type)type, n);
        float *values = float_buffer((size_t)cols), *got = float_buffer((size_t)cols);
        const void *row = random_matrix((enum tensor_type)type, 1, cols, n % 2, values);
        k->to_float[type](got, row, cols);
        for (int i = 0; i < cols; i++)
            if (memcmp(&got[i], &values[i], sizeof got[i]) != 0)
                return fail("to_float: element %d of %d is %a, expected %a", i, cols, (double)got[i],
                            (double)values[i]);
        if (!buffers_intact())
            return false;
        buffers_release();
    }
    return true;
}

static bool check_weighted_rows_size(const struct kernels *k, enum tensor_type type, int rows, int cols)
{
    float *v = float_buffer((size_t)(rows * cols)), *p = float_buffer((size_t)rows), *out = float_buffer((size_t)cols);
    const void *matrix = random_matrix(type, rows, cols, cols % 2 == 0, v);
    random_fill(p, (size_t)rows);
    for (int i = 0; i < cols; i++)
        out[i] = 0.5f;
    k->weighted_rows[type](out, p, matrix, (size_t)cols * tensor_bytes(type, 1), rows, cols);
    for (int i = 0; i < cols; i++) {
        double sum = 0.5, absolute = 0.5;
        for (int r = 0; r < rows; r++) {
            sum += (double)p[r] * (double)v[r * cols + i];
            absolute += fabs((double)p[r] * (double)v[r * cols + i]);
        }
        if (!near("weighted_rows", i, (double)out[i], sum, SUM_BOUND(rows) * absolute))
            return fail("%d x %d", rows, cols);
    }
    const bool intact = buffers_intact();
    buffers_release();
    return intact;
}

static bool check_weighted_rows(const struct kernels *k, int type)
{
    for (int cols = 1; cols <= 70; cols++)
        if (!check_weighted_rows_size(k, (enum tensor_type)type, random_int(1, 40), cols))
            return false;
    return check_weighted_rows_size(k, (enum tensor_type)type, 256, 256) &&
           check_weighted_rows_size(k, (enum tensor_type)type, 3, 333);
}

#define EACH_TYPE(name, check)                                                                                         \
    {name " of f32", check, TENSOR_F32}, {name " of f16", check, TENSOR_F16}, {name " of bf16", check, TENSOR_BF16},   \
        {name " of q8_0", check, TENSOR_Q8_0}, {name " of q4_0", check, TENSOR_Q4_0},                                  \
        {name " of q4_1", check, TENSOR_Q4_1}, {name " of q5_0", check, TENSOR_Q5_0},                                  \
        {name " of q5_1", check, TENSOR_Q5_1}, {name " of q4_k", check, TENSOR_Q4_K},                                  \
        {name " of q5_k", check, TENSOR_Q5_K}, {name " of q6_k", check, TENSOR_Q6_K}

const struct check matrix_checks[] = {
    EACH_TYPE("gemm", check_gemm),
    {"gemm of attention, f32", check_gemm_attention, TENSOR_F32},
    {"gemm of attention, f16", check_gemm_attention, TENSOR_F16},
    {"gemm of attention, bf16", check_gemm_attention, TENSOR_BF16},
    EACH_TYPE("gemv", check_gemv),
    EACH_TYPE("to_float", check_to_float),
    {"quantize_x", check_quantize_x, TENSOR_Q8_0},
    {"weighted_rows of f32", check_weighted_rows, TENSOR_F32},
    {"weighted_rows of f16", check_weighted_rows, TENSOR_F16},
    {"weighted_rows of bf16", check_weighted_rows, TENSOR_BF16},
    {0},
};
