#include "quant/blocks.h"

#include "base/half.h"
#include "model/blocks.h"

#include <math.h>
#include <string.h>

static void put16(uint8_t out[2], uint16_t value)
{
    out[0] = (uint8_t)value;
    out[1] = (uint8_t)(value >> 8);
}

/* Stores a scale as float16, and returns what was stored. */
static float put_scale(uint8_t out[2], float scale)
{
    const uint16_t half = f16_from_float(scale);
    put16(out, half);
    return f16_to_float(half);
}

/* ---- floats ------------------------------------------------------------------------------------------------------ */

static void to_f32(void *out, const float *in, size_t n)
{
    memcpy(out, in, n * sizeof *in);
}

static void to_f16(void *out, const float *in, size_t n)
{
    for (size_t i = 0; i < n; i++)
        put16((uint8_t *)out + 2 * i, f16_from_float(in[i]));
}

static void to_bf16(void *out, const float *in, size_t n)
{
    for (size_t i = 0; i < n; i++)
        put16((uint8_t *)out + 2 * i, bf16_from_float(in[i]));
}

/* ---- bit for bit the reference's --------------------------------------------------------------------------------- */

/* 1 / d. Where that leaves float32, d is 0 as float16, and the quants mean nothing: the reference's are 0. */
static float inverse(float d)
{
    return d == 0 ? 0 : 1 / d;
}

static void to_q8_0(void *out, const float *in, size_t n)
{
    struct block_q8_0 *block = out;
    for (size_t b = 0; b < n / BLOCK_32; b++, in += BLOCK_32) {
        float largest = 0;
        for (int i = 0; i < BLOCK_32; i++)
            largest = fabsf(in[i]) > largest ? fabsf(in[i]) : largest;
        const float d = largest / 127, id = inverse(d);
        put16(block[b].d, f16_from_float(d));
        for (int i = 0; i < BLOCK_32 && isfinite(id); i++) {
            /* half away from zero */
            const float scaled = in[i] * id, magnitude = fabsf(scaled);
            int q = (int)magnitude;
            q += magnitude - (float)q >= 0.5f;
            block[b].q[i] = (int8_t)(scaled < 0 ? -q : q);
        }
        if (!isfinite(id))
            memset(block[b].q, 0, sizeof block[b].q);
    }
}

static uint8_t nibble(float scaled, float id)
{
    const int q = isfinite(id) ? (int)(scaled + 8.5f) : 0;
    return (uint8_t)(q > 15 ? 15 : q);
}

/* The first of the values largest in magnitude becomes -8 exactly. */
static void to_q4_0(void *out, const float *in, size_t n)
{
    struct block_q4_0 *block = out;
    for (size_t b = 0; b < n / BLOCK_32; b++, in += BLOCK_32) {
        float largest = in[0];
        for (int i = 1; i < BLOCK_32; i++)
            largest = fabsf(in[i]) > fabsf(largest) ? in[i] : largest;
        const float d = largest / -8, id = inverse(d);
        put16(block[b].d, f16_from_float(d));
        for (int i = 0; i < 16; i++)
            block[b].q[i] = (uint8_t)(nibble(in[i] * id, id) | nibble(in[16 + i] * id, id) << 4);
    }
}

/* ---- the search for scales --------------------------------------------------------------------------------------- */

/* Scales tried side by side, one a lane, so that the compiler computes them with vectors. */
enum { TRIES = 16 };

/* Half of float16's least magnitude is 3e-8: a group of values below this becomes zeros under any scale. */
#define NOTHING 1e-9f

/* How each value's error counts. Returns the largest magnitude. */
static float weigh(float *weight, const float *x, int n)
{
    float squares = 0, largest = 0;
    for (int i = 0; i < n; i++) {
        squares += x[i] * x[i];
        largest = fabsf(x[i]) > largest ? fabsf(x[i]) : largest;
    }
    const float rms = sqrtf(squares / (float)n);
    for (int i = 0; i < n; i++)
        weight[i] = rms + fabsf(x[i]);
    return largest;
}

/* The scale s for x ~ s q, q in [-high - 1, high]: for each of TRIES ways to round, the s that fits best, then the best
 * of these. The value of largest magnitude is tried around -(high + 1), where there is one step more. */
