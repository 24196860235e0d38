/* The product of matrices of floats in fixed point, for processors that multiply no bf16: x and w become whole numbers
 * of 16 bits, whose products are summed in 32, two at a time where float32 takes one. Written once; a file that includes
 * this, after vector.h, defines
 *
 *   add_pairs    sum += products of pairs of 16 bits, in eight lanes of 32
 *
 * and uses gemm_fixed, for weights and for the values of attention, and gemm_fixed_heads, for its scores.
 *
 * The columns of a block, FIXED_BLOCK or those of a head, share a scale in each row, the largest of their magnitudes /
 * FIXED_MOST: an error of at most 2^-13 of that, of x and of w, where bf16 has 2^-9 of each value. 128 products of
 * 4095 * 4095 just fit 31 bits. */
#include "kernels/kernels.h"

#include <math.h>
#include <string.h>

enum {
    FIXED_ROWS = 6,
    FIXED_COLS = 16, /* of a tile: 12 registers of sums, 2 of weights, 1 of x; float sums in memory */
    FIXED_HEAD = 72, /* SigLIP's heads; others are padded */
};

/* Bytes of a block in a panel: [block / 2][rows or columns] of two 16-bit numbers, the next columns of a row; then their
 * scales. */
#define FIXED_X_GROUP(block) (4 * FIXED_ROWS * ((block) / 2 + 1))
#define FIXED_W_GROUP(block) (4 * FIXED_COLS * ((block) / 2 + 1))

static inline __m256i add_pairs(__m256i sum, __m256i a, __m256i b);

/* Elements i.. of a row of n, 0 beyond it. */
static ALWAYS_INLINE vec load_or_zero(const struct format *f, const void *row, int i, int n)
{
    return i < n ? load_at(f, row, i, n) : vec_zero();
}

/* The magnitudes of floats as the whole numbers that their bits are: of the same order, and a NaN is the largest. */
static ALWAYS_INLINE __m256i larger_bits(__m256i most, vec value)
{
    return _mm256_max_epi32(most, _mm256_and_si256(_mm256_castps_si256(value), _mm256_set1_epi32(0x7fffffff)));
}

static ALWAYS_INLINE float highest_bits(__m256i most_8)
{
    __m128i most_4 = _mm_max_epi32(_mm256_castsi256_si128(most_8), _mm256_extracti128_si256(most_8, 1));
    most_4 = _mm_max_epi32(most_4, _mm_shuffle_epi32(most_4, 0x4e));
    return _mm_cvtss_f32(_mm_castsi128_ps(_mm_max_epi32(most_4, _mm_shuffle_epi32(most_4, 0xb1))));
}

/* The scale of the elements first .. end - 1 of a row, and what they are multiplied by. */
static ALWAYS_INLINE float scale_fixed(float *inverse, const void *row, int first, int end, const struct format *f)
{
    __m256i most_8 = _mm256_setzero_si256();
    for (int i = first; i < end; i += LANES)
        most_8 = larger_bits(most_8, load_at(f, row, i, end));
    const float most = highest_bits(most_8);
    *inverse = most < FIXED_LEAST ? 0.0f : (float)FIXED_MOST / most;
    return most / (float)FIXED_MOST;
}

/* Sixteen elements of a row of n, rounded. */
static ALWAYS_INLINE vec round_fixed(const void *row, int i, int n, float inverse, const struct format *f)
{
    const vec by = vec_set(inverse);
    const __m256i low = _mm256_cvtps_epi32(vec_mul(load_or_zero(f, row, i, n), by)),
                  high = _mm256_cvtps_epi32(vec_mul(load_or_zero(f, row, i + LANES, n), by));
    return _mm256_castsi256_ps(_mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xd8));
}

/* A block of up to eight rows of n elements, from column `first` on: pairs of all rows, `stride` bytes apart, then the
 * scales. What a pair reaches over is overwritten by the next, and at last by the scales. Returns the end. */
