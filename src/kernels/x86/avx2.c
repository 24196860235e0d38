/* AVX2 with FMA and F16C: 16 registers of 8 floats. */
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

enum { LANES = 8, TILE_ROWS = 6 }; /* 12 registers of sums, 2 of weights, 1 of x */
typedef __m256 vec;

static inline vec vec_zero(void) { return _mm256_setzero_ps(); }
static inline vec vec_set(float value) { return _mm256_set1_ps(value); }
static inline vec vec_load(const void *from) { return _mm256_loadu_ps(from); }
static inline void vec_store(void *to, vec value) { _mm256_storeu_ps(to, value); }
static inline vec vec_add(vec a, vec b) { return _mm256_add_ps(a, b); }
static inline vec vec_sub(vec a, vec b) { return _mm256_sub_ps(a, b); }
static inline vec vec_mul(vec a, vec b) { return _mm256_mul_ps(a, b); }
static inline vec vec_div(vec a, vec b) { return _mm256_div_ps(a, b); }
static inline vec vec_max(vec a, vec b) { return _mm256_max_ps(a, b); }
static inline vec vec_min(vec a, vec b) { return _mm256_min_ps(a, b); }
static inline vec vec_fma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
static inline vec vec_fnma(vec a, vec b, vec c) { return _mm256_fnmadd_ps(a, b, c); }

static inline vec vec_scale2(vec a, vec n)
{
    const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
}

/* All bits of the first n lanes. */
static inline __m256i lane_mask(int n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline vec vec_keep(vec value, int n) { return _mm256_and_ps(value, _mm256_castsi256_ps(lane_mask(n))); }
static inline vec vec_load_part(const void *from, int n) { return _mm256_maskload_ps(from, lane_mask(n)); }
static inline void vec_store_part(void *to, vec value, int n) { _mm256_maskstore_ps(to, lane_mask(n), value); }

static inline float vec_sum(vec a)
{
    __m128 sum = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
    return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}

static inline float vec_highest(vec a)
{
    __m128 best = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    best = _mm_max_ps(best, _mm_movehl_ps(best, best));
    return _mm_cvtss_f32(_mm_max_ss(best, _mm_movehdup_ps(best)));
}

/* ---- 16-bit formats ---- */

static inline __m128i load_16bit_part(const void *from, int n)
{
    uint16_t bits[LANES] = {0};
    memcpy(bits, from, (size_t)n * sizeof *bits);
    return _mm_loadu_si128((const void *)bits);
}

static inline void store_16bit_part(void *to, __m128i value, int n)
{
    uint16_t bits[LANES];
    _mm_storeu_si128((void *)bits, value);
    memcpy(to, bits, (size_t)n * sizeof *bits);
}

static inline __m128i f16_bits(vec value) { return _mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT); }
static inline vec vec_load_f16(const void *from) { return _mm256_cvtph_ps(_mm_loadu_si128(from)); }
static inline vec vec_load_f16_part(const void *from, int n) { return _mm256_cvtph_ps(load_16bit_part(from, n)); }
static inline void vec_store_f16(void *to, vec value) { _mm_storeu_si128(to, f16_bits(value)); }
static inline void vec_store_f16_part(void *to, vec value, int n) { store_16bit_part(to, f16_bits(value), n); }

static inline vec bf16_values(__m128i bits)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

/* Rounds to nearest, ties to even; a NaN stays one. */
static inline __m128i bf16_bits(vec value)
{
    const __m256i bits = _mm256_castps_si256(value), high = _mm256_srli_epi32(bits, 16);
    const __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
    const __m256i rounded =
        _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
    const __m256i quiet = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
    const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(value, value, _CMP_UNORD_Q));
    const __m256i result = _mm256_blendv_epi8(rounded, quiet, is_nan);
    return _mm_packus_epi32(_mm256_castsi256_si128(result), _mm256_extracti128_si256(result, 1));
}

static inline vec vec_load_bf16(const void *from) { return bf16_values(_mm_loadu_si128(from)); }
static inline vec vec_load_bf16_part(const void *from, int n) { return bf16_values(load_16bit_part(from, n)); }
static inline void vec_store_bf16(void *to, vec value) { _mm_storeu_si128(to, bf16_bits(value)); }
static inline void vec_store_bf16_part(void *to, vec value, int n) { store_16bit_part(to, bf16_bits(value), n); }

#include "kernels/x86/transpose8.h"
#include "kernels/x86/vector.h"

/* ---- quantized weights ---- */

static inline __m256i dot_u8_s8(__m256i u8, __m256i s8)
{
    return _mm256_madd_epi16(_mm256_maddubs_epi16(u8, s8), _mm256_set1_epi16(1));
}

static inline __m256i dot2_u8_s8(__m256i u8, __m256i s8, __m256i more_u8, __m256i more_s8)
{
    const __m256i pairs = _mm256_add_epi16(_mm256_maddubs_epi16(u8, s8), _mm256_maddubs_epi16(more_u8, more_s8));
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

#include "kernels/x86/gemm8.h"
#include "kernels/x86/gemv8.h"

/* sum = or += products. The additions are spelled out: left to itself, a compiler adds in another order, for which there
 * are not registers enough, or into other registers, and the moves back take a quarter of what can be issued. */
static ALWAYS_INLINE __m256i add_bytes(__m256i sum, __m256i w, __m256i x, bool first)
{
    __m256i products = _mm256_maddubs_epi16(w, x);
    if (first) {
        __asm__("" : "+x"(products));
        return products;
    }
    __asm__("vpaddw %1, %0, %0" : "+x"(sum) : "x"(products));
    return sum;
}

static ALWAYS_INLINE __m256i add_words(__m256i sum, __m256i w, __m256i x, bool first)
{
    __m256i products = _mm256_madd_epi16(w, x);
    if (first) {
        __asm__("" : "+x"(products));
        return products;
    }
    __asm__("vpaddd %1, %0, %0" : "+x"(sum) : "x"(products));
    return sum;
}

/* One step of all rows with a vector of columns or two. */
static ALWAYS_INLINE void add_word(__m256i sums[GEMM8_MAX_ROWS][2], const uint8_t *x, const uint8_t *w, const int rows,
                                   const int vectors, bool first, __m256i (*plus)(__m256i, __m256i, __m256i, bool))
{
    const __m256i w0 = load_32_bytes(w), w1 = vectors == 2 ? load_32_bytes(w + 32) : w0;
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) {
        const __m256i xi = broadcast_4(x + 4 * i);
        sums[i][0] = plus(sums[i][0], w0, xi, first);
        if (vectors == 2)
            sums[i][1] = plus(sums[i][1], w1, xi, first);
    }
}