static float search_scale(const float *x, int n, int high)
{
    float weight[BLOCK_32], step[TRIES], xq[TRIES] = {0}, qq[TRIES] = {0};
    const float largest = weigh(weight, x, n), low = (float)(-high - 1), top = (float)high;
    if (largest < NOTHING)
        return 0;
    float extreme = x[0];
    for (int i = 1; i < n; i++)
        extreme = fabsf(x[i]) > fabsf(extreme) ? x[i] : extreme;
    for (int t = 0; t < TRIES; t++)
        step[t] = (low - 0.8f + 0.16f * (float)t) / extreme;
    for (int i = 0; i < n; i++) {
        const float value = x[i], w = weight[i];
        for (int t = 0; t < TRIES; t++) {
            float q = step[t] * value;
            q = q < low ? low : q;
            q = q > top ? top : q;
            q = (float)((int)(q - low + 0.5f)) + low;
            xq[t] += w * value * q;
            qq[t] += w * q * q;
        }
    }
    int best = -1;
    float gain = 0;
    for (int t = 0; t < TRIES; t++)
        if (qq[t] > 0 && xq[t] * xq[t] / qq[t] > gain) {
            gain = xq[t] * xq[t] / qq[t];
            best = t;
        }
    return best < 0 ? 0 : xq[best] / qq[best];
}

struct affine {
    float scale, minimum; /* x ~ scale q - minimum, both >= 0 */
    float gain;           /* how much less the weighted square error is than with both 0 */
};

/* The sums of one try, w the weights: of q, q^2, x q. */
struct tries {
    float q[TRIES], qq[TRIES], xq[TRIES];
};

/* Of scale and minimum that fit the tries best, the best, if it is better than `best`: those that solve the normal
 * equations, or, where these want a minimum below 0, the best scale without one. */
static void choose(struct affine *best, const struct tries *sum, float sum_w, float sum_x)
{
    for (int t = 0; t < TRIES; t++) {
        const float q = sum->q[t], qq = sum->qq[t], xq = sum->xq[t], determinant = sum_w * qq - q * q;
        float s = 0, m = -1;
        if (determinant > 0) {
            s = (sum_w * xq - sum_x * q) / determinant;
            m = (q * xq - qq * sum_x) / determinant;
        }
        if (m < 0) {
            s = qq > 0 ? xq / qq : 0;
            m = 0;
        }
        const float gain = 2 * (s * xq - m * sum_x) - (s * s * qq - 2 * s * m * q + m * m * sum_w);
        if (s > 0 && gain > best->gain)
            *best = (struct affine){s, m, gain};
    }
}

/* Tries roundings q = step (x - low) with steps from `first` on, `between` apart. */
static void try_steps(struct affine *best, const float *x, const float *weight, float low, float first, float between,
                      int high)
{
    const float steps = (float)high;
    float step[TRIES], sum_w = 0, sum_x = 0;
    struct tries sum = {0};
    for (int t = 0; t < TRIES; t++)
        step[t] = first + between * (float)t;
    for (int i = 0; i < BLOCK_32; i++) {
        const float above = x[i] - low, value = x[i], w = weight[i];
        sum_w += w;
        sum_x += w * value;
        for (int t = 0; t < TRIES; t++) {
            float q = step[t] * above;
            q = q > steps ? steps : q;
            q = (float)(int)(q + 0.5f);
            sum.q[t] += w * q;
            sum.qq[t] += w * q * q;
            sum.xq[t] += w * q * value;
        }
    }
    choose(best, &sum, sum_w, sum_x);
}

/* Scale and minimum for a group of 32 in steps 0 .. high from its least value, or 0, on. */
static struct affine search_affine(const float *x, const float *weight, int high)
{
    float low = 0, top = x[0]; /* a minimum above 0 cannot be said */
    for (int i = 0; i < BLOCK_32; i++) {
        low = x[i] < low ? x[i] : low;
        top = x[i] > top ? x[i] : top;
    }
    struct affine best = {0, -low, 0};
    if (top - low < NOTHING)
        return best;
    try_steps(&best, x, weight, low, ((float)high - 2.0f) / (top - low), 0.17f / (top - low), high);
    return best;
}

