/* Quantized weights as bytes for the multiply of AVX-512 VNNI, which takes unsigned bytes of weights and signed ones of
 * x. A chunk is 4 blocks of 32 or one block of 256; its values come in vectors of 64 bytes, in the order in which the
 * block holds them, with 4 bytes of one group of 32 (or 16) in each lane, and x is put into the same order. */
#ifndef WARD_KERNELS_X86_UNPACK512_H
#define WARD_KERNELS_X86_UNPACK512_H

#include "kernels/kernels.h"
#include "model/blocks.h"

#include <immintrin.h>
#include <stddef.h>
#include <string.h>

#define ALWAYS_INLINE inline __attribute__((always_inline))

enum { LANES = 16, CHUNK_BLOCKS = 4 };

/* n bytes, the others 0; as many as fit when n >= 64 */
static ALWAYS_INLINE __m512i load_bytes(const void *from, int n)
{
    if (n >= 64)
        return _mm512_loadu_si512(from);
    return n > 0 ? _mm512_maskz_loadu_epi8(~0ull >> (64 - n), from) : _mm512_setzero_si512();
}

/* n floats or whole numbers of 32 bits, the others 0 */
static ALWAYS_INLINE __m512 load_floats(const void *from, int n)
{
    return n >= LANES ? _mm512_loadu_ps(from) : _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), from);
}

static ALWAYS_INLINE float f16_at(const uint8_t *at)
{
    uint16_t bits;
    memcpy(&bits, at, sizeof bits);
    return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(bits)));
}

/* ---- blocks of 32 ---- */

/* Where a block has what, in bytes. */
struct format_32 {
    int bytes, d, q;
    int m, fifth;  /* 0: has none */
    int bits;      /* of a value: 4, 5 or 8 */
    int zero;      /* what stands for 0 once the values are unsigned */
};

#define FIELD(type, name) (int)offsetof(struct type, name)
static const struct format_32 format_q8_0 = {sizeof(struct block_q8_0), FIELD(block_q8_0, d), FIELD(block_q8_0, q),
                                             0, 0, 8, 128};
static const struct format_32 format_q4_0 = {sizeof(struct block_q4_0), FIELD(block_q4_0, d), FIELD(block_q4_0, q),
                                             0, 0, 4, 8};
static const struct format_32 format_q4_1 = {sizeof(struct block_q4_1), FIELD(block_q4_1, d), FIELD(block_q4_1, q),
                                             FIELD(block_q4_1, m), 0, 4, 0};
static const struct format_32 format_q5_0 = {sizeof(struct block_q5_0), FIELD(block_q5_0, d), FIELD(block_q5_0, q),
                                             0, FIELD(block_q5_0, fifth), 5, 16};
static const struct format_32 format_q5_1 = {sizeof(struct block_q5_1), FIELD(block_q5_1, d), FIELD(block_q5_1, q),
                                             FIELD(block_q5_1, m), FIELD(block_q5_1, fifth), 5, 0};
#undef FIELD

/* Half a block in each quarter of a vector: values 0 .. 15 of the four blocks in the first, 16 .. 31 in the second. d
 * and m hold each block's in 4 lanes. */
struct unpacked_32 {
    __m512i q[2];
    __m512 d, m;
};

/* The order that picks words of 16 bits from a chunk, which two loads hold, the second from byte `second_load` on: in
 * lane i those at `byte` of block i / each, `each` lanes for a block; 8 lanes pick as many words that follow. */
