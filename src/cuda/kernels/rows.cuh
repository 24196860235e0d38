/* Operations on rows of float32: norms, activations, embeddings, rotation, the cache. */
#ifndef WARD_CUDA_ROWS_CUH
#define WARD_CUDA_ROWS_CUH

#include "cuda/kernels/epilogue.cuh"
#include "cuda/kernels/formats.cuh"

/* out [rows][cols] = scale * rows `ids` of the table. A block for a row. */
extern "C" __global__ void embed(float *out, card_matrix table, const int32_t *ids, float scale)
{
    wait_for_previous();
    const int row = blockIdx.x, id = ids[row];
    for (int unit = threadIdx.x; unit * UNIT < table.cols; unit += blockDim.x) {
        float v[UNIT];
        read_values(v, table, id, unit);
        for (int i = 0; i < UNIT && unit * UNIT + i < table.cols; i++)
            out[(size_t)row * (size_t)table.cols + (size_t)(unit * UNIT + i)] = v[i] * scale;
    }
}

/* x [rows][cols] += table. A block for a row. */
extern "C" __global__ void add_table(float *x, card_matrix table)
{
    wait_for_previous();
    const int row = blockIdx.x;
    for (int unit = threadIdx.x; unit * UNIT < table.cols; unit += blockDim.x) {
        float v[UNIT];
        read_values(v, table, row, unit);
        for (int i = 0; i < UNIT && unit * UNIT + i < table.cols; i++)
            x[(size_t)row * (size_t)table.cols + (size_t)(unit * UNIT + i)] += v[i];
    }
}

/* 1 / sqrt(mean of squares + eps) of a row, to all threads of its block */
__device__ inline float rms_scale(const float *x, int cols, float eps, float *shared)
{
    float sum = 0;
    for (int i = threadIdx.x; i < cols; i += blockDim.x)
        sum += x[i] * x[i];
    return 1 / sqrtf(block_sum(sum, shared) / (float)cols + eps);
}

/* 16 values, of a row of which `left` remain, as int8: value i is about scale * q_i. */
__device__ inline void quantize_unit(const card_bytes &to, int row, int unit, const float *x, int left)
{
    float v[UNIT], most = 0;
    for (int i = 0; i < UNIT; i++) {
        v[i] = i < left ? x[i] : 0;
        most = fmaxf(most, fabsf(v[i]));
    }
    const float inverse = most > 0 ? 127 / most : 0, scale = most / 127;
    int sum = 0, packed[4] = {0, 0, 0, 0};
    for (int i = 0; i < UNIT; i++) {
        const int value = (int)rintf(v[i] * inverse);
        sum += value;
        packed[i / 4] |= (int)((uint32_t)(value & 255) << 8 * (i % 4));
    }
    const size_t at = (size_t)row * (size_t)to.units + (size_t)unit;
    ((int4 *)to.q)[at] = make_int4(packed[0], packed[1], packed[2], packed[3]);
    ((float2 *)to.scales)[at] = make_float2(scale, scale * (float)sum);
}

/* A row that this block has just written. */
__device__ inline void quantize_row(const card_bytes &to, int row, const float *x, int cols)
{
    if (!to.q)
        return;
    __syncthreads();
    for (int unit = threadIdx.x; unit < to.units; unit += blockDim.x)
        quantize_unit(to, row, unit, x + unit * UNIT, cols - unit * UNIT);
}

/* Rows that others have written; a thread for a unit: grid (units / ROW_THREADS, rows). */
extern "C" __global__ void quantize_rows(card_bytes to, const float *x, int cols)
{
    wait_for_previous();
    const int unit = (int)(blockIdx.x * blockDim.x + threadIdx.x), row = blockIdx.y;
    if (unit < to.units)
        quantize_unit(to, row, unit, x + (size_t)row * (size_t)cols + unit * UNIT, cols - unit * UNIT);
}

/* ---- norms ------------------------------------------------------------------------------------------------------- */

