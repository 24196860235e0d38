/* What the two files of AVX-512 VNNI share. */
#ifndef WARD_KERNELS_X86_AVX512_VNNI_H
#define WARD_KERNELS_X86_AVX512_VNNI_H

#include "kernels/x86/unpack512.h"

/* A block of x as struct x8 defines it: 32 whole numbers of 8 bits, and their scale. */
static ALWAYS_INLINE __m256i quantize_block(const float *x, float *scale)
{
    const __m512 low = _mm512_loadu_ps(x), high = _mm512_loadu_ps(x + LANES);
    const float most = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(low), _mm512_abs_ps(high)));
    const __m512 inverse = _mm512_set1_ps(most > 0 ? 127.0f / most : 0.0f);
    *scale = most / 127.0f;
    return _mm256_set_m128i(_mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(high, inverse))),
                            _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(low, inverse))));
}

/* The entries of the table for the product of matrices. */
void avx512_vnni_init_gemm(struct kernels *k);

#endif
