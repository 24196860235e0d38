/* The next token by its logits: the likeliest, or one that is drawn as sample_token of engine/sample.c draws it, by the
 * same number and the same sums in float64. Where the order of a sum is another than there (that of all tokens), or an
 * exponential rounds otherwise, a number within 1e-15 of the border between two tokens may take the other one. */
#ifndef WARD_CUDA_SAMPLE_CUH
#define WARD_CUDA_SAMPLE_CUH

#include "cuda/kernels/device.cuh"

/* The larger logit, of equals that of the smaller id. */
__device__ inline void keep_likelier(float *logit, int32_t *id, float other, int32_t other_id)
{
    if (other > *logit || (other == *logit && other_id < *id)) {
        *logit = other;
        *id = other_id;
    }
}

__device__ inline float capped(float logit, float cap)
{
    return cap > 0 ? cap * tanhf(logit / cap) : logit;
}

/* The likeliest token of this block's part of a row, and the part's sum of exponentials below it: grid (CHOICE_BLOCKS,
 * rows). */
extern "C" __global__ void choose_parts(card_choice_part *parts, const float *logits, int n, float cap)
{
    wait_for_previous();
    __shared__ float best[32];
    __shared__ int32_t best_id[32];
    __shared__ float sums[32];
    const int share = (n + CHOICE_BLOCKS - 1) / CHOICE_BLOCKS, first = (int)blockIdx.x * share;
    const int end = first + share < n ? first + share : n;
    logits += (size_t)blockIdx.y * (size_t)n;
    float logit = -INFINITY;
    int32_t id = 0x7fffffff;
    for (int i = first + (int)threadIdx.x; i < end; i += blockDim.x)
        keep_likelier(&logit, &id, capped(logits[i], cap), i);
    for (int step = 16; step; step /= 2) {
        const float other = __shfl_xor_sync(0xffffffff, logit, step);
        const int32_t other_id = __shfl_xor_sync(0xffffffff, id, step);
        keep_likelier(&logit, &id, other, other_id);
    }
    if (threadIdx.x % 32 == 0) {
        best[threadIdx.x / 32] = logit;
        best_id[threadIdx.x / 32] = id;
    }
    __syncthreads();
    for (int warp = 0; warp < (int)blockDim.x / 32; warp++)
        keep_likelier(&logit, &id, best[warp], best_id[warp]);
    float sum = 0;
    for (int i = first + (int)threadIdx.x; i < end; i += blockDim.x)
        sum += expf(capped(logits[i], cap) - logit);
    sum = block_sum(sum, sums);
    if (threadIdx.x == 0) {
        card_choice_part *part = &parts[blockIdx.y * CHOICE_BLOCKS + blockIdx.x];
        part->logit = logit;
        part->id = id;
        part->sum = (double)sum;
    }
}

/* One thread for a row: CHOICE_BLOCKS parts are soon gone through. */
extern "C" __global__ void choose_whole(card_choice *out, const card_choice_part *parts, int rows)
{
    wait_for_previous();
    const int row = (int)threadIdx.x;
    if (row >= rows)
        return;
    parts += row * CHOICE_BLOCKS;
    float logit = parts[0].logit;
    int32_t id = parts[0].id;
    for (int i = 1; i < CHOICE_BLOCKS; i++)
        keep_likelier(&logit, &id, parts[i].logit, parts[i].id);
    double sum = 0;
    for (int i = 0; i < CHOICE_BLOCKS; i++)
        sum += parts[i].logit == -INFINITY ? 0 : parts[i].sum * exp((double)(parts[i].logit - logit));
    out[row].id = id == 0x7fffffff ? 0 : id; /* no logit was a number */
    out[row].logit = logit;
    out[row].log_sum = (double)logit + log(sum);
}

/* ---- a token that is drawn ---------------------------------------------------------------------------------------
 *
 * With top-k or top-p the likeliest tokens are needed in order. Logits fall into bins by their distance from the
 * largest (draw_parts); the bins that hold as many tokens, or as much probability, as are asked for are gathered
 * (draw_gather) and sorted (draw_whole). Without either, tokens are drawn in the order of their ids, which needs their
 * sums only. */

__device__ inline bool limits_count(const card_draw &d, int n)
{
    return d.top_k > 0 && d.top_k < n;
}

__device__ inline bool limits_sum(const card_draw &d)
{
    return d.top_p > 0 && d.top_p < 1;
}