static ALWAYS_INLINE __m512i pick_words(const struct format_32 *f, int byte, int each, int second_load)
{
    const __m512i i = _mm512_set_epi16(31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 16, 15, 14, 13, 12,
                                       11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const unsigned shift = each == 8 ? 3 : each == 4 ? 2 : 0;
    const __m512i block = _mm512_and_si512(_mm512_srli_epi16(i, shift), _mm512_set1_epi16(3));
    const __m512i within = each == 8 ? _mm512_and_si512(i, _mm512_set1_epi16(7)) : _mm512_setzero_si512();
    const __m512i word = _mm512_add_epi16(_mm512_mullo_epi16(block, _mm512_set1_epi16((short)(f->bytes / 2))),
                                          _mm512_add_epi16(within, _mm512_set1_epi16((short)(byte / 2))));
    const __mmask32 beyond = _mm512_cmpge_epi16_mask(word, _mm512_set1_epi16(32));
    return _mm512_mask_add_epi16(word, beyond, word, _mm512_set1_epi16((short)(32 - second_load / 2)));
}

/* The float16 that each block of the chunk has at `byte`, in 4 lanes. */
static ALWAYS_INLINE __m512 pick_scales(const struct format_32 *f, int byte, __m512i a, __m512i b, int second_load)
{
    const __m512i index = pick_words(f, byte, 4, second_load);
    const bool one_load = (CHUNK_BLOCKS - 1) * f->bytes + byte < 64;
    const __m512i words = one_load ? _mm512_permutexvar_epi16(index, a) : _mm512_permutex2var_epi16(a, index, b);
    return _mm512_cvtph_ps(_mm512_castsi512_si256(words));
}

/* A chunk of which `blocks` are there; what is not has scale 0. */
static ALWAYS_INLINE struct unpacked_32 unpack_32(const struct format_32 *f, const uint8_t *at, const int blocks)
{
    const int bytes = blocks * f->bytes, all = CHUNK_BLOCKS * f->bytes;
    const int second = f->bits == 8 ? 64 : all - 64; /* where the second load begins */
    __m512i a = load_bytes(at, bytes), b = load_bytes(at + second, bytes - second);
    __asm__("" : "+v"(a), "+v"(b)); /* read once: GCC would fold the loads into each use, and they cross lines */
    struct unpacked_32 u;
    u.d = pick_scales(f, f->d, a, b, second);
    u.m = f->m ? pick_scales(f, f->m, a, b, second) : _mm512_setzero_ps();
    u.q[0] = _mm512_permutex2var_epi16(a, pick_words(f, f->q, 8, second), b);
    if (f->bits == 8) { /* 4 x 34 bytes: the second halves of the blocks end beyond what the first two loads hold */
        const __m512i c = load_bytes(at + 8, bytes - 8), d = load_bytes(at + 72, bytes - 72);
        const __m512i sign = _mm512_set1_epi8((char)0x80);
        u.q[1] = _mm512_permutex2var_epi16(c, pick_words(f, f->q + 16 - 8, 8, 64), d);
        u.q[0] = _mm512_xor_si512(u.q[0], sign);
        u.q[1] = _mm512_xor_si512(u.q[1], sign);
        return u;
    }
    const __m512i low = _mm512_set1_epi8(15);
    u.q[1] = _mm512_and_si512(_mm512_srli_epi16(u.q[0], 4), low);
    u.q[0] = _mm512_and_si512(u.q[0], low);
    for (int half = 0; f->fifth && half < 2; half++) {
        const __m512i bits = _mm512_permutex2var_epi16(a, pick_words(f, f->fifth + 2 * half, 1, second), b);
        const __mmask64 set = _cvtu64_mask64((uint64_t)_mm_cvtsi128_si64(_mm512_castsi512_si128(bits)));
        u.q[half] = _mm512_mask_add_epi8(u.q[half], set, u.q[half], _mm512_set1_epi8(16));
    }
    return u;
}

/* ---- blocks of 256 ---- */

enum kind_k { KIND_Q4_K, KIND_Q5_K, KIND_Q6_K };

static ALWAYS_INLINE size_t block_k_bytes(enum kind_k kind)
{
    return kind == KIND_Q4_K   ? sizeof(struct block_q4_k)
           : kind == KIND_Q5_K ? sizeof(struct block_q5_k)
                               : sizeof(struct block_q6_k);
}

/* Q4_K, Q5_K: vector v holds groups 4 (v / 2) + v % 2 and that + 2, of 8 lanes each; scales holds the 8 groups' d s,
 * then their dmin m. Q6_K: 64 values in order in each vector; scales holds 16. */
struct unpacked_k {
    __m512i q[4];
    __m512 scales;
};

static ALWAYS_INLINE __m512i twice(__m256i half)
{
    return _mm512_broadcast_i64x4(half);
}

/* a in the lower half of a vector's bytes, b in the upper */
static ALWAYS_INLINE __m512i halves(int a, int b)
{
    return _mm512_inserti64x4(_mm512_set1_epi16((short)(a | a << 8)), _mm256_set1_epi16((short)(b | b << 8)), 1);
}

/* Scales and minima of 6 bits (model/blocks.h), in the order d s[8], dmin m[8]. */
static ALWAYS_INLINE __m512 scales_4_k(const uint8_t *d_dmin, const uint8_t packed[12])
{
    uint32_t a, b, c;
    memcpy(&a, packed, 4);
    memcpy(&b, packed + 4, 4);
    memcpy(&c, packed + 8, 4);
    const uint32_t six = 0x3f3f3f3f, four = 0x0f0f0f0f, top = 0x30303030;
    const uint64_t s = (a & six) | (uint64_t)((c & four) | (a >> 2 & top)) << 32;
    const uint64_t m = (b & six) | (uint64_t)((c >> 4 & four) | (b >> 2 & top)) << 32;
    const __m512 whole = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_set_epi64x((long long)m, (long long)s)));
    const __m512 two = _mm512_castps128_ps512(_mm_cvtph_ps(_mm_loadu_si32(d_dmin)));
    const __m512i eight_each = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi32(1), 1);
    return _mm512_mul_ps(whole, _mm512_permutexvar_ps(eight_each, two));
}

