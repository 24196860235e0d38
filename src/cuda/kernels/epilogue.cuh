/* What becomes of the sums of a matrix product of many rows: bias, activation, and in which form they go where. */
#ifndef WARD_CUDA_EPILOGUE_CUH
#define WARD_CUDA_EPILOGUE_CUH

#include "cuda/kernels/device.cuh"

/* gelu_pytorch_tanh, whose 0.5 (1 + tanh(z)) is 1 / (1 + exp(-2 z)) */
__device__ inline float gelu_value(float x)
{
    return __fdividef(x, 1 + __expf(-1.5957691216057308f * (x + 0.044715f * x * x * x)));
}

/* Two neighbouring outputs of a row [outputs]; what is not there is 0. */
__device__ inline float2 load_outputs(const float *row, int output, int outputs)
{
    if (output + 1 < outputs && outputs % 2 == 0)
        return *(const float2 *)(row + output);
    return make_float2(output < outputs ? row[output] : 0, output + 1 < outputs ? row[output + 1] : 0);
}

__device__ inline void store_outputs(float *row, int output, int outputs, float2 value)
{
    if (output + 1 < outputs && outputs % 2 == 0) {
        *(float2 *)(row + output) = value;
    } else {
        if (output < outputs)
            row[output] = value.x;
        if (output + 1 < outputs)
            row[output + 1] = value.y;
    }
}

/* Pairs of 16 bits of the columns column + 8 n, of `end`, to where `place` says. Two lanes first exchange the halves
 * that make them neighbours, so that the four of a row write 32 bytes at once. */
template <int N, class Place>
__device__ inline void store_halves(const uint32_t (&pairs)[N], int column, int end, bool exists, Place place)
{
    if constexpr (N % 2 == 0) {
        const bool odd = threadIdx.x % 2;
#pragma unroll
        for (int n = 0; n < N; n += 2) {
            const uint32_t other = __shfl_xor_sync(0xffffffff, odd ? pairs[n] : pairs[n + 1], 1);
            const int at = odd ? column + 8 * (n + 1) - 2 : column + 8 * n;
            if (exists && at < end)
                *(uint2 *)place(at) = odd ? make_uint2(other, pairs[n + 1]) : make_uint2(pairs[n], other);
        }
    } else {
#pragma unroll
        for (int n = 0; n < N; n++)
            if (exists && column + 8 * n < end)
                *(uint32_t *)place(column + 8 * n) = pairs[n];
    }
}

/* As bf16, in one part or two. */
template <int N>
__device__ inline void put_packed(const card_packed &to, int row, bool exists, int output, const float2 (&v)[N])
{
    const size_t pitch = (size_t)(to.units * UNIT);
    uint16_t *const at = to.at + (size_t)row * (size_t)to.parts * pitch;
    uint32_t pairs[N];
#pragma unroll
    for (int n = 0; n < N; n++)
        pairs[n] = pack_bf16(v[n].x, v[n].y);
    store_halves(pairs, output, (int)pitch, exists, [&](int column) { return at + column; });
    if (to.parts < X_PARTS)
        return;
#pragma unroll
    for (int n = 0; n < N; n++)
        pairs[n] = rest_of(pairs[n], v[n].x, v[n].y);
    store_halves(pairs, output, (int)pitch, exists, [&](int column) { return at + pitch + column; });
}

/* As float16, head by head. */
template <int N>
__device__ inline void put_heads(const card_map &map, int row, bool exists, int output, const float2 (&v)[N])
{
    const int width = map.head_dim, outputs = map.w.rows;
    const auto place = [&](int column) {
        const size_t slot = (size_t)(column / width) * (size_t)map.capacity + (size_t)row;
        return map.heads + slot * (size_t)width + column % width;
    };
    if (width % 4 == 0) {
        uint32_t pairs[N];
#pragma unroll
        for (int n = 0; n < N; n++)
            pairs[n] = float_to_half(v[n].x) | (uint32_t)float_to_half(v[n].y) << 16;
        store_halves(pairs, output, outputs, exists, place);
        return;
    }
    for (int n = 0; n < N; n++) {
        const int at = output + 8 * n;
        if (exists && at < outputs)
            *place(at) = float_to_half(v[n].x);
        if (exists && at + 1 < outputs)
            *place(at + 1) = float_to_half(v[n].y);
    }
}

/* Sums of the outputs output + 8 n, which is even, and the next of each, as far as the map has them, of a row, if it
 * exists. Tiles reach beyond the last output: sums there are 0. With an even N all lanes of a warp come here together,
 * those of four after one another having the columns 2 (lane % 4) of the same row. */
template <int N> __device__ inline void put_run(const card_map &map, int row, bool exists, int output, float2 (&v)[N])
{
    const int outputs = map.w.rows;
    if (map.bias)
#pragma unroll
        for (int n = 0; n < N; n++) {
            const float2 bias = load_outputs(map.bias, output + 8 * n, outputs);
            v[n].x += bias.x;
            v[n].y += bias.y;
        }
    if (map.gelu)
#pragma unroll
        for (int n = 0; n < N; n++) {
            v[n].x = gelu_value(v[n].x);
            v[n].y = gelu_value(v[n].y);
        }
    const size_t first = (size_t)row * (size_t)outputs;
    if (map.times && exists)
#pragma unroll
        for (int n = 0; n < N; n++) {
            const float2 factor = load_outputs(map.times + first, output + 8 * n, outputs);
            v[n].x *= factor.x;
            v[n].y *= factor.y;
        }
    if (map.packed.at)
        return put_packed(map.packed, row, exists, output, v);
    if (map.heads)
        return put_heads(map, row, exists, output, v);
    if (!exists)
        return;
    if (map.add) {
        float2 sums[N]; /* all of them under way before the first is used */
#pragma unroll
        for (int n = 0; n < N; n++)
            sums[n] = load_outputs(map.out + first, output + 8 * n, outputs);
#pragma unroll
        for (int n = 0; n < N; n++) {
            v[n].x += sums[n].x;
            v[n].y += sums[n].y;
        }
    }
#pragma unroll
    for (int n = 0; n < N; n++)
        store_outputs(map.out + first, output + 8 * n, outputs, v[n]);
}

#endif
