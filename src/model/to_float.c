/* Rows of every type as float32, in portable C. The kernels' oracle is made of these: its products with quantized
 * weights are those of float32 rows, and round nothing. */
#include "model/to_float.h"

#include "base/half.h"
#include "model/blocks.h"

#include <string.h>

static void to_float_f32(float *out, const void *in, int n)
{
    memcpy(out, in, (size_t)n * sizeof *out);
}

static uint16_t load_u16(const void *in, int i)
{
    uint16_t bits; /* weights may lie at any address */
    memcpy(&bits, (const uint8_t *)in + (size_t)i * sizeof bits, sizeof bits);
    return bits;
}

static void to_float_f16(float *out, const void *in, int n)
{
    for (int i = 0; i < n; i++)
        out[i] = f16_to_float(load_u16(in, i));
}

static void to_float_bf16(float *out, const void *in, int n)
{
    for (int i = 0; i < n; i++)
        out[i] = bf16_to_float(load_u16(in, i));
}

static float f16_at(const uint8_t bytes[2])
{
    return f16_to_float((uint16_t)(bytes[0] | bytes[1] << 8));
}

/* Bit i of four bytes. */
static int bit_at(const uint8_t bytes[4], int i)
{
    return bytes[i / 8] >> (i % 8) & 1;
}

static void to_float_q8_0(float *out, const void *in, int n)
{
    for (const struct block_q8_0 *b = in; n > 0; b++, n -= BLOCK_32, out += BLOCK_32) {
        const float d = f16_at(b->d);
        for (int i = 0; i < BLOCK_32; i++)
            out[i] = d * (float)b->q[i];
    }
}

static void to_float_q4_0(float *out, const void *in, int n)
{
    for (const struct block_q4_0 *b = in; n > 0; b++, n -= BLOCK_32, out += BLOCK_32) {
        const float d = f16_at(b->d);
        for (int i = 0; i < 16; i++) {
            out[i] = d * (float)((b->q[i] & 15) - 8);
            out[i + 16] = d * (float)((b->q[i] >> 4) - 8);
        }
    }
}

static void to_float_q4_1(float *out, const void *in, int n)
{
    for (const struct block_q4_1 *b = in; n > 0; b++, n -= BLOCK_32, out += BLOCK_32) {
        const float d = f16_at(b->d), m = f16_at(b->m);
        for (int i = 0; i < 16; i++) {
            out[i] = d * (float)(b->q[i] & 15) + m;
            out[i + 16] = d * (float)(b->q[i] >> 4) + m;
        }
    }
}

static void to_float_q5_0(float *out, const void *in, int n)
{
    for (const struct block_q5_0 *b = in; n > 0; b++, n -= BLOCK_32, out += BLOCK_32) {
        const float d = f16_at(b->d);
        for (int i = 0; i < 16; i++) {
            out[i] = d * (float)(((b->q[i] & 15) | bit_at(b->fifth, i) << 4) - 16);
            out[i + 16] = d * (float)((b->q[i] >> 4 | bit_at(b->fifth, i + 16) << 4) - 16);
        }
    }
}

static void to_float_q5_1(float *out, const void *in, int n)
{
    for (const struct block_q5_1 *b = in; n > 0; b++, n -= BLOCK_32, out += BLOCK_32) {
        const float d = f16_at(b->d), m = f16_at(b->m);
        for (int i = 0; i < 16; i++) {
            out[i] = d * (float)((b->q[i] & 15) | bit_at(b->fifth, i) << 4) + m;
            out[i + 16] = d * (float)(b->q[i] >> 4 | bit_at(b->fifth, i + 16) << 4) + m;
        }
    }
}

/* The scale and minimum of group g of a block of q4_k or q5_k. */
static void group_scale(const uint8_t scales[12], int g, int *scale, int *minimum)
{
    if (g < 4) {
        *scale = scales[g] & 63;
        *minimum = scales[g + 4] & 63;
    } else {
        *scale = (scales[g + 4] & 15) | (scales[g - 4] >> 6) << 4;
        *minimum = scales[g + 4] >> 4 | (scales[g] >> 6) << 4;
    }
}

static void to_float_q4_k(float *out, const void *in, int n)
{
    for (const struct block_q4_k *b = in; n > 0; b++, n -= BLOCK_K)
        for (int g = 0; g < 8; g++, out += 32) {
            int scale, minimum;
            group_scale(b->scales, g, &scale, &minimum);
            const float d = f16_at(b->d) * (float)scale, m = f16_at(b->dmin) * (float)minimum;
            for (int i = 0; i < 32; i++)
                out[i] = d * (float)(b->q[g / 2 * 32 + i] >> (g % 2 * 4) & 15) - m;
        }
}

static void to_float_q5_k(float *out, const void *in, int n)
{
    for (const struct block_q5_k *b = in; n > 0; b++, n -= BLOCK_K)
        for (int g = 0; g < 8; g++, out += 32) {
            int scale, minimum;
            group_scale(b->scales, g, &scale, &minimum);
            const float d = f16_at(b->d) * (float)scale, m = f16_at(b->dmin) * (float)minimum;
            for (int i = 0; i < 32; i++)
                out[i] = d * (float)((b->q[g / 2 * 32 + i] >> (g % 2 * 4) & 15) | (b->fifth[i] >> g & 1) << 4) - m;
        }
}

static void to_float_q6_k(float *out, const void *in, int n)
{
    for (const struct block_q6_k *b = in; n > 0; b++, n -= BLOCK_K)
        for (int i = 0; i < BLOCK_K; i++) {
            const int half = i / 128, group = i % 128 / 32, at = i % 32;
            const int low = b->low[half * 64 + group % 2 * 32 + at] >> (group / 2 * 4) & 15;
            const int high = b->high[half * 32 + at] >> (group * 2) & 3;
            *out++ = f16_at(b->d) * (float)b->scales[i / 16] * (float)((low | high << 4) - 32);
        }
}

to_float_fn *const tensor_to_float[TENSOR_TYPES] = {
    [TENSOR_F32] = to_float_f32,   [TENSOR_F16] = to_float_f16,   [TENSOR_BF16] = to_float_bf16,
    [TENSOR_Q8_0] = to_float_q8_0, [TENSOR_Q4_0] = to_float_q4_0, [TENSOR_Q4_1] = to_float_q4_1,
    [TENSOR_Q5_0] = to_float_q5_0, [TENSOR_Q5_1] = to_float_q5_1, [TENSOR_Q4_K] = to_float_q4_k,
    [TENSOR_Q5_K] = to_float_q5_k, [TENSOR_Q6_K] = to_float_q6_k,
};
