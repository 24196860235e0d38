/* AVX-512 VNNI: products of quantized weights with x rounded to 8 bits, four at a time, summed in whole numbers within
 * a group and in float32 over the groups. Here: x, and matrix times vector; avx512_vnni_gemm.c: the product of
 * matrices. */
#include "kernels/x86/avx512_vnni.h"

enum {
    DOT_ROWS = 4,          /* rows of weights at a time */
    DOT_COLS = 4,          /* rows of x at a time, at most */
    PREFETCH_BYTES = 1024, /* ahead in each row */
};

/* ---- x ---- */

static void quantize_x(void *out, const float *x, int cols)
{
    const struct x8 to = x8_at(out, cols);
    for (int i = 0; i < cols; i += X8_BLOCK) {
        float scale;
        _mm256_storeu_si256((void *)(uintptr_t)(to.q + i), quantize_block(x + i, &scale));
        memcpy((void *)(uintptr_t)(to.scale + i / X8_BLOCK), &scale, sizeof scale);
        for (int half = 0; half < 2; half++) {
            const __m128i q = _mm_loadu_si128((const void *)(to.q + i + 16 * half));
            const int32_t sum = _mm512_reduce_add_epi32(_mm512_cvtepi8_epi32(q));
            memcpy((void *)(uintptr_t)(to.sum + i / 16 + half), &sum, sizeof sum);
        }
    }
}

/* ---- blocks of 32 ---- */

/* A chunk of x in the order of unpacked_32. */
struct chunk_x {
    __m512i q[2];
    __m512i zero;  /* minus the sums of x times what stands for 0 */
    __m512 scale;  /* of each block, in 4 lanes */
    __m512 sum;    /* scale times the sums of q; where there are minima */
};

static ALWAYS_INLINE struct chunk_x load_chunk(const struct format_32 *f, struct x8 x, int block, const int blocks)
{
    const __m512i low = load_bytes(x.q + block * X8_BLOCK, blocks * X8_BLOCK);
    const __m512i high = load_bytes(x.q + block * X8_BLOCK + 64, blocks * X8_BLOCK - 64);
    const __m512i four_each = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
    const __m512i none = _mm512_setzero_si512(), factor = _mm512_set1_epi8((char)(f->m ? 1 : f->zero));
    const __m128 scales = _mm_maskz_loadu_ps((__mmask8)((1 << blocks) - 1), x.scale + block);
    struct chunk_x c;
    c.q[0] = _mm512_shuffle_i64x2(low, high, 0x88);
    c.q[1] = _mm512_shuffle_i64x2(low, high, 0xdd);
    c.scale = _mm512_permutevar_ps(_mm512_broadcast_f32x4(scales), four_each);
    const __m512i sums = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(none, factor, c.q[0]), factor, c.q[1]);
    c.zero = f->m ? none : _mm512_sub_epi32(none, sums);
    c.sum = f->m ? _mm512_mul_ps(_mm512_cvtepi32_ps(sums), c.scale) : _mm512_setzero_ps();
    return c;
}

static ALWAYS_INLINE __m512 add_chunk(const struct format_32 *f, __m512 sum, const struct unpacked_32 *w,
                                      const struct chunk_x *x)
{
    const __m512i whole = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(x->zero, w->q[0], x->q[0]), w->q[1], x->q[1]);
    sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole), _mm512_mul_ps(w->d, x->scale), sum);
    return f->m ? _mm512_fmadd_ps(w->m, x->sum, sum) : sum;
}

/* One chunk of n_rows rows, `apart` bytes from one to the next, times n rows of x. Each sum is formed in the same order
 * whatever n_rows and n are. */
static ALWAYS_INLINE void chunk_32(const struct format_32 *f, __m512 sum[][DOT_ROWS], const uint8_t *w, size_t apart,
                                   const int n_rows, const uint8_t *x, size_t x_stride, int cols, const int n,
                                   int block, const int blocks)
{
    struct chunk_x c[DOT_COLS];
    for (int i = 0; i < n; i++)
        c[i] = load_chunk(f, x8_at(x + (size_t)i * x_stride, cols), block, blocks);
#pragma GCC unroll 4
    for (int r = 0; r < n_rows; r++) {
        const uint8_t *at = w + (size_t)r * apart + (size_t)(block * f->bytes);
        __builtin_prefetch(at + PREFETCH_BYTES);
        if (CHUNK_BLOCKS * f->bytes > 64)
            __builtin_prefetch(at + PREFETCH_BYTES + 64);
        const struct unpacked_32 u = unpack_32(f, at, blocks);
#pragma GCC unroll 4
        for (int i = 0; i < n; i++)
            sum[i][r] = add_chunk(f, sum[i][r], &u, &c[i]);
    }
}

