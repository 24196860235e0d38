/* The product of matrices with x in 8 bits and quantized weights, in vectors of 256 bits, written once. A file that
 * includes this defines, anywhere in it,
 *
 *   add_products    the products of a group of a tile, see below
 *
 * and uses GEMM8 for each kind of panels, GEMM8_PACK_W for each type and GEMM8_ENTRIES in its tables.
 *
 * Panels of bytes hold weights unsigned, as they are stored: w = scale q + minimum, where a type without minimum has
 * one for what stands for 0. So a group of 32 columns is a sum in whole numbers times two scales, and a sum of x times
 * the minimum. Panels of 16 bits hold both with their signs. */
#include "kernels/kernels.h"
#include "kernels/x86/quants.h"
#include "kernels/x86/transpose8.h"

#include <stdbool.h>

enum {
    GEMM8_MAX_ROWS = 6, /* of a tile: 12 registers of whole sums, 2 of weights, 1 of x; the float sums are in memory */
    GEMM8_COLS = 16,
    GEMM8_STEP = X8_BLOCK, /* columns of a group of the panels */
};

/* What a group of a panel holds: [words][rows or COLS] of 4 bytes, the next columns of a row; then of x: scales [rows],
 * and scale times sum [parts][rows]; of weights: scales [parts][COLS], minima [parts][COLS]. Panels of 16 bits have
 * neither sums nor minima. */
struct gemm8 {
    int rows;
    int words; /* 8: bytes; 16: 16 bits */
    int run;   /* words whose products, added in pairs, stay within 16 bits */
    int parts; /* of a group, each with a scale of its own in w */
};

#define GEMM8_MINIMA(words, parts) ((words) == 8 ? (parts) : 0)
#define GEMM8_X_GROUP(rows, words, parts) (4 * (rows) * ((words) + 1 + GEMM8_MINIMA(words, parts)))
#define GEMM8_W_GROUP(words, parts) (4 * GEMM8_COLS * ((words) + (parts) + GEMM8_MINIMA(words, parts)))

static inline int minima(const struct gemm8 *g)
{
    return GEMM8_MINIMA(g->words, g->parts);
}

static inline int x_group(const struct gemm8 *g)
{
    return GEMM8_X_GROUP(g->rows, g->words, g->parts);
}

static inline int w_group(const struct gemm8 *g)
{
    return GEMM8_W_GROUP(g->words, g->parts);
}

/* whole[i][j] += the products of row i of x with the columns 8 j .. 8 j + 7 of w, j < vectors, over `words` words. */
static inline void add_products(const struct gemm8 *g, __m256i whole[GEMM8_MAX_ROWS][2], const uint8_t *x,
                                const uint8_t *w, int words, const int vectors);

static inline __m256i broadcast_4(const uint8_t *from)
{
    int32_t value;
    memcpy(&value, from, sizeof value);
    return _mm256_set1_epi32(value);
}

/* ---- x ---- */

static ALWAYS_INLINE void gemm8_pack_x(const struct gemm8 *g, void *panel, const float *x, size_t stride, int rows,
                                       int k)
{
    uint8_t *group = panel;
    memset(panel, 0, rows < g->rows ? (size_t)(k / GEMM8_STEP * x_group(g)) : 0);
    for (int i = 0; i < k; i += GEMM8_STEP, group += x_group(g))
        for (int r = 0; r < rows; r++) {
            const struct block_of_x block = round_block(x + (size_t)r * stride + i);
            uint8_t words[2 * GEMM8_STEP], *to = group + 4 * r;
            if (g->words == 8) {
                _mm256_storeu_si256((void *)words, block.q);
            } else {
                _mm256_storeu_si256((void *)words, _mm256_cvtepi8_epi16(_mm256_castsi256_si128(block.q)));
                _mm256_storeu_si256((void *)(words + 32), _mm256_cvtepi8_epi16(_mm256_extracti128_si256(block.q, 1)));
            }
            for (int word = 0; word < g->words; word++, to += 4 * g->rows)
                memcpy(to, words + 4 * word, 4);
            const float sums[2] = {block.scale * (float)(g->parts == 1 ? block.sum[0] + block.sum[1] : block.sum[0]),
                                   block.scale * (float)block.sum[1]};
            memcpy(to, &block.scale, sizeof block.scale);
            for (int part = 0; part < minima(g); part++)
                memcpy(to + (1 + part) * g->rows * 4, &sums[part], sizeof sums[part]);
        }
}

/* ---- weights ---- */

/* 32 values of a row: bytes, and a scale and minimum for each part. */
struct group_of_w {
    __m256i q;
    float scale[2], minimum[2];
};