/* Four values of a row; from `cols` on they are 0. `at` is a multiple of 4. */
__device__ inline float4 load_piece(const float *row, int at, int cols)
{
    if (cols % 4 == 0)
        return at < cols ? *(const float4 *)(row + at) : make_float4(0, 0, 0, 0);
    return make_float4(at < cols ? row[at] : 0, at + 1 < cols ? row[at + 1] : 0, at + 2 < cols ? row[at + 2] : 0,
                       at + 3 < cols ? row[at + 3] : 0);
}

__device__ inline void store_piece(float *row, int at, int cols, float4 v)
{
    if (cols % 4 == 0) {
        *(float4 *)(row + at) = v;
    } else {
        const float values[4] = {v.x, v.y, v.z, v.w};
        for (int i = 0; i < 4 && at + i < cols; i++)
            row[at + i] = values[i];
    }
}

__device__ inline float squares_of(float4 v)
{
    return v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
}

/* The pieces of a row that this thread of ROW_THREADS takes: f(kept, at), kept: its number among those that fit into
 * registers, KEPT of them (3,072 values of a row). */
enum { KEPT = 3 };
template <class F> __device__ inline void each_piece(int cols, F f)
{
#pragma unroll
    for (int i = 0; i < KEPT; i++) {
        const int at = 4 * (i * ROW_THREADS + (int)threadIdx.x);
        if (at < cols)
            f(i, at);
    }
    for (int at = 4 * (KEPT * ROW_THREADS + (int)threadIdx.x); at < cols; at += 4 * ROW_THREADS)
        f((int)KEPT, at);
}

/* A row that is read once, as far as it fits. */
struct row_reader {
    const float *row;
    int cols;
    float4 kept[KEPT];
    __device__ row_reader(const float *x, int cols_) : row(x + (size_t)blockIdx.x * (size_t)cols_), cols(cols_)
    {
#pragma unroll
        for (int i = 0; i < KEPT; i++)
            kept[i] = load_piece(row, 4 * (i * ROW_THREADS + (int)threadIdx.x), cols);
    }
    __device__ float4 piece(int i, int at) const
    {
        return i < KEPT ? kept[i] : load_piece(row, at, cols);
    }
};

/* Where a norm writes its row: as float32, or as bf16 alone. */
struct row_writer {
    float *row;
    uint16_t *halves;
    int cols, pitch, parts;
    __device__ row_writer(float *out, const card_packed &packed, int cols_)
        : row(out + (size_t)blockIdx.x * (size_t)cols_), halves(packed.at), cols(cols_), pitch(packed.units * UNIT),
          parts(packed.parts)
    {
        if (!halves)
            return;
        halves += (size_t)blockIdx.x * (size_t)parts * (size_t)pitch;
        for (int at = (cols + 3) / 4 * 4 + 4 * (int)threadIdx.x; at < pitch; at += 4 * ROW_THREADS) /* filling up */
            put(at, make_float4(0, 0, 0, 0));
    }
    __device__ void put(int at, float4 v) const
    {
        if (!halves)
            return store_piece(row, at, cols, v);
        const uint2 whole = make_uint2(pack_bf16(v.x, v.y), pack_bf16(v.z, v.w));
        *(uint2 *)(halves + at) = whole;
        if (parts == X_PARTS)
            *(uint2 *)(halves + pitch + at) = make_uint2(rest_of(whole.x, v.x, v.y), rest_of(whole.y, v.z, v.w));
    }
};

