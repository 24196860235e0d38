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

void kernels_init_avx2(struct kernels *k)
{
    kernels_override(k);
}
