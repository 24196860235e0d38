/* The product of matrices of floats in fixed point, for processors that multiply no bf16: x and w become whole numbers
 * of 16 bits, whose products are summed in 32, two at a time where float32 takes one. Written once; a file that includes
 * this, after vector.h, defines
 *
 *   add_pairs    sum += products of pairs of 16 bits, in eight lanes of 32
 *
 * and uses gemm_fixed.
 *
 * FIXED_BLOCK columns of a row share a scale, the largest of their magnitudes / FIXED_MOST: an error of at most 2^-13 of
 * that, of x and of w, where bf16 has 2^-9 of each value. 128 products of 4095 * 4095 just fit 31 bits. */
#include "kernels/kernels.h"

#include <math.h>
#include <string.h>

enum { FIXED_ROWS = 6, FIXED_COLS = 16 }; /* of a tile: 12 registers of sums, 2 of weights, 1 of x; float sums in memory */

/* A block of a panel: [FIXED_BLOCK / 2][rows or columns] of two 16-bit numbers, the next columns of a row; then their
 * scales. */
enum {
    FIXED_PAIRS = FIXED_BLOCK / 2,
    FIXED_X_GROUP = 4 * FIXED_ROWS * (FIXED_PAIRS + 1),
    FIXED_W_GROUP = 4 * FIXED_COLS * (FIXED_PAIRS + 1),
};

static inline __m256i add_pairs(__m256i sum, __m256i a, __m256i b);

/* Elements i.. of a row of n, 0 beyond it. */
static ALWAYS_INLINE vec load_or_zero(const struct format *f, const void *row, int i, int n)
{
    return i < n ? load_at(f, row, i, n) : vec_zero();
}

/* Rounds a block of a row of n elements, from `first` on; returns the scale. */
static ALWAYS_INLINE float round_fixed(int16_t out[FIXED_BLOCK], const void *row, int first, int n,
                                       const struct format *f)
{
    /* Compared as the whole numbers that their bits are, magnitudes have the same order, and a NaN is the largest. */
    __m256i most_8 = _mm256_setzero_si256();
    for (int i = 0; i < FIXED_BLOCK; i += LANES) {
        const __m256i bits = _mm256_castps_si256(load_or_zero(f, row, first + i, n));
        most_8 = _mm256_max_epi32(most_8, _mm256_and_si256(bits, _mm256_set1_epi32(0x7fffffff)));
    }
    __m128i most_4 = _mm_max_epi32(_mm256_castsi256_si128(most_8), _mm256_extracti128_si256(most_8, 1));
    most_4 = _mm_max_epi32(most_4, _mm_shuffle_epi32(most_4, 0x4e));
    const float most = _mm_cvtss_f32(_mm_castsi128_ps(_mm_max_epi32(most_4, _mm_shuffle_epi32(most_4, 0xb1))));

    const vec inverse = vec_set(most < FIXED_LEAST ? 0.0f : (float)FIXED_MOST / most);
    for (int i = 0; i < FIXED_BLOCK; i += 2 * LANES) {
        const __m256i low = _mm256_cvtps_epi32(vec_mul(load_or_zero(f, row, first + i, n), inverse)),
                      high = _mm256_cvtps_epi32(vec_mul(load_or_zero(f, row, first + i + LANES, n), inverse));
        const __m256i both = _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xd8);
        _mm256_storeu_si256((void *)(out + i), both);
    }
    return most / (float)FIXED_MOST;
}

static void pack_x_fixed(void *panel, const float *x, size_t stride, int rows, int k)
{
    uint8_t *group = panel;
    for (int i = 0; i < k; i += FIXED_BLOCK, group += FIXED_X_GROUP)
        for (int r = 0; r < FIXED_ROWS; r++) {
            int16_t q[FIXED_BLOCK] = {0};
            uint8_t *to = group + 4 * r;
            const float scale = r < rows ? round_fixed(q, x + (size_t)r * stride, i, k, &format_f32) : 0;
            for (int pair = 0; pair < FIXED_PAIRS; pair++, to += 4 * FIXED_ROWS)
                memcpy(to, q + 2 * pair, 4);
            memcpy(to, &scale, sizeof scale);
        }
}

