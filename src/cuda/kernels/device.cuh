/* What the kernels ask of the hardware beyond CUDA C++: conversions, tensor cores, copies to shared memory. Where a
 * card lacks an instruction (sm_75: bf16 on tensor cores, asynchronous copies) the same is done by others.
 * tests/cuda/emulated.h has all of it for the processor. */
#ifndef WARD_CUDA_DEVICE_CUH
#define WARD_CUDA_DEVICE_CUH

#include "cuda/layout.h"

#ifndef WARD_EMULATED

/* The memory that a block shares, as much as its launch asked for. */
#define BLOCK_MEMORY(type, name) extern __shared__ __align__(16) type name[]

/* The first thing of every kernel, in every thread: until the kernel before this one is complete and what it wrote can
 * be seen (PTX ISA, "griddepcontrol"), since card.c launches kernels before that. A kernel is complete when its threads
 * are, all of which have waited: so all kernels before it are complete, too. The next kernel's blocks may take their
 * places as soon as those of this one have theirs.
 *
 * Before it a kernel touches no memory, unless by prefetch(): what is read may be what the kernel before writes. */
__device__ inline void wait_for_previous()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/* Asks for the 128 bytes around `at` to come into the card's cache; nothing is read, nobody waits. */
__device__ inline void prefetch(const void *at)
{
    asm volatile("prefetch.global.L2 [%0];" ::"l"(at));
}

__device__ inline int multiprocessors()
{
    int n;
    asm("mov.u32 %0, %%nsmid;" : "=r"(n));
    return n;
}

__device__ inline float half_to_float(uint16_t h)
{
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
    return f;
}

__device__ inline uint16_t float_to_half_bits(float f)
{
    uint16_t h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
    return h;
}

__device__ inline float bf16_to_float(uint16_t h)
{
    return __uint_as_float((uint32_t)h << 16);
}

__device__ inline uint32_t shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* Four 8 x 8 matrices of 16 bits. Lane l gives the address of row l % 8 of matrix l / 8 and gets, of matrix i in r[i],
 * the values 2 (l % 4) and the next of row l / 4. */
__device__ inline void load_matrices(uint32_t r[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

/* The same of the transposed matrices. */
__device__ inline void load_matrices_transposed(uint32_t r[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

/* The same address, but no longer known as a sum that every use of it would add up again. */
__device__ inline const uint16_t *as_number(const uint16_t *p)
{
    asm("" : "+l"(p));
    return p;
}

/* 2^x to 22 bits; results below float32's normal numbers are 0. */
__device__ inline float power_of_two(float x)
{
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
    return power;
}

/* As multiply_half below, of the first 8 columns of a: a[0] row g, a[1] row g + 8. */
__device__ inline void multiply_half_8(float c[4], const uint32_t a[2], uint32_t b)
{
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(b));
}

#if __CUDA_ARCH__ >= 800

/* 16 bytes to shared memory, zeros unless `valid`; done when the group is waited for. */
__device__ inline void copy_async(void *shared, const void *global, bool valid)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
                 "r"(valid ? 16 : 0)
                 : "memory");
}

__device__ inline void copy_group()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Until at most `left` of the latest groups are under way. */
template <int left> __device__ inline void copy_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(left) : "memory");
}

__device__ inline uint32_t pack_bf16(float low, float high)
{
    uint32_t packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}

__device__ inline uint32_t pack_half(float low, float high)
{
    uint32_t packed;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}

/* c [16][8] += a [16][16] b [8][16]^T. With g = lane / 4, t = lane % 4: a[0] row g, columns 2t and 2t + 1; a[1] row g +
 * 8; a[2] row g, columns 2t + 8, ...; a[3] both. b[0] row g, columns 2t and 2t + 1; b[1] columns 2t + 8, ... c[0], c[1]
 * row g, columns 2t and 2t + 1; c[2], c[3] row g + 8. */
