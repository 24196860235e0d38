/* Up to VECTOR_ROWS rows of x times a matrix: every weight is read once, at the speed of memory. A warp takes
 * VECTOR_OUTPUTS rows of the weights, a lane every 32nd piece of them; each row of x gives the same bits as alone.
 *
 * Of quantized weights x comes as int8, each unit with a scale of its own (quantize_rows): four products an
 * instruction. Of floats it stays float32. */
#ifndef WARD_CUDA_VECTOR_CUH
#define WARD_CUDA_VECTOR_CUH

#include "cuda/kernels/formats.cuh"

/* The map of a launch that this block works for. */
__device__ inline int this_map(const card_maps &maps)
{
    int i = 0;
    while (i + 1 < maps.n && (int)blockIdx.x >= maps.map[i + 1].first_block)
        i++;
    return i;
}

/* The first row of the weights that this warp takes. */
__device__ inline int this_output(const card_map &map)
{
    const int warp = ((int)blockIdx.x - map.first_block) * (VECTOR_THREADS / 32) + (int)threadIdx.x / 32;
    return warp * VECTOR_OUTPUTS;
}

/* The beginning of a row of a plane, by VECTOR_LANES lanes. */
enum { VECTOR_LANES = 32 / VECTOR_OUTPUTS };
__device__ inline void prefetch_row(const uint8_t *plane, int row, int row_bytes)
{
    const int at = (int)threadIdx.x % VECTOR_LANES * 128;
    if (at < row_bytes)
        prefetch(plane + (size_t)row * (size_t)row_bytes + at);
}

/* The first 2 KB of each row that this warp reads, on their way to the card's cache while the kernel before this one
 * ends: nobody writes weights. For blocks that come later that one has ended, as for all on older cards. */
template <int FORMAT> __device__ inline void prefetch_weights(const card_maps &maps)
{
#if __CUDA_ARCH__ >= 900 || defined(WARD_EMULATED)
    enum { BLOCKS_AT_ONCE = 16 };
    enum { LOW = card_planes[FORMAT].low, HIGH = card_planes[FORMAT].high, SCALE = card_planes[FORMAT].scale };
    enum { PER_SCALE = card_planes[FORMAT].per_scale };
    enum { SUPER = card_planes[FORMAT].super, PER_SUPER = card_planes[FORMAT].per_super };
    if ((int)blockIdx.x >= BLOCKS_AT_ONCE * multiprocessors())
        return;
    const card_map &map = maps.map[this_map(maps)];
    const card_matrix &w = map.w;
    const int row = this_output(map) + (int)threadIdx.x % 32 / VECTOR_LANES;
    if (row >= w.rows)
        return;
    prefetch_row(w.low, row, w.units * LOW);
    if (HIGH > 0)
        prefetch_row(w.high, row, w.units * HIGH);
    if (SCALE > 0)
        prefetch_row(w.scale, row, w.units / PER_SCALE * SCALE);
    if (SUPER > 0)
        prefetch_row(w.super, row, w.units / PER_SUPER * SUPER);
#else
    (void)maps;
#endif
}

/* Sums of the warp's lanes to the output. */
template <int N>
__device__ inline void put_sums(const card_map &map, float (&sums)[VECTOR_OUTPUTS][N], int first, int rows)
{
#pragma unroll
    for (int o = 0; o < VECTOR_OUTPUTS; o++)
#pragma unroll
        for (int r = 0; r < N; r++) {
            const float sum = warp_sum(sums[o][r]);
            if (threadIdx.x % 32 == 0 && r < rows && first + o < map.w.rows)
                map.out[(size_t)r * (size_t)map.w.rows + (size_t)(first + o)] =
                    sum + (map.bias ? map.bias[first + o] : 0);
        }
}

template <class Format, int N>
__device__ inline void vector_bytes(const card_maps &maps, const int4 *q, const float2 *scales, int rows)
{
    const card_map &map = maps.map[this_map(maps)];
    const card_matrix &w = map.w;
    const int first = this_output(map), last = w.rows - 1;
    if (first > last)
        return;
    float sums[VECTOR_OUTPUTS][N] = {};
#pragma unroll 2
    for (int unit = (int)threadIdx.x % 32; unit < w.units; unit += 32) {
        Format f[VECTOR_OUTPUTS];
#pragma unroll
        for (int o = 0; o < VECTOR_OUTPUTS; o++)
            f[o].load(w, first + o < last ? first + o : last, unit);
        bytes_unit u[VECTOR_OUTPUTS];
#pragma unroll
        for (int o = 0; o < VECTOR_OUTPUTS; o++)
            u[o] = f[o].bytes(unit);
#pragma unroll
        for (int r = 0; r < N; r++) {
            if (r >= rows)
                break;
            const int4 xq = q[(size_t)r * (size_t)w.units + (size_t)unit];
            const float2 xs = scales[(size_t)r * (size_t)w.units + (size_t)unit];
#pragma unroll
            for (int o = 0; o < VECTOR_OUTPUTS; o++) {
                int dot = __dp4a(u[o].q[0], xq.x, 0);
                dot = __dp4a(u[o].q[1], xq.y, dot);
                dot = __dp4a(u[o].q[2], xq.z, dot);
                dot = __dp4a(u[o].q[3], xq.w, dot);
                sums[o][r] += u[o].d * xs.x * (float)dot + u[o].m * xs.y;
            }
        }
    }
    put_sums(map, sums, first, rows);
}

/* Floats go by 16 bytes, which a lane loads at once: VALUES weights. */
template <class Format> struct piece;

