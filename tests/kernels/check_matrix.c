/* Packing, the tile product, matrix times vector and the weighted sum of rows. */
#include "harness.h"

#include "base/half.h"

#include <math.h>

static const int sizes[] = {1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 37, 64, 65, 72, 100, 257, 588};
enum { SIZES = sizeof sizes / sizeof *sizes };

static int round_up(int n, int step)
{
    return (n + step - 1) / step * step;
}

/* What a panel with elements of two bytes holds of a value. */
static float as_packed(const struct gemm *g, float value)
{
    return g->element == 2 ? bf16_to_float(bf16_from_float(value)) : value;
}

struct product {
    const struct gemm *g;
    const float *x, *w; /* [rows][k], [cols][k]; w [k][cols] when transposed */
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
                const float w = p->transposed ? p->w[q * p->cols + j] : p->w[j * p->k + q];
                const double product = (double)as_packed(p->g, p->x[i * p->k + q]) * (double)as_packed(p->g, w);
                sum += product;
                absolute += fabs(product);
            }
            if (!near("tile", i * stride + j, (double)c[i * stride + j], sum,
                      j < width ? SUM_BOUND(p->k) * absolute : 0))
                return false;
        }
    return true;
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
    g->tile(c, (size_t)stride, x_panel, w_panel, k, false);
    if (!check_tile(p, c, stride, g->nr, 0, untouched))
        return false;

    g->tile(c, (size_t)stride, x_panel, w_panel, part, false);
    g->tile(c, (size_t)stride, (const uint8_t *)x_panel + (size_t)(g->mr * part) * g->element,
            (const uint8_t *)w_panel + (size_t)(g->nr * part) * g->element, k - part, true);
    if (!check_tile(p, c, stride, g->nr, 0, untouched))
        return false;

    for (int i = 0; i < (g->mr - 1) * stride + g->nr; i++)
        c[i] = i % stride < g->nr / 2 ? 2.0f : untouched;
    g->tile_half(c, (size_t)stride, x_panel, w_panel, k, true);
    return check_tile(p, c, stride, g->nr / 2, 2.0, untouched);
}

static bool check_gemm_size(const struct gemm *g, enum tensor_type type, int rows, int cols, int k)
{
    const int k_padded = round_up(k, g->k_step);
    float *x = float_buffer((size_t)(rows * k)), *w = float_buffer((size_t)(cols * k));
    void *x_panel = buffer((size_t)(g->mr * k_padded) * g->element, 0);
    void *w_panel = buffer((size_t)(g->nr * k_padded) * g->element, 0);
    random_fill(x, (size_t)(rows * k));
    g->pack_x(x_panel, x, (size_t)k, rows, k);

    const size_t element = tensor_element_size(type);
    const void *matrix = random_matrix(type, cols, k, cols % 2 == 0, w);
    g->pack_w[type](w_panel, matrix, (size_t)k * element, cols, k);
    const struct product straight = {.g = g, .x = x, .w = w, .rows = rows, .cols = cols, .k = k};
    if (!check_products(&straight, x_panel, w_panel))
        return fail("pack_w of %s, %d x %d x %d", tensor_type_name(type), rows, cols, k);

    matrix = random_matrix(type, k, cols, k % 2 == 0, w);
    g->pack_w_transposed[type](w_panel, matrix, (size_t)cols * element, k, cols);
    const struct product transposed = {.g = g, .x = x, .w = w, .rows = rows, .cols = cols, .k = k, .transposed = true};
    if (!check_products(&transposed, x_panel, w_panel))
        return fail("pack_w_transposed of %s, %d x %d x %d", tensor_type_name(type), rows, cols, k);
    if (!buffers_intact())
        return fail("%s, %d x %d x %d", tensor_type_name(type), rows, cols, k);
    buffers_release();
    return true;
}

/* The product for weights of one type, from panels packed of every type. */
static bool check_gemm(const struct kernels *k, int type)
{
    const struct gemm *g = k->gemm[type];
    if (g->mr > GEMM_MAX_MR || g->nr > GEMM_MAX_NR || g->nr % 2)
        return fail("tiles of %d x %d are larger than GEMM_MAX allows", g->mr, g->nr);
    for (int packed = 0; packed < TENSOR_TYPES; packed++) {
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

static bool check_gemv_size(const struct kernels *k, enum tensor_type type, int rows, int cols)
{
    float *w = float_buffer((size_t)(rows * cols)), *x = float_buffer((size_t)cols), *out = float_buffer((size_t)rows);
    const void *matrix = random_matrix(type, rows, cols, rows % 2 == 0, w);
    random_fill(x, (size_t)cols);
    k->gemv[type](out, matrix, (size_t)cols * tensor_element_size(type), rows, cols, x);
    for (int r = 0; r < rows; r++) {
        double sum = 0, absolute = 0;
        for (int i = 0; i < cols; i++) {
            sum += (double)w[r * cols + i] * (double)x[i];
            absolute += fabs((double)w[r * cols + i] * (double)x[i]);
        }
        if (!near("gemv", r, (double)out[r], sum, SUM_BOUND(cols) * absolute))
            return fail("%d x %d", rows, cols);
    }
    const bool intact = buffers_intact();
    buffers_release();
    return intact;
}

static bool check_gemv(const struct kernels *k, int type)
{
    for (int cols = 1; cols <= 70; cols++)
        if (!check_gemv_size(k, (enum tensor_type)type, random_int(1, 9), cols))
            return false;
    for (int rows = 1; rows <= 9; rows++)
        if (!check_gemv_size(k, (enum tensor_type)type, rows, 1152 + rows))
            return false;
    for (int rows = 1; rows <= 9; rows++) /* long ones may be summed in another way */
        if (!check_gemv_size(k, (enum tensor_type)type, rows, 5000 + rows))
            return false;
    return true;
}

static bool check_weighted_rows_size(const struct kernels *k, enum tensor_type type, int rows, int cols)
{
    float *v = float_buffer((size_t)(rows * cols)), *p = float_buffer((size_t)rows), *out = float_buffer((size_t)cols);
    const void *matrix = random_matrix(type, rows, cols, cols % 2 == 0, v);
    random_fill(p, (size_t)rows);
    for (int i = 0; i < cols; i++)
        out[i] = 0.5f;
    k->weighted_rows[type](out, p, matrix, (size_t)cols * tensor_element_size(type), rows, cols);
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

const struct check matrix_checks[] = {
    {"gemm of f32", check_gemm, TENSOR_F32},
    {"gemm of f16", check_gemm, TENSOR_F16},
    {"gemm of bf16", check_gemm, TENSOR_BF16},
    {"gemv of f32", check_gemv, TENSOR_F32},
    {"gemv of f16", check_gemv, TENSOR_F16},
    {"gemv of bf16", check_gemv, TENSOR_BF16},
    {"weighted_rows of f32", check_weighted_rows, TENSOR_F32},
    {"weighted_rows of f16", check_weighted_rows, TENSOR_F16},
    {"weighted_rows of bf16", check_weighted_rows, TENSOR_BF16},
    {0},
};