/* Group i of a row. */
static ALWAYS_INLINE struct group_of_w load_group(const uint8_t *row, int i, enum tensor_type type, bool with_sign)
{
    const bool k = type == TENSOR_Q4_K || type == TENSOR_Q5_K || type == TENSOR_Q6_K;
    const int g = i % 8;
    const void *at = row + (size_t)(k ? i / 8 : i) * block_bytes(type);
    const struct block_q8_0 *q8_0 = at;
    const struct block_q4_0 *q4_0 = at;
    const struct block_q4_1 *q4_1 = at;
    const struct block_q5_0 *q5_0 = at;
    const struct block_q5_1 *q5_1 = at;
    const struct block_q4_k *q4_k = at;
    const struct block_q5_k *q5_k = at;
    const struct block_q6_k *q6_k = at;
    if (type == TENSOR_Q6_K) {
        const float d = f16_value(q6_k->d);
        const float low = d * (float)q6_k->scales[2 * g], high = d * (float)q6_k->scales[2 * g + 1];
        return (struct group_of_w){values_of_q6_k(q6_k, g), {low, high}, {-32 * low, -32 * high}};
    }
    if (k) {
        uint8_t scales[16];
        _mm_storeu_si128((void *)scales, group_scales(q4_k->scales));
        return (struct group_of_w){type == TENSOR_Q4_K ? values_of_q4_k(q4_k, g) : values_of_q5_k(q5_k, g),
                                   {f16_value(q4_k->d) * (float)scales[g]},
                                   {-f16_value(q4_k->dmin) * (float)scales[8 + g]}};
    }
    const float d = f16_value(q4_0->d);
    switch (type) {
    case TENSOR_Q8_0:
        return (struct group_of_w){less(load_32_bytes(q8_0->q), with_sign ? 0 : 128), {d}, {-128 * d}};
    case TENSOR_Q4_0:
        return (struct group_of_w){halves_of_16(q4_0->q), {d}, {-8 * d}};
    case TENSOR_Q4_1:
        return (struct group_of_w){halves_of_16(q4_1->q), {d}, {f16_value(q4_1->m)}};
    case TENSOR_Q5_0:
        return (struct group_of_w){values_of_q5(q5_0->fifth, q5_0->q), {d}, {-16 * d}};
    default:
        return (struct group_of_w){values_of_q5(q5_1->fifth, q5_1->q), {d}, {f16_value(q5_1->m)}};
    }
}

static ALWAYS_INLINE void store_words(uint8_t *to, __m256 rows_of_words[8])
{
    vec_transpose(rows_of_words);
    for (int word = 0; word < 8; word++)
        _mm256_storeu_ps((void *)(to + word * GEMM8_COLS * 4), rows_of_words[word]);
}

static ALWAYS_INLINE void gemm8_pack_w(const struct gemm8 *g, void *panel, const void *w, size_t row_bytes, int rows,
                                       int k, enum tensor_type type)
{
    for (int first = 0; first < GEMM8_COLS; first += 8) {
        const uint8_t *from = (const uint8_t *)w + (size_t)first * row_bytes;
        uint8_t *group = (uint8_t *)panel + 4 * first;
        for (int i = 0; i < k / GEMM8_STEP; i++, group += w_group(g)) {
            __m256 q[8], more[8];
            uint8_t *tail = group + GEMM8_COLS * 4 * g->words;
            for (int r = 0; r < 8; r++, tail += 4) {
                struct group_of_w of = {.q = _mm256_setzero_si256()};
                if (first + r < rows)
                    of = load_group(from + (size_t)r * row_bytes, i, type, g->words == 16);
                for (int part = 0; part < g->parts; part++)
                    memcpy(tail + part * GEMM8_COLS * 4, &of.scale[part], 4);
                for (int part = 0; part < minima(g); part++)
                    memcpy(tail + (g->parts + part) * GEMM8_COLS * 4, &of.minimum[part], 4);
                q[r] = _mm256_castsi256_ps(of.q);
                if (g->words == 16) {
                    q[r] = _mm256_castsi256_ps(_mm256_cvtepi8_epi16(_mm256_castsi256_si128(of.q)));
                    more[r] = _mm256_castsi256_ps(_mm256_cvtepi8_epi16(_mm256_extracti128_si256(of.q, 1)));
                }
            }
            store_words(group, q);
            if (g->words == 16)
                store_words(group + 8 * GEMM8_COLS * 4, more);
        }
    }
}

/* ---- the tile ---- */

