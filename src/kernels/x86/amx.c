/* AMX: products of tiles of 16 x 16 sums, 32 columns of bf16 at a time, summed in float32. Weights of every type come
 * as bf16: blocks of quantized values are widened as portable C does it, then rounded, while they are packed
 * (docs/kernels.md says why not in whole numbers). */
#include "kernels/kernels.h"
#include "kernels/x86/pairs512.h"
#include "kernels/x86/quants.h"

/* Eight tile registers, all of one shape: 4 of sums, 2 of x, 2 of weights. A group of a panel of x is
 * [TILE_ROWS][STEP], one of weights [2][STEP / 2][SIDE][2]: two tiles each, as the multiply takes them. */
enum {
    SIDE = 16, /* rows of a tile */
    TILE_ROWS = 2 * SIDE,
    TILE_COLS = 2 * SIDE,
    STEP = 32,      /* columns of a group */
    ROW_BYTES = 64, /* of a tile */
    TILE_BYTES = SIDE * ROW_BYTES,
    GROUP_BYTES = 2 * TILE_BYTES,
    BLOCK_ROWS = 1024,
};

/* ---- x and weights of floats ---- */

static void pack_x(void *panel, const float *x, size_t stride, int rows, int k)
{
    uint8_t *out = panel;
    for (int i = 0; i < k; i += STEP, out += GROUP_BYTES)
        for (int r = 0; r < TILE_ROWS; r++) {
            const void *row = x + (size_t)r * stride;
            _mm512_storeu_si512(out + r * ROW_BYTES, r < rows ? load_f32(row, i, k - i) : _mm512_setzero_si512());
        }
}

static ALWAYS_INLINE void store_tile(uint8_t *out, const __m512 block[LANES])
{
    for (int p = 0; p < LANES; p++)
        _mm512_storeu_ps(out + p * ROW_BYTES, block[p]);
}

static ALWAYS_INLINE void pack_w(void *panel, const void *w, size_t row_bytes, int rows, int k, load_fn *load)
{
    for (int first = 0; first < TILE_COLS; first += SIDE) {
        const uint8_t *at = (const uint8_t *)w + (size_t)first * row_bytes;
        uint8_t *out = (uint8_t *)panel + first / SIDE * TILE_BYTES;
        for (int i = 0; i < k; i += STEP, out += GROUP_BYTES) {
            __m512 block[LANES];
            load_block(block, at, row_bytes, rows - first, i, k - i, load);
            store_tile(out, block);
        }
    }
}

static ALWAYS_INLINE void pack_w_transposed(void *panel, const void *w, size_t row_bytes, int k, int cols,
                                            load_fn *load)
{
    uint8_t *out = panel;
    for (int i = 0; i < k; i += STEP, out += GROUP_BYTES)
        for (int j = 0; j < STEP; j += PAIR) {
            __m512i row[PAIR], pairs[2];
            for (int r = 0; r < PAIR; r++)
                row[r] = i + j + r < k ? load((const uint8_t *)w + (size_t)(i + j + r) * row_bytes, 0, cols)
                                       : _mm512_setzero_si512();
            interleave(pairs, row[0], row[1]);
            _mm512_storeu_si512(out + j / PAIR * ROW_BYTES, pairs[0]);
            _mm512_storeu_si512(out + TILE_BYTES + j / PAIR * ROW_BYTES, pairs[1]);
        }
}

/* ---- quantized weights ---- */

static ALWAYS_INLINE __m512 sixteen_from(int first)
{
    const __m512i i = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    return _mm512_cvtepi32_ps(_mm512_add_epi32(i, _mm512_set1_epi32(first)));
}

/* The float16 at an address, in all lanes. */
static ALWAYS_INLINE __m512 f16_everywhere(const uint8_t bytes[2])
{
    int16_t bits;
    memcpy(&bits, bytes, sizeof bits);
    return _mm512_cvtph_ps(_mm256_set1_epi16(bits));
}

/* d q + m, product and sum rounded apart, as in portable C */
static ALWAYS_INLINE __m512 value_of(__m512 q, __m512 d, __m512 m)
{
    return _mm512_add_ps(_mm512_mul_ps(q, d), m);
}

/* What d (q - zero) + m is, for the bytes q of 0 .. 2^bits - 1 in 32 words. There are no more than 32 such values: each
 * is computed once and looked up. */
