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

static inline void vec_transpose(vec block[LANES])
{
    vec pair[LANES], quad[LANES];
#pragma GCC unroll 4
    for (int i = 0; i < LANES; i += 2) {
        pair[i] = _mm256_unpacklo_ps(block[i], block[i + 1]);
        pair[i + 1] = _mm256_unpackhi_ps(block[i], block[i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < LANES; i += 4) {
        quad[i] = _mm256_shuffle_ps(pair[i], pair[i + 2], 0x44);
        quad[i + 1] = _mm256_shuffle_ps(pair[i], pair[i + 2], 0xee);
        quad[i + 2] = _mm256_shuffle_ps(pair[i + 1], pair[i + 3], 0x44);
        quad[i + 3] = _mm256_shuffle_ps(pair[i + 1], pair[i + 3], 0xee);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        block[i] = _mm256_permute2f128_ps(quad[i], quad[i + 4], 0x20);
        block[i + 4] = _mm256_permute2f128_ps(quad[i], quad[i + 4], 0x31);
    }
}

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

#include "kernels/x86/gemv8.h"

/* 32 floats as whole numbers, in order. */
static inline __m256i round_to_bytes(const __m256 x[4])
{
    const __m256i low = _mm256_packs_epi32(_mm256_cvtps_epi32(x[0]), _mm256_cvtps_epi32(x[1]));
    const __m256i high = _mm256_packs_epi32(_mm256_cvtps_epi32(x[2]), _mm256_cvtps_epi32(x[3]));
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7); /* packing goes by halves of 128 bits */
    return _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), order);
}

static void quantize_x(void *out, const float *x, int cols)
{
    const __m256 sign = _mm256_set1_ps(-0.0f);
    const __m256i ones = _mm256_set1_epi8(1);
    int8_t *q = out;
    uint8_t *scale = (uint8_t *)(q + cols), *sum = scale + (size_t)(cols / X8_BLOCK) * sizeof(float);
    for (int i = 0; i < cols; i += X8_BLOCK, scale += sizeof(float), sum += 2 * sizeof(int32_t)) {
        __m256 values[4];
        for (int j = 0; j < 4; j++)
            values[j] = vec_load(x + i + j * LANES);
        const vec most_of_two[2] = {vec_max(_mm256_andnot_ps(sign, values[0]), _mm256_andnot_ps(sign, values[1])),
                                    vec_max(_mm256_andnot_ps(sign, values[2]), _mm256_andnot_ps(sign, values[3]))};
        const float most = vec_highest(vec_max(most_of_two[0], most_of_two[1]));
        const float step = most / 127.0f, inverse = most > 0 ? 127.0f / most : 0.0f;
        for (int j = 0; j < 4; j++)
            values[j] = vec_mul(values[j], vec_set(inverse));
        const __m256i rounded = round_to_bytes(values);
        const __m256i fours = dot_u8_s8(ones, rounded);
        const __m256i twos = _mm256_hadd_epi32(fours, fours), halves = _mm256_hadd_epi32(twos, twos);
        const int32_t sums[2] = {_mm256_cvtsi256_si32(halves), _mm256_extract_epi32(halves, 4)};
        _mm256_storeu_si256((void *)(q + i), rounded);
        memcpy(scale, &step, sizeof step);
        memcpy(sum, sums, sizeof sums);
    }
}

void kernels_init_avx2(struct kernels *k)
{
    kernels_override(k);
    gemv8_override(k);
#define QUANTIZE_X_ENTRY(name, type) k->quantize_x[type] = quantize_x;
    EACH_BLOCK_TYPE(QUANTIZE_X_ENTRY)
}
