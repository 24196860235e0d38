/* The kernels in portable C: the reference that every other instruction set is tested against, and what runs where
 * there is nothing better. Loops run over independent outputs or partial sums, so a compiler vectorises them without
 * reordering. */
#include "kernels/kernels.h"

#include "base/half.h"
#include "model/to_float.h"

#include <math.h>

enum { MR = 4, NR = 8, CHUNK = 256, SUMS = 16 };

static void from_float_f32(void *out, const float *in, int n)
{
    memcpy(out, in, (size_t)n * sizeof *in);
}

static void from_float_f16(void *out, const float *in, int n)
{
    for (int i = 0; i < n; i++) {
        const uint16_t bits = f16_from_float(in[i]);
        memcpy((uint8_t *)out + (size_t)i * sizeof bits, &bits, sizeof bits);
    }
}

static void from_float_bf16(void *out, const float *in, int n)
{
    for (int i = 0; i < n; i++) {
        const uint16_t bits = bf16_from_float(in[i]);
        memcpy((uint8_t *)out + (size_t)i * sizeof bits, &bits, sizeof bits);
    }
}

/* ---- matrix product: panels are float32, [k][MR] and [k][NR] ---- */

static void pack_x(void *panel, const float *x, size_t stride, int rows, int k)
{
    float *out = panel;
    memset(out, 0, (size_t)MR * (size_t)k * sizeof *out);
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < k; i++)
            out[(size_t)i * MR + (size_t)r] = x[(size_t)r * stride + (size_t)i];
}

/* Any type: its values as float32, a part of a row at a time. */
static void pack_w(void *panel, const void *w, size_t row_bytes, int rows, int k, enum tensor_type type)
{
    float *out = panel, buffer[CHUNK];
    to_float_fn *const to_float = tensor_to_float[type];
    memset(out, 0, (size_t)NR * (size_t)k * sizeof *out);
    for (int r = 0; r < rows; r++) {
        const uint8_t *row = (const uint8_t *)w + (size_t)r * row_bytes;
        for (int start = 0; start < k; start += CHUNK) {
            const int n = k - start < CHUNK ? k - start : CHUNK;
            to_float(buffer, row + tensor_bytes(type, (size_t)start), n);
            for (int i = 0; i < n; i++)
                out[(size_t)(start + i) * NR + (size_t)r] = buffer[i];
        }
    }
}

/* What a function of the table does for each type. */
#define EACH_TYPE(X)                                                                                                   \
    X(f32, TENSOR_F32)                                                                                                 \
    X(f16, TENSOR_F16)                                                                                                 \
    X(bf16, TENSOR_BF16)                                                                                               \
    X(q8_0, TENSOR_Q8_0)                                                                                               \
    X(q4_0, TENSOR_Q4_0)                                                                                               \
    X(q4_1, TENSOR_Q4_1)                                                                                               \
    X(q5_0, TENSOR_Q5_0)                                                                                               \
    X(q5_1, TENSOR_Q5_1)                                                                                               \
    X(q4_k, TENSOR_Q4_K)                                                                                               \
    X(q5_k, TENSOR_Q5_K)                                                                                               \
    X(q6_k, TENSOR_Q6_K)

#define PACK_W(name, type)                                                                                             \
    static void pack_w_##name(void *panel, const void *w, size_t row_bytes, int rows, int k)                           \
    {                                                                                                                  \
        pack_w(panel, w, row_bytes, rows, k, type);                                                                    \
    }
EACH_TYPE(PACK_W)
#define PACK_W_ENTRY(name, type) [type] = pack_w_##name,

static void pack_w_transposed(void *panel, const void *w, size_t row_bytes, int k, int cols, enum tensor_type type)
{
    float *out = panel;
    memset(out, 0, (size_t)NR * (size_t)k * sizeof *out);
    for (int i = 0; i < k; i++)
        tensor_to_float[type](out + (size_t)i * NR, (const uint8_t *)w + (size_t)i * row_bytes, cols);
}

static void pack_w_transposed_f32(void *panel, const void *w, size_t row_bytes, int k, int cols)
{
    pack_w_transposed(panel, w, row_bytes, k, cols, TENSOR_F32);
}

static void pack_w_transposed_f16(void *panel, const void *w, size_t row_bytes, int k, int cols)
{
    pack_w_transposed(panel, w, row_bytes, k, cols, TENSOR_F16);
}