/* The weighted square error of x ~ scale q - minimum. */
static float error_of(const float *x, const float *weight, float scale, float minimum, int high)
{
    enum { LANES = 8 };
    const float inverse_scale = scale > 0 ? 1 / scale : 0, steps = (float)high;
    float error[LANES] = {0}, sum = 0;
    for (int i = 0; i < BLOCK_32; i += LANES)
        for (int l = 0; l < LANES; l++) {
            float q = (x[i + l] + minimum) * inverse_scale;
            q = q < 0 ? 0 : q;
            q = q > steps ? steps : q;
            q = (float)(int)(q + 0.5f);
            const float off = scale * q - minimum - x[i + l];
            error[l] += weight[i + l] * off * off;
        }
    for (int l = 0; l < LANES; l++)
        sum += error[l];
    return sum;
}

/* ---- by search --------------------------------------------------------------------------------------------------- */

static int rounded(float value, int low, int high)
{
    value = value < (float)low ? (float)low : value > (float)high ? (float)high : value;
    return (int)lrintf(value);
}

static void to_q5_0(void *out, const float *in, size_t n)
{
    struct block_q5_0 *block = out;
    for (size_t b = 0; b < n / BLOCK_32; b++, in += BLOCK_32) {
        struct block_q5_0 *to = &block[b];
        const float d = put_scale(to->d, search_scale(in, BLOCK_32, 15)), id = inverse(d);
        uint32_t fifth = 0;
        memset(to->q, 0, sizeof to->q);
        for (int i = 0; i < BLOCK_32; i++) {
            const unsigned q = (unsigned)(rounded(in[i] * id, -16, 15) + 16);
            to->q[i % 16] |= (uint8_t)((q & 15) << (i < 16 ? 0 : 4));
            fifth |= (q >> 4) << i;
        }
        for (int i = 0; i < 4; i++)
            to->fifth[i] = (uint8_t)(fifth >> 8 * i);
    }
}

/* The six-bit scales and minima of eight groups, in twelve bytes (model/blocks.h). */
static void pack_scales(uint8_t out[12], const uint8_t scale[8], const uint8_t minimum[8])
{
    for (int g = 0; g < 4; g++) {
        out[g] = (uint8_t)(scale[g] | (scale[g + 4] >> 4) << 6);
        out[g + 4] = (uint8_t)(minimum[g] | (minimum[g + 4] >> 4) << 6);
        out[g + 8] = (uint8_t)((scale[g + 4] & 15) | (minimum[g + 4] & 15) << 4);
    }
}

static uint8_t rounded_6(float value)
{
    return (uint8_t)rounded(value, 0, 63);
}

/* Of the numbers beside those that a group's scale and minimum round to, those that leave the least error. */
static void refine_scales(uint8_t *scale, uint8_t *minimum, float d, float dmin, const float *x, const float *weight,
                          int high)
{
    const int s0 = *scale, m0 = *minimum;
    float least = INFINITY;
    for (int s = s0 > 0 ? s0 - 1 : 0; s <= s0 + 1 && s < 64; s++)
        for (int m = m0 > 0 ? m0 - 1 : 0; m <= m0 + 1 && m < 64; m++) {
            const float error = error_of(x, weight, d * (float)s, dmin * (float)m, high);
            if (error < least) {
                least = error;
                *scale = (uint8_t)s;
                *minimum = (uint8_t)m;
            }
        }
}

/* 256 values in steps 0 .. high of eight groups: their scales, as q4_k and q5_k store them, and q. */
static void quantize_groups(uint8_t q[BLOCK_K], uint8_t out_d[2], uint8_t out_dmin[2], uint8_t scales[12],
                            const float *in, int high)
{
    enum { GROUPS = BLOCK_K / BLOCK_32 };
    struct affine group[GROUPS];
    float weight[BLOCK_K], scale_max = 0, minimum_max = 0;
    for (int g = 0; g < GROUPS; g++) {
        const bool nothing = weigh(weight + g * BLOCK_32, in + g * BLOCK_32, BLOCK_32) < NOTHING;
        group[g] = nothing ? (struct affine){0} : search_affine(in + g * BLOCK_32, weight + g * BLOCK_32, high);
        scale_max = group[g].scale > scale_max ? group[g].scale : scale_max;
        minimum_max = group[g].minimum > minimum_max ? group[g].minimum : minimum_max;
    }
    const float d = put_scale(out_d, scale_max / 63), dmin = put_scale(out_dmin, minimum_max / 63);
    uint8_t scale[GROUPS], minimum[GROUPS];
    for (int g = 0; g < GROUPS; g++) {
        const float *x = in + g * BLOCK_32;
        scale[g] = rounded_6(group[g].scale * inverse(d));
        minimum[g] = rounded_6(group[g].minimum * inverse(dmin));
        refine_scales(&scale[g], &minimum[g], d, dmin, x, weight + g * BLOCK_32, high);
        const float id = inverse(d * (float)scale[g]), low = dmin * (float)minimum[g];
        for (int i = 0; i < BLOCK_32; i++)
            q[g * BLOCK_32 + i] = (uint8_t)rounded((x[i] + low) * id, 0, high);
    }
    pack_scales(scales, scale, minimum);
}