static ALWAYS_INLINE __m512i look_up(__m512i q, const int bits, const int zero, __m512 d, __m512 m)
{
    const __m512 low = value_of(sixteen_from(-zero), d, m);
    const __m512i values = bits == 5 ? round_pairs(low, value_of(sixteen_from(16 - zero), d, m))
                                     : _mm512_castsi256_si512((__m256i)_mm512_cvtneps_pbh(low));
    return _mm512_permutexvar_epi16(q, values);
}

/* 32 signed bytes, each half with a scale of its own. */
static ALWAYS_INLINE __m512i scale_bytes(__m256i q, __m512 d_low, __m512 d_high)
{
    const __m512 low = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm256_castsi256_si128(q)));
    const __m512 high = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm256_extracti128_si256(q, 1)));
    return round_pairs(_mm512_mul_ps(low, d_low), _mm512_mul_ps(high, d_high));
}

static inline __m512i load_q8_0(const uint8_t *row, int i, int n)
{
    const struct block_q8_0 *b = (const struct block_q8_0 *)row + i / BLOCK_32;
    const __m512 d = f16_everywhere(b->d);
    (void)n;
    return scale_bytes(load_32_bytes(b->q), d, d);
}

static inline __m512i load_q4_0(const uint8_t *row, int i, int n)
{
    const struct block_q4_0 *b = (const struct block_q4_0 *)row + i / BLOCK_32;
    (void)n;
    return look_up(_mm512_cvtepu8_epi16(halves_of_16(b->q)), 4, 8, f16_everywhere(b->d), _mm512_set1_ps(NO_OFFSET));
}

static inline __m512i load_q4_1(const uint8_t *row, int i, int n)
{
    const struct block_q4_1 *b = (const struct block_q4_1 *)row + i / BLOCK_32;
    (void)n;
    return look_up(_mm512_cvtepu8_epi16(halves_of_16(b->q)), 4, 0, f16_everywhere(b->d), f16_everywhere(b->m));
}

static inline __m512i load_q5_0(const uint8_t *row, int i, int n)
{
    const struct block_q5_0 *b = (const struct block_q5_0 *)row + i / BLOCK_32;
    const __m512i q = _mm512_cvtepu8_epi16(values_of_q5(b->fifth, b->q));
    (void)n;
    return look_up(q, 5, 16, f16_everywhere(b->d), _mm512_set1_ps(NO_OFFSET));
}

static inline __m512i load_q5_1(const uint8_t *row, int i, int n)
{
    const struct block_q5_1 *b = (const struct block_q5_1 *)row + i / BLOCK_32;
    const __m512i q = _mm512_cvtepu8_epi16(values_of_q5(b->fifth, b->q));
    (void)n;
    return look_up(q, 5, 0, f16_everywhere(b->d), f16_everywhere(b->m));
}

/* A block of 256 of a row. */
typedef void load_k_fn(__m512 groups[][LANES], int row, const uint8_t *block);

enum { GROUPS = BLOCK_K / STEP };

/* The scales of groups, to be read into all lanes, which costs nothing beside an addition or a product; the compiler
 * would rather move each there from the vector. */
static ALWAYS_INLINE void store_scales(float out[LANES], __m512i whole, __m512 d)
{
    _mm512_storeu_ps(out, _mm512_mul_ps(_mm512_cvtepi32_ps(whole), d));
    __asm__("" : "+m"(*(float(*)[LANES])out));
}

/* Each 32 bytes of q hold two groups; fifth bits where there are. */
static ALWAYS_INLINE void load_groups(__m512 groups[][LANES], int row, const uint8_t *d_dmin, const uint8_t *scales,
                                      const uint8_t *q, const uint8_t *fifth)
{
    const __m512i sixteen = _mm512_set1_epi16(16);
    const __m512i bits = fifth ? _mm512_cvtepu8_epi16(load_32_bytes(fifth)) : _mm512_setzero_si512();
    const __m512 minus_m = _mm512_xor_ps(f16_everywhere(d_dmin + 2), _mm512_set1_ps(-0.0f));
    const __m512 d_m = _mm512_insertf32x8(f16_everywhere(d_dmin), _mm512_castps512_ps256(minus_m), 1);
    float of_group[2 * GROUPS];
    store_scales(of_group, _mm512_cvtepu8_epi32(group_scales(scales)), d_m);
    for (int g = 0; g < GROUPS; g++) {
        const __m512i both = _mm512_cvtepu8_epi16(load_32_bytes(q + g / 2 * 32));
        __m512i one = g % 2 ? _mm512_srli_epi16(both, 4) : _mm512_and_si512(both, _mm512_set1_epi16(15));
        if (fifth) {
            const unsigned by = g < 4 ? 4 - (unsigned)g : (unsigned)g - 4;
            const __m512i bit = g < 4 ? _mm512_slli_epi16(bits, by) : _mm512_srli_epi16(bits, by);
            one = _mm512_or_si512(one, _mm512_and_si512(bit, sixteen));
        }
        groups[g][row] = _mm512_castsi512_ps(look_up(one, fifth ? 5 : 4, 0, _mm512_set1_ps(of_group[g]),
                                                     _mm512_set1_ps(of_group[GROUPS + g])));
    }
}

