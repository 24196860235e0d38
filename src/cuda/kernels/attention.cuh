/* Attention over cached keys and values. Row r sees the positions lo[r] <= p < hi[r]; position p lies in slot p %
 * capacity. Softmax goes online; no score matrix is in memory. */
#ifndef WARD_CUDA_ATTENTION_CUH
#define WARD_CUDA_ATTENTION_CUH

#include "cuda/kernels/rows.cuh"

/* Two neighbouring values of the answer; `at`: of a row's n_heads * head_dim. */
__device__ inline void put_pair(const card_attention &a, int row, int at, float x, float y)
{
    if (a.out_bf16)
        *(uint32_t *)(a.out_bf16 + (size_t)row * (size_t)(a.units * UNIT) + (size_t)at) = pack_bf16(x, y);
    else
        *(float2 *)(a.out + (size_t)row * (size_t)(a.n_heads * a.head_dim) + (size_t)at) = make_float2(x, y);
}

/* What fills rows of bf16 up, `threads` threads being there for it. */
__device__ inline void fill_up(const card_attention &a, int first_row, int rows, int threads)
{
    const int width = a.n_heads * a.head_dim, pitch = a.units * UNIT, rest = pitch - width;
    for (int i = (int)threadIdx.x; a.out_bf16 && i < rows * rest; i += threads)
        a.out_bf16[(size_t)(first_row + i / rest) * (size_t)pitch + (size_t)(width + i % rest)] = 0;
}

/* ---- few rows, or any shape: the interval of each row divided among `splits` blocks -------------------------------
 */

enum { SPLIT_WARPS = SPLIT_THREADS / 32 };

/* Scores of SPLIT_KEYS keys, a warp for a key: its lanes take two dimensions of 64 each. */
__device__ inline void split_scores(float *scores, const float *q, const uint16_t *keys, const card_attention &a,
                                    int first, int count)
{
    const int lane = (int)threadIdx.x % 32;
    for (int i = (int)threadIdx.x / 32; i < count; i += SPLIT_WARPS) {
        const uint16_t *key = keys + (size_t)((first + i) % a.capacity) * (size_t)a.head_dim;
        float sum = 0;
        for (int d = 2 * lane; d < a.head_dim; d += 64) {
            const uint32_t pair = *(const uint32_t *)(key + d);
            sum += q[d] * half_to_float((uint16_t)pair) + q[d + 1] * half_to_float((uint16_t)(pair >> 16));
        }
        sum = warp_sum(sum);
        if (lane == 0)
            scores[i] = sum * a.scale;
    }
}

/* One query head of one row over its share of the positions: grid (n_heads, rows, splits), shared 2 head_dim floats.
 * Heads that share keys run side by side and meet them in the cache. The share depends on the row's interval alone, so
 * that a row gives the same bits in any company. */
