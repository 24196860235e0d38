/* Attention over cached keys and values. Row r sees the positions lo[r] <= p < hi[r]; position p lies in slot p %
 * capacity. Softmax goes online; no score matrix is in memory. Here are few rows, or heads of any shape; flash.cuh has
 * many. */
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

/* ---- what a block takes ------------------------------------------------------------------------------------------ */

enum { SPLIT_WARPS = SPLIT_THREADS / 32, SPLIT_BATCH = SPLIT_KEYS / SPLIT_WARPS /* keys that a warp takes at once */ };
static_assert(SPLIT_HEADS == 2 && SPLIT_BATCH == 8, "a warp's 32 lanes share 16 scores");
static_assert(SPLIT_WIDTH == 32 * 8 && SPLIT_WIDTH <= 2 * SPLIT_THREADS, "a lane takes 8 dimensions, a thread 2");

/* SPLIT_HEADS query heads that share keys, SPLIT_WIDTH dimensions of their values, one row, and a share of its
 * positions that depends on the row's interval alone: so it gives the same bits in any company. */
struct split_part {
    int kv_head, head, heads; /* the first query head, and how many */
    int first_d, width;       /* of the values */
    int row, lo;
    int begin, end; /* positions, from lo on */
    int used;       /* splits that take any, or the first */
};

__device__ inline split_part take_part(const card_attention &a)
{
    split_part p;
    const int of_kv = a.n_heads / a.n_kv_heads, pairs = split_pairs(a.n_heads, a.n_kv_heads);
    const int slabs = split_slabs(a.head_dim), pair = (int)blockIdx.x / slabs % pairs;
    p.kv_head = (int)blockIdx.x / slabs / pairs;
    p.head = p.kv_head * of_kv + pair * SPLIT_HEADS;
    p.heads = of_kv - pair * SPLIT_HEADS < SPLIT_HEADS ? of_kv - pair * SPLIT_HEADS : SPLIT_HEADS;
    p.first_d = (int)blockIdx.x % slabs * SPLIT_WIDTH;
    p.width = a.head_dim - p.first_d < SPLIT_WIDTH ? a.head_dim - p.first_d : SPLIT_WIDTH;
    p.row = blockIdx.y;
    p.lo = a.lo[p.row];
    const int length = a.hi[p.row] > p.lo ? a.hi[p.row] - p.lo : 0, split = blockIdx.z;
    const int share = ((length + a.splits - 1) / a.splits + SPLIT_KEYS - 1) / SPLIT_KEYS * SPLIT_KEYS;
    p.begin = split * share < length ? split * share : length;
    p.end = p.begin + share < length ? p.begin + share : length;
    p.used = length ? (length + share - 1) / share : 1;
    return p;
}

/* ---- a warp's keys ----------------------------------------------------------------------------------------------- */

/* Dimensions d .. d + 7 of keys or values, from the places `at` on, zeros beyond head_dim. ALIGNED: all of rows begin
 * at 16 bytes. */
template <bool ALIGNED>
__device__ inline void load_pieces(uint4 (&to)[SPLIT_BATCH], const uint16_t *from, const int (&at)[SPLIT_BATCH], int d,
                                   int head_dim)
{
#pragma unroll
    for (int i = 0; i < SPLIT_BATCH; i++) {
        const uint16_t *const piece = from + at[i] + d;
        if (ALIGNED) {
            to[i] = d < head_dim ? *(const uint4 *)piece : make_uint4(0, 0, 0, 0);
        } else {
            const uint32_t *const pairs = (const uint32_t *)piece;
            to[i] = make_uint4(d < head_dim ? pairs[0] : 0, d + 2 < head_dim ? pairs[1] : 0,
                               d + 4 < head_dim ? pairs[2] : 0, d + 6 < head_dim ? pairs[3] : 0);
        }
    }
}

__device__ inline void widen_piece(float (&to)[8], const uint4 &piece)
{
    const uint32_t pairs[4] = {piece.x, piece.y, piece.z, piece.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        to[2 * i] = half_to_float((uint16_t)pairs[i]);
        to[2 * i + 1] = half_to_float((uint16_t)(pairs[i] >> 16));
    }
}