static ALWAYS_INLINE void add_products(const struct gemm8 *g, __m256i whole[GEMM8_MAX_ROWS][2], const uint8_t *x,
                                       const uint8_t *w, int words, const int vectors)
{
    if (g->words == 16) {
#pragma GCC unroll 16
        for (int word = 0; word < words; word++)
            add_word(whole, x + word * g->rows * 4, w + word * GEMM8_COLS * 4, g->rows, vectors, word == 0, add_words);
        return;
    }
#pragma GCC unroll 4
    for (int start = 0; start < words; start += g->run) {
        __m256i pairs[GEMM8_MAX_ROWS][2];
#pragma GCC unroll 8
        for (int word = start; word < start + g->run; word++)
            add_word(pairs, x + word * g->rows * 4, w + word * GEMM8_COLS * 4, g->rows, vectors, word == start,
                     add_bytes);
#pragma GCC unroll 8
        for (int i = 0; i < g->rows; i++)
            for (int j = 0; j < vectors; j++)
                whole[i][j] = _mm256_add_epi32(whole[i][j], _mm256_madd_epi16(pairs[i][j], _mm256_set1_epi16(1)));
    }
}

/* 16 bits hold the sum of 16 products of x with 4 bits, 8 with 5 bits, 4 with 6 bits, and of 8 bits not one pair with
 * 255 * 127 in it. */
GEMM8(4_bits, 6, 8, 8, 1)
GEMM8(5_bits, 6, 8, 4, 1)
GEMM8(6_bits, 4, 8, 2, 2)
GEMM8(8_bits, 6, 16, 1, 1)
GEMM8_PACK_W(q4_0, TENSOR_Q4_0, 4_bits)
GEMM8_PACK_W(q4_1, TENSOR_Q4_1, 4_bits)
GEMM8_PACK_W(q4_k, TENSOR_Q4_K, 4_bits)
GEMM8_PACK_W(q5_0, TENSOR_Q5_0, 5_bits)
GEMM8_PACK_W(q5_1, TENSOR_Q5_1, 5_bits)
GEMM8_PACK_W(q5_k, TENSOR_Q5_K, 5_bits)
GEMM8_PACK_W(q6_k, TENSOR_Q6_K, 6_bits)
GEMM8_PACK_W(q8_0, TENSOR_Q8_0, 8_bits)

static const struct gemm gemm_4_bits = {
    GEMM8_ENTRIES(4_bits),
    .pack_w = {[TENSOR_Q4_0] = pack_w_8_q4_0, [TENSOR_Q4_1] = pack_w_8_q4_1, [TENSOR_Q4_K] = pack_w_8_q4_k},
};
static const struct gemm gemm_5_bits = {
    GEMM8_ENTRIES(5_bits),
    .pack_w = {[TENSOR_Q5_0] = pack_w_8_q5_0, [TENSOR_Q5_1] = pack_w_8_q5_1, [TENSOR_Q5_K] = pack_w_8_q5_k},
};
static const struct gemm gemm_6_bits = {GEMM8_ENTRIES(6_bits), .pack_w = {[TENSOR_Q6_K] = pack_w_8_q6_k}};
static const struct gemm gemm_8_bits = {GEMM8_ENTRIES(8_bits), .pack_w = {[TENSOR_Q8_0] = pack_w_8_q8_0}};

static void quantize_x(void *out, const float *x, int cols)
{
    int8_t *q = out;
    uint8_t *scale = (uint8_t *)(q + cols), *sum = scale + (size_t)(cols / X8_BLOCK) * sizeof(float);
    for (int i = 0; i < cols; i += X8_BLOCK, scale += sizeof(float), sum += 2 * sizeof(int32_t)) {
        const struct block_of_x block = round_block(x + i);
        _mm256_storeu_si256((void *)(q + i), block.q);
        memcpy(scale, &block.scale, sizeof block.scale);
        memcpy(sum, block.sum, sizeof block.sum);
    }
}

#include "kernels/x86/gemm16.h"

static inline __m256i add_pairs(__m256i sum, __m256i a, __m256i b)
{
    return add_words(sum, a, b, false);
}

void kernels_init_avx2(struct kernels *k)
{
    kernels_override(k);
    k->gemm[TENSOR_F16] = k->gemm[TENSOR_BF16] = k->gemm_values = &gemm_fixed;
    k->gemm_scores = &gemm_fixed_heads;
    gemm8_override(k, &gemm_4_bits);
    gemm8_override(k, &gemm_5_bits);
    gemm8_override(k, &gemm_6_bits);
    gemm8_override(k, &gemm_8_bits);
    gemv8_override(k);
#define QUANTIZE_X_ENTRY(name, type) k->quantize_x[type] = quantize_x;
    EACH_BLOCK_TYPE(QUANTIZE_X_ENTRY)
}