static void pack_w_transposed_bf16(void *panel, const void *w, size_t row_bytes, int k, int cols)
{
    pack_w_transposed(panel, w, row_bytes, k, cols, TENSOR_BF16);
}

static inline void tile_cols(float *c, size_t c_stride, const float *x, const float *w, int k, bool accumulate,
                             const int cols)
{
    float sum[MR][NR] = {{0}};
    for (int p = 0; p < k; p++, x += MR, w += NR)
        for (int i = 0; i < MR; i++)
            for (int j = 0; j < cols; j++)
                sum[i][j] += x[i] * w[j];
    for (int i = 0; i < MR; i++, c += c_stride)
        for (int j = 0; j < cols; j++)
            c[j] = accumulate ? c[j] + sum[i][j] : sum[i][j];
}

static void tile(float *c, size_t c_stride, const void *x_panel, const void *w_panel, int k, bool accumulate)
{
    tile_cols(c, c_stride, x_panel, w_panel, k, accumulate, NR);
}

static void tile_half(float *c, size_t c_stride, const void *x_panel, const void *w_panel, int k, bool accumulate)
{
    tile_cols(c, c_stride, x_panel, w_panel, k, accumulate, NR / 2);
}

static const struct gemm gemm_float = {
    .mr = MR,
    .nr = NR,
    .k_step = 1,
    .x_group = MR * sizeof(float),
    .w_group = NR * sizeof(float),
    .rounding = ROUND_NOTHING,
    .pack_x = pack_x,
    .pack_w = {EACH_TYPE(PACK_W_ENTRY)},
    .pack_w_transposed = {[TENSOR_F32] = pack_w_transposed_f32,
                          [TENSOR_F16] = pack_w_transposed_f16,
                          [TENSOR_BF16] = pack_w_transposed_bf16},
    .tile = tile,
    .tile_half = tile_half,
};

/* ---- matrix times vector ---- */

/* sums[j] += the products of every SUMS-th element from j on */
static void dot_chunk(float sums[SUMS], const float *a, const float *b, int n)
{
    int i = 0;
    for (; i + SUMS <= n; i += SUMS)
        for (int j = 0; j < SUMS; j++)
            sums[j] += a[i + j] * b[i + j];
    for (int j = 0; i < n; i++, j++)
        sums[j] += a[i] * b[i];
}

static float total(const float sums[SUMS])
{
    float sum = 0;
    for (int j = 0; j < SUMS; j++)
        sum += sums[j];
    return sum;
}

static void gemv(float *out, size_t out_stride, const void *w, size_t row_bytes, int rows, int cols, const void *x,
                 size_t x_stride, int n, enum tensor_type type)
{
    float buffer[CHUNK];
    to_float_fn *const to_float = tensor_to_float[type];
    for (int r = 0; r < rows; r++) {
        const uint8_t *row = (const uint8_t *)w + (size_t)r * row_bytes;
        float sums[GEMV_MAX_N][SUMS] = {{0}};
        for (int start = 0; start < cols; start += CHUNK) {
            const int part = cols - start < CHUNK ? cols - start : CHUNK;
            to_float(buffer, row + tensor_bytes(type, (size_t)start), part);
            for (int i = 0; i < n; i++)
                dot_chunk(sums[i], buffer, (const float *)((const uint8_t *)x + (size_t)i * x_stride) + start, part);
        }
        for (int i = 0; i < n; i++)
            out[(size_t)i * out_stride + (size_t)r] = total(sums[i]);
    }
}

#define GEMV(name, type)                                                                                               \
    static void gemv_##name(float *out, size_t out_stride, const void *w, size_t row_bytes, int rows, int cols,        \
                            const void *x, size_t x_stride, int n)                                                     \
    {                                                                                                                  \
        gemv(out, out_stride, w, row_bytes, rows, cols, x, x_stride, n, type);                                         \
    }
EACH_TYPE(GEMV)
#define GEMV_ENTRY(name, type) [type] = gemv_##name,

static void weighted_rows(float *out, const float *p, const void *v, size_t row_bytes, int rows, int cols,
                          enum tensor_type type)
{
    float buffer[CHUNK];
    for (int r = 0; r < rows; r++) {
        const uint8_t *row = (const uint8_t *)v + (size_t)r * row_bytes;
        for (int start = 0; start < cols; start += CHUNK) {
            const int n = cols - start < CHUNK ? cols - start : CHUNK;
            tensor_to_float[type](buffer, row + tensor_bytes(type, (size_t)start), n);
            for (int i = 0; i < n; i++)
                out[start + i] += p[r] * buffer[i];
        }
    }
}