static ALWAYS_INLINE struct unpacked_k unpack_4_k(const uint8_t *q, const uint8_t *fifth)
{
    const __m512i low = _mm512_set1_epi8(15);
    const __m512i bits = fifth ? twice(_mm256_loadu_si256((const void *)fifth)) : _mm512_setzero_si512();
    struct unpacked_k u;
    for (int v = 0; v < 4; v++) {
        const __m512i bytes = _mm512_loadu_si512(q + v / 2 * 64);
        u.q[v] = _mm512_and_si512(v % 2 ? _mm512_srli_epi16(bytes, 4) : bytes, low);
        if (fifth) {
            const int group = v / 2 * 4 + v % 2;
            const __mmask64 set = _mm512_test_epi8_mask(bits, halves(1 << group, 4 << group));
            u.q[v] = _mm512_mask_add_epi8(u.q[v], set, u.q[v], _mm512_set1_epi8(16));
        }
    }
    return u;
}

static ALWAYS_INLINE struct unpacked_k unpack_6_k(const struct block_q6_k *b)
{
    const __m512i low = _mm512_set1_epi8(15), high = _mm512_set1_epi8(0x30);
    struct unpacked_k u;
    for (int half = 0; half < 2; half++) {
        const __m512i four = _mm512_loadu_si512(b->low + 64 * half);
        const __m512i two = twice(_mm256_loadu_si256((const void *)(b->high + 32 * half)));
        const __m512i by[2] = {_mm512_inserti64x4(_mm512_set1_epi16(4), _mm256_set1_epi16(2), 1),
                               _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(2), 1)};
        u.q[2 * half] = _mm512_or_si512(_mm512_and_si512(four, low),
                                        _mm512_and_si512(_mm512_sllv_epi16(two, by[0]), high));
        u.q[2 * half + 1] = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi16(four, 4), low),
                                            _mm512_and_si512(_mm512_srlv_epi16(two, by[1]), high));
    }
    u.scales = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)b->scales))),
                             _mm512_set1_ps(f16_at(b->d)));
    return u;
}

static ALWAYS_INLINE struct unpacked_k unpack_k(enum kind_k kind, const uint8_t *at)
{
    struct unpacked_k u;
    if (kind == KIND_Q4_K) {
        const struct block_q4_k *b = (const void *)at;
        u = unpack_4_k(b->q, NULL);
        u.scales = scales_4_k(b->d, b->scales);
    } else if (kind == KIND_Q5_K) {
        const struct block_q5_k *b = (const void *)at;
        u = unpack_4_k(b->q, b->fifth);
        u.scales = scales_4_k(b->d, b->scales);
    } else {
        u = unpack_6_k((const void *)at);
    }
    return u;
}

#endif