/* Bins to a unit of distance: of a logit where tokens are counted, which may be far apart; of a logarithm of
 * probability where that is summed. */
__device__ inline float bins_per_unit(const card_draw &d, int n)
{
    return limits_count(d, n) ? 64 : 128 / d.temperature;
}

__device__ inline int bin_of(float logit, float best, float per_unit)
{
    return (int)fminf((best - logit) * per_unit, DRAW_BINS - 1);
}

/* What the logarithm of a probability next to the likeliest's has to reach. */
__device__ inline double least_log(const card_draw &d)
{
    return d.min_p > 0 ? log((double)d.min_p) : -INFINITY;
}

/* The probability of a token next to that of the likeliest, when all are drawn from: float32, as the processor's. */
__device__ inline double unordered_weight(double temperature, double least, float logit, float best)
{
    const double below = (double)(logit - best) / temperature;
    return below < least ? 0 : (double)(float)exp(below);
}

/* Sorts by falling logit, then by id. */
__device__ inline uint64_t candidate(float logit, int id)
{
    const uint32_t bits = __float_as_uint(logit + 0.0f); /* no -0 */
    return (uint64_t)(bits >> 31 ? bits : ~(bits | 0x80000000u)) << 32 | (uint32_t)id;
}

__device__ inline float candidate_logit(uint64_t c)
{
    const uint32_t bits = (uint32_t)(c >> 32);
    return __uint_as_float(bits >> 31 ? bits : ~bits & 0x7fffffffu);
}

/* The bins of a part of a row, where order is needed; and the part's sum of probabilities next to the likeliest's,
 * where that is: grid (CHOICE_BLOCKS, rows). */
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
    draw_parts(card_drawing w, const card_choice *choices, const card_draw *draws, const float *logits, int n,
               float cap)
{
    __shared__ int bins[DRAW_BINS];
    __shared__ double sums[32];
    wait_for_previous();
    const int row = blockIdx.y, share = (n + CHOICE_BLOCKS - 1) / CHOICE_BLOCKS, first = (int)blockIdx.x * share;
    const int end = first + share < n ? first + share : n;
    const card_draw d = draws[row];
    const bool counted = limits_count(d, n), ordered = counted || limits_sum(d);
    const float best = choices[row].logit, per_unit = bins_per_unit(d, n);
    const double temperature = (double)d.temperature, most = (double)best / temperature, least = least_log(d);
    for (int b = threadIdx.x; b < DRAW_BINS; b += blockDim.x)
        bins[b] = 0;
    __syncthreads();
    double sum = 0;
    for (int i = first + (int)threadIdx.x; i < end; i += blockDim.x) {
        const float logit = capped(logits[(size_t)row * (size_t)n + (size_t)i], cap);
        if (logit != logit)
            atomicAdd(&w.found[row], DRAW_MOST + 1); /* the processor's business */
        if (ordered)
            atomicAdd(&bins[bin_of(logit, best, per_unit)], 1);
        if (!ordered)
            sum += unordered_weight(temperature, least, logit, best);
        else if (!counted)
            sum += exp((double)logit / temperature - most);
    }
    sum = block_sum(sum, sums);
    if (threadIdx.x == 0)
        w.sums[row * CHOICE_BLOCKS + (int)blockIdx.x] = sum;
    for (int b = threadIdx.x; b < DRAW_BINS; b += blockDim.x)
        if (bins[b])
            atomicAdd(&w.bins[row * DRAW_BINS + b], bins[b]);
}

__device__ inline double sum_of_parts(const card_drawing &w, int row)
{
    double sum = 0;
    for (int i = 0; i < CHOICE_BLOCKS; i++)
        sum += w.sums[row * CHOICE_BLOCKS + i];
    return sum;
}

/* The last bin that is needed, to all threads. Tokens are counted; of probability a bin holds about what its middle
 * has, and two further bins make up for that. */