static void weighted_rows_f32(float *out, const float *p, const void *v, size_t row_bytes, int rows, int cols)
{
    weighted_rows(out, p, v, row_bytes, rows, cols, TENSOR_F32);
}

static void weighted_rows_f16(float *out, const float *p, const void *v, size_t row_bytes, int rows, int cols)
{
    weighted_rows(out, p, v, row_bytes, rows, cols, TENSOR_F16);
}

static void weighted_rows_bf16(float *out, const float *p, const void *v, size_t row_bytes, int rows, int cols)
{
    weighted_rows(out, p, v, row_bytes, rows, cols, TENSOR_BF16);
}

/* ---- rows ---- */

static void rms_norm(float *out, const float *x, const float *weight, int n, float eps)
{
    float sums[SUMS] = {0};
    dot_chunk(sums, x, x, n);
    const float factor = 1.0f / sqrtf(total(sums) / (float)n + eps);
    for (int i = 0; i < n; i++)
        out[i] = x[i] * factor * weight[i];
}

static void layer_norm(float *out, const float *x, const float *weight, const float *bias, int n, float eps)
{
    double sum = 0, squares = 0;
    for (int i = 0; i < n; i++)
        sum += (double)x[i];
    const float mean = (float)(sum / n);
    for (int i = 0; i < n; i++)
        squares += (double)(x[i] - mean) * (double)(x[i] - mean);
    const float factor = 1.0f / sqrtf((float)(squares / n) + eps);
    for (int i = 0; i < n; i++)
        out[i] = (x[i] - mean) * factor * weight[i] + bias[i];
}

static float gelu_tanh(float x)
{
    const float sqrt_2_over_pi = 0.7978845608028654f;
    return 0.5f * x * (1.0f + tanhf(sqrt_2_over_pi * (x + 0.044715f * x * x * x)));
}

static void gelu(float *x, int n)
{
    for (int i = 0; i < n; i++)
        x[i] = gelu_tanh(x[i]);
}

static void gelu_multiply(float *out, const float *gate, const float *up, int n)
{
    for (int i = 0; i < n; i++)
        out[i] = gelu_tanh(gate[i]) * up[i];
}

static void add(float *x, const float *y, int n)
{
    for (int i = 0; i < n; i++)
        x[i] += y[i];
}

static void scale(float *x, float s, int n)
{
    for (int i = 0; i < n; i++)
        x[i] *= s;
}

static float exp_sum(float *x, float max, int n)
{
    float sums[SUMS] = {0};
    for (int i = 0; i < n; i++) {
        x[i] = expf(x[i] - max);
        sums[i % SUMS] += x[i];
    }
    return total(sums);
}

static float max(const float *x, int n)
{
    float best = -INFINITY;
    for (int i = 0; i < n; i++)
        best = x[i] > best ? x[i] : best;
    return best;
}

static void rope(float *x, const float *cosine, const float *sine, int n)
{
    float *low = x, *high = x + n / 2;
    for (int i = 0; i < n / 2; i++) {
        const float a = low[i], b = high[i];
        low[i] = a * cosine[i] - b * sine[i];
        high[i] = b * cosine[i] + a * sine[i];
    }
}

void kernels_init_ref(struct kernels *k)
{
    *k = (struct kernels){
        .isa = ISA_NONE,
        .gemm_scores = &gemm_float,
        .gemm_values = &gemm_float,
        .gemv = {EACH_TYPE(GEMV_ENTRY)},
        .weighted_rows =
            {[TENSOR_F32] = weighted_rows_f32, [TENSOR_F16] = weighted_rows_f16, [TENSOR_BF16] = weighted_rows_bf16},
        .rms_norm = rms_norm,
        .layer_norm = layer_norm,
        .gelu = gelu,
        .gelu_multiply = gelu_multiply,
        .add = add,
        .scale = scale,
        .exp_sum = exp_sum,
        .max = max,
        .rope = rope,
        .from_float = {[TENSOR_F32] = from_float_f32, [TENSOR_F16] = from_float_f16, [TENSOR_BF16] = from_float_bf16},
    };
    for (int type = 0; type < TENSOR_TYPES; type++) {
        k->gemm[type] = &gemm_float;
        k->to_float[type] = tensor_to_float[type];
    }
}
