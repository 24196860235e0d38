/* A square of 16 x 16 values of 32 bits, transposed in registers. */
#ifndef WARD_KERNELS_X86_TRANSPOSE16_H
#define WARD_KERNELS_X86_TRANSPOSE16_H

#include <immintrin.h>

static inline void vec_transpose(__m512 block[16])
{
    __m512 quad[16];
    /* within each 128-bit lane: 4 x 4 squares; quad[4 i + j] holds column j (and 4 + j, ...) of rows 4 i .. 4 i + 3 */
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        const __m512d low01 = _mm512_castps_pd(_mm512_unpacklo_ps(block[i], block[i + 1]));
        const __m512d high01 = _mm512_castps_pd(_mm512_unpackhi_ps(block[i], block[i + 1]));
        const __m512d low23 = _mm512_castps_pd(_mm512_unpacklo_ps(block[i + 2], block[i + 3]));
        const __m512d high23 = _mm512_castps_pd(_mm512_unpackhi_ps(block[i + 2], block[i + 3]));
        quad[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(low01, low23));
        quad[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low01, low23));
        quad[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(high01, high23));
        quad[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(high01, high23));
    }
    /* then the lanes as a 4 x 4 square of their own */
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        const __m512 low01 = _mm512_shuffle_f32x4(quad[j], quad[4 + j], 0x88);
        const __m512 low23 = _mm512_shuffle_f32x4(quad[8 + j], quad[12 + j], 0x88);
        const __m512 high01 = _mm512_shuffle_f32x4(quad[j], quad[4 + j], 0xdd);
        const __m512 high23 = _mm512_shuffle_f32x4(quad[8 + j], quad[12 + j], 0xdd);
        block[j] = _mm512_shuffle_f32x4(low01, low23, 0x88);
        block[4 + j] = _mm512_shuffle_f32x4(high01, high23, 0x88);
        block[8 + j] = _mm512_shuffle_f32x4(low01, low23, 0xdd);
        block[12 + j] = _mm512_shuffle_f32x4(high01, high23, 0xdd);
    }
}

#endif