extern "C" __global__ void __launch_bounds__(SPLIT_THREADS) attend_split(card_attention a)
{
    BLOCK_MEMORY(float, split_memory);
    __shared__ float scores[SPLIT_KEYS], sums[32];
    const int head = blockIdx.x, row = blockIdx.y, split = blockIdx.z, width = a.head_dim;
    float *const q = split_memory, *const values = split_memory + width;
    const size_t kv = (size_t)(head / (a.n_heads / a.n_kv_heads)) * (size_t)a.capacity * (size_t)width;
    const int lo = a.lo[row], length = a.hi[row] - lo;
    const int share = ((length + a.splits - 1) / a.splits + SPLIT_KEYS - 1) / SPLIT_KEYS * SPLIT_KEYS;
    const int begin = split * share < length ? split * share : length;
    const int end = begin + share < length ? begin + share : length;

    for (int d = (int)threadIdx.x; d < width; d += SPLIT_THREADS) {
        q[d] = a.q[((size_t)row * (size_t)a.n_heads + (size_t)head) * (size_t)width + (size_t)d];
        values[d] = 0;
    }
    float most = -INFINITY, total = 0;
    for (int first = begin; first < end; first += SPLIT_KEYS) {
        const int count = end - first < SPLIT_KEYS ? end - first : SPLIT_KEYS;
        __syncthreads(); /* q is there; the last scores have been used */
        split_scores(scores, q, a.k + kv, a, lo + first, count);
        __syncthreads();
        float largest = most;
        for (int i = 0; i < count; i++)
            largest = fmaxf(largest, scores[i]);
        const float kept = expf(most - largest);
        float weight = 0;
        __syncthreads(); /* scores have been read */
        for (int i = (int)threadIdx.x; i < count; i += SPLIT_THREADS) {
            scores[i] = expf(scores[i] - largest);
            weight += scores[i];
        }
        total = total * kept + block_sum(weight, sums); /* which waits for the weights */
        most = largest;
        for (int d = 2 * (int)threadIdx.x; d < width; d += 2 * SPLIT_THREADS) {
            float x = values[d] * kept, y = values[d + 1] * kept;
            for (int i = 0; i < count; i++) {
                const size_t slot = (size_t)((lo + first + i) % a.capacity);
                const uint32_t pair = *(const uint32_t *)(a.v + kv + slot * (size_t)width + (size_t)d);
                x += scores[i] * half_to_float((uint16_t)pair);
                y += scores[i] * half_to_float((uint16_t)(pair >> 16));
            }
            values[d] = x;
            values[d + 1] = y;
        }
    }
    __syncthreads();
    float *out = a.partial + (((size_t)row * (size_t)a.n_heads + (size_t)head) * (size_t)a.splits + (size_t)split) *
                                 (size_t)(width + 2);
    for (int d = (int)threadIdx.x; d < width; d += SPLIT_THREADS)
        out[d] = values[d];
    if (threadIdx.x == 0) {
        out[width] = most;
        out[width + 1] = total;
    }
}

/* The parts of a head of a row together: grid (n_heads, rows). With bytes.q also as int8: heads are whole units then.
 */
extern "C" __global__ void __launch_bounds__(SPLIT_THREADS) attend_whole(card_attention a, card_bytes bytes)
{
    const int width = a.head_dim;
    const size_t at = (size_t)blockIdx.y * (size_t)a.n_heads + blockIdx.x;
    const float *parts = a.partial + at * (size_t)a.splits * (size_t)(width + 2);
    float most = -INFINITY, total = 0;
    for (int s = 0; s < a.splits; s++)
        most = fmaxf(most, parts[(size_t)s * (size_t)(width + 2) + (size_t)width]);
    if (most == -INFINITY)
        most = 0; /* a row that sees nothing: every weight is 0 */
    for (int s = 0; s < a.splits; s++) {
        const float *part = parts + (size_t)s * (size_t)(width + 2);
        total += part[width + 1] * expf(part[width] - most);
    }
    const float scale = total > 0 ? 1 / total : 0;
    for (int d = 2 * (int)threadIdx.x; d < width; d += 2 * SPLIT_THREADS) {
        float x = 0, y = 0;
        for (int s = 0; s < a.splits; s++) {
            const float *part = parts + (size_t)s * (size_t)(width + 2);
            const float weight = expf(part[width] - most);
            x += part[d] * weight;
            y += part[d + 1] * weight;
        }
        put_pair(a, blockIdx.y, (int)blockIdx.x * width + d, x * scale, y * scale);
    }
    if ((int)blockIdx.x == a.n_heads - 1)
        fill_up(a, blockIdx.y, 1, SPLIT_THREADS);
    if (!bytes.q)
        return;
    __syncthreads();
    const int units = width / UNIT;
    for (int unit = (int)threadIdx.x; unit < units; unit += SPLIT_THREADS)
        quantize_unit(bytes, blockIdx.y, (int)blockIdx.x * units + unit, a.out + at * (size_t)width + unit * UNIT,
                      UNIT);
}

/* ---- many rows, on tensor cores ---------------------------------------------------------------------------------- */

/* FLASH_ROWS queries of one head; a warp takes 16 of them. HEAD: head_dim filled up with zeros. Keys and values come in
 * turns: while one is used the other is under way. */