static ALWAYS_INLINE void dot_32(const struct format_32 *f, float *out, size_t out_stride, size_t out_apart,
                                 const uint8_t *w, size_t apart, const int n_rows, const uint8_t *x, size_t x_stride,
                                 int cols, const int n)
{
    const int blocks = cols / X8_BLOCK;
    __m512 sum[DOT_COLS][DOT_ROWS];
#pragma GCC unroll 4
    for (int i = 0; i < n; i++)
        for (int r = 0; r < n_rows; r++)
            sum[i][r] = _mm512_setzero_ps();
    int block = 0;
    for (; block + CHUNK_BLOCKS <= blocks; block += CHUNK_BLOCKS)
        chunk_32(f, sum, w, apart, n_rows, x, x_stride, cols, n, block, CHUNK_BLOCKS);
    if (block < blocks)
        chunk_32(f, sum, w, apart, n_rows, x, x_stride, cols, n, block, blocks - block);
#pragma GCC unroll 4
    for (int i = 0; i < n; i++)
        for (int r = 0; r < n_rows; r++)
            out[(size_t)i * out_stride + (size_t)r * out_apart] = _mm512_reduce_add_ps(sum[i][r]);
}

/* ---- blocks of 256 ---- */

/* A block's 256 values of x in the order of unpacked_k. */
struct block_x {
    __m512i q[4];
    __m512i zero[4]; /* Q6_K: minus the sums of x times what stands for 0 */
    __m512 scales;   /* Q4_K, Q5_K: 8 scales, then minus scale times sum of q of each group; Q6_K: of each 16 values */
};

static ALWAYS_INLINE struct block_x load_block(enum kind_k kind, struct x8 x, int block)
{
    const int8_t *q = x.q + block * BLOCK_K;
    const __m256 scale = _mm256_loadu_ps(x.scale + block * 8);
    const __m512i none = _mm512_setzero_si512();
    struct block_x b;
    for (int v = 0; v < 4; v++) {
        if (kind == KIND_Q6_K) {
            b.q[v] = _mm512_loadu_si512(q + 64 * v);
            b.zero[v] = _mm512_sub_epi32(none, _mm512_dpbusd_epi32(none, _mm512_set1_epi8(32), b.q[v]));
        } else {
            const __m512i low = _mm512_loadu_si512(q + v / 2 * 128), high = _mm512_loadu_si512(q + v / 2 * 128 + 64);
            b.q[v] = v % 2 ? _mm512_shuffle_i64x2(low, high, 0xee) : _mm512_shuffle_i64x2(low, high, 0x44);
            b.zero[v] = none;
        }
    }
    if (kind == KIND_Q6_K) {
        const __m512i two_each = _mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);
        b.scales = _mm512_permutexvar_ps(two_each, _mm512_castps256_ps512(scale));
    } else {
        const __m512i sums = _mm512_loadu_si512(x.sum + block * 16);
        const __m256i even = _mm512_cvtepi64_epi32(sums), odd = _mm512_cvtepi64_epi32(_mm512_srli_epi64(sums, 32));
        const __m256i minus = _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_add_epi32(even, odd));
        const __m256 of_group = _mm256_mul_ps(_mm256_cvtepi32_ps(minus), scale);
        b.scales = _mm512_insertf32x8(_mm512_castps256_ps512(scale), of_group, 1);
    }
    return b;
}

/* The lanes of vector v that its scales go to. */
static ALWAYS_INLINE __m512i scale_lanes(enum kind_k kind, int v)
{
    if (kind == KIND_Q6_K)
        return _mm512_add_epi32(_mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0),
                                _mm512_set1_epi32(4 * v));
    return _mm512_add_epi32(_mm512_set_epi32(2, 2, 2, 2, 2, 2, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0),
                            _mm512_set1_epi32(v / 2 * 4 + v % 2));
}

static ALWAYS_INLINE __m512 add_block(enum kind_k kind, __m512 sum, const struct unpacked_k *w,
                                      const struct block_x *x)
{
    const __m512 scales = _mm512_mul_ps(w->scales, x->scales);
    if (kind != KIND_Q6_K)
        sum = _mm512_mask_add_ps(sum, 0xff00, sum, scales);
    for (int v = 0; v < 4; v++) {
        const __m512i whole = _mm512_dpbusd_epi32(x->zero[v], w->q[v], x->q[v]);
        sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole), _mm512_permutexvar_ps(scale_lanes(kind, v), scales), sum);
    }
    return sum;
}