/* The sums over all lanes of 16 numbers (N is 8 at first): lane l gets that of number l / 2. Of two lanes each keeps
 * half of what they have and gives the other half away. */
template <int N> __device__ inline float sum_apart(float *s)
{
    const bool upper = (int)threadIdx.x & 2 * N;
#pragma unroll
    for (int i = 0; i < N; i++) {
        const float given = upper ? s[i] : s[i + N], kept = upper ? s[i + N] : s[i];
        s[i] = kept + __shfl_xor_sync(0xffffffff, given, 2 * N);
    }
    if constexpr (N > 1)
        return sum_apart<N / 2>(s);
    else
        return s[0] + __shfl_xor_sync(0xffffffff, s[0], 1);
}

/* What a warp has of its keys. A lane's values are those of its 8 dimensions; its largest score so far and its sum of
 * weights (of the keys that were its own) are of the head lane / 16. */
struct split_sums {
    float values[SPLIT_HEADS][8], most, total;
};

/* Keys first .. first + SPLIT_BATCH - 1, the last of which is the one before p.end. queries: [SPLIT_HEADS][head_dim] */
template <bool ALIGNED>
__device__ inline void attend_batch(split_sums &sums, const card_attention &a, const split_part &p,
                                    const uint16_t *keys, const uint16_t *values, const float *queries, int first,
                                    int lo_slot)
{
    const int lane = (int)threadIdx.x % 32;
    int at[SPLIT_BATCH];
#pragma unroll
    for (int i = 0; i < SPLIT_BATCH; i++) {
        const int slot = lo_slot + (first + i < p.end ? first + i : p.end - 1);
        at[i] = (slot < a.capacity ? slot : slot - a.capacity) * a.head_dim;
    }
    uint4 of_values[SPLIT_BATCH];
    load_pieces<ALIGNED>(of_values, values + p.first_d, at, 8 * lane, p.width);
    float scores[SPLIT_HEADS * SPLIT_BATCH] = {};
    for (int d = 8 * lane; d < a.head_dim; d += SPLIT_WIDTH) {
        uint4 pieces[SPLIT_BATCH];
        load_pieces<ALIGNED>(pieces, keys, at, d, a.head_dim);
        float q[SPLIT_HEADS][8];
#pragma unroll
        for (int i = 0; i < SPLIT_HEADS * 8; i++)
            q[i / 8][i % 8] = queries[i / 8 * split_pitch(a.head_dim) + d + i % 8];
#pragma unroll
        for (int i = 0; i < SPLIT_BATCH; i++) {
            float key[8];
            widen_piece(key, pieces[i]);
#pragma unroll
            for (int k = 0; k < SPLIT_HEADS * 8; k++)
                scores[k / 8 * SPLIT_BATCH + i] += q[k / 8][k % 8] * key[k % 8];
        }
    }
    float score = sum_apart<SPLIT_BATCH>(scores); /* of head lane / 16 and key lane / 2 % 8 */
    if (first + lane / 2 % SPLIT_BATCH >= p.end)
        score = -INFINITY;
    float most = fmaxf(sums.most, score);
    for (int step = 8; step > 1; step /= 2)
        most = fmaxf(most, __shfl_xor_sync(0xffffffff, most, step));
    const float kept = power_of_two(sums.most - most), weight = power_of_two(score - most);
    sums.total = sums.total * kept + weight;
    sums.most = most;
#pragma unroll
    for (int head = 0; head < SPLIT_HEADS; head++) {
        const float of_head = __shfl_sync(0xffffffff, kept, 16 * head);
#pragma unroll
        for (int i = 0; i < 8; i++)
            sums.values[head][i] *= of_head;
    }
#pragma unroll
    for (int i = 0; i < SPLIT_BATCH; i++) {
        float value[8];
        widen_piece(value, of_values[i]);
#pragma unroll
        for (int head = 0; head < SPLIT_HEADS; head++) {
            const float of_key = __shfl_sync(0xffffffff, weight, 16 * head + 2 * i);
#pragma unroll
            for (int k = 0; k < 8; k++)
                sums.values[head][k] += of_key * value[k];
        }
    }
}

/* ---- parts together ---------------------------------------------------------------------------------------------- */