template <int HEAD> struct flash {
    enum { KEYS = HEAD > 128 ? 32 : 64, PITCH = HEAD + 8, PIECES = HEAD / 8 };

    /* The keys or values of positions first .. first + KEYS - 1; nothing of positions from `end` on. */
    static __device__ void copy(uint16_t *to, const uint16_t *from, const card_attention &a, int first, int end)
    {
        for (int piece = (int)threadIdx.x; piece < KEYS * PIECES; piece += FLASH_THREADS) {
            const int key = piece / PIECES, d = piece % PIECES * 8, position = first + key;
            const bool valid = position < end && d < a.head_dim;
            const size_t slot = (size_t)(position % a.capacity);
            copy_async(to + key * PITCH + d, from + (valid ? slot * (size_t)a.head_dim + (size_t)d : 0), valid);
        }
        copy_group();
    }

    /* Queries as float16, scaled so that the softmax is of powers of two. */
    static __device__ void load_queries(uint16_t *to, const card_attention &a, int first_row, int head)
    {
        const float scale = a.scale * 1.4426950408889634f;
        for (int i = (int)threadIdx.x; i < FLASH_ROWS * HEAD; i += FLASH_THREADS) {
            const int row = i / HEAD, d = i % HEAD;
            const bool valid = first_row + row < a.rows && d < a.head_dim;
            const size_t at =
                ((size_t)(first_row + row) * (size_t)a.n_heads + (size_t)head) * (size_t)a.head_dim + (size_t)d;
            to[row * PITCH + d] = valid ? float_to_half(a.q[at] * scale) : 0;
        }
    }

    /* s [16][KEYS] = queries of this warp times keys */
    static __device__ void score(float (&s)[KEYS / 8][4], const uint16_t *queries, const uint16_t *keys)
    {
        const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
            s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0;
#pragma unroll
        for (int k = 0; k < HEAD; k += 16) {
            uint32_t q[4];
            load_matrices(q, queries + (16 * warp + lane % 16) * PITCH + k + lane / 16 * 8);
#pragma unroll
            for (int n = 0; n < KEYS / 16; n++) {
                uint32_t b[4];
                load_matrices(b, keys + (16 * n + lane % 8 + lane / 16 * 8) * PITCH + k + lane / 8 % 2 * 8);
                multiply_half(s[2 * n], q, b[0], b[1]);
                multiply_half(s[2 * n + 1], q, b[2], b[3]);
            }
        }
    }

    /* out [16][HEAD] += weights times values */
    static __device__ void weigh(float (&out)[HEAD / 8][4], const float (&s)[KEYS / 8][4], const uint16_t *values)
    {
        const int lane = (int)threadIdx.x % 32;
#pragma unroll
        for (int k = 0; k < KEYS; k += 16) { /* what a product leaves in a lane is what the next one takes */
            const uint32_t p[4] = {pack_half(s[k / 8][0], s[k / 8][1]), pack_half(s[k / 8][2], s[k / 8][3]),
                                   pack_half(s[k / 8 + 1][0], s[k / 8 + 1][1]),
                                   pack_half(s[k / 8 + 1][2], s[k / 8 + 1][3])};
#pragma unroll
            for (int n = 0; n < HEAD / 16; n++) {
                uint32_t b[4]; /* dimensions 0-7 of keys 0-7 and 8-15, then dimensions 8-15 */
                load_matrices_transposed(b, values + (k + lane % 16) * PITCH + 16 * n + lane / 16 * 8);
                multiply_half(out[2 * n], p, b[0], b[1]);
                multiply_half(out[2 * n + 1], p, b[2], b[3]);
            }
        }
    }

    /* Scores to weights; what was weighed before shrinks when a larger score comes. Lanes of a quad share two rows. */
    static __device__ void soften(float (&s)[KEYS / 8][4], float (&out)[HEAD / 8][4], float (&most)[2],
                                  float (&total)[2], const int (&lo)[2], const int (&hi)[2], int first)
    {
        const int column = first + (int)threadIdx.x % 4 * 2;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float largest = most[half];
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    const int position = column + 8 * n + i;
                    float *score = &s[n][2 * half + i];
                    if (position < lo[half] || position >= hi[half])
                        *score = -INFINITY;
                    largest = fmaxf(largest, *score);
                }
            largest = fmaxf(largest, __shfl_xor_sync(0xffffffff, largest, 1));
            largest = fmaxf(largest, __shfl_xor_sync(0xffffffff, largest, 2));
            const float base = largest == -INFINITY ? 0 : largest; /* nothing seen yet */
            const float kept = exp2f(most[half] - base);
            float sum = 0;
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    float *score = &s[n][2 * half + i];
                    *score = exp2f(*score - base);
                    sum += *score;
                }
            most[half] = largest;
            total[half] = total[half] * kept + sum;
