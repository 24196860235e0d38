/* What a card can do at most: kernels that do nothing but copy, or nothing but multiply. bench/card_limits.c times
 * them. */
#ifndef WARD_CUDA_MEASURE_CUH
#define WARD_CUDA_MEASURE_CUH

#include "cuda/kernels/device.cuh"

/* n 16-byte words, as many blocks as are launched. Each thread has four loads under way, and each load of a warp is 512
 * bytes in a row. */
extern "C" __global__ void __launch_bounds__(MEASURE_THREADS) measure_copy(uint4 *to, const uint4 *from, size_t n)
{
    enum { UNDER_WAY = 4 };
    const size_t piece = (size_t)UNDER_WAY * blockDim.x;
    for (size_t at = blockIdx.x * piece + threadIdx.x; at < n; at += gridDim.x * piece) {
        uint4 words[UNDER_WAY];
#pragma unroll
        for (int i = 0; i < UNDER_WAY; i++)
            if (at + i * blockDim.x < n)
                words[i] = from[at + i * blockDim.x];
#pragma unroll
        for (int i = 0; i < UNDER_WAY; i++)
            if (at + i * blockDim.x < n)
                to[at + i * blockDim.x] = words[i];
    }
}

/* Bits as those of weights, +-0.5 to +-2: zeros would be multiplied with less power, and so at a higher clock, than any
 * model. */
__device__ inline uint32_t measure_pair(uint32_t seed)
{
    seed = (seed ^ seed >> 16) * 0x7feb352du;
    seed = (seed ^ seed >> 15) * 0x846ca68bu;
    return ((seed ^ seed >> 16) & 0x80ff80ffu) | 0x3f003f00u;
}

/* Products of bf16 on registers alone, each warp MEASURE_SUMS independent ones of 16 x 8 x 16 a turn: on tensor cores
 * mma.sync, the instruction of ward's own kernels. */
extern "C" __global__ void __launch_bounds__(MEASURE_THREADS) measure_multiply(float *out, int turns)
{
    const uint32_t thread = blockIdx.x * blockDim.x + threadIdx.x;
    float sums[MEASURE_SUMS][4];
    uint32_t a[2][4], b[MEASURE_SUMS / 2][2];
#pragma unroll
    for (int i = 0; i < 8; i++)
        a[i / 4][i % 4] = measure_pair(64 * thread + i);
#pragma unroll
    for (int i = 0; i < MEASURE_SUMS; i++) {
        b[i / 2][i % 2] = measure_pair(64 * thread + 8 + i);
        sums[i][0] = sums[i][1] = sums[i][2] = sums[i][3] = 0;
    }
#pragma unroll 1
    for (int turn = 0; turn < turns; turn++)
#pragma unroll
        for (int i = 0; i < MEASURE_SUMS; i++)
            multiply_bf16(sums[i], a[i % 2], b[i / 2][0], b[i / 2][1]);
    float sum = 0;
#pragma unroll
    for (int i = 0; i < MEASURE_SUMS; i++)
        sum += sums[i][0] + sums[i][1] + sums[i][2] + sums[i][3];
    out[thread] = sum; /* so that nothing can be left out */
}

#endif