/* What n parts of a head's sums are to be multiplied with, to weights [n], and their largest score and sum of weights
 * together. part(i): those of part i. By one warp. */
template <class Part> __device__ inline float2 weigh_parts(float *weights, int n, Part part)
{
    const int lane = (int)threadIdx.x % 32;
    float most = -1e30f, total = 0; /* a number even where nothing was seen: every weight is 0 then */
#pragma unroll 2
    for (int i = lane; i < n; i += 32)
        most = fmaxf(most, part(i).x);
    most = warp_max(most);
#pragma unroll 2
    for (int i = lane; i < n; i += 32) {
        const float2 of = part(i);
        weights[i] = power_of_two(of.x - most);
        total += of.y * weights[i];
    }
    return make_float2(most, warp_sum(total));
}

/* Where the sums of a head's part lie. */
__device__ inline size_t part_number(const card_attention &a, const split_part &p, int head, int split)
{
    const size_t of_row = (size_t)p.row * (size_t)a.n_heads + (size_t)(p.head + head);
    return (of_row * (size_t)split_slabs(a.head_dim) + (size_t)(p.first_d / SPLIT_WIDTH)) * (size_t)a.splits +
           (size_t)split;
}

/* Whether this block is the last of its row and heads to come here; it sees what the others have written before. The
 * counter is 0 again then. */
__device__ inline bool is_last(const card_attention &a, const split_part &p)
{
    __shared__ bool last;
    __syncthreads(); /* all threads have written */
    if (threadIdx.x == 0) {
        __threadfence();
        last =
            atomicInc(&a.arrived[(size_t)p.row * gridDim.x + blockIdx.x], (unsigned)p.used - 1) == (unsigned)p.used - 1;
        __threadfence();
    }
    __syncthreads();
    return last;
}

/* The answer, dimensions d and d + 1 of each head; `shared` [SPLIT_HEADS][SPLIT_WIDTH] is free once all have come here.
 */
__device__ inline void put_split(const card_attention &a, const card_bytes &bytes, const split_part &p,
                                 const float2 (&own)[SPLIT_HEADS], const float2 (&whole)[SPLIT_HEADS],
                                 float (*shared)[SPLIT_WIDTH])
{
    const int d = 2 * (int)threadIdx.x, last_d = p.first_d + p.width;
    __syncthreads();
    for (int head = 0; d < p.width && head < p.heads; head++) {
        const float scale = whole[head].y > 0 ? 1 / whole[head].y : 0; /* nothing seen: zeros */
        shared[head][d] = own[head].x * scale;
        shared[head][d + 1] = own[head].y * scale;
        put_pair(a, p.row, (p.head + head) * a.head_dim + p.first_d + d, shared[head][d], shared[head][d + 1]);
    }
    if (p.head + p.heads == a.n_heads && last_d == a.head_dim)
        fill_up(a, p.row, 1, SPLIT_THREADS);
    if (!bytes.q)
        return;
    __syncthreads();
    const int units = p.width / UNIT;
    for (int i = (int)threadIdx.x; i < p.heads * units; i += SPLIT_THREADS)
        quantize_unit(bytes, p.row, ((p.head + i / units) * a.head_dim + p.first_d) / UNIT + i % units,
                      shared[i / units] + i % units * UNIT, UNIT);
}

/* Two query heads of a row over their share of the positions: grid (split_groups, rows, splits), shared SPLIT_HEADS
 * split_pitch floats. The last block of a row puts the parts together, in their order. With bytes.q also as int8: heads
 * are whole units then. */