__device__ inline int last_bin(const card_drawing &w, const card_draw &d, int row, int n)
{
    enum { SHARE = DRAW_BINS / ROW_THREADS };
    __shared__ double totals[ROW_THREADS / 32];
    __shared__ int last;
    const bool counted = limits_count(d, n);
    const int *bins = w.bins + row * DRAW_BINS + (int)threadIdx.x * SHARE, lane = (int)threadIdx.x % 32;
    const double wanted = counted ? d.top_k : (double)d.top_p * sum_of_parts(w, row);
    double held[SHARE], total = 0;
    for (int i = 0; i < SHARE; i++) {
        const float middle = (float)((int)threadIdx.x * SHARE + i) + 0.5f;
        held[i] = (double)bins[i] * (counted ? 1 : (double)expf(-middle / 128));
        total += held[i];
    }
    double until = total; /* of this thread's bins and all before them */
    for (int step = 1; step < 32; step *= 2) {
        const double other = __shfl_sync(0xffffffff, until, lane >= step ? lane - step : lane);
        until += lane >= step ? other : 0;
    }
    if (lane == 31)
        totals[threadIdx.x / 32] = until;
    if (threadIdx.x == 0)
        last = DRAW_BINS - 1;
    __syncthreads();
    for (int warp = 0; warp < (int)threadIdx.x / 32; warp++)
        until += totals[warp];
    double before = until - total;
    if (before < wanted && until >= wanted) { /* rounding may let two threads come here, or none */
        int i = 0;
        while (i < SHARE - 1 && (before += held[i]) < wanted)
            i++;
        const int found = (int)threadIdx.x * SHARE + i + (counted ? 0 : 2);
        atomicMin(&last, found);
    }
    __syncthreads();
    return last;
}

/* What lies in the bins that are needed, in any order: grid (CHOICE_BLOCKS, rows). */
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
    draw_gather(card_drawing w, const card_choice *choices, const card_draw *draws, const float *logits, int n,
                float cap)
{
    wait_for_previous();
    const int row = blockIdx.y, share = (n + CHOICE_BLOCKS - 1) / CHOICE_BLOCKS, first = (int)blockIdx.x * share;
    const int end = first + share < n ? first + share : n;
    const card_draw d = draws[row];
    if (!limits_count(d, n) && !limits_sum(d))
        return;
    const float best = choices[row].logit, per_unit = bins_per_unit(d, n);
    const int last = last_bin(w, d, row, n);
    for (int i = first + (int)threadIdx.x; i < end; i += blockDim.x) {
        const float logit = capped(logits[(size_t)row * (size_t)n + (size_t)i], cap);
        if (bin_of(logit, best, per_unit) > last)
            continue;
        const int at = atomicAdd(&w.found[row], 1);
        if (at < DRAW_MOST)
            w.candidates[row * DRAW_MOST + at] = candidate(logit, i);
    }
}

/* Bitonic: all pairs of a step at once. n: a power of two. */
__device__ inline void sort_candidates(uint64_t *c, int n)
{
    for (int run = 2; run <= n; run *= 2)
        for (int step = run / 2; step; step /= 2) {
            __syncthreads();
            for (int i = threadIdx.x; i < n / 2; i += blockDim.x) {
                const int low = i / step * 2 * step + i % step, high = low + step;
                const uint64_t a = c[low], b = c[high];
                if ((a > b) == ((low & run) == 0)) {
                    c[low] = b;
                    c[high] = a;
                }
            }
        }
    __syncthreads();
}

/* One thread, on candidates in order: `weights` are their probabilities next to the first one's. As sample_token; -1:
 * the nucleus has more than the candidates. */
__device__ inline int draw_ordered(const card_draw &d, const uint64_t *c, const double *weights, int n, bool counted,
                                   double sum)
{
    const double temperature = (double)d.temperature, first = (double)candidate_logit(c[0]) / temperature;
    if (limits_sum(d)) {
        if (counted) {
            sum = 0;
            for (int i = 0; i < n; i++)
                sum += weights[i];
        }
        const double log_sum = first + log(sum);
        double cumulative = 0;
        int kept = 0;
        while (kept < n && cumulative < (double)d.top_p)
            cumulative += exp((double)candidate_logit(c[kept++]) / temperature - log_sum);
        if (cumulative < (double)d.top_p && !counted)
            return -1;
        n = kept;
    }
    if (d.min_p > 0) {
        int kept = 1;
        while (kept < n && (double)(candidate_logit(c[kept]) - candidate_logit(c[0])) / temperature >= least_log(d))
            kept++;
        n = kept;
    }
    sum = 0;
    for (int i = 0; i < n; i++)
        sum += weights[i];
    const double log_sum = first + log(sum);
    double left = d.number;
    for (int i = 0; i < n; i++) {
        left -= exp((double)candidate_logit(c[i]) / temperature - log_sum);
        if (left < 0)
            return i;
    }
    return 0; /* rounding left a crumb of probability */
}

