/* Many rows of x times a matrix, on tensor cores: x and the weights in bf16, sums in float32. Quantized weights become
 * bf16 on their way to shared memory. Where more than bf16 is asked for, x is two parts (16 of a float's 24 bits), and
 * weights of more bits than bf16 are two parts as well; the products of both small parts are left out. */
#ifndef WARD_CUDA_MATRIX_CUH
#define WARD_CUDA_MATRIX_CUH

#include "cuda/kernels/formats.cuh"

/* x [rows][cols] as bf16 [rows][parts][16 units]: the value and, with two parts, what it left. A thread for a pair of
 * values: grid (pairs / ROW_THREADS, rows). */
extern "C" __global__ void pack_rows(uint32_t *out, const float *x, int cols, int units, int parts)
{
    const int pair = (int)(blockIdx.x * blockDim.x + threadIdx.x), pairs = units * (UNIT / 2), row = blockIdx.y;
    if (pair >= pairs)
        return;
    x += (size_t)row * (size_t)cols;
    out += (size_t)row * (size_t)parts * (size_t)pairs + (size_t)pair;
    const float a = 2 * pair < cols ? x[2 * pair] : 0, b = 2 * pair + 1 < cols ? x[2 * pair + 1] : 0;
    const uint32_t whole = pack_bf16(a, b);
    out[0] = whole;
    if (parts > 1)
        out[pairs] = pack_bf16(a - bf16_to_float((uint16_t)whole), b - bf16_to_float((uint16_t)(whole >> 16)));
}

/* A tile's step of x: rows first .. first + MATRIX_ROWS - 1, values from `value` on. */
__device__ inline void copy_x(uint16_t *to, const uint16_t *x, size_t row_values, int first, int rows, int value)
{
    enum { PIECES = MATRIX_DEPTH / 8 }; /* of 16 bytes in a row */
#pragma unroll
    for (int i = 0; i < MATRIX_ROWS * PIECES / MATRIX_THREADS; i++) {
        const int piece = i * MATRIX_THREADS + (int)threadIdx.x, row = piece / PIECES, at = piece % PIECES * 8;
        const bool valid = first + row < rows;
        const size_t from = (size_t)(valid ? first + row : 0) * row_values + (size_t)(value + at);
        copy_async(to + row * MATRIX_PITCH + at, x + from, valid);
    }
}

/* The unit of the weights that a thread brings to shared memory: MATRIX_OUTPUTS rows of 2 units for 256 threads. */
template <class Format> struct weight_step {
    enum { direct = 0 };
    Format f;
    bool valid;
    __device__ void load(const card_matrix &w, int first, int unit)
    {
        const int row = first + (int)threadIdx.x / 2;
        valid = row < w.rows;
        f.load(w, valid ? row : w.rows - 1, unit + (int)threadIdx.x % 2);
    }
    /* part 1: what bf16 leaves of the values */
    __device__ void put(uint16_t *to, int unit, int part) const
    {
        float v[UNIT];
        unit_values(v, f, unit + (int)threadIdx.x % 2);
        uint32_t pairs[UNIT / 2];
#pragma unroll
        for (int i = 0; i < UNIT / 2; i++) {
            pairs[i] = pack_bf16(v[2 * i], v[2 * i + 1]);
            if (part)
                pairs[i] = pack_bf16(v[2 * i] - bf16_to_float((uint16_t)pairs[i]),
                                     v[2 * i + 1] - bf16_to_float((uint16_t)(pairs[i] >> 16)));
            if (!valid)
                pairs[i] = 0;
        }
        uint4 *const at = (uint4 *)(to + (int)threadIdx.x / 2 * MATRIX_PITCH + (int)threadIdx.x % 2 * UNIT);
        at[0] = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
        at[1] = make_uint4(pairs[4], pairs[5], pairs[6], pairs[7]);
    }
};

/* bf16 needs no hands. */
template <> struct weight_step<format_bf16> {
    enum { direct = 1 };
    __device__ void load(const card_matrix &w, int first, int unit)
    {
        (void)w, (void)first, (void)unit;
    }
    __device__ void put(uint16_t *to, int unit, int part) const
    {
        (void)to, (void)unit, (void)part;
    }
};

__device__ inline void copy_bf16(uint16_t *to, const card_matrix &w, int first, int unit)
{
    const int row = (int)threadIdx.x / 2, half = (int)threadIdx.x % 2;
    const bool valid = first + row < w.rows;
    const uint16_t *from = (const uint16_t *)w.low + unit_at(w, valid ? first + row : 0, unit + half) * UNIT;
    uint16_t *at = to + row * MATRIX_PITCH + half * UNIT;
    copy_async(at, from, valid);
    copy_async(at + 8, from + 8, valid);
}