static void to_q4_k(void *out, const float *in, size_t n)
{
    struct block_q4_k *block = out;
    for (size_t b = 0; b < n / BLOCK_K; b++, in += BLOCK_K) {
        uint8_t q[BLOCK_K];
        quantize_groups(q, block[b].d, block[b].dmin, block[b].scales, in, 15);
        for (int i = 0; i < 128; i++)
            block[b].q[i] = (uint8_t)(q[i / 32 * 64 + i % 32] | q[i / 32 * 64 + 32 + i % 32] << 4);
    }
}

static void to_q5_k(void *out, const float *in, size_t n)
{
    struct block_q5_k *block = out;
    for (size_t b = 0; b < n / BLOCK_K; b++, in += BLOCK_K) {
        uint8_t q[BLOCK_K];
        quantize_groups(q, block[b].d, block[b].dmin, block[b].scales, in, 31);
        for (int i = 0; i < 128; i++)
            block[b].q[i] = (uint8_t)((q[i / 32 * 64 + i % 32] & 15) | q[i / 32 * 64 + 32 + i % 32] << 4);
        for (int i = 0; i < 32; i++) {
            unsigned fifth = 0;
            for (int g = 0; g < 8; g++)
                fifth |= (unsigned)(q[g * 32 + i] >> 4) << g;
            block[b].fifth[i] = (uint8_t)fifth;
        }
    }
}

static void block_to_q6_k(struct block_q6_k *to, const float *in)
{
    enum { GROUPS = 16, GROUP = BLOCK_K / GROUPS };
    float scale[GROUPS], extreme = 0;
    for (int g = 0; g < GROUPS; g++) {
        scale[g] = search_scale(in + g * GROUP, GROUP, 31);
        extreme = fabsf(scale[g]) > fabsf(extreme) ? scale[g] : extreme;
    }
    const float d = put_scale(to->d, extreme / -128);
    memset(to->low, 0, sizeof to->low);
    memset(to->high, 0, sizeof to->high);
    for (int i = 0; i < BLOCK_K; i++) {
        const int g = i / GROUP;
        to->scales[g] = (int8_t)rounded(scale[g] * inverse(d), -128, 127);
        const unsigned q = (unsigned)(rounded(in[i] * inverse(d * (float)to->scales[g]), -32, 31) + 32);
        const int half = i / 128, quarter = i % 128 / 32, at = i % 32;
        to->low[half * 64 + quarter % 2 * 32 + at] |= (uint8_t)((q & 15) << (quarter < 2 ? 0 : 4));
        to->high[half * 32 + at] |= (uint8_t)((q >> 4) << 2 * quarter);
    }
}

static void to_q6_k(void *out, const float *in, size_t n)
{
    for (size_t b = 0; b < n / BLOCK_K; b++)
        block_to_q6_k((struct block_q6_k *)out + b, in + b * BLOCK_K);
}

/* ---- all --------------------------------------------------------------------------------------------------------- */

typedef void quantize_fn(void *out, const float *in, size_t n);
static quantize_fn *const quantizers[TENSOR_TYPES] = {
    [TENSOR_F32] = to_f32,   [TENSOR_F16] = to_f16,   [TENSOR_BF16] = to_bf16, [TENSOR_Q8_0] = to_q8_0,
    [TENSOR_Q4_0] = to_q4_0, [TENSOR_Q5_0] = to_q5_0, [TENSOR_Q4_K] = to_q4_k, [TENSOR_Q5_K] = to_q5_k,
    [TENSOR_Q6_K] = to_q6_k,
};

void quantize_row(enum tensor_type type, void *out, const float *in, size_t n)
{
    quantizers[type](out, in, n);
}

bool can_quantize(enum tensor_type type)
{
    return quantizers[type] != NULL;
}