static ALWAYS_INLINE uint8_t *pack_block_fixed(uint8_t *to, size_t stride, const uint8_t *rows, size_t row_bytes,
                                               int n_rows, int first, int n, const struct format *f, const int block)
{
    const int end = n - first < block ? n : first + block;
    float scale[LANES] = {0}, inverse[LANES] = {0};
    for (int r = 0; r < n_rows; r++)
        scale[r] = scale_fixed(&inverse[r], rows + (size_t)r * row_bytes, first, end, f);
    for (int pair = 0; pair < block / 2; pair += LANES) {
        vec square[LANES];
        for (int r = 0; r < LANES; r++)
            square[r] = r < n_rows ? round_fixed(rows + (size_t)r * row_bytes, first + 2 * pair, end, inverse[r], f)
                                   : vec_zero();
        vec_transpose(square);
        for (int j = 0; j < LANES && pair + j < block / 2; j++, to += stride)
            vec_store(to, square[j]);
    }
    memcpy(to, scale, stride < sizeof scale ? stride : sizeof scale);
    return to + stride;
}

static ALWAYS_INLINE void pack_x_fixed(void *panel, const float *x, size_t stride, int rows, int k, const int block)
{
    uint8_t *to = panel;
    for (int i = 0; i < k; i += block)
        to = pack_block_fixed(to, 4 * FIXED_ROWS, (const uint8_t *)x, stride * sizeof *x, rows, i, k, &format_f32,
                              block);
}

static ALWAYS_INLINE void pack_w_fixed(void *panel, const void *w, size_t row_bytes, int rows, int k,
                                       const struct format *f, const int block)
{
    for (int first = 0; first < FIXED_COLS; first += LANES) {
        const int n = rows - first < 0 ? 0 : rows - first < LANES ? rows - first : LANES;
        uint8_t *to = (uint8_t *)panel + 4 * first;
        for (int i = 0; i < k; i += block)
            to = pack_block_fixed(to, 4 * FIXED_COLS, (const uint8_t *)w + (size_t)first * row_bytes, row_bytes, n, i, k,
                                  f, block);
    }
}

/* Of two rows of numbers of 16 bits in lanes of 32, pairs. */
static ALWAYS_INLINE __m256i interleave(__m256i low, __m256i high)
{
    return _mm256_blend_epi16(low, _mm256_slli_epi32(high, 16), 0xaa);
}

/* Columns of the panel are columns of w, so that pairs are of two of its rows. */
static ALWAYS_INLINE void pack_w_transposed_fixed(void *panel, const void *w, size_t row_bytes, int k, int cols,
                                                  const struct format *f)
{
    for (int first = 0; first < FIXED_COLS; first += LANES) {
        const uint8_t *row = w;
        uint8_t *to = (uint8_t *)panel + 4 * first;
        for (int i = 0; i < k; i += FIXED_BLOCK, row += FIXED_BLOCK * row_bytes) {
            const int n = k - i < FIXED_BLOCK ? k - i : FIXED_BLOCK;
            __m256i most = _mm256_setzero_si256(), q[2];
            for (int r = 0; r < n; r++)
                most = larger_bits(most, load_or_zero(f, row + (size_t)r * row_bytes, first, cols));
            const vec none = _mm256_cmp_ps(_mm256_castsi256_ps(most), vec_set(FIXED_LEAST), _CMP_LT_OQ);
            const vec inverse =
                _mm256_andnot_ps(none, vec_div(vec_set((float)FIXED_MOST), _mm256_castsi256_ps(most)));
            for (int pair = 0; pair < FIXED_BLOCK / 2; pair++, to += 4 * FIXED_COLS) {
                for (int r = 0; r < 2; r++) {
                    const int at = 2 * pair + r;
                    const vec value = at < n ? load_or_zero(f, row + (size_t)at * row_bytes, first, cols) : vec_zero();
                    q[r] = _mm256_cvtps_epi32(vec_mul(value, inverse));
                }
                vec_store(to, _mm256_castsi256_ps(interleave(q[0], q[1])));
            }
            vec_store(to, vec_div(_mm256_castsi256_ps(most), vec_set((float)FIXED_MOST)));
            to += 4 * FIXED_COLS;
        }
    }
}