/* sums += a step of a tile: a warp takes 64 rows of x and 32 outputs. */
__device__ inline void multiply_step(float (&sums)[4][4][4], const uint16_t *x, const uint16_t *w)
{
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    x += warp / 4 * 64 * MATRIX_PITCH;
    w += warp % 4 * 32 * MATRIX_PITCH;
#pragma unroll
    for (int k = 0; k < MATRIX_DEPTH; k += 16) {
        uint32_t a[4][4], b[2][4];
#pragma unroll
        for (int m = 0; m < 4; m++) /* the four quarters of 16 x 16: rows 0-7, rows 8-15, then the right half of both */
            load_matrices(a[m], x + (16 * m + lane % 16) * MATRIX_PITCH + k + lane / 16 * 8);
#pragma unroll
        for (int n = 0; n < 2; n++) /* outputs 0-7 left and right, outputs 8-15 left and right */
            load_matrices(b[n], w + (16 * n + lane % 8 + lane / 16 * 8) * MATRIX_PITCH + k + lane / 8 % 2 * 8);
#pragma unroll
        for (int m = 0; m < 4; m++)
#pragma unroll
            for (int n = 0; n < 4; n++)
                multiply_bf16(sums[m][n], a[m], b[n / 2][n % 2 * 2], b[n / 2][n % 2 * 2 + 1]);
    }
}

__device__ inline void put_tile(const card_map &map, const float (&sums)[4][4][4], int first_row, int first_output,
                                int rows)
{
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, outputs = map.w.rows;
    first_row += warp / 4 * 64 + lane / 4;
    first_output += warp % 4 * 32 + lane % 4 * 2;
#pragma unroll
    for (int m = 0; m < 4; m++)
#pragma unroll
        for (int n = 0; n < 4; n++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int row = first_row + 16 * m + 8 * half, output = first_output + 8 * n;
                if (row >= rows || output >= outputs)
                    continue;
                float *out = map.out + (size_t)row * (size_t)outputs + (size_t)output;
                const float a = sums[m][n][2 * half] + (map.bias ? map.bias[output] : 0);
                if (output + 1 == outputs) {
                    out[0] = a;
                    continue;
                }
                const float b = sums[m][n][2 * half + 1] + (map.bias ? map.bias[output + 1] : 0);
                if (outputs % 2 == 0) {
                    *(float2 *)out = make_float2(a, b);
                } else {
                    out[0] = a;
                    out[1] = b;
                }
            }
}

/* A tile: grid (outputs / MATRIX_OUTPUTS, rows / MATRIX_ROWS). x [rows][x_parts][16 units]. The products: x whole, with
 * two parts also what is left of x and, of weights finer than bf16 (w_parts 2), what is left of those. */
template <class Format>
__device__ inline void matrix_tile(const card_map &map, const uint16_t *x, int rows, int x_parts, int w_parts)
{
    BLOCK_MEMORY(uint16_t, tiles);
    enum { STAGE = (MATRIX_ROWS + MATRIX_OUTPUTS) * MATRIX_PITCH };
    const card_matrix &w = map.w;
    const int first_output = (int)blockIdx.x * MATRIX_OUTPUTS, first_row = (int)blockIdx.y * MATRIX_ROWS;
    const int steps = w.units * UNIT / MATRIX_DEPTH, total = steps * (x_parts + w_parts - 1);
    const size_t row_values = (size_t)x_parts * (size_t)w.units * UNIT;
    weight_step<Format> weights;
    float sums[4][4][4] = {};

    /* Step i: its part of x and of the weights, its place in both. */
    const auto x_value = [&](int i) { return (i < x_parts * steps ? i : i - x_parts * steps) * MATRIX_DEPTH; };
    const auto unit = [&](int i) { return i % steps * (MATRIX_DEPTH / UNIT); };
    const auto start = [&](int i) {
        uint16_t *to = tiles + i % MATRIX_STAGES * STAGE;
        if (i < total) {
            copy_x(to, x, row_values, first_row, rows, x_value(i));
            if (weight_step<Format>::direct)
                copy_bf16(to + MATRIX_ROWS * MATRIX_PITCH, w, first_output, unit(i));
            else
                weights.load(w, first_output, unit(i));
        }
        copy_group();
    };
    const auto finish = [&](int i) {
        if (i < total)
            weights.put(tiles + i % MATRIX_STAGES * STAGE + MATRIX_ROWS * MATRIX_PITCH, unit(i), i >= x_parts * steps);
    };
    for (int i = 0; i < MATRIX_STAGES - 1; i++) {
        start(i);
        finish(i);
    }
    for (int i = 0; i < total; i++) {
        copy_wait<MATRIX_STAGES - 2>();
        __syncthreads(); /* step i has arrived for all, step i - 1 is done by all: its place is free */
        start(i + MATRIX_STAGES - 1);
        const uint16_t *tile = tiles + i % MATRIX_STAGES * STAGE;
        multiply_step(sums, tile, tile + MATRIX_ROWS * MATRIX_PITCH);
        finish(i + MATRIX_STAGES - 1);
    }
    put_tile(map, sums, first_row, first_output, rows);
}

#define MATRIX_KERNEL(format)                                                                                          \
    extern "C" __global__ void __launch_bounds__(MATRIX_THREADS)                                                       \
        matrix_##format(card_map map, const void *x, int rows, int x_parts, int w_parts)                               \
    {                                                                                                                  \
        matrix_tile<format_##format>(map, (const uint16_t *)x, rows, x_parts, w_parts);                                \
    }
CARD_FORMAT_NAMES(MATRIX_KERNEL)

#endif