extern "C" __global__ void rms_norm(float *out, const float *x, const float *weight, int cols, float eps,
                                    card_bytes bytes, card_packed packed)
{
    wait_for_previous();
    __shared__ float shared[32];
    const row_reader in(x, cols);
    const row_writer to(out, packed, cols);
    float squares = 0;
    each_piece(cols, [&](int i, int at) { squares += squares_of(in.piece(i, at)); });
    const float scale = 1 / sqrtf(block_sum(squares, shared) / (float)cols + eps);
    each_piece(cols, [&](int i, int at) {
        const float4 v = in.piece(i, at), w = load_piece(weight, at, cols);
        to.put(at, make_float4(v.x * scale * w.x, v.y * scale * w.y, v.z * scale * w.z, v.w * scale * w.w));
    });
    quantize_row(bytes, blockIdx.x, to.row, cols);
}

/* residual += rms_norm(x); x = rms_norm(residual) with next_weight, unless that is NULL */
extern "C" __global__ void add_rms_norm(float *residual, float *x, const float *weight, const float *next_weight,
                                        int cols, float eps, card_bytes bytes, card_packed packed)
{
    wait_for_previous();
    __shared__ float shared[32];
    const row_reader in(x, cols);
    row_reader sums(residual, cols);
    float *const to_residual = residual + (size_t)blockIdx.x * (size_t)cols;
    float squares = 0;
    each_piece(cols, [&](int i, int at) { squares += squares_of(in.piece(i, at)); });
    const float scale = 1 / sqrtf(block_sum(squares, shared) / (float)cols + eps);
    squares = 0;
    each_piece(cols, [&](int i, int at) {
        const float4 v = in.piece(i, at), w = load_piece(weight, at, cols);
        float4 sum = sums.piece(i, at);
        sum.x += v.x * scale * w.x;
        sum.y += v.y * scale * w.y;
        sum.z += v.z * scale * w.z;
        sum.w += v.w * scale * w.w;
        store_piece(to_residual, at, cols, sum);
        squares += squares_of(sum);
        if (i < KEPT)
            sums.kept[i] = sum;
    });
    if (!next_weight)
        return;
    const row_writer to(x, packed, cols);
    const float next_scale = 1 / sqrtf(block_sum(squares, shared) / (float)cols + eps);
    each_piece(cols, [&](int i, int at) {
        const float4 v = sums.piece(i, at), w = load_piece(next_weight, at, cols);
        to.put(at, make_float4(v.x * next_scale * w.x, v.y * next_scale * w.y, v.z * next_scale * w.z,
                               v.w * next_scale * w.w));
    });
    quantize_row(bytes, blockIdx.x, to.row, cols);
}

extern "C" __global__ void layer_norm(float *out, const float *x, const float *weight, const float *bias, int cols,
                                      float eps, card_bytes bytes, card_packed packed)
{
    wait_for_previous();
    __shared__ float shared[32];
    const row_reader in(x, cols);
    const row_writer to(out, packed, cols);
    float sum = 0;
    each_piece(cols, [&](int i, int at) {
        const float4 v = in.piece(i, at);
        sum += v.x + v.y + v.z + v.w;
    });
    const float mean = block_sum(sum, shared) / (float)cols;
    float squares = 0;
    each_piece(cols, [&](int i, int at) {
        const float4 v = in.piece(i, at);
        const int left = cols - at; /* what is not there is not off the mean */
        squares += squares_of(
            make_float4(v.x - mean, left > 1 ? v.y - mean : 0, left > 2 ? v.z - mean : 0, left > 3 ? v.w - mean : 0));
    });
    const float scale = 1 / sqrtf(block_sum(squares, shared) / (float)cols + eps);
    each_piece(cols, [&](int i, int at) {
        const float4 v = in.piece(i, at), w = load_piece(weight, at, cols), b = load_piece(bias, at, cols);
        to.put(at, make_float4((v.x - mean) * scale * w.x + b.x, (v.y - mean) * scale * w.y + b.y,
                               (v.z - mean) * scale * w.z + b.z, (v.w - mean) * scale * w.w + b.w));
    });
    quantize_row(bytes, blockIdx.x, to.row, cols);
}

/* ---- activations of few rows ------------------------------------------------------------------------------------- */

__device__ inline size_t this_value()
{
    return (size_t)blockIdx.x * blockDim.x + threadIdx.x;
}

