/* The kernels of an instruction set with vectors of floats, written once. A file that includes this defines first:
 *
 *   LANES, vec                      floats in a vector; its type
 *   vec_zero vec_set                all lanes 0; all lanes one value
 *   vec_load vec_store              LANES floats at any address
 *   vec_load_part vec_store_part    the first n < LANES floats, nothing read or written beyond; missing lanes are 0
 *   vec_load_f16 vec_load_f16_part vec_store_f16 vec_store_f16_part, and the same for bf16: the same with conversion
 *   vec_keep                        the first n < LANES lanes, 0 in the others
 *   vec_add sub mul div max min, vec_fma (a b + c), vec_fnma (c - a b)
 *   vec_scale2                      a * 2^n for whole n >= -127 (0 or a subnormal below 2^-126), infinity for n = 128
 *   vec_sum vec_highest             over the lanes
 *   vec_transpose                   LANES vectors as a square matrix, in place
 *   TILE_ROWS                       of the product: TILE_ROWS x 2 vectors of sums, within the registers
 *
 * and ends with kernels_override(). */
#include "kernels/kernels.h"
#include "kernels/x86/quants.h"

#include <math.h>

enum {
    TILE_COLS = 2 * LANES,
    DOT_ROWS = 4,         /* rows of a matrix times vector at a time */
    DOT_SUMS = 2,         /* vectors of sums for each */
    PACK_COLS = 256,      /* columns of blocks that are widened at a time: a whole number of blocks of every type */
    PREFETCH_TILE = 128,  /* columns from which on the outputs of a tile are worth fetching before they are summed */
    PREFETCH_BYTES = 1024 /* ahead in each row */
};

/* How the rows of a matrix of one type are read and written. Constant where used: each kernel gets its own code. */
struct format {
    size_t element;
    vec (*load)(const void *);
    vec (*load_part)(const void *, int n);
    void (*store)(void *, vec);
    void (*store_part)(void *, vec, int n);
};

static const struct format format_f32 = {4, vec_load, vec_load_part, vec_store, vec_store_part};
static const struct format format_f16 = {2, vec_load_f16, vec_load_f16_part, vec_store_f16, vec_store_f16_part};
static const struct format format_bf16 = {2, vec_load_bf16, vec_load_bf16_part, vec_store_bf16, vec_store_bf16_part};

/* Elements i.. of a row of n, as many as there are. */
static ALWAYS_INLINE vec load_at(const struct format *f, const void *row, int i, int n)
{
    const uint8_t *from = (const uint8_t *)row + (size_t)i * f->element;
    return n - i >= LANES ? f->load(from) : f->load_part(from, n - i);
}

static ALWAYS_INLINE void store_at(const struct format *f, void *row, vec value, int i, int n)
{
    uint8_t *to = (uint8_t *)row + (size_t)i * f->element;
    if (n - i >= LANES)
        f->store(to, value);
    else
        f->store_part(to, value, n - i);
}

/* ---- matrix product: panels are float32, [k][TILE_ROWS] and [k][TILE_COLS] ---- */

static void pack_x(void *panel, const float *x, size_t stride, int rows, int k)
{
    float *out = panel, *end = out + (size_t)TILE_ROWS * (size_t)k;
    for (int i = 0; i < k; i += LANES) {
        vec block[LANES];
        for (int r = 0; r < LANES; r++)
            block[r] = r < rows ? load_at(&format_f32, x + (size_t)r * stride, i, k) : vec_zero();
        vec_transpose(block);
        for (int j = 0; j < LANES && i + j < k; j++, out += TILE_ROWS) {
            if (out + LANES <= end) /* what reaches over into the next column is overwritten by it */
                vec_store(out, block[j]);
            else
                vec_store_part(out, block[j], TILE_ROWS);
        }
    }
}

/* LANES rows of w, of which `rows` are there, into as many columns of a panel. */
static ALWAYS_INLINE void pack_lanes(float *out, const void *w, size_t row_bytes, int rows, int k,
                                     const struct format *f)
{
    for (int i = 0; i < k; i += LANES) {
        vec block[LANES];
        for (int r = 0; r < LANES; r++)
            block[r] = r < rows ? load_at(f, (const uint8_t *)w + (size_t)r * row_bytes, i, k) : vec_zero();
        vec_transpose(block);
        for (int j = 0; j < LANES && i + j < k; j++, out += TILE_COLS)
            vec_store(out, block[j]);
    }
}

