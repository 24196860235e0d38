/* Matrix times vector of quantized weights with x of 8 bits, in vectors of 256 bits, written once. A file that includes
 * this defines first
 *
 *   dot_u8_s8     eight sums of four products of unsigned with signed bytes, none of whose pairs exceeds 16 bits
 *   dot2_u8_s8    the same of two pairs of vectors, added, when no two pairs of products together exceed 16 bits
 *
 * and ends with gemv8_override().
 *
 * Products within a block are whole numbers, so exact; a sum over blocks is eight lanes of float32, added at the end.
 * Weights of 8 bits are multiplied as |w| with x of w's sign. Smaller ones are taken as they are stored, unsigned; what
 * a type's zero or a group's minimum takes away follows from x alone. */
#include "kernels/kernels.h"
#include "kernels/x86/quants.h"

#include <stdbool.h>
#include <stddef.h>

enum { GEMV8_ROWS = 4, GEMV8_COLS = 4, GEMV8_PREFETCH = 1024 /* bytes ahead in each row */ };

/* Some rows of w, row_bytes apart, and of x. */
struct gemv8 {
    const uint8_t *w;
    size_t row_bytes;
    int cols;
    struct x8 x[GEMV8_COLS];
};

/* All lanes the value of a float16. */
static inline __m256 f16_lanes(const uint8_t bytes[2])
{
    int16_t bits;
    memcpy(&bits, bytes, sizeof bits);
    return _mm256_cvtph_ps(_mm_set1_epi16(bits));
}

static inline float total(__m256 a)
{
    __m128 sum = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
    return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}

/* ---- blocks of 32 ---- */

/* Here and below: sums[r * n + i] += the products of row r of w with x[i]. d q with q of either sign is |q| times x of
 * q's sign. */
static ALWAYS_INLINE void sum_q8_0(__m256 *sums, const struct gemv8 *v, const int rows, const int n)
{
    const uint8_t *at = v->w;
    for (int b = 0; b < v->cols / BLOCK_32; b++, at += sizeof(struct block_q8_0)) {
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            const struct block_q8_0 *block = (const void *)(at + (size_t)r * v->row_bytes);
            __builtin_prefetch((const uint8_t *)block + GEMV8_PREFETCH);
            const __m256i q = load_32_bytes(block->q), magnitude = _mm256_abs_epi8(q);
            const __m256 d = f16_lanes(block->d);
#pragma GCC unroll 4
            for (int i = 0; i < n; i++) {
                const __m256i x = load_32_bytes(v->x[i].q + b * BLOCK_32);
                const __m256i dot = dot_u8_s8(magnitude, _mm256_sign_epi8(x, q));
                sums[r * n + i] = _mm256_fmadd_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(dot), d),
                                                  _mm256_broadcast_ss(&v->x[i].scale[b]), sums[r * n + i]);
            }
        }
    }
}

/* Two blocks side by side, one in each 128 bits: their values 0 .. 15 (low halves of bytes) and 16 .. 31. */
struct two_blocks {
    __m256i low, high;
    __m256 d, m;
};

struct two_blocks_of_x {
    __m256i low, high;
    __m256 scale;
    __m256i offset; /* of types without minimum: the products with the zero of w, lane by lane, so that what they cancel
                     * costs no precision. Of the others: sums of x, to be multiplied by it */
};

static inline __m256i two_loads(const void *first, const void *second)
{
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(first)), _mm_loadu_si128(second), 1);
}

static inline __m256 two_f16(const uint8_t first[2], const uint8_t second[2])
{
    int16_t a, b;
    memcpy(&a, first, sizeof a);
    memcpy(&b, second, sizeof b);
    return _mm256_cvtph_ps(_mm_unpacklo_epi64(_mm_set1_epi16(a), _mm_set1_epi16(b)));
}

static ALWAYS_INLINE struct two_blocks load_blocks(const uint8_t *first, const uint8_t *second, enum tensor_type type)
{
    const bool fifth = type == TENSOR_Q5_0 || type == TENSOR_Q5_1, minimum = type == TENSOR_Q4_1 || type == TENSOR_Q5_1;
    const size_t at_fifth = minimum ? offsetof(struct block_q5_1, fifth) : offsetof(struct block_q5_0, fifth);
    const size_t at_q = block_bytes(type) - sizeof((struct block_q4_0 *)0)->q;
    const __m256i q = two_loads(first + at_q, second + at_q);
    struct two_blocks w = {.low = bits_of_bytes(q, 0, 15), .high = bits_of_bytes(q, 4, 15)};
    if (fifth) {
        int32_t a, b;
        memcpy(&a, first + at_fifth, sizeof a);
        memcpy(&b, second + at_fifth, sizeof b);
        const __m256i bits = _mm256_set_m128i(_mm_set1_epi32(b), _mm_set1_epi32(a));
        const __m256i bytes_0_1 = _mm256_setr_epi64x(0, 0x0101010101010101, 0, 0x0101010101010101);
        w.low = _mm256_or_si256(w.low, fifth_bits(bits, bytes_0_1));
        w.high = _mm256_or_si256(w.high, fifth_bits(bits, _mm256_add_epi8(bytes_0_1, _mm256_set1_epi8(2))));
    }
    w.d = two_f16(first, second);
    w.m = minimum ? two_f16(first + 2, second + 2) : _mm256_setzero_ps();
    return w;
}

