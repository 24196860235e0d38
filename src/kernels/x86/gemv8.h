/* Matrix times vector of quantized weights with x of 8 bits, in vectors of 256 bits, written once. A file that includes
 * this defines first
 *
 *   dot_u8_s8    eight sums of four products of unsigned with signed bytes, none of whose pairs exceeds 16 bits
 *
 * and ends with gemv8_override().
 *
 * Within a block products are whole numbers, so exact; a sum over blocks is eight lanes of float32, added at the end.
 * Weights that are signed are multiplied as |w| with x of w's sign; those of the K blocks are taken as they are stored,
 * unsigned, and what a group's minimum or offset takes away follows from the sums in struct x8. */
#include "kernels/kernels.h"
#include "kernels/x86/quants.h"

enum { GEMV8_ROWS = 4, GEMV8_COLS = 4, GEMV8_PREFETCH = 1024 /* bytes ahead in each row */ };

/* A row of w: `at` steps through its blocks. n rows of x at a time. */
struct gemv8 {
    const uint8_t *w;
    size_t row_bytes;
    int cols;
    struct x8 x[GEMV8_COLS];
};

static inline __m256 broadcast(const float *value)
{
    return _mm256_broadcast_ss(value);
}

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

/* What multiplies x: bytes of either sign. */
static inline __attribute__((always_inline)) __m256i signed_values(const uint8_t *block, enum tensor_type type)
{
    const struct block_q8_0 *q8_0 = (const void *)block;
    const struct block_q4_0 *q4_0 = (const void *)block;
    const struct block_q5_0 *q5_0 = (const void *)block;
    return type == TENSOR_Q8_0   ? load_32_bytes(q8_0->q)
           : type == TENSOR_Q4_0 ? less(halves_of_16(q4_0->q), 8)
                                 : less(values_of_q5(q5_0->fifth, q5_0->q), 16);
}

/* d q: sums[r * n + i] of row r with x[i]. */
static inline __attribute__((always_inline)) void sum_symmetric(__m256 *sums, const struct gemv8 *v, const int rows,
                                                                  const int n, enum tensor_type type)
{
    const size_t bytes = (size_t)tensor_formats[type].bytes;
    const uint8_t *at = v->w;
    for (int b = 0; b < v->cols / BLOCK_32; b++, at += bytes) {
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            const uint8_t *block = at + (size_t)r * v->row_bytes;
            __builtin_prefetch(block + GEMV8_PREFETCH);
            const __m256i q = signed_values(block, type), magnitude = _mm256_abs_epi8(q);
            const __m256 d = f16_lanes(block);
#pragma GCC unroll 4
            for (int i = 0; i < n; i++) {
                const __m256i x = load_32_bytes(v->x[i].q + b * BLOCK_32);
                const __m256i dot = dot_u8_s8(magnitude, _mm256_sign_epi8(x, q));
                sums[r * n + i] = _mm256_fmadd_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(dot), d),
                                                  broadcast(&v->x[i].scale[b]), sums[r * n + i]);
            }
        }
    }
}

/* d q + m */
static inline __attribute__((always_inline)) void sum_affine(__m256 *sums, const struct gemv8 *v, const int rows,
                                                               const int n, enum tensor_type type)
{
    const size_t bytes = (size_t)tensor_formats[type].bytes;
    const uint8_t *at = v->w;
    for (int b = 0; b < v->cols / BLOCK_32; b++, at += bytes) {
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            const struct block_q4_1 *q4_1 = (const void *)(at + (size_t)r * v->row_bytes);
            const struct block_q5_1 *q5_1 = (const void *)q4_1;
            __builtin_prefetch((const uint8_t *)q4_1 + GEMV8_PREFETCH);
            const __m256i q = type == TENSOR_Q4_1 ? halves_of_16(q4_1->q) : values_of_q5(q5_1->fifth, q5_1->q);
            const __m256 d = f16_lanes(q4_1->d), m = f16_lanes(q4_1->m);
#pragma GCC unroll 4
            for (int i = 0; i < n; i++) {
                const __m256i dot = dot_u8_s8(q, load_32_bytes(v->x[i].q + b * BLOCK_32));
                const __m256i sum = _mm256_zextsi128_si256(_mm_loadl_epi64((const void *)(v->x[i].sum + 2 * b)));
                const __m256 both =
                    _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), d, _mm256_mul_ps(_mm256_cvtepi32_ps(sum), m));
                sums[r * n + i] = _mm256_fmadd_ps(both, broadcast(&v->x[i].scale[b]), sums[r * n + i]);
            }
        }
    }
}

