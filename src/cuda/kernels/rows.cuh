/* Operations on rows of float32: norms, activations, embeddings, rotation, the cache. */
#ifndef WARD_CUDA_ROWS_CUH
#define WARD_CUDA_ROWS_CUH

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

extern "C" __global__ void rms_norm(float *out, const float *x, const float *weight, int cols, float eps,
                                    card_bytes bytes)
{
    wait_for_previous();
    __shared__ float shared[32];
    x += (size_t)blockIdx.x * (size_t)cols;
    out += (size_t)blockIdx.x * (size_t)cols;
    const float scale = rms_scale(x, cols, eps, shared);
    for (int i = threadIdx.x; i < cols; i += blockDim.x)
        out[i] = x[i] * scale * weight[i];
    quantize_row(bytes, blockIdx.x, out, cols);
}

/* residual += rms_norm(x); x = rms_norm(residual) with next_weight, unless that is NULL */
extern "C" __global__ void add_rms_norm(float *residual, float *x, const float *weight, const float *next_weight,
                                        int cols, float eps, card_bytes bytes)
{
    wait_for_previous();
    __shared__ float shared[32];
    x += (size_t)blockIdx.x * (size_t)cols;
    residual += (size_t)blockIdx.x * (size_t)cols;
    const float scale = rms_scale(x, cols, eps, shared);
    float squares = 0;
    for (int i = threadIdx.x; i < cols; i += blockDim.x) {
        const float sum = residual[i] + x[i] * scale * weight[i];
        residual[i] = sum;
        squares += sum * sum;
    }
    if (!next_weight)
        return;
    const float next_scale = 1 / sqrtf(block_sum(squares, shared) / (float)cols + eps);
    for (int i = threadIdx.x; i < cols; i += blockDim.x)
        x[i] = residual[i] * next_scale * next_weight[i];
    quantize_row(bytes, blockIdx.x, x, cols);
}

extern "C" __global__ void layer_norm(float *out, const float *x, const float *weight, const float *bias, int cols,
                                      float eps)
{
    wait_for_previous();
    __shared__ float shared[32];
    x += (size_t)blockIdx.x * (size_t)cols;
    out += (size_t)blockIdx.x * (size_t)cols;
    float sum = 0;
    for (int i = threadIdx.x; i < cols; i += blockDim.x)
        sum += x[i];
    const float mean = block_sum(sum, shared) / (float)cols;
    float squares = 0;
    for (int i = threadIdx.x; i < cols; i += blockDim.x)
        squares += (x[i] - mean) * (x[i] - mean);
    const float scale = 1 / sqrtf(block_sum(squares, shared) / (float)cols + eps);
    for (int i = threadIdx.x; i < cols; i += blockDim.x)
        out[i] = (x[i] - mean) * scale * weight[i] + bias[i];
}

/* gelu_pytorch_tanh */
__device__ inline float gelu_value(float x)
{
    return 0.5f * x * (1 + tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x)));
}

__device__ inline size_t this_value()
{
    return (size_t)blockIdx.x * blockDim.x + threadIdx.x;
}

extern "C" __global__ void gelu(float *x, size_t n)
{
    wait_for_previous();
    const size_t i = this_value();
    if (i < n)
        x[i] = gelu_value(x[i]);
}

extern "C" __global__ void gelu_multiply(float *out, const float *gate, const float *up, size_t n)
{
    wait_for_previous();
    const size_t i = this_value();
    if (i < n)
        out[i] = gelu_value(gate[i]) * up[i];
}

extern "C" __global__ void add(float *x, const float *y, size_t n)
{
    wait_for_previous();
    const size_t i = this_value();
    if (i < n)
        x[i] += y[i];
}

/* The same for few rows, which are written as int8 as well: a thread for a unit, grid (units / ROW_THREADS, rows). */
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
