/* What becomes of the sums of a matrix product of many rows: bias, activation, and in which form they go where. */
#ifndef WARD_CUDA_EPILOGUE_CUH
#define WARD_CUDA_EPILOGUE_CUH

#include "cuda/kernels/device.cuh"

/* gelu_pytorch_tanh, whose 0.5 (1 + tanh(z)) is 1 / (1 + exp(-2 z)) */
__device__ inline float gelu_value(float x)
{
    return __fdividef(x, 1 + __expf(-1.5957691216057308f * (x + 0.044715f * x * x * x)));
}

/* Four neighbouring outputs of a row [outputs], the first of them a multiple of four; what is not there is 0. */
__device__ inline float4 load_outputs(const float *row, int output, int outputs)
{
    if (outputs % 4 == 0)
        return output < outputs ? *(const float4 *)(row + output) : make_float4(0, 0, 0, 0);
    float v[4];
    for (int i = 0; i < 4; i++)
        v[i] = output + i < outputs ? row[output + i] : 0;
    return make_float4(v[0], v[1], v[2], v[3]);
}

__device__ inline void store_outputs(float *row, int output, int outputs, float4 value)
{
    if (outputs % 4 == 0) {
        if (output < outputs)
            *(float4 *)(row + output) = value;
        return;
    }
    const float v[4] = {value.x, value.y, value.z, value.w};
    for (int i = 0; i < 4; i++)
        if (output + i < outputs)
            row[output + i] = v[i];
}

/* As bf16, in one part or two. */
__device__ inline void put_packed(const card_packed &to, int row, int output, float4 v)
{
    const int pitch = to.units * UNIT;
    if (output >= pitch)
        return;
    uint16_t *const at = to.at + (size_t)row * (size_t)(to.parts * pitch) + output;
    const uint2 whole = make_uint2(pack_bf16(v.x, v.y), pack_bf16(v.z, v.w));
    *(uint2 *)at = whole;
    if (to.parts == X_PARTS)
        *(uint2 *)(at + pitch) = make_uint2(rest_of(whole.x, v.x, v.y), rest_of(whole.y, v.z, v.w));
}

/* As float16, head by head. */
__device__ inline void put_heads(const card_map &map, int row, int output, float4 value)
{
    const int width = map.head_dim, outputs = map.w.rows;
    const auto place = [&](int column) {
        const size_t slot = (size_t)(column / width) * (size_t)map.capacity + (size_t)row;
        return map.heads + slot * (size_t)width + column % width;
    };
    const uint16_t v[4] = {float_to_half(value.x), float_to_half(value.y), float_to_half(value.z),
                           float_to_half(value.w)};
    if (width % 4 == 0) {
        if (output < outputs)
            *(uint2 *)place(output) = make_uint2(v[0] | (uint32_t)v[1] << 16, v[2] | (uint32_t)v[3] << 16);
        return;
    }
    for (int i = 0; i < 4; i++)
        if (output + i < outputs)
            *place(output + i) = v[i];
}

/* Sums of the outputs output .. output + 3, as far as the map has them, of the rows row, row + apart, ... below `rows`.
 * Tiles reach beyond the last output: sums there are 0. What rows need from memory is fetched for all R of them before
 * it is used. */
template <int R>
__device__ inline void put_rows(const card_map &map, int row, int apart, int rows, int output, float4 (&v)[R])
{
    const int outputs = map.w.rows;
    if (map.bias) {
        const float4 bias = load_outputs(map.bias, output, outputs);
#pragma unroll
        for (int r = 0; r < R; r++)
            v[r] = make_float4(v[r].x + bias.x, v[r].y + bias.y, v[r].z + bias.z, v[r].w + bias.w);
    }
    if (map.gelu)
#pragma unroll
        for (int r = 0; r < R; r++)
            v[r] = make_float4(gelu_value(v[r].x), gelu_value(v[r].y), gelu_value(v[r].z), gelu_value(v[r].w));
    const float *const other = map.times ? map.times : map.add ? map.out : NULL;
    if (other) {
        float4 o[R];
#pragma unroll
        for (int r = 0; r < R; r++)
            o[r] = row + r * apart < rows
                       ? load_outputs(other + (size_t)(row + r * apart) * (size_t)outputs, output, outputs)
                       : make_float4(0, 0, 0, 0);
#pragma unroll
        for (int r = 0; r < R; r++)
            v[r] = map.times ? make_float4(v[r].x * o[r].x, v[r].y * o[r].y, v[r].z * o[r].z, v[r].w * o[r].w)
                             : make_float4(v[r].x + o[r].x, v[r].y + o[r].y, v[r].z + o[r].z, v[r].w + o[r].w);
    }
#pragma unroll
    for (int r = 0; r < R; r++) {
        const int at = row + r * apart;
        if (at >= rows)
            continue;
        if (map.packed.at)
            put_packed(map.packed, at, output, v[r]);
        else if (map.heads)
            put_heads(map, at, output, v[r]);
        else
            store_outputs(map.out + (size_t)at * (size_t)outputs, output, outputs, v[r]);
    }
}

#endif