/* The first of n weights at which *left falls below zero, less those before it; n: none does. */
__device__ inline int cross(const double *weights, int n, double *left)
{
    for (int i = 0; i < n; i++) {
        if (*left - weights[i] < 0)
            return i;
        *left -= weights[i];
    }
    return n;
}

/* Over all tokens in the order of their ids: the part of the row, then those of a warp, of a thread, the token. */
__device__ inline int draw_unordered(const card_drawing &w, const card_draw &d, const float *logits, int n, float cap,
                                     float best, int likeliest)
{
    __shared__ double of_threads[DRAW_THREADS], of_warps[32];
    const int row = blockIdx.x, share = (n + CHOICE_BLOCKS - 1) / CHOICE_BLOCKS;
    double left = d.number * sum_of_parts(w, row);
    const int part = cross(w.sums + row * CHOICE_BLOCKS, CHOICE_BLOCKS, &left);
    if (part == CHOICE_BLOCKS)
        return likeliest;
    const int run = (share + DRAW_THREADS - 1) / DRAW_THREADS, end = (part + 1) * share < n ? (part + 1) * share : n;
    const double temperature = (double)d.temperature, least = least_log(d);
    const auto weight = [&](int i) {
        return i < end ? unordered_weight(temperature, least, capped(logits[i], cap), best) : 0;
    };
    const int mine = part * share + (int)threadIdx.x * run;
    double sum = 0;
    for (int i = mine; i < mine + run; i++)
        sum += weight(i);
    of_threads[threadIdx.x] = sum;
    const double of_warp = warp_sum(sum);
    if (threadIdx.x % 32 == 0)
        of_warps[threadIdx.x / 32] = of_warp;
    __syncthreads();
    int id = likeliest;
    if (threadIdx.x == 0) {
        const int warp = cross(of_warps, DRAW_THREADS / 32, &left);
        const int thread =
            warp < DRAW_THREADS / 32 ? 32 * warp + cross(of_threads + 32 * warp, 32, &left) : DRAW_THREADS;
        for (int i = part * share + thread * run; i < end && left >= 0; i++) {
            left -= weight(i);
            id = weight(i) > 0 ? i : id;
        }
    }
    return id;
}

/* A block for a row. Leaves the token and its logit in `out`, which has those of the likeliest and the row's log_sum;
 * -1 where the processor has to draw: more candidates than fit, logits that are no numbers. Leaves nothing behind for
 * the next draw. */
extern "C" __global__ void __launch_bounds__(DRAW_THREADS)
    draw_whole(card_choice *out, card_drawing w, const card_draw *draws, const float *logits, int n, float cap)
{
    __shared__ uint64_t c[DRAW_MOST];
    __shared__ double weights[DRAW_MOST];
    wait_for_previous();
    const int row = blockIdx.x, found = w.found[row];
    const card_draw d = draws[row];
    const bool counted = limits_count(d, n), ordered = counted || limits_sum(d);
    const float best = out[row].logit;
    const double temperature = (double)d.temperature, most = (double)best / temperature;
    logits += (size_t)row * (size_t)n;
    int id = -1;
    if (found > DRAW_MOST || !(fabsf(best) < INFINITY) || (counted && d.top_k > found)) {
        id = -1;
    } else if (ordered) {
        int size = 2;
        while (size < found)
            size *= 2;
        for (int i = threadIdx.x; i < size; i += blockDim.x)
            c[i] = i < found ? w.candidates[row * DRAW_MOST + i] : ~(uint64_t)0;
        sort_candidates(c, size);
        const int kept = counted ? d.top_k : found;
        for (int i = threadIdx.x; i < kept; i += blockDim.x)
            weights[i] = exp((double)candidate_logit(c[i]) / temperature - most);
        __syncthreads();
        if (threadIdx.x == 0) {
            const int at = draw_ordered(d, c, weights, kept, counted, counted ? 0 : sum_of_parts(w, row));
            id = at < 0 ? -1 : (int)(uint32_t)c[at];
        }
    } else {
        id = draw_unordered(w, d, logits, n, cap, best, out[row].id);
    }
    __syncthreads(); /* all have read */
    for (int b = threadIdx.x; b < DRAW_BINS; b += blockDim.x)
        w.bins[row * DRAW_BINS + b] = 0;
    if (threadIdx.x == 0) {
        w.found[row] = 0;
        out[row].id = id;
        if (id >= 0)
            out[row].logit = capped(logits[id], cap);
    }
}

#endif