static inline void load_q4_k(__m512 groups[][LANES], int row, const uint8_t *block)
{
    const struct block_q4_k *b = (const void *)block;
    load_groups(groups, row, b->d, b->scales, b->q, NULL);
}

static inline void load_q5_k(__m512 groups[][LANES], int row, const uint8_t *block)
{
    const struct block_q5_k *b = (const void *)block;
    load_groups(groups, row, b->d, b->scales, b->q, b->fifth);
}

static inline void load_q6_k(__m512 groups[][LANES], int row, const uint8_t *block)
{
    const struct block_q6_k *b = (const void *)block;
    const __m512i whole = _mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)b->scales));
    float d[2 * GROUPS];
    store_scales(d, whole, f16_everywhere(b->d));
    for (int g = 0; g < GROUPS; g++)
        groups[g][row] = _mm512_castsi512_ps(scale_bytes(less(values_of_q6_k(b, g), 32), _mm512_set1_ps(d[2 * g]),
                                                         _mm512_set1_ps(d[2 * g + 1])));
}

static ALWAYS_INLINE void pack_w_k(void *panel, const void *w, size_t row_bytes, int rows, int k, size_t block_bytes,
                                   load_k_fn *load)
{
    for (int first = 0; first < TILE_COLS; first += SIDE) {
        const uint8_t *at = (const uint8_t *)w + (size_t)first * row_bytes;
        uint8_t *out = (uint8_t *)panel + first / SIDE * TILE_BYTES;
        for (int i = 0; i < k; i += BLOCK_K, at += block_bytes) {
            __m512 groups[GROUPS][LANES];
            for (int r = 0; r < SIDE; r++) {
                if (first + r < rows)
                    load(groups, r, at + (size_t)r * row_bytes);
                else
                    for (int g = 0; g < GROUPS; g++)
                        groups[g][r] = _mm512_setzero_ps();
            }
            for (int g = 0; g < GROUPS; g++, out += GROUP_BYTES) {
                vec_transpose(groups[g]);
                store_tile(out, groups[g]);
            }
        }
    }
}

/* ---- the tile ---- */

/* What LDTILECFG reads. */
struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

/* The tile registers belong to a thread and have no shape until it gives them one. Released, they hold nothing that a
 * switch to another thread would have to save. */
static void begin(void)
{
    static const struct tile_config all_alike = {
        .palette = 1,
        .row_bytes = {ROW_BYTES, ROW_BYTES, ROW_BYTES, ROW_BYTES, ROW_BYTES, ROW_BYTES, ROW_BYTES, ROW_BYTES},
        .rows = {SIDE, SIDE, SIDE, SIDE, SIDE, SIDE, SIDE, SIDE},
    };
    const void *config = &all_alike;
    /* GCC 12 takes the intrinsic to read 8 bytes: this hides what it points to, so all of it has to be there. */
    __asm__ volatile("" : "+r"(config) : : "memory");
    _tile_loadconfig(config);
}

static void end(void)
{
    _tile_release();
}

/* c: four tiles, or the two of the first 16 columns. Each step takes two of x and two of w from the first-level cache
 * for four multiplies, and the sums of one are not needed by the next three. */