/* Blocks b and b + 1 of x, the second 0 where it is missing. */
static ALWAYS_INLINE struct two_blocks_of_x load_x(const struct x8 *row, int b, bool both, enum tensor_type type)
{
    const int8_t *q = row->q + b * BLOCK_32;
    const float *scale = row->scale + b;
    const void *sum = row->sum + 2 * b;
    struct two_blocks_of_x x;
    if (both) {
        const __m256 scales = _mm256_castpd_ps(_mm256_broadcast_sd((const void *)scale));
        x.low = two_loads(q, q + 32);
        x.high = two_loads(q + 16, q + 48);
        x.scale = _mm256_permutevar_ps(scales, _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1));
    } else {
        x.low = _mm256_zextsi128_si256(_mm_loadu_si128((const void *)q));
        x.high = _mm256_zextsi128_si256(_mm_loadu_si128((const void *)(q + 16)));
        x.scale = _mm256_set1_ps(*scale);
    }
    if (type == TENSOR_Q4_0 || type == TENSOR_Q5_0) {
        const __m256i zero = _mm256_set1_epi8(type == TENSOR_Q4_0 ? 8 : 16);
        x.offset = dot2_u8_s8(zero, x.low, zero, x.high);
    } else {
        x.offset = _mm256_cvtepu32_epi64(both ? _mm_loadu_si128(sum) : _mm_loadl_epi64(sum));
    }
    return x;
}

static ALWAYS_INLINE void sum_two_blocks(__m256 *sums, const struct gemv8 *v, int b, bool both, const int rows,
                                         const int n, enum tensor_type type)
{
    const size_t bytes = block_bytes(type);
    struct two_blocks_of_x x[GEMV8_COLS];
#pragma GCC unroll 4
    for (int i = 0; i < n; i++)
        x[i] = load_x(&v->x[i], b, both, type);
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
        const uint8_t *at = v->w + (size_t)r * v->row_bytes + (size_t)b * bytes;
        const struct two_blocks w = load_blocks(at, both ? at + bytes : at, type);
        __builtin_prefetch(at + GEMV8_PREFETCH);
#pragma GCC unroll 4
        for (int i = 0; i < n; i++) {
            const __m256i dot = dot2_u8_s8(w.low, x[i].low, w.high, x[i].high);
            __m256 product;
            if (type == TENSOR_Q4_0 || type == TENSOR_Q5_0)
                product = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_sub_epi32(dot, x[i].offset)), w.d);
            else
                product = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), w.d,
                                          _mm256_mul_ps(_mm256_cvtepi32_ps(x[i].offset), w.m));
            sums[r * n + i] = _mm256_fmadd_ps(product, x[i].scale, sums[r * n + i]);
        }
    }
}

/* Values of half a byte, with or without a fifth bit. */
static ALWAYS_INLINE void sum_halves(__m256 *sums, const struct gemv8 *v, const int rows, const int n,
                                     enum tensor_type type)
{
    int b = 0;
    for (; b + 2 <= v->cols / BLOCK_32; b += 2)
        sum_two_blocks(sums, v, b, true, rows, n, type);
    if (b < v->cols / BLOCK_32)
        sum_two_blocks(sums, v, b, false, rows, n, type);
}

/* ---- blocks of 256 ---- */

/* A block of x: scales, and sums times scales, of its groups; of q6_k, of half groups in the order of its factors. */
struct k_block_of_x {
    __m256 scale[2], sum[2];
};

/* A block of a row of w: what multiplies a group's products and what multiplies the sums of x. */
struct k_block_of_w {
    __m256 factor[2], offset[2];
};

