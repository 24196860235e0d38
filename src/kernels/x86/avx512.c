/* AVX-512 F, BW, DQ and VL: 32 registers of 16 floats, masks for the ends of rows. */
#include <immintrin.h>

enum { LANES = 16, TILE_ROWS = 14 }; /* 28 registers of sums, 2 of weights, 1 of x */
typedef __m512 vec;

static inline vec vec_zero(void) { return _mm512_setzero_ps(); }
static inline vec vec_set(float value) { return _mm512_set1_ps(value); }
static inline vec vec_load(const void *from) { return _mm512_loadu_ps(from); }
static inline void vec_store(void *to, vec value) { _mm512_storeu_ps(to, value); }
static inline vec vec_add(vec a, vec b) { return _mm512_add_ps(a, b); }
static inline vec vec_sub(vec a, vec b) { return _mm512_sub_ps(a, b); }
static inline vec vec_mul(vec a, vec b) { return _mm512_mul_ps(a, b); }
static inline vec vec_div(vec a, vec b) { return _mm512_div_ps(a, b); }
static inline vec vec_max(vec a, vec b) { return _mm512_max_ps(a, b); }
static inline vec vec_min(vec a, vec b) { return _mm512_min_ps(a, b); }
static inline vec vec_fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
static inline vec vec_fnma(vec a, vec b, vec c) { return _mm512_fnmadd_ps(a, b, c); }
static inline vec vec_scale2(vec a, vec n) { return _mm512_scalef_ps(a, n); }

static inline __mmask16 lane_mask(int n) { return (__mmask16)((1u << n) - 1); }
static inline vec vec_keep(vec value, int n) { return _mm512_maskz_mov_ps(lane_mask(n), value); }
static inline vec vec_load_part(const void *from, int n) { return _mm512_maskz_loadu_ps(lane_mask(n), from); }
static inline void vec_store_part(void *to, vec value, int n) { _mm512_mask_storeu_ps(to, lane_mask(n), value); }
static inline float vec_sum(vec a) { return _mm512_reduce_add_ps(a); }
static inline float vec_highest(vec a) { return _mm512_reduce_max_ps(a); }

/* ---- 16-bit formats ---- */

static inline __m256i load_16bit_part(const void *from, int n) { return _mm256_maskz_loadu_epi16(lane_mask(n), from); }
static inline void store_16bit_part(void *to, __m256i value, int n)
{
    _mm256_mask_storeu_epi16(to, lane_mask(n), value);
}

static inline __m256i f16_bits(vec value) { return _mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT); }
static inline vec vec_load_f16(const void *from) { return _mm512_cvtph_ps(_mm256_loadu_si256(from)); }
static inline vec vec_load_f16_part(const void *from, int n) { return _mm512_cvtph_ps(load_16bit_part(from, n)); }
static inline void vec_store_f16(void *to, vec value) { _mm256_storeu_si256(to, f16_bits(value)); }
static inline void vec_store_f16_part(void *to, vec value, int n) { store_16bit_part(to, f16_bits(value), n); }

static inline vec bf16_values(__m256i bits)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

/* Rounds to nearest, ties to even; a NaN stays one. */
static inline __m256i bf16_bits(vec value)
{
    const __m512i bits = _mm512_castps_si512(value), high = _mm512_srli_epi32(bits, 16);
    const __m512i odd = _mm512_and_si512(high, _mm512_set1_epi32(1));
    const __m512i rounded =
        _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
    const __m512i quiet = _mm512_or_si512(high, _mm512_set1_epi32(0x40));
    return _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(rounded, _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q), quiet));
}

static inline vec vec_load_bf16(const void *from) { return bf16_values(_mm256_loadu_si256(from)); }
static inline vec vec_load_bf16_part(const void *from, int n) { return bf16_values(load_16bit_part(from, n)); }
static inline void vec_store_bf16(void *to, vec value) { _mm256_storeu_si256(to, bf16_bits(value)); }
static inline void vec_store_bf16_part(void *to, vec value, int n) { store_16bit_part(to, bf16_bits(value), n); }

#include "kernels/x86/transpose16.h"
#include "kernels/x86/vector.h"

void kernels_init_avx512(struct kernels *k)
{
    kernels_override(k);
}