static ALWAYS_INLINE void gemm8_tile(const struct gemm8 *g, float *c, size_t c_stride, const uint8_t *x,
                                     const uint8_t *w, int k, bool accumulate, const int vectors)
{
    __m256 sum[GEMM8_MAX_ROWS][2];
    for (int i = 0; i < g->rows; i++)
        sum[i][0] = sum[i][1] = _mm256_setzero_ps();

    for (; k > 0; k -= GEMM8_STEP, x += x_group(g), w += w_group(g)) {
        const int words = g->words / g->parts;
        const uint8_t *x_tail = x + 4 * g->rows * g->words, *w_tail = w + 4 * GEMM8_COLS * g->words;
#pragma GCC unroll 2
        for (int part = 0; part < g->parts; part++) {
            __m256i whole[GEMM8_MAX_ROWS][2];
            for (int i = 0; i < g->rows; i++)
                whole[i][0] = whole[i][1] = _mm256_setzero_si256();
            add_products(g, whole, x + 4 * g->rows * part * words, w + 4 * GEMM8_COLS * part * words, words, vectors);
            const float *scale = (const void *)(w_tail + part * GEMM8_COLS * 4),
                        *minimum = (const void *)(w_tail + (g->parts + part) * GEMM8_COLS * 4);
#pragma GCC unroll 8
            for (int i = 0; i < g->rows; i++)
                for (int j = 0; j < vectors; j++) {
                    const __m256 xi = _mm256_castsi256_ps(broadcast_4(x_tail + 4 * i));
                    const __m256 both = _mm256_mul_ps(xi, _mm256_loadu_ps(scale + 8 * j));
                    sum[i][j] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(whole[i][j]), both, sum[i][j]);
                    if (minima(g)) {
                        const __m256i x_sum = broadcast_4(x_tail + 4 * ((1 + part) * g->rows + i));
                        sum[i][j] = _mm256_fmadd_ps(_mm256_castsi256_ps(x_sum), _mm256_loadu_ps(minimum + 8 * j),
                                                    sum[i][j]);
                    }
                }
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < g->rows; i++, c += c_stride)
        for (int j = 0; j < vectors; j++) {
            float *to = c + 8 * j;
            _mm256_storeu_ps(to, accumulate ? _mm256_add_ps(_mm256_loadu_ps(to), sum[i][j]) : sum[i][j]);
        }
}

/* ---- the table ---- */

/* A kind of panels. Its numbers are constant where they are used: each has its own code. */
#define GEMM8(name, n_rows, n_words, n_run, n_parts)                                                                   \
    static const struct gemm8 gemm8_##name = {n_rows, n_words, n_run, n_parts};                                        \
    enum {                                                                                                             \
        rows_##name = n_rows,                                                                                          \
        x_group_##name = GEMM8_X_GROUP(n_rows, n_words, n_parts),                                                      \
        w_group_##name = GEMM8_W_GROUP(n_words, n_parts),                                                              \
    };                                                                                                                 \
    static void pack_x_##name(void *panel, const float *x, size_t stride, int rows, int k)                             \
    {                                                                                                                  \
        gemm8_pack_x(&gemm8_##name, panel, x, stride, rows, k);                                                        \
    }                                                                                                                  \
    static void tile_##name(float *c, size_t c_stride, const void *x, const void *w, int k, bool accumulate)           \
    {                                                                                                                  \
        gemm8_tile(&gemm8_##name, c, c_stride, x, w, k, accumulate, 2);                                                \
    }                                                                                                                  \
    static void tile_half_##name(float *c, size_t c_stride, const void *x, const void *w, int k, bool accumulate)      \
    {                                                                                                                  \
        gemm8_tile(&gemm8_##name, c, c_stride, x, w, k, accumulate, 1);                                                \
    }

#define GEMM8_PACK_W(name, type, panels)                                                                               \
    static void pack_w_8_##name(void *panel, const void *w, size_t row_bytes, int rows, int k)                         \
    {                                                                                                                  \
        gemm8_pack_w(&gemm8_##panels, panel, w, row_bytes, rows, k, type);                                             \
    }

#define GEMM8_ENTRIES(name)                                                                                            \
    .mr = rows_##name, .nr = GEMM8_COLS, .k_step = GEMM8_STEP, .x_group = x_group_##name, .w_group = w_group_##name,   \
    .rounding = ROUND_X8, .pack_x = pack_x_##name, .tile = tile_##name, .tile_half = tile_half_##name

/* Every type that a product takes goes by it from now on. */
static void gemm8_override(struct kernels *k, const struct gemm *gemm)
{
    for (int type = 0; type < TENSOR_TYPES; type++)
        if (gemm->pack_w[type])
            k->gemm[type] = gemm;
}