static ALWAYS_INLINE void pack_w(void *panel, const void *w, size_t row_bytes, int rows, int k, const struct format *f)
{
    for (int first = 0; first < TILE_COLS; first += LANES)
        pack_lanes((float *)panel + first, (const uint8_t *)w + (size_t)first * row_bytes, row_bytes, rows - first, k,
                   f);
}

static void pack_w_f32(void *panel, const void *w, size_t row_bytes, int rows, int k)
{
    pack_w(panel, w, row_bytes, rows, k, &format_f32);
}

static void pack_w_f16(void *panel, const void *w, size_t row_bytes, int rows, int k)
{
    pack_w(panel, w, row_bytes, rows, k, &format_f16);
}

static void pack_w_bf16(void *panel, const void *w, size_t row_bytes, int rows, int k)
{
    pack_w(panel, w, row_bytes, rows, k, &format_bf16);
}

static ALWAYS_INLINE void pack_w_blocks(void *panel, const void *w, size_t row_bytes, int rows, int k,
                                        enum tensor_type type)
{
    _Alignas(KERNELS_ALIGN) float values[LANES][PACK_COLS];
    for (int first = 0; first < TILE_COLS; first += LANES)
        for (int i = 0; i < k; i += PACK_COLS) {
            const uint8_t *from = (const uint8_t *)w + (size_t)first * row_bytes + tensor_bytes(type, (size_t)i);
            const int n = k - i < PACK_COLS ? k - i : PACK_COLS;
            for (int r = 0; r < LANES && first + r < rows; r++)
                row_to_float(values[r], from + (size_t)r * row_bytes, n, type);
            pack_lanes((float *)panel + (size_t)i * TILE_COLS + first, values, sizeof values[0], rows - first, n,
                       &format_f32);
        }
}

#define PACK_W_BLOCKS(name, type)                                                                                      \
    static void pack_w_##name(void *panel, const void *w, size_t row_bytes, int rows, int k)                           \
    {                                                                                                                  \
        pack_w_blocks(panel, w, row_bytes, rows, k, type);                                                             \
    }
EACH_BLOCK_TYPE(PACK_W_BLOCKS)
#define PACK_W_ENTRY(name, type) [type] = pack_w_##name,

static ALWAYS_INLINE void pack_w_transposed(void *panel, const void *w, size_t row_bytes, int k, int cols,
                                            const struct format *f)
{
    float *out = panel;
    for (int i = 0; i < k; i++, out += TILE_COLS) {
        const uint8_t *row = (const uint8_t *)w + (size_t)i * row_bytes;
        vec_store(out, load_at(f, row, 0, cols));
        vec_store(out + LANES, cols > LANES ? load_at(f, row, LANES, cols) : vec_zero());
    }
}

static void pack_w_transposed_f32(void *panel, const void *w, size_t row_bytes, int k, int cols)
{
    pack_w_transposed(panel, w, row_bytes, k, cols, &format_f32);
}

static void pack_w_transposed_f16(void *panel, const void *w, size_t row_bytes, int k, int cols)
{
    pack_w_transposed(panel, w, row_bytes, k, cols, &format_f16);
}

static void pack_w_transposed_bf16(void *panel, const void *w, size_t row_bytes, int k, int cols)
{
    pack_w_transposed(panel, w, row_bytes, k, cols, &format_bf16);
}

