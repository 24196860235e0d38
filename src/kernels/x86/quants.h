/* GGUF's blocks of quantized values (model/blocks.h) in vectors of AVX2: 32 values at a time as bytes, in order, and
 * whole rows as float32. Every value comes out as the portable to_float makes it, to the bit. */
#ifndef WARD_KERNELS_X86_QUANTS_H
#define WARD_KERNELS_X86_QUANTS_H

#include "model/blocks.h"
#include "model/tensor.h"

#include <immintrin.h>
#include <string.h>

#define ALWAYS_INLINE inline __attribute__((always_inline))

/* What a kernel does for each block type. */
#define EACH_BLOCK_TYPE(X)                                                                                             \
    X(q8_0, TENSOR_Q8_0)                                                                                               \
    X(q4_0, TENSOR_Q4_0)                                                                                               \
    X(q4_1, TENSOR_Q4_1)                                                                                               \
    X(q5_0, TENSOR_Q5_0)                                                                                               \
    X(q5_1, TENSOR_Q5_1)                                                                                               \
    X(q4_k, TENSOR_Q4_K)                                                                                               \
    X(q5_k, TENSOR_Q5_K)                                                                                               \
    X(q6_k, TENSOR_Q6_K)

/* Bytes of a block. Unlike tensor_formats a constant where the type is one. */
static inline size_t block_bytes(enum tensor_type type)
{
#define CASE(name, of)                                                                                                 \
    if (type == of)                                                                                                    \
        return sizeof(struct block_##name);
    EACH_BLOCK_TYPE(CASE)
#undef CASE
    return 0;
}

static inline float f16_value(const uint8_t bytes[2])
{
    uint16_t bits;
    memcpy(&bits, bytes, sizeof bits);
    return _cvtsh_ss(bits);
}

static inline __m256i load_32_bytes(const void *from)
{
    return _mm256_loadu_si256(from);
}

/* Each byte shifted right by n bits (left where n is negative), and of that the bits of a mask, which must not ask for
 * bits of the byte beside. */
static inline __m256i bits_of_bytes(__m256i bytes, int n, int mask)
{
    const __m256i shifted = n < 0 ? _mm256_slli_epi16(bytes, -n) : _mm256_srli_epi16(bytes, n);
    return _mm256_and_si256(shifted, _mm256_set1_epi8((char)mask));
}

/* The low halves of 16 bytes, then their high halves. */
static inline __m256i halves_of_16(const uint8_t q[16])
{
    const __m128i bytes = _mm_loadu_si128((const void *)q);
    return _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(bytes, 4), bytes), _mm256_set1_epi8(15));
}

/* 16 where bit i of the two bytes that `own_byte` puts into each place is set, i = 0 .. 15 in each half. */
static inline __m256i fifth_bits(__m256i bytes, __m256i own_byte)
{
    const __m256i own_bit = _mm256_set1_epi64x((long long)0x8040201008040201);
    const __m256i bits = _mm256_and_si256(_mm256_shuffle_epi8(bytes, own_byte), own_bit);
    return _mm256_and_si256(_mm256_cmpeq_epi8(bits, own_bit), _mm256_set1_epi8(16));
}

static inline __m256i fifth_of_32(const uint8_t fifth[4])
{
    int32_t bits;
    memcpy(&bits, fifth, sizeof bits);
    return fifth_bits(_mm256_set1_epi32(bits),
                      _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303));
}

/* Values of 0 .. 31: of q5_0 (which subtracts 16) and q5_1. */
static inline __m256i values_of_q5(const uint8_t fifth[4], const uint8_t q[16])
{
    return _mm256_or_si256(halves_of_16(q), fifth_of_32(fifth));
}

/* Group g of 32 in a block of 256: 0 .. 15, 0 .. 31, 0 .. 63. */
static inline __m256i values_of_q4_k(const struct block_q4_k *b, int g)
{
    return bits_of_bytes(load_32_bytes(b->q + g / 2 * 32), g % 2 * 4, 15);
}