/* ---- blocks of 256 ---- */

/* The sums of the 16 half groups of a block of x. */
static inline __m256i half_sums(const struct x8 *x, int b)
{
    const int32_t *sum = x->sum + b * (BLOCK_K / 16);
    const __m256i pairs = _mm256_packs_epi32(load_32_bytes(sum), load_32_bytes(sum + 8)); /* of 128 bits: 0 2 1 3 */
    return _mm256_permute4x64_epi64(pairs, 0xd8);
}

/* d s[g] q - dmin m[g]. A group's factor of the float32 sum is made for all eight groups at once and read back from
 * memory, which broadcasts for nothing. */
static inline __attribute__((always_inline)) void sum_minima(__m256 *sums, const struct gemv8 *v, const int rows,
                                                            const int n, enum tensor_type type)
{
    const size_t bytes = (size_t)tensor_formats[type].bytes;
    const uint8_t *at = v->w;
    for (int b = 0; b < v->cols / BLOCK_K; b++, at += bytes) {
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            const struct block_q4_k *q4_k = (const void *)(at + (size_t)r * v->row_bytes);
            const struct block_q5_k *q5_k = (const void *)q4_k;
            for (size_t i = 0; i < bytes; i += 64)
                __builtin_prefetch((const uint8_t *)q4_k + GEMV8_PREFETCH + i);
            uint8_t scales[16];
            group_scales(scales, q4_k->scales);
            const __m256i both = _mm256_cvtepu8_epi16(_mm_loadu_si128((const void *)scales));
            const __m128i high = _mm256_extracti128_si256(both, 1);
            const __m256i minima = _mm256_set_m128i(_mm_unpackhi_epi16(high, high), _mm_unpacklo_epi16(high, high));
            const __m256 d = _mm256_mul_ps(f16_lanes(q4_k->d), _mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(
                                                                   _mm256_castsi256_si128(both))));
            const __m256 m = f16_lanes(q4_k->dmin);
            _Alignas(32) float factor[GEMV8_COLS][8];
#pragma GCC unroll 4
            for (int i = 0; i < n; i++) {
                const __m256 scale = _mm256_loadu_ps(v->x[i].scale + 8 * b);
                const __m256i offset = _mm256_madd_epi16(minima, half_sums(&v->x[i], b));
                _mm256_store_ps(factor[i], _mm256_mul_ps(d, scale));
                sums[r * n + i] =
                    _mm256_fnmadd_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(offset), m), scale, sums[r * n + i]);
            }
#pragma GCC unroll 8
            for (int g = 0; g < 8; g++) {
                const __m256i q = type == TENSOR_Q4_K ? values_of_q4_k(q4_k, g) : values_of_q5_k(q5_k, g);
#pragma GCC unroll 4
                for (int i = 0; i < n; i++) {
                    const __m256i dot = dot_u8_s8(q, load_32_bytes(v->x[i].q + b * BLOCK_K + g * 32));
                    sums[r * n + i] =
                        _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), broadcast(&factor[i][g]), sums[r * n + i]);
                }
            }
        }
    }
}

/* d s[half group] (q - 32): the lower four lanes of a group's products belong to its first half, the others to its
 * second. */
