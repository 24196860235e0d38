/* AVX-VNNI: products of quantized weights with x in 8 bits, four at a time, summed in 32 bits; 16 registers of 256 bits.
 * The kernel tests also compile this file for AVX512-VNNI with AVX512-VL, which has the same instruction in another
 * encoding. */
#include <immintrin.h>

static inline __m256i dot_onto(__m256i sum, __m256i u8, __m256i s8)
{
#ifdef __AVXVNNI__
    return _mm256_dpbusd_avx_epi32(sum, u8, s8);
#else
    return _mm256_dpbusd_epi32(sum, u8, s8);
#endif
}

static inline __m256i dot_u8_s8(__m256i u8, __m256i s8)
{
    return dot_onto(_mm256_setzero_si256(), u8, s8);
}

static inline __m256i dot2_u8_s8(__m256i u8, __m256i s8, __m256i more_u8, __m256i more_s8)
{
    return dot_onto(dot_u8_s8(u8, s8), more_u8, more_s8);
}

#include "kernels/x86/gemm8.h"
#include "kernels/x86/gemv8.h"

static ALWAYS_INLINE void add_products(const struct gemm8 *g, __m256i whole[GEMM8_MAX_ROWS][2], const uint8_t *x,
                                       const uint8_t *w, int words, const int vectors)
{
#pragma GCC unroll 8
    for (int word = 0; word < words; word++, x += g->rows * 4, w += GEMM8_COLS * 4) {
        const __m256i w0 = load_32_bytes(w), w1 = load_32_bytes(w + 32);
#pragma GCC unroll 8
        for (int i = 0; i < g->rows; i++) {
            const __m256i xi = broadcast_4(x + 4 * i);
            whole[i][0] = dot_onto(whole[i][0], w0, xi);
            if (vectors == 2)
                whole[i][1] = dot_onto(whole[i][1], w1, xi);
        }
    }
}

GEMM8(bytes, 6, 8, 8, 1)
GEMM8(half_groups, 6, 8, 4, 2)
GEMM8_PACK_W(q8_0, TENSOR_Q8_0, bytes)
GEMM8_PACK_W(q4_0, TENSOR_Q4_0, bytes)
GEMM8_PACK_W(q4_1, TENSOR_Q4_1, bytes)
GEMM8_PACK_W(q5_0, TENSOR_Q5_0, bytes)
GEMM8_PACK_W(q5_1, TENSOR_Q5_1, bytes)
GEMM8_PACK_W(q4_k, TENSOR_Q4_K, bytes)
GEMM8_PACK_W(q5_k, TENSOR_Q5_K, bytes)
GEMM8_PACK_W(q6_k, TENSOR_Q6_K, half_groups)

static const struct gemm gemm_bytes = {
    GEMM8_ENTRIES(bytes),
    .pack_w = {[TENSOR_Q8_0] = pack_w_8_q8_0,
               [TENSOR_Q4_0] = pack_w_8_q4_0,
               [TENSOR_Q4_1] = pack_w_8_q4_1,
               [TENSOR_Q5_0] = pack_w_8_q5_0,
               [TENSOR_Q5_1] = pack_w_8_q5_1,
               [TENSOR_Q4_K] = pack_w_8_q4_k,
               [TENSOR_Q5_K] = pack_w_8_q5_k},
};
static const struct gemm gemm_half_groups = {GEMM8_ENTRIES(half_groups), .pack_w = {[TENSOR_Q6_K] = pack_w_8_q6_k}};

void kernels_init_avx_vnni(struct kernels *k)
{
    gemm8_override(k, &gemm_bytes);
    gemm8_override(k, &gemm_half_groups);
    gemv8_override(k);
}