static ALWAYS_INLINE void tile_vectors(float *c, size_t c_stride, const float *x, const float *w, int k,
                                       bool accumulate, const int vectors)
{
    vec sum[TILE_ROWS][2];
#pragma GCC unroll 16
    for (int i = 0; i < TILE_ROWS; i++)
        sum[i][0] = sum[i][1] = vec_zero();
    for (int i = 0; k >= PREFETCH_TILE && i < TILE_ROWS; i++) {
        __builtin_prefetch(c + (size_t)i * c_stride, 1);
        __builtin_prefetch(c + (size_t)i * c_stride + vectors * LANES - 1, 1);
    }

    for (int p = 0; p < k; p++, x += TILE_ROWS, w += TILE_COLS) {
        const vec w0 = vec_load(w), w1 = vectors == 2 ? vec_load(w + LANES) : vec_zero();
#pragma GCC unroll 16
        for (int i = 0; i < TILE_ROWS; i++) {
            const vec xi = vec_set(x[i]);
            sum[i][0] = vec_fma(xi, w0, sum[i][0]);
            if (vectors == 2)
                sum[i][1] = vec_fma(xi, w1, sum[i][1]);
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < TILE_ROWS; i++, c += c_stride)
        for (int j = 0; j < vectors; j++)
            vec_store(c + j * LANES, accumulate ? vec_add(vec_load(c + j * LANES), sum[i][j]) : sum[i][j]);
}

static void tile(float *c, size_t c_stride, const void *x_panel, const void *w_panel, int k, bool accumulate)
{
    tile_vectors(c, c_stride, x_panel, w_panel, k, accumulate, 2);
}

static void tile_half(float *c, size_t c_stride, const void *x_panel, const void *w_panel, int k, bool accumulate)
{
    tile_vectors(c, c_stride, x_panel, w_panel, k, accumulate, 1);
}

static const struct gemm gemm_float = {
    .mr = TILE_ROWS,
    .nr = TILE_COLS,
    .k_step = 1,
    .x_group = TILE_ROWS * sizeof(float),
    .w_group = TILE_COLS * sizeof(float),
    .rounding = ROUND_NOTHING,
    .pack_x = pack_x,
    .pack_w = {[TENSOR_F32] = pack_w_f32,
               [TENSOR_F16] = pack_w_f16,
               [TENSOR_BF16] = pack_w_bf16,
               EACH_BLOCK_TYPE(PACK_W_ENTRY)},
    .pack_w_transposed = {[TENSOR_F32] = pack_w_transposed_f32,
                          [TENSOR_F16] = pack_w_transposed_f16,
                          [TENSOR_BF16] = pack_w_transposed_bf16},
    .tile = tile,
    .tile_half = tile_half,
};

/* ---- matrix times vector ---- */

/* Dot products of n rows, row_bytes apart, with x. A row is summed in the same order whatever n is. */
static ALWAYS_INLINE void dot_rows(float *out, const uint8_t *w, size_t row_bytes, const int n, int cols,
                                   const float *x, const struct format *f)
{
    vec sum[DOT_ROWS][DOT_SUMS];
#pragma GCC unroll 4
    for (int r = 0; r < n; r++)
        for (int j = 0; j < DOT_SUMS; j++)
            sum[r][j] = vec_zero();

    int i = 0;
    for (; i + DOT_SUMS * LANES <= cols; i += DOT_SUMS * LANES) {
#pragma GCC unroll 4
        for (int r = 0; r < n; r++) {
            const uint8_t *at = w + (size_t)r * row_bytes + (size_t)i * f->element;
            __builtin_prefetch(at + PREFETCH_BYTES);
#pragma GCC unroll 4
            for (int j = 0; j < DOT_SUMS; j++)
                sum[r][j] =
                    vec_fma(f->load(at + (size_t)(j * LANES) * f->element), vec_load(x + i + j * LANES), sum[r][j]);
        }
    }
    for (; i < cols; i += LANES) {
        const vec xi = load_at(&format_f32, x, i, cols);
#pragma GCC unroll 4
        for (int r = 0; r < n; r++)
            sum[r][0] = vec_fma(load_at(f, w + (size_t)r * row_bytes, i, cols), xi, sum[r][0]);
    }
#pragma GCC unroll 4
    for (int r = 0; r < n; r++) {
        for (int j = 1; j < DOT_SUMS; j++)
            sum[r][0] = vec_add(sum[r][0], sum[r][j]);
        out[r] = vec_sum(sum[r][0]);
    }
}

/* Four rows at a time, a quarter of the matrix apart: each is a stream that runs through memory in order, which the
 * processor's own prefetching follows, and four of them keep more of the memory busy than one. Further rows of x find
 * them in the first-level cache. */
static ALWAYS_INLINE void gemv(float *out, size_t out_stride, const void *w, size_t row_bytes, int rows, int cols,
                               const void *x, size_t x_stride, int n, const struct format *f)
{
    const uint8_t *row = w;
    const int quarter = rows / DOT_ROWS;
    for (int r = 0; r < quarter; r++, row += row_bytes)
        for (int i = 0; i < n; i++) {
            float sums[DOT_ROWS], *to = out + (size_t)i * out_stride + (size_t)r;
            dot_rows(sums, row, (size_t)quarter * row_bytes, DOT_ROWS, cols,
                     (const void *)((const uint8_t *)x + (size_t)i * x_stride), f);
            for (int j = 0; j < DOT_ROWS; j++)
                to[j * quarter] = sums[j];
        }
    row = (const uint8_t *)w + (size_t)(DOT_ROWS * quarter) * row_bytes;
    for (int r = DOT_ROWS * quarter; r < rows; r++, row += row_bytes)
        for (int i = 0; i < n; i++)
            dot_rows(out + (size_t)i * out_stride + (size_t)r, row, row_bytes, 1, cols,
                     (const void *)((const uint8_t *)x + (size_t)i * x_stride), f);
}

static void gemv_f32(float *out, size_t out_stride, const void *w, size_t row_bytes, int rows, int cols, const void *x,
                     size_t x_stride, int n)
{
    gemv(out, out_stride, w, row_bytes, rows, cols, x, x_stride, n, &format_f32);
}

static void gemv_f16(float *out, size_t out_stride, const void *w, size_t row_bytes, int rows, int cols, const void *x,
                     size_t x_stride, int n)
{
    gemv(out, out_stride, w, row_bytes, rows, cols, x, x_stride, n, &format_f16);
}

static void gemv_bf16(float *out, size_t out_stride, const void *w, size_t row_bytes, int rows, int cols, const void *x,
                      size_t x_stride, int n)
{
    gemv(out, out_stride, w, row_bytes, rows, cols, x, x_stride, n, &format_bf16);
}

static ALWAYS_INLINE void weighted_rows(float *out, const float *p, const void *v, size_t row_bytes, int rows, int cols,
                                        const struct format *f)
{
    enum { VECTORS = 8 }; /* columns at a time, summed in registers over all rows */
    int i = 0;
    for (; i + VECTORS * LANES <= cols; i += VECTORS * LANES) {
        const uint8_t *at = (const uint8_t *)v + (size_t)i * f->element;
        vec sum[VECTORS];
#pragma GCC unroll 8
        for (int j = 0; j < VECTORS; j++)
            sum[j] = vec_load(out + i + j * LANES);
        for (int r = 0; r < rows; r++, at += row_bytes) {
            const vec weight = vec_set(p[r]);
#pragma GCC unroll 8
            for (int j = 0; j < VECTORS; j++)
                sum[j] = vec_fma(weight, f->load(at + (size_t)(j * LANES) * f->element), sum[j]);
        }
#pragma GCC unroll 8
        for (int j = 0; j < VECTORS; j++)
            vec_store(out + i + j * LANES, sum[j]);
    }
    for (; i < cols; i += LANES) {
        vec sum = load_at(&format_f32, out, i, cols);
        for (int r = 0; r < rows; r++)
            sum = vec_fma(vec_set(p[r]), load_at(f, (const uint8_t *)v + (size_t)r * row_bytes, i, cols), sum);
        store_at(&format_f32, out, sum, i, cols);
    }
}

static void weighted_rows_f32(float *out, const float *p, const void *v, size_t row_bytes, int rows, int cols)
{
    weighted_rows(out, p, v, row_bytes, rows, cols, &format_f32);
}

static void weighted_rows_f16(float *out, const float *p, const void *v, size_t row_bytes, int rows, int cols)
{
    weighted_rows(out, p, v, row_bytes, rows, cols, &format_f16);
}

static void weighted_rows_bf16(float *out, const float *p, const void *v, size_t row_bytes, int rows, int cols)
{
    weighted_rows(out, p, v, row_bytes, rows, cols, &format_bf16);
}

/* ---- rows ---- */

/* e^x for x <= 89, within 1 ulp; 0 below -88, infinity above 88.4. x = n ln 2 + r with |r| <= ln 2 / 2, and e^r is 1 +
 * r + r^2 times the minimax polynomial for its relative error (3.1e-9). */
static ALWAYS_INLINE vec exponential(vec x)
{
    const vec rounder = vec_set(0x1.8p23f); /* adding it leaves no bits for a fraction */
    x = vec_max(vec_set(-88.0f), x);        /* in this order a NaN stays */
    const vec n = vec_sub(vec_fma(x, vec_set(0x1.715476p+0f), rounder), rounder);
    const vec r = vec_fnma(n, vec_set(-0x1.05c610p-29f), vec_fnma(n, vec_set(0x1.62e430p-1f), x));
    vec p = vec_set(0x1.6a23d0p-10f);
    p = vec_fma(p, r, vec_set(0x1.123a20p-7f));
    p = vec_fma(p, r, vec_set(0x1.5558f2p-5f));
    p = vec_fma(p, r, vec_set(0x1.555492p-3f));
    p = vec_fma(p, r, vec_set(0x1.fffffcp-2f));
    p = vec_fma(p, r, vec_set(1.0f));
    p = vec_fma(p, r, vec_set(1.0f));
    return vec_scale2(p, n);
}

/* 0.5 x (1 + tanh(u)) = x / (1 + e^(-2u)) */
static ALWAYS_INLINE vec gelu_tanh(vec x)
{
    const float twice_sqrt_2_over_pi = 1.5957691216057308f;
    const vec cubic =
        vec_fma(vec_mul(x, x), vec_set(-twice_sqrt_2_over_pi * 0.044715f), vec_set(-twice_sqrt_2_over_pi));
    const vec e = exponential(vec_min(vec_set(89.0f), vec_mul(x, cubic)));
    return vec_div(x, vec_add(vec_set(1.0f), e));
}

static void rms_norm(float *out, const float *x, const float *weight, int n, float eps)
{
    vec sum[4] = {vec_zero(), vec_zero(), vec_zero(), vec_zero()};
    for (int i = 0, j = 0; i < n; i += LANES, j = (j + 1) % 4) {
        const vec v = load_at(&format_f32, x, i, n);
        sum[j] = vec_fma(v, v, sum[j]);
    }
    const float squares = vec_sum(vec_add(vec_add(sum[0], sum[1]), vec_add(sum[2], sum[3])));
    const vec factor = vec_set(1.0f / sqrtf(squares / (float)n + eps));
    for (int i = 0; i < n; i += LANES) {
        const vec v = vec_mul(load_at(&format_f32, x, i, n), factor);
        store_at(&format_f32, out, vec_mul(v, load_at(&format_f32, weight, i, n)), i, n);
    }
}

static void layer_norm(float *out, const float *x, const float *weight, const float *bias, int n, float eps)
{
    vec sum[2] = {vec_zero(), vec_zero()}, squares[2] = {vec_zero(), vec_zero()};
    for (int i = 0, j = 0; i < n; i += LANES, j ^= 1)
        sum[j] = vec_add(sum[j], load_at(&format_f32, x, i, n));
    const vec mean = vec_set(vec_sum(vec_add(sum[0], sum[1])) / (float)n);
    for (int i = 0, j = 0; i < n; i += LANES, j ^= 1) {
        const vec v = vec_sub(load_at(&format_f32, x, i, n), mean), v_kept = n - i >= LANES ? v : vec_keep(v, n - i);
        squares[j] = vec_fma(v_kept, v_kept, squares[j]);
    }
    const vec factor = vec_set(1.0f / sqrtf(vec_sum(vec_add(squares[0], squares[1])) / (float)n + eps));
    for (int i = 0; i < n; i += LANES) {
        const vec v = vec_mul(vec_sub(load_at(&format_f32, x, i, n), mean), factor);
        store_at(&format_f32, out, vec_fma(v, load_at(&format_f32, weight, i, n), load_at(&format_f32, bias, i, n)), i,
                 n);
    }
}

static void gelu(float *x, int n)
{
    for (int i = 0; i < n; i += LANES)
        store_at(&format_f32, x, gelu_tanh(load_at(&format_f32, x, i, n)), i, n);
}

static void gelu_multiply(float *out, const float *gate, const float *up, int n)
{
    for (int i = 0; i < n; i += LANES) {
        const vec v = gelu_tanh(load_at(&format_f32, gate, i, n));
        store_at(&format_f32, out, vec_mul(v, load_at(&format_f32, up, i, n)), i, n);
    }
}

static void add(float *x, const float *y, int n)
{
    for (int i = 0; i < n; i += LANES)
        store_at(&format_f32, x, vec_add(load_at(&format_f32, x, i, n), load_at(&format_f32, y, i, n)), i, n);
}

static void scale(float *x, float s, int n)
{
    for (int i = 0; i < n; i += LANES)
        store_at(&format_f32, x, vec_mul(load_at(&format_f32, x, i, n), vec_set(s)), i, n);
}

static float exp_sum(float *x, float max, int n)
{
    const vec shift = vec_set(max);
    vec sum[2] = {vec_zero(), vec_zero()};
    int i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        const vec a = exponential(vec_sub(vec_load(x + i), shift)),
                  b = exponential(vec_sub(vec_load(x + i + LANES), shift));
        vec_store(x + i, a);
        vec_store(x + i + LANES, b);
        sum[0] = vec_add(sum[0], a);
        sum[1] = vec_add(sum[1], b);
    }
    for (; i < n; i += LANES) {
        const vec a = exponential(vec_sub(load_at(&format_f32, x, i, n), shift));
        store_at(&format_f32, x, a, i, n);
        sum[0] = vec_add(sum[0], n - i >= LANES ? a : vec_keep(a, n - i));
    }
    return vec_sum(vec_add(sum[0], sum[1]));
}