static ALWAYS_INLINE void pack_w_fixed(void *panel, const void *w, size_t row_bytes, int rows, int k,
                                       const struct format *f)
{
    for (int first = 0; first < FIXED_COLS; first += LANES) {
        uint8_t *group = (uint8_t *)panel + 4 * first;
        for (int i = 0; i < k; i += FIXED_BLOCK, group += FIXED_W_GROUP) {
            int16_t q[LANES][FIXED_BLOCK];
            for (int r = 0; r < LANES; r++) {
                float scale = 0;
                if (first + r < rows)
                    scale = round_fixed(q[r], (const uint8_t *)w + (size_t)(first + r) * row_bytes, i, k, f);
                else
                    memset(q[r], 0, sizeof q[r]);
                memcpy(group + 4 * FIXED_COLS * FIXED_PAIRS + 4 * r, &scale, sizeof scale);
            }
            for (int pair = 0; pair < FIXED_PAIRS; pair += LANES) {
                vec block[LANES];
                for (int r = 0; r < LANES; r++)
                    block[r] = vec_load(q[r] + 2 * pair);
                vec_transpose(block);
                for (int j = 0; j < LANES; j++)
                    vec_store(group + (size_t)((pair + j) * FIXED_COLS) * 4, block[j]);
            }
        }
    }
}

static void pack_w_fixed_f16(void *panel, const void *w, size_t row_bytes, int rows, int k)
{
    pack_w_fixed(panel, w, row_bytes, rows, k, &format_f16);
}

static void pack_w_fixed_bf16(void *panel, const void *w, size_t row_bytes, int rows, int k)
{
    pack_w_fixed(panel, w, row_bytes, rows, k, &format_bf16);
}

static ALWAYS_INLINE void tile_fixed_vectors(float *c, size_t c_stride, const uint8_t *x, const uint8_t *w, int k,
                                             bool accumulate, const int vectors)
{
    __m256 sum[FIXED_ROWS][2];
    for (int i = 0; i < FIXED_ROWS; i++)
        sum[i][0] = sum[i][1] = _mm256_setzero_ps();

    for (; k > 0; k -= FIXED_BLOCK) {
        __m256i whole[FIXED_ROWS][2];
        for (int i = 0; i < FIXED_ROWS; i++)
            whole[i][0] = whole[i][1] = _mm256_setzero_si256();
        for (int pair = 0; pair < FIXED_PAIRS; pair++, x += 4 * FIXED_ROWS, w += 4 * FIXED_COLS) {
            const __m256i w0 = load_32_bytes(w), w1 = vectors == 2 ? load_32_bytes(w + 32) : w0;
#pragma GCC unroll 8
            for (int i = 0; i < FIXED_ROWS; i++) {
                const __m256i xi = broadcast_4(x + 4 * i);
                whole[i][0] = add_pairs(whole[i][0], w0, xi);
                if (vectors == 2)
                    whole[i][1] = add_pairs(whole[i][1], w1, xi);
            }
        }
#pragma GCC unroll 8
        for (int i = 0; i < FIXED_ROWS; i++) {
            const __m256 scale = _mm256_castsi256_ps(broadcast_4(x + 4 * i));
            for (int j = 0; j < vectors; j++)
                sum[i][j] = vec_fma(_mm256_cvtepi32_ps(whole[i][j]), vec_mul(scale, vec_load(w + 32 * j)), sum[i][j]);
        }
        x += 4 * FIXED_ROWS;
        w += 4 * FIXED_COLS;
    }
#pragma GCC unroll 8
    for (int i = 0; i < FIXED_ROWS; i++, c += c_stride)
        for (int j = 0; j < vectors; j++)
            vec_store(c + j * LANES, accumulate ? vec_add(vec_load(c + j * LANES), sum[i][j]) : sum[i][j]);
}

static void tile_fixed(float *c, size_t c_stride, const void *x, const void *w, int k, bool accumulate)
{
    tile_fixed_vectors(c, c_stride, x, w, k, accumulate, 2);
}

static void tile_half_fixed(float *c, size_t c_stride, const void *x, const void *w, int k, bool accumulate)
{
    tile_fixed_vectors(c, c_stride, x, w, k, accumulate, 1);
}

static const struct gemm gemm_fixed = {
    .mr = FIXED_ROWS,
    .nr = FIXED_COLS,
    .k_step = FIXED_BLOCK,
    .x_group = FIXED_X_GROUP,
    .w_group = FIXED_W_GROUP,
    .rounding = ROUND_FIXED,
    .pack_x = pack_x_fixed,
    .pack_w = {[TENSOR_F16] = pack_w_fixed_f16, [TENSOR_BF16] = pack_w_fixed_bf16},
    .tile = tile_fixed,
    .tile_half = tile_half_fixed,
};
