/* A square of 8 x 8 values of 32 bits, transposed in registers. */
#ifndef WARD_KERNELS_X86_TRANSPOSE8_H
#define WARD_KERNELS_X86_TRANSPOSE8_H

#include <immintrin.h>

static inline void vec_transpose(__m256 block[8])
{
    __m256 pair[8], quad[8];
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
        pair[i] = _mm256_unpacklo_ps(block[i], block[i + 1]);
        pair[i + 1] = _mm256_unpackhi_ps(block[i], block[i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
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

#endif
