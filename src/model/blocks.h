/* GGUF's blocks of quantized values, byte for byte as ggml lays them out, little-endian: what a file holds, so nothing
 * is aligned and nothing is padded. Scales are float16. `low` and `high` are the halves of a byte.
 *
 * Blocks of 32 (legacy): value i < 16 is in the low half of q[i], value 16 + i in the high half of q[i].
 * Blocks of 256 (K): 8 groups of 32, or 16 of 16, with integer scales of their own under one float16 scale. */
#ifndef WARD_MODEL_BLOCKS_H
#define WARD_MODEL_BLOCKS_H

#include <stdint.h>

enum { BLOCK_32 = 32, BLOCK_K = 256 };

struct block_q8_0 { /* d q */
    uint8_t d[2];
    int8_t q[32];
} __attribute__((packed));

struct block_q4_0 { /* d (q - 8) */
    uint8_t d[2];
    uint8_t q[16];
} __attribute__((packed));

struct block_q4_1 { /* d q + m */
    uint8_t d[2], m[2];
    uint8_t q[16];
} __attribute__((packed));

struct block_q5_0 { /* d (q - 16); bit i of `fifth` is the fifth bit of value i */
    uint8_t d[2];
    uint8_t fifth[4];
    uint8_t q[16];
} __attribute__((packed));

struct block_q5_1 { /* d q + m */
    uint8_t d[2], m[2];
    uint8_t fifth[4];
    uint8_t q[16];
} __attribute__((packed));

/* d s[g] q - dmin m[g] in group g of 32. Each 64 values share 32 bytes of q, the first 32 in the low halves. Scales s
 * and minima m of 6 bits: for g < 4 the low six bits of scales[g] and scales[g + 4]; for g >= 4 the low and high half of
 * scales[g + 4] with the top two bits of scales[g - 4] and scales[g] above them. */
struct block_q4_k {
    uint8_t d[2], dmin[2];
    uint8_t scales[12];
    uint8_t q[128];
} __attribute__((packed));

struct block_q5_k { /* as q4_k; bit g of fifth[i] is the fifth bit of value i of group g */
    uint8_t d[2], dmin[2];
    uint8_t scales[12];
    uint8_t fifth[32];
    uint8_t q[128];
} __attribute__((packed));

/* d scale[i / 16] (q - 32). Each half of 128 values: four groups of 32 take low[0..31], low[32..63] in the low halves,
 * then the same bytes' high halves; group g's bits 4 and 5 are bits 2g and 2g + 1 of high[0..31]. */
struct block_q6_k {
    uint8_t low[128];
    uint8_t high[64];
    int8_t scales[16];
    uint8_t d[2];
} __attribute__((packed));

#endif
