/* CUDA C++ as far as ward's kernels use it, for the processor: included before src/cuda/kernels/kernels.cu, which g++
 * then compiles as it stands. The threads of a block are fibers that run until they wait for one another, in an order
 * that WARD_EMULATED_ORDER chooses: a kernel whose result depends on it lacks a wait. What the hardware does for a warp
 * (shuffles, tensor cores, matrix loads) is done here after NVIDIA's description of it (PTX ISA, "Matrix Fragments for
 * mma.m16n8k16", "ldmatrix"). */
#ifndef WARD_TESTS_CUDA_EMULATED_H
#define WARD_TESTS_CUDA_EMULATED_H

#define WARD_EMULATED

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/half.h"

#define __global__
#define __device__
#define __shared__ static
#define __launch_bounds__(...)
#define __noinline__ __attribute__((noinline))

/* ---- the machine (machine.cpp) ----------------------------------------------------------------------------------- */

struct emulated_index {
    unsigned x, y, z;
};
extern emulated_index threadIdx, blockIdx, blockDim, gridDim;

void emulated_wait_previous();
void emulated_wait_block();
void emulated_prefetch(const void *at);
void emulated_wait_warp();
void *emulated_block_memory();
/* What each lane hands over, `bytes` of it; returns those of all 32 lanes, which stay until the call after the next. */
const void *emulated_exchange(const void *mine, size_t bytes);
enum { EMULATED_SLOT = 64 };
/* Room for what all lanes make of their last exchange together, and whether the caller is the first to come and makes
 * it. */
enum { EMULATED_RESULT = 512 };
void *emulated_result(bool *first);
/* 16 bytes (NULL: zeros) that arrive when this thread waits for their group, and not before. */
void emulated_copy(void *to, const void *from);
void emulated_copy_group();
void emulated_copy_wait(size_t groups_left);

/* Hopper's asynchronous products: see wgmma.cuh. sums [pairs][4]. */
void emulated_publish();
void emulated_wgmma_begin();
void emulated_wgmma(float *sums, int pairs, uint64_t a, uint64_t b);
void emulated_wgmma_group();
void emulated_wgmma_wait(size_t groups_left);
/* A place in the memory of the block, as the card numbers it. */
uint32_t shared_address(const void *p);

#define BLOCK_MEMORY(type, name) type *const name = (type *)emulated_block_memory()

static inline void wait_for_previous()
{
    emulated_wait_previous();
}

static inline void prefetch(const void *at)
{
    emulated_prefetch(at);
}

static inline int multiprocessors()
{
    return 4;
}

static inline void __syncthreads()
{
    emulated_wait_block();
}

static inline void __syncwarp()
{
    emulated_wait_warp();
}

template <class T> static inline T emulated_from_lane(T x, unsigned lane)
{
    const char *all = (const char *)emulated_exchange(&x, sizeof x);
    T out;
    memcpy(&out, all + lane % 32 * EMULATED_SLOT, sizeof out);
    return out;
}

template <class T> static inline T __shfl_xor_sync(unsigned, T x, int step)
{
    return emulated_from_lane(x, threadIdx.x % 32 ^ (unsigned)step);
}

template <class T> static inline T __shfl_sync(unsigned, T x, int lane)
{
    return emulated_from_lane(x, (unsigned)lane);
}

/* Blocks run one after the other. */
static inline void __threadfence()
{
}

static inline unsigned atomicInc(unsigned *at, unsigned most)
{
    const unsigned old = *at;
    *at = old >= most ? 0 : old + 1;
    return old;
}

template <class T> static inline T __ldcg(const T *at)
{
    return *at;
}

/* ---- vectors and bits -------------------------------------------------------------------------------------------- */

struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(16) int4 {
    int x, y, z, w;
};

static inline float2 make_float2(float x, float y)
{
    return {x, y};
}

static inline float4 make_float4(float x, float y, float z, float w)
{
    return {x, y, z, w};
}

static inline uint2 make_uint2(unsigned x, unsigned y)
{
    return {x, y};
}

static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w)
{
    return {x, y, z, w};
}

static inline int4 make_int4(int x, int y, int z, int w)
{
    return {x, y, z, w};
}

