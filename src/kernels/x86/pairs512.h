/* Rows of weights and of x as pairs of bf16 in vectors of AVX-512, as the multiplies of bf16 take them: two columns of
 * a row in each lane of 32 bits. Wants AVX512_BF16 for the rounding. */
#ifndef WARD_KERNELS_X86_PAIRS512_H
#define WARD_KERNELS_X86_PAIRS512_H

#include "kernels/x86/transpose16.h"

#include <stddef.h>
#include <stdint.h>

enum { LANES = 16, PAIR = 2, VECTOR_COLS = PAIR * LANES };

/* 32 values of a row, of which n are there; the others 0. */
typedef __m512i load_fn(const uint8_t *row, int i, int n);

static inline __mmask32 mask_of(int n)
{
    return n >= VECTOR_COLS ? 0xffffffffu : (1u << n) - 1;
}

static inline __m512i round_pairs(__m512 low, __m512 high)
{
    return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

static inline __m512i load_f32(const uint8_t *row, int i, int n)
{
    const __mmask32 mask = mask_of(n);
    const uint8_t *at = row + (size_t)i * 4;
    return round_pairs(_mm512_maskz_loadu_ps((__mmask16)mask, at),
                       _mm512_maskz_loadu_ps((__mmask16)(mask >> 16), at + 64));
}

static inline __m512i load_f16(const uint8_t *row, int i, int n)
{
    const __m512i bits = _mm512_maskz_loadu_epi16(mask_of(n), row + (size_t)i * 2);
    return round_pairs(_mm512_cvtph_ps(_mm512_castsi512_si256(bits)),
                       _mm512_cvtph_ps(_mm512_extracti64x4_epi64(bits, 1)));
}

static inline __m512i load_bf16(const uint8_t *row, int i, int n)
{
    return _mm512_maskz_loadu_epi16(mask_of(n), row + (size_t)i * 2);
}

/* The pairs of columns i .. i + 31 of 16 rows: block[p] holds pair p of each. */
static inline __attribute__((always_inline)) void load_block(__m512 block[LANES], const uint8_t *rows, size_t row_bytes,
                                                             int n_rows, int i, int n, load_fn *load)
{
    for (int r = 0; r < LANES; r++)
        block[r] = r < n_rows ? _mm512_castsi512_ps(load(rows + (size_t)r * row_bytes, i, n)) : _mm512_setzero_ps();
    vec_transpose(block);
}

/* The 32 values of two rows as 32 pairs: 0 of the first, 0 of the second, 1 of the first ... */
static inline void interleave(__m512i pairs[2], __m512i even, __m512i odd)
{
    static const uint16_t low[32] = {0, 32, 1, 33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
                                     8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
    const __m512i first_half = _mm512_loadu_si512(low);
    const __m512i second_half = _mm512_add_epi16(first_half, _mm512_set1_epi16(LANES));
    pairs[0] = _mm512_permutex2var_epi16(even, first_half, odd);
    pairs[1] = _mm512_permutex2var_epi16(even, second_half, odd);
}

#endif