extern "C" __global__ void __launch_bounds__(SPLIT_THREADS) attend_few(card_attention a, card_bytes bytes)
{
    wait_for_previous();
    BLOCK_MEMORY(float, split_queries);
    __shared__ float of_warps[SPLIT_WARPS][SPLIT_HEADS][SPLIT_WIDTH];
    __shared__ float2 scales[SPLIT_WARPS][SPLIT_HEADS], whole[SPLIT_HEADS]; /* largest scores, sums of weights */
    __shared__ float weights[SPLIT_HEADS][SPLIT_MOST];
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, split = blockIdx.z;
    const split_part p = take_part(a);
    if (split && p.begin == p.end) /* the others have them all */
        return;

    const int pitch = split_pitch(a.head_dim);
    for (int head = 0; head < SPLIT_HEADS; head++) { /* a second one that is not there: as the first */
        const size_t at = (size_t)p.row * (size_t)a.n_heads + (size_t)(p.head + (head < p.heads ? head : 0));
        for (int d = (int)threadIdx.x; d < pitch; d += SPLIT_THREADS)
            split_queries[head * pitch + d] =
                d < a.head_dim ? a.q[at * (size_t)a.head_dim + (size_t)d] * (a.scale * 1.4426950408889634f) : 0;
    }
    __syncthreads();
    const size_t kv = (size_t)p.kv_head * (size_t)a.capacity * (size_t)a.head_dim;
    const int lo_slot = p.lo % a.capacity;
    split_sums sums = {{}, -1e30f, 0};
    if (a.head_dim % 8 == 0)
        for (int first = p.begin + warp * SPLIT_BATCH; first < p.end; first += SPLIT_KEYS)
            attend_batch<true>(sums, a, p, a.k + kv, a.v + kv, split_queries, first, lo_slot);
    else
        for (int first = p.begin + warp * SPLIT_BATCH; first < p.end; first += SPLIT_KEYS)
            attend_batch<false>(sums, a, p, a.k + kv, a.v + kv, split_queries, first, lo_slot);
    for (int step = 8; step > 1; step /= 2)
        sums.total += __shfl_xor_sync(0xffffffff, sums.total, step);
    if (lane % 16 == 0)
        scales[warp][lane / 16] = make_float2(sums.most, sums.total);
    for (int i = 0; i < SPLIT_HEADS * 8; i++)
        of_warps[warp][i / 8][8 * lane + i % 8] = sums.values[i / 8][i % 8];
    __syncthreads();

    const int d = 2 * (int)threadIdx.x;
    float2 own[SPLIT_HEADS]; /* dimensions d and d + 1 */
    if (warp < SPLIT_HEADS)
        whole[warp] = weigh_parts(weights[warp], SPLIT_WARPS, [&](int i) { return scales[i][warp]; });
    __syncthreads();
    for (int head = 0; head < SPLIT_HEADS; head++) {
        own[head] = make_float2(0, 0);
        for (int i = 0; i < SPLIT_WARPS; i++) {
            own[head].x += weights[head][i] * of_warps[i][head][d];
            own[head].y += weights[head][i] * of_warps[i][head][d + 1];
        }
    }
    if (p.used > 1) {
        float2 *const part_scales = (float2 *)a.partial_scales;
        const int width = a.head_dim < SPLIT_WIDTH ? a.head_dim : SPLIT_WIDTH;
        for (int head = 0; head < p.heads; head++) {
            const size_t part = part_number(a, p, head, split);
            if (d < p.width)
                *(float2 *)(a.partial + part * (size_t)width + (size_t)d) = own[head];
            if (threadIdx.x == 0)
                part_scales[part] = whole[head];
        }
        if (!is_last(a, p))
            return;
        if (warp < p.heads) {
            const float2 *const from = part_scales + part_number(a, p, warp, 0);
            whole[warp] = weigh_parts(weights[warp], p.used, [&](int i) { return __ldcg(from + i); });
        }
        __syncthreads();
        const size_t next_head = part_number(a, p, 1, 0) - part_number(a, p, 0, 0);
        const float2 *from = (const float2 *)(a.partial + part_number(a, p, 0, 0) * (size_t)width + (size_t)d);
        own[0] = own[1] = make_float2(0, 0);
        if (d < p.width) {
#pragma unroll 8
            for (int i = 0; i < p.used; i++, from += width / 2) {
                const float2 x = __ldcg(from), y = __ldcg(from + (p.heads > 1 ? next_head * (size_t)(width / 2) : 0));
                own[0].x += weights[0][i] * x.x;
                own[0].y += weights[0][i] * x.y;
                own[1].x += weights[1][i] * y.x;
                own[1].y += weights[1][i] * y.y;
            }
        }
    }
    put_split(a, bytes, p, own, whole, of_warps[0]);
}

#endif