template <> struct piece<format_f32> {
    enum { VALUES = 4 };
    static __device__ void values(float out[VALUES], const void *at)
    {
        const float4 f = *(const float4 *)at;
        out[0] = f.x, out[1] = f.y, out[2] = f.z, out[3] = f.w;
    }
};

template <> struct piece<format_f16> {
    enum { VALUES = 8 };
    static __device__ void values(float out[VALUES], const void *at)
    {
        const uint4 p = *(const uint4 *)at;
        const uint32_t pairs[4] = {p.x, p.y, p.z, p.w};
#pragma unroll
        for (int i = 0; i < 8; i++)
            out[i] = half_to_float((uint16_t)(pairs[i / 2] >> 16 * (i % 2)));
    }
};

template <> struct piece<format_bf16> {
    enum { VALUES = 8 };
    static __device__ void values(float out[VALUES], const void *at)
    {
        const uint4 p = *(const uint4 *)at;
        const uint32_t pairs[4] = {p.x, p.y, p.z, p.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            out[2 * i] = __uint_as_float(pairs[i] << 16);
            out[2 * i + 1] = __uint_as_float(pairs[i] & 0xffff0000);
        }
    }
};

/* Values of x; where rows are no multiple of 16 bytes, or end within the piece, one by one. */
template <int VALUES> __device__ inline void x_values(float out[VALUES], const float *x, int at, int cols, bool aligned)
{
    if (aligned && at + VALUES <= cols) {
#pragma unroll
        for (int i = 0; i < VALUES; i += 4) {
            const float4 f = *(const float4 *)(x + at + i);
            out[i] = f.x, out[i + 1] = f.y, out[i + 2] = f.z, out[i + 3] = f.w;
        }
    } else {
#pragma unroll
        for (int i = 0; i < VALUES; i++)
            out[i] = at + i < cols ? x[at + i] : 0;
    }
}

template <class Format, int N> __device__ inline void vector_floats(const card_maps &maps, const float *x, int rows)
{
    enum { VALUES = piece<Format>::VALUES };
    const card_map &map = maps.map[this_map(maps)];
    const card_matrix &w = map.w;
    const int first = this_output(map), last = w.rows - 1;
    if (first > last)
        return;
    const int pieces = w.units * (UNIT / VALUES);
    const bool aligned = w.cols % 4 == 0;
    float sums[VECTOR_OUTPUTS][N] = {};
#pragma unroll 2
    for (int at = (int)threadIdx.x % 32; at < pieces; at += 32) {
        float v[VECTOR_OUTPUTS][VALUES];
#pragma unroll
        for (int o = 0; o < VECTOR_OUTPUTS; o++) {
            const size_t row = (size_t)(first + o < last ? first + o : last);
            piece<Format>::values(v[o], w.low + (row * (size_t)pieces + (size_t)at) * 16);
        }
#pragma unroll
        for (int r = 0; r < N; r++) {
            if (r >= rows)
                break;
            float xv[VALUES];
            x_values<VALUES>(xv, x + (size_t)r * (size_t)w.cols, at * VALUES, w.cols, aligned);
#pragma unroll
            for (int o = 0; o < VECTOR_OUTPUTS; o++)
#pragma unroll
                for (int i = 0; i < VALUES; i++)
                    sums[o][r] += v[o][i] * xv[i];
        }
    }
    put_sums(map, sums, first, rows);
}

/* vector_FORMAT_N for N = 1, 2, 4, 8 rows of x at most */
#define VECTOR_BYTES(format, FORMAT, N)                                                                                \
    extern "C" __global__ void __launch_bounds__(VECTOR_THREADS)                                                       \
        vector_##format##_##N(card_maps maps, const void *q, const void *scales, int rows)                             \
    {                                                                                                                  \
        prefetch_weights<FORMAT>(maps);                                                                                \
        wait_for_previous();                                                                                           \
        vector_bytes<format_##format, N>(maps, (const int4 *)q, (const float2 *)scales, rows);                         \
    }
#define VECTOR_FLOATS(format, FORMAT, N)                                                                               \
    extern "C" __global__ void __launch_bounds__(VECTOR_THREADS)                                                       \
        vector_##format##_##N(card_maps maps, const void *x, const void *unused, int rows)                             \
    {                                                                                                                  \
        prefetch_weights<FORMAT>(maps);                                                                                \
        wait_for_previous();                                                                                           \
        (void)unused;                                                                                                  \
        vector_floats<format_##format, N>(maps, (const float *)x, rows);                                               \
    }
#define VECTOR_NUMBERS(KIND, format, FORMAT)                                                                           \
    KIND(format, FORMAT, 1) KIND(format, FORMAT, 2) KIND(format, FORMAT, 4) KIND(format, FORMAT, 8)
VECTOR_NUMBERS(VECTOR_FLOATS, f32, CARD_F32)
VECTOR_NUMBERS(VECTOR_FLOATS, f16, CARD_F16)
VECTOR_NUMBERS(VECTOR_FLOATS, bf16, CARD_BF16)
VECTOR_NUMBERS(VECTOR_BYTES, q8, CARD_Q8)
VECTOR_NUMBERS(VECTOR_BYTES, q8m, CARD_Q8M)
VECTOR_NUMBERS(VECTOR_BYTES, q4, CARD_Q4)
VECTOR_NUMBERS(VECTOR_BYTES, q4k, CARD_Q4K)
VECTOR_NUMBERS(VECTOR_BYTES, q5k, CARD_Q5K)
VECTOR_NUMBERS(VECTOR_BYTES, q6k, CARD_Q6K)

#endif