static ALWAYS_INLINE struct k_block_of_x load_k_x(const struct x8 *row, int b, enum tensor_type type)
{
    const float *scale = row->scale + 8 * b;
    const __m256i first = load_32_bytes(row->sum + 16 * b), second = load_32_bytes(row->sum + 16 * b + 8);
    struct k_block_of_x x = {0};
    if (type == TENSOR_Q6_K) {
        const __m256i order = _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7);
        x.scale[0] = _mm256_broadcast_ps((const void *)scale);
        x.scale[1] = _mm256_broadcast_ps((const void *)(scale + 4));
        x.sum[0] = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_permutevar8x32_epi32(first, order)), x.scale[0]);
        x.sum[1] = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_permutevar8x32_epi32(second, order)), x.scale[1]);
    } else {
        const __m256i pairs = _mm256_hadd_epi32(first, second); /* of 64 bits: 0 2 1 3 */
        x.scale[0] = _mm256_loadu_ps(scale);
        x.sum[0] = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_permute4x64_epi64(pairs, 0xd8)), x.scale[0]);
    }
    return x;
}

/* d s[g] q - dmin m[g] */
static inline struct k_block_of_w load_minima(const struct block_q4_k *block)
{
    const __m128i scales = group_scales(block->scales);
    const __m256 s = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(scales));
    const __m256 m = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(scales, 8)));
    return (struct k_block_of_w){.factor = {_mm256_mul_ps(s, f16_lanes(block->d))},
                                 .offset = {_mm256_mul_ps(m, f16_lanes(block->dmin))}};
}

/* d s[half group] (q - 32): first halves of groups 0 .. 3, then their second halves; the same of groups 4 .. 7. */
static inline struct k_block_of_w load_q6_k(const struct block_q6_k *block)
{
    const __m128i order = _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
    const __m128i scales = _mm_shuffle_epi8(_mm_loadu_si128((const void *)block->scales), order);
    const __m256 d = f16_lanes(block->d), zero = _mm256_set1_ps(32);
    struct k_block_of_w w;
    w.factor[0] = _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(scales)));
    w.factor[1] = _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(scales, 8))));
    w.offset[0] = _mm256_mul_ps(w.factor[0], zero);
    w.offset[1] = _mm256_mul_ps(w.factor[1], zero);
    return w;
}

/* The lower four lanes of a group's products are of its first half, the others of its second. */
static ALWAYS_INLINE __m256 factor_of_group(const float factors[16], int g, enum tensor_type type)
{
    if (type != TENSOR_Q6_K)
        return _mm256_set1_ps(factors[g]);
    return _mm256_permutevar_ps(_mm256_load_ps(factors + g / 4 * 8), _mm256_set1_epi32(g % 4));
}

static ALWAYS_INLINE __m256i values_of_group(const uint8_t *block, int g, enum tensor_type type)
{
    return type == TENSOR_Q4_K   ? values_of_q4_k((const void *)block, g)
           : type == TENSOR_Q5_K ? values_of_q5_k((const void *)block, g)
                                 : values_of_q6_k((const void *)block, g);
}

/* Group by group all rows, whose sums do not wait for one another. */
static ALWAYS_INLINE void sum_k(__m256 *sums, const struct gemv8 *v, const int rows, const int n, enum tensor_type type)
{
    const size_t bytes = block_bytes(type);
    const uint8_t *at = v->w;
    for (int b = 0; b < v->cols / BLOCK_K; b++, at += bytes) {
        _Alignas(32) float factors[GEMV8_ROWS * GEMV8_COLS][16];
        __m256 block_sums[GEMV8_ROWS * GEMV8_COLS];
        struct k_block_of_x x[GEMV8_COLS];
#pragma GCC unroll 4
        for (int i = 0; i < n; i++)
            x[i] = load_k_x(&v->x[i], b, type);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            const void *block = at + (size_t)r * v->row_bytes;
            const struct k_block_of_w w = type == TENSOR_Q6_K ? load_q6_k(block) : load_minima(block);
#pragma GCC unroll 4
            for (int i = 0; i < n; i++) {
                __m256 *sum = &block_sums[r * n + i];
                *sum = _mm256_mul_ps(w.offset[0], x[i].sum[0]);
                _mm256_store_ps(factors[r * n + i], _mm256_mul_ps(w.factor[0], x[i].scale[0]));
                if (type == TENSOR_Q6_K) {
                    *sum = _mm256_fmadd_ps(w.offset[1], x[i].sum[1], *sum);
                    _mm256_store_ps(factors[r * n + i] + 8, _mm256_mul_ps(w.factor[1], x[i].scale[1]));
                }
            }
        }
        /* A factor is then broadcast by the load that takes it from memory, for nothing; a compiler that sees the
         * vectors which it came from would take it from those. */
        __asm__("" : "+m"(factors));
#pragma GCC unroll 8
        for (int g = 0; g < 8; g++)
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++) {
                const uint8_t *block = at + (size_t)r * v->row_bytes;
                const __m256i q = values_of_group(block, g, type);
                if ((size_t)g * 64 < bytes)
                    __builtin_prefetch(block + GEMV8_PREFETCH + g * 64);
#pragma GCC unroll 4
                for (int i = 0; i < n; i++) {
                    const __m256i dot = dot_u8_s8(q, load_32_bytes(v->x[i].q + b * BLOCK_K + g * 32));
                    const __m256 product = _mm256_cvtepi32_ps(dot),
                                 factor = factor_of_group(factors[r * n + i], g, type);
                    block_sums[r * n + i] = g == 0 ? _mm256_fmsub_ps(product, factor, block_sums[r * n + i])
                                                   : _mm256_fmadd_ps(product, factor, block_sums[r * n + i]);
                }
            }