static inline float __uint_as_float(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline uint32_t __float_as_uint(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

/* Byte i is byte `selector >> 4 i & 7` of the eight of x and y. */
static inline uint32_t __byte_perm(uint32_t x, uint32_t y, uint32_t selector)
{
    const uint64_t bytes = x | (uint64_t)y << 32;
    uint32_t out = 0;
    for (unsigned i = 0; i < 4; i++)
        out |= (uint32_t)(bytes >> 8 * (selector >> 4 * i & 7) & 255) << 8 * i;
    return out;
}

/* One thread runs at a time. */
static inline int atomicAdd(int *at, int x)
{
    const int old = *at;
    *at += x;
    return old;
}

static inline int atomicMin(int *at, int x)
{
    const int old = *at;
    *at = x < old ? x : old;
    return old;
}

#define __expf expf /* the C library has a name like that */

static inline float __fdividef(float x, float y)
{
    return x / y;
}

static inline int __dp4a(int a, int b, int c)
{
    for (int i = 0; i < 32; i += 8)
        c += (int)(int8_t)((uint32_t)a >> i) * (int)(int8_t)((uint32_t)b >> i);
    return c;
}

static inline float half_to_float(uint16_t h)
{
    return f16_to_float(h);
}

static inline uint16_t float_to_half_bits(float f)
{
    return f16_from_float(f);
}

static inline const uint16_t *as_number(const uint16_t *p)
{
    return p;
}

static inline float power_of_two(float x)
{
    return exp2f(x);
}

/* ---- what a warp does together ----------------------------------------------------------------------------------- */

static inline void load_matrices(uint32_t r[4], const void *row)
{
    const char *all = (const char *)emulated_exchange(&row, sizeof row);
    const unsigned lane = threadIdx.x % 32;
    for (unsigned i = 0; i < 4; i++) {
        const uint32_t *from;
        memcpy(&from, all + (8 * i + lane / 4) * EMULATED_SLOT, sizeof from);
        r[i] = from[lane % 4];
    }
}

static inline void load_matrices_transposed(uint32_t r[4], const void *row)
{
    const char *all = (const char *)emulated_exchange(&row, sizeof row);
    const unsigned lane = threadIdx.x % 32;
    for (unsigned i = 0; i < 4; i++) {
        const uint16_t *from[2];
        for (unsigned j = 0; j < 2; j++)
            memcpy(&from[j], all + (8 * i + 2 * (lane % 4) + j) * EMULATED_SLOT, sizeof from[j]);
        r[i] = from[0][lane / 4] | (uint32_t)from[1][lane / 4] << 16;
    }
}

struct emulated_fragments {
    uint32_t a[4], b[2];
};

/* out [16][8] = a b of all lanes, made once for the warp. With g = lane / 4, t = lane % 4: a[i] row g + 8 (i % 2),
 * columns 2t + 8 (i / 2) and the next; b[i] column g of the product, 2t + 8 i and the next. */
template <float (*widen)(uint16_t)> static inline void emulated_product(float out[16][8], const char *all)
{
    float a[16][16], b[16][8];
    for (unsigned lane = 0; lane < 32; lane++) {
        const emulated_fragments *f = (const emulated_fragments *)(all + lane * EMULATED_SLOT);
        const unsigned g = lane / 4, t = lane % 4;
        for (unsigned i = 0; i < 4; i++) {
            a[g + 8 * (i % 2)][2 * t + 8 * (i / 2)] = widen((uint16_t)f->a[i]);
            a[g + 8 * (i % 2)][2 * t + 8 * (i / 2) + 1] = widen((uint16_t)(f->a[i] >> 16));
        }
        for (unsigned i = 0; i < 2; i++) {
            b[2 * t + 8 * i][g] = widen((uint16_t)f->b[i]);
            b[2 * t + 8 * i + 1][g] = widen((uint16_t)(f->b[i] >> 16));
        }
    }
    memset(out, 0, 16 * sizeof out[0]);
    for (unsigned row = 0; row < 16; row++)
        for (unsigned k = 0; k < 16; k++)
            for (unsigned column = 0; column < 8; column++)
                out[row][column] += a[row][k] * b[k][column];
}

template <float (*widen)(uint16_t)>
static inline void emulated_multiply(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
    const emulated_fragments mine = {{a[0], a[1], a[2], a[3]}, {b0, b1}};
    const char *all = (const char *)emulated_exchange(&mine, sizeof mine);
    bool first;
    float(*const product)[8] = (float(*)[8])emulated_result(&first);
    static_assert(EMULATED_RESULT >= 16 * sizeof product[0], "a warp's product");
    if (first)
        emulated_product<widen>(product, all);
    const unsigned g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    for (unsigned i = 0; i < 4; i++) /* c[0], c[1] of row g, c[2], c[3] of row g + 8; columns 2t, 2t + 1 */
        c[i] += product[g + 8 * (i / 2)][2 * t + i % 2];
}

static inline void multiply_half_8(float c[4], const uint32_t a[2], uint32_t b)
{
    const uint32_t whole[4] = {a[0], a[1], 0, 0};
    emulated_multiply<f16_to_float>(c, whole, b, 0);
}

#ifdef WARD_EMULATED_OLD /* an older card: device.cuh's own ways */
#define WARD_CUDA_WITHOUT_TENSOR_CORES
#else

static inline void copy_async(void *shared, const void *global, bool valid)
{
    emulated_copy(shared, valid ? global : nullptr);
}

static inline void copy_group()
{
    emulated_copy_group();
}

template <int left> static inline void copy_wait()
{
    emulated_copy_wait(left);
}

static inline uint32_t pack_bf16(float low, float high)
{
    return bf16_from_float(low) | (uint32_t)bf16_from_float(high) << 16;
}

static inline uint32_t pack_half(float low, float high)
{
    return f16_from_float(low) | (uint32_t)f16_from_float(high) << 16;
}

static inline void multiply_bf16(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
    emulated_multiply<bf16_to_float>(c, a, b0, b1);
}

static inline void multiply_half(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
    emulated_multiply<f16_to_float>(c, a, b0, b1);
}

static inline void publish_shared()
{
    emulated_publish();
}

static inline void wgmma_begin()
{
    emulated_wgmma_begin();
}

static inline void wgmma_group()
{
    emulated_wgmma_group();
}

template <int left> static inline void wgmma_wait()
{
    emulated_wgmma_wait(left);
}

template <int N> static inline void keep_sums(float (&)[2][N][4])
{
}

template <int N> static inline void wgmma_multiply(float (&sums)[N][4], uint64_t a, uint64_t b)
{
    emulated_wgmma(sums[0], N, a, b);
}
#endif

#endif