static inline __m256i values_of_q5_k(const struct block_q5_k *b, int g)
{
    const __m256i fifth = bits_of_bytes(load_32_bytes(b->fifth), g - 4, 16);
    return _mm256_or_si256(bits_of_bytes(load_32_bytes(b->q + g / 2 * 32), g % 2 * 4, 15), fifth);
}

static inline __m256i values_of_q6_k(const struct block_q6_k *b, int g)
{
    const __m256i low = bits_of_bytes(load_32_bytes(b->low + g / 4 * 64 + g % 2 * 32), g % 4 / 2 * 4, 15);
    const __m256i high = bits_of_bytes(load_32_bytes(b->high + g / 4 * 32), g % 4 * 2 - 4, 48);
    return _mm256_or_si256(low, high);
}

/* The scales of the 8 groups of a block of q4_k or q5_k, then their minima. `scales` is followed by other bytes of the
 * block, which are read and left out. */
static inline __m128i group_scales(const uint8_t scales[12])
{
    const __m128i all = _mm_loadu_si128((const void *)scales);
    const __m128i low = _mm_shuffle_epi32(all, 0x50), high = _mm_shuffle_epi32(all, 0xaa); /* words 0 0 1 1, 2 2 2 2 */
    const __m128i first = _mm_and_si128(low, _mm_setr_epi32(0x3f3f3f3f, 0, 0x3f3f3f3f, 0));
    const __m128i top = _mm_and_si128(_mm_srli_epi32(low, 2), _mm_setr_epi32(0, 0x30303030, 0, 0x30303030));
    const __m128i bottom = _mm_and_si128(_mm_srlv_epi32(high, _mm_setr_epi32(0, 0, 0, 4)),
                                         _mm_setr_epi32(0, 0x0f0f0f0f, 0, 0x0f0f0f0f));
    return _mm_or_si128(_mm_or_si128(first, top), bottom);
}

/* ---- x ---- */

/* A block of x as struct x8 defines it. */
struct block_of_x {
    __m256i q;
    float scale;
    int32_t sum[2];
};

static inline struct block_of_x round_block(const float *x)
{
    const __m256 sign = _mm256_set1_ps(-0.0f);
    __m256 values[4], size[4];
    for (int i = 0; i < 4; i++) {
        values[i] = _mm256_loadu_ps(x + 8 * i);
        size[i] = _mm256_andnot_ps(sign, values[i]);
    }
    const __m256 most_8 = _mm256_max_ps(_mm256_max_ps(size[0], size[1]), _mm256_max_ps(size[2], size[3]));
    __m128 most_4 = _mm_max_ps(_mm256_castps256_ps128(most_8), _mm256_extractf128_ps(most_8, 1));
    most_4 = _mm_max_ps(most_4, _mm_movehl_ps(most_4, most_4));
    const float most = _mm_cvtss_f32(_mm_max_ss(most_4, _mm_movehdup_ps(most_4)));

    const __m256 inverse = _mm256_set1_ps(most > 0 ? 127.0f / most : 0.0f);
    __m256i whole[4];
    for (int i = 0; i < 4; i++)
        whole[i] = _mm256_cvtps_epi32(_mm256_mul_ps(values[i], inverse));
    const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(whole[0], whole[1]),
                                             _mm256_packs_epi32(whole[2], whole[3])); /* within halves of 128 bits */
    struct block_of_x block = {.scale = most / 127.0f};
    block.q = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));

    const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), block.q);
    const __m256i fours = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)), twos = _mm256_hadd_epi32(fours, fours);
    const __m256i halves = _mm256_hadd_epi32(twos, twos);
    block.sum[0] = _mm256_cvtsi256_si32(halves);
    block.sum[1] = _mm256_extract_epi32(halves, 4);
    return block;
}

/* ---- rows as float32 ---- */

#define NO_OFFSET (-0.0f) /* what changes no float when it is added, so the compiler leaves the addition out */

/* out[i] = d q[i] + m for 8 bytes. Product and sum round apart, as in portable C. */
static inline void store_8(float *out, __m128i q, float d, float m)
{
    const __m256 values = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q)), _mm256_set1_ps(d));
    _mm256_storeu_ps(out, _mm256_add_ps(values, _mm256_set1_ps(m)));
}

