/* A unit of 16 weights of each format. A format offers
 *   load      the unit as it lies in memory
 *   value     its i-th value, i known when compiled
 * and the quantized ones, for products of int8,
 *   bytes     its quants, value i in byte i % 4 of q[i / 4], and d, m: value = d q + m. */
#ifndef WARD_CUDA_FORMATS_CUH
#define WARD_CUDA_FORMATS_CUH

#include "cuda/kernels/device.cuh"

__device__ inline size_t unit_at(const card_matrix &w, int row, int unit)
{
    return (size_t)row * (size_t)w.units + (size_t)unit;
}

struct bytes_unit {
    int q[4];
    float d, m;
};

/* The halves of 8 bytes as bytes, in the order of the values. */
__device__ inline void split_halves(int q[4], uint2 halves)
{
    q[0] = (int)(halves.x & 0x0f0f0f0f);
    q[1] = (int)(halves.x >> 4 & 0x0f0f0f0f);
    q[2] = (int)(halves.y & 0x0f0f0f0f);
    q[3] = (int)(halves.y >> 4 & 0x0f0f0f0f);
}

/* Scale and minimum of a unit under its header, a card_super. */
__device__ inline void group_scale(uint4 super, int unit, float *d, float *m)
{
    const uint32_t g = (uint32_t)unit % 16 / 2, low = __byte_perm(super.y, super.z, g), high = super.w >> 4 * g;
    *d = half_to_float((uint16_t)super.x) * (float)((low & 15) | (high & 3) << 4);
    *m = -half_to_float((uint16_t)(super.x >> 16)) * (float)((low >> 4 & 15) | (high >> 2 & 3) << 4);
}

struct format_f32 {
    enum { floats = 1 };
    float4 v[4];
    __device__ void load(const card_matrix &w, int row, int unit)
    {
        const float4 *from = (const float4 *)w.low + 4 * unit_at(w, row, unit);
        for (int i = 0; i < 4; i++)
            v[i] = from[i];
    }
    __device__ float value(int i) const
    {
        const float4 &f = v[i / 4];
        return i % 4 == 0 ? f.x : i % 4 == 1 ? f.y : i % 4 == 2 ? f.z : f.w;
    }
};

/* 16 bits each. */
struct pairs_unit {
    enum { floats = 1 };
    uint4 v[2];
    __device__ void load(const card_matrix &w, int row, int unit)
    {
        const uint4 *from = (const uint4 *)w.low + 2 * unit_at(w, row, unit);
        v[0] = from[0];
        v[1] = from[1];
    }
    __device__ uint16_t bits(int i) const
    {
        const uint4 &p = v[i / 8];
        const int at = i / 2 % 4;
        const uint32_t pair = at == 0 ? p.x : at == 1 ? p.y : at == 2 ? p.z : p.w;
        return (uint16_t)(i % 2 ? pair >> 16 : pair);
    }
};

struct format_f16 : pairs_unit {
    __device__ float value(int i) const
    {
        return half_to_float(bits(i));
    }
};

struct format_bf16 : pairs_unit {
    __device__ float value(int i) const
    {
        return bf16_to_float(bits(i));
    }
};

/* The int8 in byte i, i known when compiled. Its bits, made positive, are those of 2^23 + 128 + q: exact, and an
 * addition is four times as fast as a conversion. */
__device__ inline float byte_value(int word, int i)
{
    return __uint_as_float(__byte_perm((uint32_t)word ^ 0x80808080u, 0x4b000000u, 0x7440u + (uint32_t)i)) - 8388736.0f;
}

/* value() of all quantized formats. */
template <class Format> struct quantized {
    enum { floats = 0 };
    __device__ static float value_of(const bytes_unit &u, int i)
    {
        return u.d * byte_value(u.q[i / 4], i % 4) + u.m;
    }
};

struct format_q8 : quantized<format_q8> {
    int4 low;
    uint16_t d;
    __device__ void load(const card_matrix &w, int row, int unit)
    {
        const size_t at = unit_at(w, row, unit);
        low = ((const int4 *)w.low)[at];
        d = ((const uint16_t *)w.scale)[at / 2];
    }
    __device__ bytes_unit bytes(int unit) const
    {
        (void)unit;
        const bytes_unit u = {{low.x, low.y, low.z, low.w}, half_to_float(d), 0};
        return u;
    }
};

struct format_q8m : quantized<format_q8m> {
    int4 low;
    uint32_t scale;
    __device__ void load(const card_matrix &w, int row, int unit)
    {
        const size_t at = unit_at(w, row, unit);
        low = ((const int4 *)w.low)[at];
        scale = ((const uint32_t *)w.scale)[at / 2];
    }
    __device__ bytes_unit bytes(int unit) const
    {
        (void)unit;
        const bytes_unit u = {
            {low.x, low.y, low.z, low.w}, half_to_float((uint16_t)scale), half_to_float((uint16_t)(scale >> 16))};
        return u;
    }
};