static float max(const float *x, int n)
{
    const vec lowest = vec_set(-INFINITY);
    vec best[2] = {lowest, lowest};
    int i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        best[0] = vec_max(best[0], vec_load(x + i));
        best[1] = vec_max(best[1], vec_load(x + i + LANES));
    }
    float highest = vec_highest(vec_max(best[0], best[1]));
    for (; i < n; i++)
        highest = x[i] > highest ? x[i] : highest;
    return highest;
}

static void rope(float *x, const float *cosine, const float *sine, int n)
{
    const int half = n / 2;
    float *low = x, *high = x + half;
    for (int i = 0; i < half; i += LANES) {
        const vec a = load_at(&format_f32, low, i, half), b = load_at(&format_f32, high, i, half);
        const vec c = load_at(&format_f32, cosine, i, half), s = load_at(&format_f32, sine, i, half);
        store_at(&format_f32, low, vec_fnma(b, s, vec_mul(a, c)), i, half);
        store_at(&format_f32, high, vec_fma(a, s, vec_mul(b, c)), i, half);
    }
}

/* ---- conversions ---- */

static ALWAYS_INLINE void convert(void *out, const struct format *to, const void *in, const struct format *from, int n)
{
    for (int i = 0; i < n; i += LANES)
        store_at(to, out, load_at(from, in, i, n), i, n);
}