__device__ inline void multiply_bf16(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ inline void multiply_half(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

#else
#define WARD_CUDA_WITHOUT_TENSOR_CORES
#endif

#endif /* WARD_EMULATED */

#ifdef WARD_CUDA_WITHOUT_TENSOR_CORES

__device__ inline void copy_async(void *shared, const void *global, bool valid)
{
    *(uint4 *)shared = valid ? *(const uint4 *)global : make_uint4(0, 0, 0, 0);
}

__device__ inline void copy_group()
{
}

template <int left> __device__ inline void copy_wait()
{
}

/* To nearest, ties to even; what is no number stays none. */
__device__ inline uint32_t round_bf16(float f)
{
    const uint32_t bits = __float_as_uint(f);
    return f != f ? 0x7fc0 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

__device__ inline uint32_t pack_bf16(float low, float high)
{
    return round_bf16(low) | round_bf16(high) << 16;
}

__device__ inline uint32_t pack_half(float low, float high)
{
    return float_to_half_bits(low) | (uint32_t)float_to_half_bits(high) << 16;
}

/* multiply_bf16 by shuffles: the lanes of a's rows g and g + 8 are 4g to 4g + 3, those of b's row r are 4r to 4r + 3. A
 * function of its own, not a copy in every place: correct is enough where there are no tensor cores for it. */
__device__ __noinline__ void multiply_bf16(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const auto product = [](uint32_t x, uint32_t y) {
        return bf16_to_float((uint16_t)x) * bf16_to_float((uint16_t)y) +
               bf16_to_float((uint16_t)(x >> 16)) * bf16_to_float((uint16_t)(y >> 16));
    };
#pragma unroll 1
    for (int half = 0; half < 2; half++)
#pragma unroll 1
        for (int from = 0; from < 4; from++) {
            const uint32_t upper = __shfl_sync(0xffffffff, half ? a[2] : a[0], 4 * g + from);
            const uint32_t lower = __shfl_sync(0xffffffff, half ? a[3] : a[1], 4 * g + from);
            const uint32_t left = __shfl_sync(0xffffffff, half ? b1 : b0, 8 * t + from);
            const uint32_t right = __shfl_sync(0xffffffff, half ? b1 : b0, 8 * t + 4 + from);
            c[0] += product(upper, left);
            c[1] += product(upper, right);
            c[2] += product(lower, left);
            c[3] += product(lower, right);
        }
}

/* Half as deep: what these cards' tensor cores know. */
__device__ inline void multiply_half(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
    multiply_half_8(c, a, b0);
    multiply_half_8(c, a + 2, b1);
}

#endif

/* What a pair leaves of its values, in bf16 again. */
__device__ inline uint32_t rest_of(uint32_t pair, float low, float high)
{
    return pack_bf16(low - bf16_to_float((uint16_t)pair), high - bf16_to_float((uint16_t)(pair >> 16)));
}

/* float16 as far as it reaches: nothing becomes infinite. */
__device__ inline uint16_t float_to_half(float f)
{
    return float_to_half_bits(fminf(fmaxf(f, -65504.0f), 65504.0f));
}

template <class T> __device__ inline T warp_sum(T x)
{
    for (int step = 16; step; step /= 2)
        x += __shfl_xor_sync(0xffffffff, x, step);
    return x;
}

__device__ inline float warp_max(float x)
{
    for (int step = 16; step; step /= 2)
        x = fmaxf(x, __shfl_xor_sync(0xffffffff, x, step));
    return x;
}

__device__ inline int warp_least(int x)
{
    for (int step = 16; step; step /= 2) {
        const int other = __shfl_xor_sync(0xffffffff, x, step);
        x = other < x ? other : x;
    }
    return x;
}

/* Of all threads of the block, to all; `shared` has room for 32. */
template <class T> __device__ inline T block_sum(T x, T *shared)
{
    x = warp_sum(x);
    __syncthreads(); /* the last sum has been read */
    if (threadIdx.x % 32 == 0)
        shared[threadIdx.x / 32] = x;
    __syncthreads();
    T sum = 0;
    for (int warp = 0; warp < (int)blockDim.x / 32; warp++)
        sum += shared[warp];
    return sum;
}

#endif