struct format_q4 : quantized<format_q4> {
    uint2 low;
    uint16_t d;
    __device__ void load(const card_matrix &w, int row, int unit)
    {
        const size_t at = unit_at(w, row, unit);
        low = ((const uint2 *)w.low)[at];
        d = ((const uint16_t *)w.scale)[at / 2];
    }
    __device__ bytes_unit bytes(int unit) const
    {
        (void)unit;
        bytes_unit u;
        split_halves(u.q, low);
        u.d = half_to_float(d);
        u.m = -8 * u.d;
        return u;
    }
};

struct format_q4k : quantized<format_q4k> {
    uint2 low;
    uint4 super;
    __device__ void load(const card_matrix &w, int row, int unit)
    {
        const size_t at = unit_at(w, row, unit);
        low = ((const uint2 *)w.low)[at];
        super = ((const uint4 *)w.super)[at / 16];
    }
    __device__ bytes_unit bytes(int unit) const
    {
        bytes_unit u;
        split_halves(u.q, low);
        group_scale(super, unit, &u.d, &u.m);
        return u;
    }
};

struct format_q5k : quantized<format_q5k> {
    uint2 low;
    uint32_t high;
    uint4 super;
    __device__ void load(const card_matrix &w, int row, int unit)
    {
        const size_t at = unit_at(w, row, unit);
        low = ((const uint2 *)w.low)[at];
        high = ((const uint16_t *)w.high)[at];
        super = ((const uint4 *)w.super)[at / 16];
    }
    __device__ bytes_unit bytes(int unit) const
    {
        bytes_unit u;
        split_halves(u.q, low);
        for (int i = 0; i < 4; i++) { /* four bits to bit 4 of four bytes: by 2^0, 2^7, 2^14, 2^21 */
            const uint32_t bits = high >> 4 * i & 15;
            u.q[i] |= (int)((bits * 0x00204081u & 0x01010101u) << 4);
        }
        group_scale(super, unit, &u.d, &u.m);
        return u;
    }
};

struct format_q6k : quantized<format_q6k> {
    uint2 low;
    uint32_t high;
    int8_t scale;
    uint16_t d;
    __device__ void load(const card_matrix &w, int row, int unit)
    {
        const size_t at = unit_at(w, row, unit);
        low = ((const uint2 *)w.low)[at];
        high = ((const uint32_t *)w.high)[at];
        scale = ((const int8_t *)w.scale)[at];
        d = ((const uint16_t *)w.super)[at / 16];
    }
    __device__ bytes_unit bytes(int unit) const
    {
        (void)unit;
        bytes_unit u;
        split_halves(u.q, low);
        for (int i = 0; i < 4; i++) { /* four pairs of bits to bits 4 and 5 of four bytes: by 2^0, 2^6, 2^12, 2^18 */
            const uint32_t bits = high >> 8 * i & 255;
            u.q[i] |= (int)(((bits | bits << 6 | bits << 12 | bits << 18) & 0x03030303u) << 4);
        }
        u.d = half_to_float(d) * (float)scale;
        u.m = -32 * u.d;
        return u;
    }
};

/* 16 values as floats. */
template <class Format> __device__ inline void unit_values(float out[16], const Format &unit, int at)
{
    if constexpr (Format::floats) {
#pragma unroll
        for (int i = 0; i < UNIT; i++)
            out[i] = unit.value(i);
    } else {
        const bytes_unit u = unit.bytes(at);
#pragma unroll
        for (int i = 0; i < UNIT; i++)
            out[i] = Format::value_of(u, i);
    }
}

template <class Format> __device__ inline void load_values(float out[16], const card_matrix &w, int row, int unit)
{
    Format f;
    f.load(w, row, unit);
    unit_values(out, f, unit);
}

/* The same where the format is known only now: tables that are read once. */
__device__ inline void read_values(float out[16], const card_matrix &w, int row, int unit)
{
    switch (w.format) {
    case CARD_F32: return load_values<format_f32>(out, w, row, unit);
    case CARD_F16: return load_values<format_f16>(out, w, row, unit);
    case CARD_BF16: return load_values<format_bf16>(out, w, row, unit);
    case CARD_Q8: return load_values<format_q8>(out, w, row, unit);
    case CARD_Q8M: return load_values<format_q8m>(out, w, row, unit);
    case CARD_Q4: return load_values<format_q4>(out, w, row, unit);
    case CARD_Q4K: return load_values<format_q4k>(out, w, row, unit);
    case CARD_Q5K: return load_values<format_q5k>(out, w, row, unit);
    case CARD_Q6K: return load_values<format_q6k>(out, w, row, unit);
    }
}

#endif