extern "C" __global__ void gelu_multiply(float *out, const float *gate, const float *up, size_t n)
{
    wait_for_previous();
    const size_t i = this_value();
    if (i < n)
        out[i] = gelu_value(gate[i]) * up[i];
}

/* The same, written as int8 as well: a thread for a unit, grid (units / ROW_THREADS, rows). */
extern "C" __global__ void gelu_multiply_bytes(float *out, const float *gate, const float *up, int cols,
                                               card_bytes bytes)
{
    wait_for_previous();
    const int unit = (int)(blockIdx.x * blockDim.x + threadIdx.x), row = blockIdx.y;
    if (unit >= bytes.units)
        return;
    const size_t at = (size_t)row * (size_t)cols + (size_t)(unit * UNIT);
    float v[UNIT] = {};
    for (int i = 0; i < UNIT && unit * UNIT + i < cols; i++)
        out[at + i] = v[i] = gelu_value(gate[at + i]) * up[at + i];
    quantize_unit(bytes, row, unit, v, cols - unit * UNIT);
}

/* ---- heads ------------------------------------------------------------------------------------------------------- */

/* An RMS norm over a head, then the rotation of its row, halves apart as Llama's. */
__device__ inline void norm_rotate(float *x, const card_heads &h, const float *weight, int row, float *shared)
{
    const int half = h.head_dim / 2;
    const float *cosine = h.cosine + (size_t)row * (size_t)half, *sine = h.sine + (size_t)row * (size_t)half;
    const float scale = rms_scale(x, h.head_dim, h.eps, shared);
    for (int i = threadIdx.x; i < half; i += blockDim.x) {
        const float a = x[i] * scale * weight[i], b = x[i + half] * scale * weight[i + half];
        x[i] = a * cosine[i] - b * sine[i];
        x[i + half] = b * cosine[i] + a * sine[i];
    }
}

/* Queries in place, keys and values into the cache. A block for a head of a row: grid (n_heads + n_kv_heads, rows),
 * n_heads being 0 where there are no norms. */
extern "C" __global__ void store(card_heads h)
{
    wait_for_previous();
    __shared__ float shared[32];
    const int row = blockIdx.y, head = (int)blockIdx.x - h.n_heads, n_kv_heads = (int)gridDim.x - h.n_heads;
    const size_t width = (size_t)h.head_dim;
    if (head < 0) {
        norm_rotate(h.q + ((size_t)row * (size_t)h.n_heads + blockIdx.x) * width, h, h.q_norm, row, shared);
        return;
    }
    const size_t from = ((size_t)row * (size_t)n_kv_heads + (size_t)head) * width;
    const size_t to = ((size_t)head * (size_t)h.capacity + (size_t)(h.positions[row] % h.capacity)) * width;
    if (h.k_norm) {
        norm_rotate(h.k + from, h, h.k_norm, row, shared);
        __syncthreads();
    }
    for (size_t i = threadIdx.x; i < width; i += blockDim.x) {
        h.to_k[to + i] = float_to_half(h.k[from + i]);
        h.to_v[to + i] = float_to_half(h.v[from + i]);
    }
}

/* out [side / block][side / block][cols] = means over block x block squares of x [side][side][cols]; a block for a
 * square */
extern "C" __global__ void pool(float *out, const float *x, int side, int block, int cols)
{
    wait_for_previous();
    const int squares = side / block, top = (int)blockIdx.x / squares * block, left = (int)blockIdx.x % squares * block;
    for (int c = threadIdx.x; c < cols; c += blockDim.x) {
        float sum = 0;
        for (int i = 0; i < block * block; i++)
            sum += x[(size_t)((top + i / block) * side + left + i % block) * (size_t)cols + (size_t)c];
        out[(size_t)blockIdx.x * (size_t)cols + (size_t)c] = sum / (float)(block * block);
    }
}

#endif