static ALWAYS_INLINE void tile_fixed_vectors(float *c, size_t c_stride, const uint8_t *x, const uint8_t *w, int k,
                                             bool accumulate, const int vectors, const int block)
{
    __m256 sum[FIXED_ROWS][2];
    for (int i = 0; i < FIXED_ROWS; i++)
        sum[i][0] = sum[i][1] = _mm256_setzero_ps();

    for (; k > 0; k -= block) {
        __m256i whole[FIXED_ROWS][2];
        for (int i = 0; i < FIXED_ROWS; i++)
            whole[i][0] = whole[i][1] = _mm256_setzero_si256();
        for (int pair = 0; pair < block / 2; pair++, x += 4 * FIXED_ROWS, w += 4 * FIXED_COLS) {
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

/* The functions of a product with blocks of so many columns, and its entries. */
#define FIXED_PACK_W(name, block, type)                                                                                \
    static void pack_w_##name##_##type(void *panel, const void *w, size_t row_bytes, int rows, int k)                  \
    {                                                                                                                  \
        pack_w_fixed(panel, w, row_bytes, rows, k, &format_##type, block);                                             \
    }

#define FIXED(name, block)                                                                                             \
    static void pack_x_##name(void *panel, const float *x, size_t stride, int rows, int k)                             \
    {                                                                                                                  \
        pack_x_fixed(panel, x, stride, rows, k, block);                                                                \
    }                                                                                                                  \
    FIXED_PACK_W(name, block, f32)                                                                                     \
    FIXED_PACK_W(name, block, f16)                                                                                     \
    FIXED_PACK_W(name, block, bf16)                                                                                    \
    static void tile_##name(float *c, size_t c_stride, const void *x, const void *w, int k, bool accumulate)           \
    {                                                                                                                  \
        tile_fixed_vectors(c, c_stride, x, w, k, accumulate, 2, block);                                                \
    }                                                                                                                  \
    static void tile_half_##name(float *c, size_t c_stride, const void *x, const void *w, int k, bool accumulate)      \
    {                                                                                                                  \
        tile_fixed_vectors(c, c_stride, x, w, k, accumulate, 1, block);                                                \
    }

#define FIXED_ENTRIES(name, block)                                                                                     \
    .mr = FIXED_ROWS, .nr = FIXED_COLS, .k_step = (block), .x_group = FIXED_X_GROUP(block),                            \
    .w_group = FIXED_W_GROUP(block), .rounding = ROUND_FIXED, .pack_x = pack_x_##name,                                 \
    .pack_w = {[TENSOR_F32] = pack_w_##name##_f32, [TENSOR_F16] = pack_w_##name##_f16,                                 \
               [TENSOR_BF16] = pack_w_##name##_bf16},                                                                  \
    .tile = tile_##name, .tile_half = tile_half_##name

#define FIXED_PACK_W_TRANSPOSED(type)                                                                                  \
    static void pack_w_transposed_fixed_##type(void *panel, const void *w, size_t row_bytes, int k, int cols)          \
    {                                                                                                                  \
        pack_w_transposed_fixed(panel, w, row_bytes, k, cols, &format_##type);                                         \
    }

FIXED(blocks, FIXED_BLOCK)
FIXED(heads, FIXED_HEAD)
FIXED_PACK_W_TRANSPOSED(f32)
FIXED_PACK_W_TRANSPOSED(f16)
FIXED_PACK_W_TRANSPOSED(bf16)

static const struct gemm gemm_fixed = {
    FIXED_ENTRIES(blocks, FIXED_BLOCK),
    .pack_w_transposed = {[TENSOR_F32] = pack_w_transposed_fixed_f32, [TENSOR_F16] = pack_w_transposed_fixed_f16,
                          [TENSOR_BF16] = pack_w_transposed_fixed_bf16},
};
static const struct gemm gemm_fixed_heads = {FIXED_ENTRIES(heads, FIXED_HEAD)};