#pragma unroll
            for (int n = 0; n < HEAD / 8; n++) {
                out[n][2 * half] *= kept;
                out[n][2 * half + 1] *= kept;
            }
        }
    }

    static __device__ void put(const card_attention &a, const float (&out)[HEAD / 8][4], const float (&total)[2],
                               int row, int head)
    {
        const int column = (int)threadIdx.x % 4 * 2;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float sum = total[half];
            sum += __shfl_xor_sync(0xffffffff, sum, 1);
            sum += __shfl_xor_sync(0xffffffff, sum, 2);
            if (row + 8 * half >= a.rows)
                continue;
            const float scale = sum > 0 ? 1 / sum : 0;
#pragma unroll
            for (int n = 0; n < HEAD / 8; n++)
                if (8 * n < a.head_dim)
                    put_pair(a, row + 8 * half, head * a.head_dim + 8 * n + column, out[n][2 * half] * scale,
                             out[n][2 * half + 1] * scale);
        }
        if (head == a.n_heads - 1) {
            const int first = (int)blockIdx.x * FLASH_ROWS;
            fill_up(a, first, a.rows - first < FLASH_ROWS ? a.rows - first : FLASH_ROWS, FLASH_THREADS);
        }
    }

    /* grid (rows / FLASH_ROWS, heads); head_dim a multiple of 8 */
    static __device__ void attend(const card_attention &a)
    {
        BLOCK_MEMORY(uint16_t, flash_memory);
        __shared__ int ends[2];
        uint16_t *const queries = flash_memory, *const keys = queries + FLASH_ROWS * PITCH,
                        *const values = keys + KEYS * PITCH;
        const int first_row = (int)blockIdx.x * FLASH_ROWS, head = blockIdx.y;
        const int row = first_row + (int)threadIdx.x / 32 * 16 + (int)threadIdx.x % 32 / 4;
        const size_t kv = (size_t)(head / (a.n_heads / a.n_kv_heads)) * (size_t)a.capacity * (size_t)a.head_dim;

        if (threadIdx.x == 0) {
            int lo = 0x7fffffff, hi = 0;
            for (int r = first_row; r < first_row + FLASH_ROWS && r < a.rows; r++) {
                lo = a.lo[r] < lo ? a.lo[r] : lo;
                hi = a.hi[r] > hi ? a.hi[r] : hi;
            }
            ends[0] = lo < hi ? lo : hi;
            ends[1] = hi;
        }
        load_queries(queries, a, first_row, head);
        __syncthreads();
        const int begin = ends[0], end = ends[1];
        int lo[2], hi[2];
        for (int half = 0; half < 2; half++) {
            const int r = row + 8 * half;
            lo[half] = r < a.rows ? a.lo[r] : 0;
            hi[half] = r < a.rows ? a.hi[r] : 0;
        }
        float out[HEAD / 8][4] = {}, most[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0};
        copy(keys, a.k + kv, a, begin, end);
        for (int first = begin; first < end; first += KEYS) {
            float s[KEYS / 8][4];
            copy(values, a.v + kv, a, first, end);
            copy_wait<1>();
            __syncthreads(); /* the keys are there */
            score(s, queries, keys);
            __syncthreads();
            copy(keys, a.k + kv, a, first + KEYS, end);
            soften(s, out, most, total, lo, hi, first);
            copy_wait<1>();
            __syncthreads(); /* the values are there */
            weigh(out, s, values);
            __syncthreads();
        }
        copy_wait<0>();
        put(a, out, total, row, head);
    }
};

#define FLASH_KERNEL(head)                                                                                             \
    extern "C" __global__ void __launch_bounds__(FLASH_THREADS) flash_##head(card_attention a)                         \
    {                                                                                                                  \
        flash<head>::attend(a);                                                                                        \
    }
FLASH_HEADS(FLASH_KERNEL)

#endif