static void to_float_f16(float *out, const void *in, int n)
{
    convert(out, &format_f32, in, &format_f16, n);
}

static void to_float_bf16(float *out, const void *in, int n)
{
    convert(out, &format_f32, in, &format_bf16, n);
}

#define TO_FLOAT_BLOCKS(name, type)                                                                                    \
    static void to_float_##name(float *out, const void *in, int n)                                                     \
    {                                                                                                                  \
        row_to_float(out, in, n, type);                                                                                \
    }
EACH_BLOCK_TYPE(TO_FLOAT_BLOCKS)

static void from_float_f16(void *out, const float *in, int n)
{
    convert(out, &format_f16, in, &format_f32, n);
}

static void from_float_bf16(void *out, const float *in, int n)
{
    convert(out, &format_bf16, in, &format_f32, n);
}

static void kernels_override(struct kernels *k)
{
    k->gemm[TENSOR_F32] = k->gemm[TENSOR_F16] = k->gemm[TENSOR_BF16] = k->gemm_scores = k->gemm_values = &gemm_float;
    k->gemv[TENSOR_F32] = gemv_f32;
    k->gemv[TENSOR_F16] = gemv_f16;
    k->gemv[TENSOR_BF16] = gemv_bf16;
    k->weighted_rows[TENSOR_F32] = weighted_rows_f32;
    k->weighted_rows[TENSOR_F16] = weighted_rows_f16;
    k->weighted_rows[TENSOR_BF16] = weighted_rows_bf16;
    k->rms_norm = rms_norm;
    k->layer_norm = layer_norm;
    k->gelu = gelu;
    k->gelu_multiply = gelu_multiply;
    k->add = add;
    k->scale = scale;
    k->exp_sum = exp_sum;
    k->max = max;
    k->rope = rope;
    k->to_float[TENSOR_F16] = to_float_f16;
    k->to_float[TENSOR_BF16] = to_float_bf16;
#define TO_FLOAT_ENTRY(name, type) k->to_float[type] = to_float_##name;
    EACH_BLOCK_TYPE(TO_FLOAT_ENTRY)
    k->from_float[TENSOR_F16] = from_float_f16;
    k->from_float[TENSOR_BF16] = from_float_bf16;
}