static inline __attribute__((always_inline)) void sum_q6_k(__m256 *sums, const struct gemv8 *v, const int rows,
                                                             const int n)
{
    const __m128i firsts_then_seconds = _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
    const uint8_t *at = v->w;
    for (int b = 0; b < v->cols / BLOCK_K; b++, at += sizeof(struct block_q6_k)) {
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            const struct block_q6_k *block = (const void *)(at + (size_t)r * v->row_bytes);
            for (size_t i = 0; i < sizeof *block; i += 64)
                __builtin_prefetch((const uint8_t *)block + GEMV8_PREFETCH + i);
            const __m128i scales = _mm_loadu_si128((const void *)block->scales);
            const __m128i halves = _mm_shuffle_epi8(scales, firsts_then_seconds);
            const __m256 d = f16_lanes(block->d);
            const __m256 low = _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(halves)));
            const __m256 high =
                _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(halves, 8))));
            const __m256 offset_scale = _mm256_mul_ps(d, _mm256_set1_ps(32));
            __m256 factor[GEMV8_COLS][2]; /* of four groups each: first halves in the lower lanes */
#pragma GCC unroll 4
            for (int i = 0; i < n; i++) {
                const float *scale = v->x[i].scale + 8 * b;
                const __m256i offset = _mm256_madd_epi16(_mm256_cvtepi8_epi16(scales), half_sums(&v->x[i], b));
                factor[i][0] = _mm256_mul_ps(low, _mm256_broadcast_ps((const void *)scale));
                factor[i][1] = _mm256_mul_ps(high, _mm256_broadcast_ps((const void *)(scale + 4)));
                sums[r * n + i] = _mm256_fnmadd_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(offset), offset_scale),
                                                   _mm256_loadu_ps(scale), sums[r * n + i]);
            }
#pragma GCC unroll 8
            for (int g = 0; g < 8; g++) {
                const __m256i q = values_of_q6_k(block, g), own = _mm256_set1_epi32(g % 4);
#pragma GCC unroll 4
                for (int i = 0; i < n; i++) {
                    const __m256i dot = dot_u8_s8(q, load_32_bytes(v->x[i].q + b * BLOCK_K + g * 32));
                    sums[r * n + i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot),
                                                      _mm256_permutevar_ps(factor[i][g / 4], own), sums[r * n + i]);
                }
            }
        }
    }
}

/* ---- any type ---- */

/* out[i * out_stride + r * row_step] of `rows` rows of w, row_bytes apart, with n rows of x. */
static inline __attribute__((always_inline)) void dot_rows_8(float *out, size_t out_stride, size_t row_step,
                                                             const struct gemv8 *v, const int rows, const int n,
                                                             enum tensor_type type)
{
    __m256 sums[GEMV8_ROWS * 2];
#pragma GCC unroll 8
    for (int i = 0; i < rows * n; i++)
        sums[i] = _mm256_setzero_ps();
    if (type == TENSOR_Q6_K)
        sum_q6_k(sums, v, rows, n);
    else if (type == TENSOR_Q4_K || type == TENSOR_Q5_K)
        sum_minima(sums, v, rows, n, type);
    else if (type == TENSOR_Q4_1 || type == TENSOR_Q5_1)
        sum_affine(sums, v, rows, n, type);
    else
        sum_symmetric(sums, v, rows, n, type);
#pragma GCC unroll 8
    for (int i = 0; i < rows * n; i++)
        out[(size_t)(i % n) * out_stride + (size_t)(i / n) * row_step] = total(sums[i]);
}

/* As many rows of x at a time as there are registers for. */
static inline __attribute__((always_inline)) void gemv8(float *out, size_t out_stride, const void *w, size_t row_bytes,
                                                        int rows, int cols, const void *x, size_t x_stride, int n,
                                                        enum tensor_type type)
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
                for (int pair = 0; pair < GEMV8_ROWS; pair += 2) {
                    struct gemv8 two = v;
                    two.w += (size_t)pair * v.row_bytes;
                    dot_rows_8(to + pair * quarter, out_stride, (size_t)quarter, &two, 2, 4, type);
                }
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