static ALWAYS_INLINE void tile_columns(float *c, size_t c_stride, const uint8_t *x, const uint8_t *w, int k,
                                       bool accumulate, const bool both)
{
    const size_t c_bytes = c_stride * sizeof *c;
    float *below = c + SIDE * c_stride;
    /* GCC 12's _tile_loadd does not say that it reads memory. */
    __asm__ volatile("" : : : "memory");
    if (accumulate) {
        _tile_loadd(0, c, c_bytes);
        _tile_loadd(2, below, c_bytes);
        if (both) {
            _tile_loadd(1, c + SIDE, c_bytes);
            _tile_loadd(3, below + SIDE, c_bytes);
        }
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (; k > 0; k -= STEP, x += GROUP_BYTES, w += GROUP_BYTES) {
        _tile_loadd(4, x, ROW_BYTES);
        _tile_loadd(6, w, ROW_BYTES);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(5, x + TILE_BYTES, ROW_BYTES);
        _tile_dpbf16ps(2, 5, 6);
        if (both) {
            _tile_loadd(7, w + TILE_BYTES, ROW_BYTES);
            _tile_dpbf16ps(1, 4, 7);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, c, c_bytes);
    _tile_stored(2, below, c_bytes);
    if (both) {
        _tile_stored(1, c + SIDE, c_bytes);
        _tile_stored(3, below + SIDE, c_bytes);
    }
}

static void tile(float *c, size_t c_stride, const void *x_panel, const void *w_panel, int k, bool accumulate)
{
    tile_columns(c, c_stride, x_panel, w_panel, k, accumulate, true);
}

static void tile_half(float *c, size_t c_stride, const void *x_panel, const void *w_panel, int k, bool accumulate)
{
    tile_columns(c, c_stride, x_panel, w_panel, k, accumulate, false);
}

/* ---- the table ---- */

#define EACH_FLOAT_TYPE(X) X(f32, TENSOR_F32) X(f16, TENSOR_F16) X(bf16, TENSOR_BF16)
#define EACH_TYPE_OF_32(X)                                                                                             \
    X(q8_0, TENSOR_Q8_0) X(q4_0, TENSOR_Q4_0) X(q4_1, TENSOR_Q4_1) X(q5_0, TENSOR_Q5_0) X(q5_1, TENSOR_Q5_1)
#define EACH_TYPE_OF_256(X) X(q4_k, TENSOR_Q4_K) X(q5_k, TENSOR_Q5_K) X(q6_k, TENSOR_Q6_K)

#define PACK_W(name, type)                                                                                             \
    static void pack_w_##name(void *panel, const void *w, size_t row_bytes, int rows, int k)                           \
    {                                                                                                                  \
        pack_w(panel, w, row_bytes, rows, k, load_##name);                                                             \
    }
#define PACK_W_K(name, type)                                                                                           \
    static void pack_w_##name(void *panel, const void *w, size_t row_bytes, int rows, int k)                           \
    {                                                                                                                  \
        pack_w_k(panel, w, row_bytes, rows, k, sizeof(struct block_##name), load_##name);                              \
    }
#define PACK_W_TRANSPOSED(name, type)                                                                                  \
    static void pack_w_transposed_##name(void *panel, const void *w, size_t row_bytes, int k, int cols)                \
    {                                                                                                                  \
        pack_w_transposed(panel, w, row_bytes, k, cols, load_##name);                                                  \
    }
#define PACK_W_ENTRY(name, type) [type] = pack_w_##name,
#define PACK_W_TRANSPOSED_ENTRY(name, type) [type] = pack_w_transposed_##name,

EACH_FLOAT_TYPE(PACK_W)
EACH_TYPE_OF_32(PACK_W)
EACH_TYPE_OF_256(PACK_W_K)
EACH_FLOAT_TYPE(PACK_W_TRANSPOSED)

static const struct gemm gemm_amx = {
    .mr = TILE_ROWS,
    .nr = TILE_COLS,
    .k_step = STEP,
    .x_group = GROUP_BYTES,
    .w_group = GROUP_BYTES,
    .block_rows = BLOCK_ROWS,
    .rounding = ROUND_BF16,
    .pack_x = pack_x,
    .pack_w = {EACH_FLOAT_TYPE(PACK_W_ENTRY) EACH_TYPE_OF_32(PACK_W_ENTRY) EACH_TYPE_OF_256(PACK_W_ENTRY)},
    .pack_w_transposed = {EACH_FLOAT_TYPE(PACK_W_TRANSPOSED_ENTRY)},
    .begin = begin,
    .end = end,
    .tile = tile,
    .tile_half = tile_half,
};

void kernels_init_amx(struct kernels *k)
{
    for (int type = 0; type < TENSOR_TYPES; type++)
        if (type != TENSOR_F32)
            k->gemm[type] = &gemm_amx;
    k->gemm_scores = k->gemm_values = &gemm_amx;
}