static inline void store_16(float *out, __m128i q, float d, float m)
{
    store_8(out, q, d, m);
    store_8(out + 8, _mm_srli_si128(q, 8), d, m);
}

static inline void store_32(float *out, __m256i q, float d, float m)
{
    store_16(out, _mm256_castsi256_si128(q), d, m);
    store_16(out + 16, _mm256_extracti128_si256(q, 1), d, m);
}

static inline __m256i less(__m256i bytes, int n)
{
    return _mm256_sub_epi8(bytes, _mm256_set1_epi8((char)n));
}

static inline void q8_0_to_float(float *out, const void *in, int n)
{
    for (const struct block_q8_0 *b = in; n > 0; b++, n -= BLOCK_32, out += BLOCK_32)
        store_32(out, load_32_bytes(b->q), f16_value(b->d), NO_OFFSET);
}

static inline void q4_0_to_float(float *out, const void *in, int n)
{
    for (const struct block_q4_0 *b = in; n > 0; b++, n -= BLOCK_32, out += BLOCK_32)
        store_32(out, less(halves_of_16(b->q), 8), f16_value(b->d), NO_OFFSET);
}

static inline void q4_1_to_float(float *out, const void *in, int n)
{
    for (const struct block_q4_1 *b = in; n > 0; b++, n -= BLOCK_32, out += BLOCK_32)
        store_32(out, halves_of_16(b->q), f16_value(b->d), f16_value(b->m));
}

static inline void q5_0_to_float(float *out, const void *in, int n)
{
    for (const struct block_q5_0 *b = in; n > 0; b++, n -= BLOCK_32, out += BLOCK_32)
        store_32(out, less(values_of_q5(b->fifth, b->q), 16), f16_value(b->d), NO_OFFSET);
}

static inline void q5_1_to_float(float *out, const void *in, int n)
{
    for (const struct block_q5_1 *b = in; n > 0; b++, n -= BLOCK_32, out += BLOCK_32)
        store_32(out, values_of_q5(b->fifth, b->q), f16_value(b->d), f16_value(b->m));
}

static inline void q4_k_to_float(float *out, const void *in, int n)
{
    for (const struct block_q4_k *b = in; n > 0; b++, n -= BLOCK_K) {
        const float d = f16_value(b->d), m = f16_value(b->dmin);
        uint8_t scales[16];
        _mm_storeu_si128((void *)scales, group_scales(b->scales));
        for (int g = 0; g < 8; g++, out += 32)
            store_32(out, values_of_q4_k(b, g), d * (float)scales[g], -m * (float)scales[8 + g]);
    }
}

static inline void q5_k_to_float(float *out, const void *in, int n)
{
    for (const struct block_q5_k *b = in; n > 0; b++, n -= BLOCK_K) {
        const float d = f16_value(b->d), m = f16_value(b->dmin);
        uint8_t scales[16];
        _mm_storeu_si128((void *)scales, group_scales(b->scales));
        for (int g = 0; g < 8; g++, out += 32)
            store_32(out, values_of_q5_k(b, g), d * (float)scales[g], -m * (float)scales[8 + g]);
    }
}

static inline void q6_k_to_float(float *out, const void *in, int n)
{
    for (const struct block_q6_k *b = in; n > 0; b++, n -= BLOCK_K) {
        const float d = f16_value(b->d);
        for (int g = 0; g < 8; g++, out += 32) {
            const __m256i q = less(values_of_q6_k(b, g), 32);
            store_16(out, _mm256_castsi256_si128(q), d * (float)b->scales[2 * g], NO_OFFSET);
            store_16(out + 16, _mm256_extracti128_si256(q, 1), d * (float)b->scales[2 * g + 1], NO_OFFSET);
        }
    }
}

/* n values of a row of any block type, a whole number of blocks. `type` is constant where this is used. */
static ALWAYS_INLINE void row_to_float(float *out, const void *in, int n, enum tensor_type type)
{
#define CASE(name, of)                                                                                                 \
    if (type == of)                                                                                                    \
        name##_to_float(out, in, n);
    EACH_BLOCK_TYPE(CASE)
#undef CASE
}

#endif
