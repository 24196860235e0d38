/* What a card can do at most: kernels that do nothing but copy, or nothing but multiply. bench/card_limits.c times
 * them. */
#ifndef WARD_CUDA_MEASURE_CUH
#define WARD_CUDA_MEASURE_CUH

#include "cuda/kernels/device.cuh"

/* n 16-byte words, as many blocks as are launched. Each thread has four loads under way, and each load of a warp is 512
 * bytes in a row. */
extern "C" __global__ void __launch_bounds__(MEASURE_THREADS) measure_copy(uint4 *to, const uint4 *from, size_t n)
{
    wait_for_previous();
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
    wait_for_previous();
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

#ifdef __CUDA_ARCH_FEAT_SM90_ALL /* sm_90a */

/* A matrix in shared memory for wgmma, its inner 16 values a row, as blocks of 8 rows of 16 bytes, each 128 bytes in a
 * row of addresses: two of them side by side, 8 rows below after 256 bytes (PTX ISA, "Matrix Descriptor"; no swizzle).
 */
__device__ inline uint64_t measure_descriptor(const void *matrix)
{
    return (shared_address(matrix) & 0x3ffff) >> 4 | (uint64_t)(128 >> 4) << 16 | (uint64_t)(256 >> 4) << 32;
}

#define SUMS_4(i) "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3])
#define SUMS_16(i) SUMS_4(i), SUMS_4(i + 4), SUMS_4(i + 8), SUMS_4(i + 12)
/* c [64][256], of a warpgroup's 128 threads, += a [64][16] b [256][16]^T; done when its group is waited for. */
__device__ inline void measure_group_multiply(float (&c)[128], uint64_t a, uint64_t b)
{
    asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, 1, 0;\nwgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, "
                 "%8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, "
                 "%24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, "
                 "%40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, "
                 "%56, %57, %58, %59, %60, %61, %62, %63, "
                 "%64, %65, %66, %67, %68, %69, %70, %71, "
                 "%72, %73, %74, %75, %76, %77, %78, %79, "
                 "%80, %81, %82, %83, %84, %85, %86, %87, "
                 "%88, %89, %90, %91, %92, %93, %94, %95, "
                 "%96, %97, %98, %99, %100, %101, %102, %103, "
                 "%104, %105, %106, %107, %108, %109, %110, %111, "
                 "%112, %113, %114, %115, %116, %117, %118, %119, "
                 "%120, %121, %122, %123, %124, %125, %126, %127"
                 "}, %128, %129, add, 1, 1, 0, 0;\n}"
                 : SUMS_16(0), SUMS_16(16), SUMS_16(32), SUMS_16(48), SUMS_16(64), SUMS_16(80), SUMS_16(96),
                   SUMS_16(112)
                 : "l"(a), "l"(b));
}
#undef SUMS_4
#undef SUMS_16

#endif

/* The same by wgmma, which reads both factors from shared memory, each warpgroup MEASURE_GROUP_PRODUCTS of 64 x 256 x
 * 16 a turn into one sum, as ward's products of many rows. Zeros where the card has no such instruction. */
extern "C" __global__ void __launch_bounds__(MEASURE_THREADS) measure_group(float *out, int turns)
{
    wait_for_previous();
    const uint32_t thread = blockIdx.x * blockDim.x + threadIdx.x;
    float sum = 0;
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    enum { A_WORDS = 64 * 16 / 2, B_WORDS = 256 * 16 / 2 };
    __shared__ __align__(128) uint32_t a[A_WORDS], b[B_WORDS];
    for (int i = threadIdx.x; i < A_WORDS; i += blockDim.x)
        a[i] = measure_pair(i);
    for (int i = threadIdx.x; i < B_WORDS; i += blockDim.x)
        b[i] = measure_pair(A_WORDS + i);
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    __syncthreads();
    float c[128];
#pragma unroll
    for (int i = 0; i < 128; i++)
        c[i] = 0;
#pragma unroll 1
    for (int turn = 0; turn < turns; turn++) {
        asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
        for (int i = 0; i < MEASURE_GROUP_PRODUCTS; i++)
            measure_group_multiply(c, measure_descriptor(a), measure_descriptor(b));
        asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
        asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
    }
#pragma unroll
    for (int i = 0; i < 128; i++)
        sum += c[i];
#endif
    (void)turns;
    out[thread] = sum;
}

#endif