static ALWAYS_INLINE void dot_k(enum kind_k kind, float *out, size_t out_stride, size_t out_apart, const uint8_t *w,
                                size_t apart, const int n_rows, const uint8_t *x, size_t x_stride, int cols,
                                const int n)
{
    const size_t bytes = block_k_bytes(kind);
    __m512 sum[DOT_COLS][DOT_ROWS];
#pragma GCC unroll 4
    for (int i = 0; i < n; i++)
        for (int r = 0; r < n_rows; r++)
            sum[i][r] = _mm512_setzero_ps();
    for (int block = 0; block < cols / BLOCK_K; block++, w += bytes) {
        struct block_x b[DOT_COLS];
        for (int i = 0; i < n; i++)
            b[i] = load_block(kind, x8_at(x + (size_t)i * x_stride, cols), block);
#pragma GCC unroll 4
        for (int r = 0; r < n_rows; r++) {
            const uint8_t *at = w + (size_t)r * apart;
            for (size_t line = 0; line < bytes; line += 64)
                __builtin_prefetch(at + PREFETCH_BYTES + line);
            const struct unpacked_k u = unpack_k(kind, at);
#pragma GCC unroll 4
            for (int i = 0; i < n; i++)
                sum[i][r] = add_block(kind, sum[i][r], &u, &b[i]);
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < n; i++)
        for (int r = 0; r < n_rows; r++)
            out[(size_t)i * out_stride + (size_t)r * out_apart] = _mm512_reduce_add_ps(sum[i][r]);
}

/* ---- all rows ---- */

/* Four rows at a time, a quarter of the matrix apart, as in vector.h, times up to four rows of x: as many sums as the
 * registers hold. */
#define GEMV(name, dot, format)                                                                                        \
    static void gemv_##name(float *out, size_t out_stride, const void *w, size_t row_bytes, int rows, int cols,        \
                            const void *x, size_t x_stride, int n)                                                     \
    {                                                                                                                  \
        const int quarter = rows / DOT_ROWS, whole = DOT_ROWS * quarter;                                               \
        const size_t apart = (size_t)quarter * row_bytes;                                                              \
        for (int r = 0; r < quarter + rows - whole; r++) {                                                             \
            const int first = r < quarter ? r : whole + r - quarter;                                                   \
            const uint8_t *row = (const uint8_t *)w + (size_t)first * row_bytes, *xi = x;                              \
            float *to = out + first;                                                                                   \
            int left = n;                                                                                              \
            for (; r < quarter && left >= 4; left -= 4, to += 4 * out_stride, xi += 4 * x_stride)                      \
                dot(format, to, out_stride, (size_t)quarter, row, apart, DOT_ROWS, xi, x_stride, cols, 4);             \
            for (; r < quarter && left >= 2; left -= 2, to += 2 * out_stride, xi += 2 * x_stride)                      \
                dot(format, to, out_stride, (size_t)quarter, row, apart, DOT_ROWS, xi, x_stride, cols, 2);             \
            for (; r < quarter && left > 0; left--, to += out_stride, xi += x_stride)                                  \
                dot(format, to, out_stride, (size_t)quarter, row, apart, DOT_ROWS, xi, x_stride, cols, 1);             \
            for (; left > 0; left--, to += out_stride, xi += x_stride)                                                 \
                dot(format, to, out_stride, 0, row, 0, 1, xi, x_stride, cols, 1);                                      \
        }                                                                                                              \
    }

GEMV(q8_0, dot_32, &format_q8_0)
GEMV(q4_0, dot_32, &format_q4_0)
GEMV(q4_1, dot_32, &format_q4_1)
GEMV(q5_0, dot_32, &format_q5_0)
GEMV(q5_1, dot_32, &format_q5_1)
GEMV(q4_k, dot_k, KIND_Q4_K)
GEMV(q5_k, dot_k, KIND_Q5_K)
GEMV(q6_k, dot_k, KIND_Q6_K)

void kernels_init_avx512_vnni(struct kernels *k)
{
    avx512_vnni_init_gemm(k);
    for (int type = TENSOR_Q8_0; type < TENSOR_TYPES; type++)
        k->quantize_x[type] = quantize_x;
    k->gemv[TENSOR_Q8_0] = gemv_q8_0;
    k->gemv[TENSOR_Q4_0] = gemv_q4_0;
    k->gemv[TENSOR_Q4_1] = gemv_q4_1;
    k->gemv[TENSOR_Q5_0] = gemv_q5_0;
    k->gemv[TENSOR_Q5_1] = gemv_q5_1;
    k->gemv[TENSOR_Q4_K] = gemv_q4_k;
    k->gemv[TENSOR_Q5_K] = gemv_q5_k;
    k->gemv[TENSOR_Q6_K] = gemv_q6_k;
}