#pragma GCC unroll 16
        for (int i = 0; i < rows * n; i++)
            sums[i] = _mm256_add_ps(sums[i], block_sums[i]);
    }
}

/* ---- any type ---- */

/* out[i * out_stride + r * row_step] of `rows` rows of w, row_bytes apart, with n rows of x. */
static ALWAYS_INLINE void dot_rows_8(float *out, size_t out_stride, size_t row_step, const struct gemv8 *v,
                                     const int rows, const int n, enum tensor_type type)
{
    __m256 sums[GEMV8_ROWS * GEMV8_COLS];
#pragma GCC unroll 16
    for (int i = 0; i < rows * n; i++)
        sums[i] = _mm256_setzero_ps();
    if (type == TENSOR_Q4_K || type == TENSOR_Q5_K || type == TENSOR_Q6_K)
        sum_k(sums, v, rows, n, type);
    else if (type == TENSOR_Q8_0)
        sum_q8_0(sums, v, rows, n);
    else
        sum_halves(sums, v, rows, n, type);
#pragma GCC unroll 16
    for (int i = 0; i < rows * n; i++)
        out[(size_t)(i % n) * out_stride + (size_t)(i / n) * row_step] = total(sums[i]);
}

static ALWAYS_INLINE void gemv8(float *out, size_t out_stride, const void *w, size_t row_bytes, int rows, int cols,
                                const void *x, size_t x_stride, int n, enum tensor_type type)
{
    struct x8 all[GEMV_MAX_N];
    for (int i = 0; i < n; i++)
        all[i] = x8_at((const uint8_t *)x + (size_t)i * x_stride, cols);

    /* four rows of w, a quarter of the matrix apart: see vector.h */
    const int quarter = rows / GEMV8_ROWS;
    struct gemv8 v = {.w = w, .row_bytes = (size_t)quarter * row_bytes, .cols = cols};
    for (int r = 0; r < quarter; r++, v.w += row_bytes)
        for (int i = 0, part; i < n; i += part) {
            float *to = out + (size_t)i * out_stride + (size_t)r;
            part = n - i >= 4 ? 4 : n - i >= 2 ? 2 : 1;
            memcpy(v.x, all + i, (size_t)part * sizeof *v.x);
            if (part == 4)
                dot_rows_8(to, out_stride, (size_t)quarter, &v, GEMV8_ROWS, 4, type);
            else if (part == 2)
                dot_rows_8(to, out_stride, (size_t)quarter, &v, GEMV8_ROWS, 2, type);
            else
                dot_rows_8(to, out_stride, (size_t)quarter, &v, GEMV8_ROWS, 1, type);
        }
    v.w = (const uint8_t *)w + (size_t)(GEMV8_ROWS * quarter) * row_bytes;
    for (int r = GEMV8_ROWS * quarter; r < rows; r++, v.w += row_bytes)
        for (int i = 0; i < n; i++) {
            v.x[0] = all[i];
            dot_rows_8(out + (size_t)i * out_stride + (size_t)r, 0, 0, &v, 1, 1, type);
        }
}

#define GEMV8(name, type)                                                                                              \
    static void gemv8_##name(float *out, size_t out_stride, const void *w, size_t row_bytes, int rows, int cols,       \
                             const void *x, size_t x_stride, int n)                                                    \
    {                                                                                                                  \
        gemv8(out, out_stride, w, row_bytes, rows, cols, x, x_stride, n, type);                                        \
    }
EACH_BLOCK_TYPE(GEMV8)

static void gemv8_override(struct kernels *k)
{
#define GEMV8_ENTRY(name, type) k->gemv[type] = gemv8_##name;
    EACH_BLOCK_TYPE(GEMV8_ENTRY)
}
