/* What becomes of the sums of a matrix product of many rows. */
#ifndef WARD_CUDA_EPILOGUE_CUH
#define WARD_CUDA_EPILOGUE_CUH

#include "cuda/kernels/device.cuh"

/* Sums a and b of the outputs `output`, which is even, and the next, as far as the map has them, of a row that exists.
 * Tiles reach beyond the last output: sums there are 0. */
__device__ inline void put_pair(const card_map &map, int row, int output, float a, float b)
{
    const int outputs = map.w.rows;
    if (output >= outputs)
        return;
    float *out = map.out + (size_t)row * (size_t)outputs + (size_t)output;
    a += map.bias ? map.bias[output] : 0;
    if (output + 1 == outputs) {
        out[0] = a;
        return;
    }
    b += map.bias ? map.bias[output + 1] : 0;
    if (outputs % 2 == 0) {
        *(float2 *)out = make_float2(a, b);
    } else {
        out[0] = a;
        out[1] = b;
    }
}

#endif
