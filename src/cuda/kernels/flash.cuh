/* Attention of many rows, on tensor cores: each block takes some queries of a head, past which the keys and values go
 * in steps. Scores become weights in the registers they were summed in. */
#ifndef WARD_CUDA_FLASH_CUH
#define WARD_CUDA_FLASH_CUH

#include "cuda/kernels/attention.cuh"

#ifdef WARD_CUDA_WITHOUT_TENSOR_CORES
#define FLASH_SLOTS(slots) 2 /* as flash_shared has it: copies do not overlap there */
#else
#define FLASH_SLOTS(slots) slots
#endif

/* HEAD: head_dim filled up with zeros. A warp takes 16 TILES queries and of each step its share of the keys. Steps come
 * to shared memory as a ring of SLOTS: keys and values in turns, FLASH_KEYS of them in each. */
template <int HEAD, int TILES, int ROW_WARPS, int KEY_WARPS, int SLOTS> struct flash {
    enum {
        OWN = FLASH_KEYS / KEY_WARPS, /* keys of a step that a warp takes */
        WARP_ROWS = 16 * TILES,
        ROWS = WARP_ROWS * ROW_WARPS,
        THREADS = 32 * ROW_WARPS * KEY_WARPS,
        SLOT = FLASH_KEYS * HEAD,
        PIECES = HEAD / 8, /* of 16 bytes in a row */
        LINES = THREADS / PIECES,
        SWIZZLED = PIECES % 8 == 0,
    };
    static constexpr float UNSEEN = -1e30f;      /* below any score, and a number: its weight is 0 */
    static constexpr bool rest = HEAD % 16 != 0; /* 8 dimensions beyond whole tiles of 16 */
    static_assert(PIECES % 8 == 0 || PIECES % 2 == 1, "eight rows of a matrix lie in different banks");
    static_assert(!SWIZZLED || LINES % 8 == 0, "rows that a thread copies are swizzled alike");
    static_assert(OWN % 16 == 0 && (!rest || OWN % 32 == 0), "keys come in whole tiles");

    typedef float sums[TILES][HEAD / 8][4];
    typedef float scores[TILES][OWN / 8][4];
    typedef uint32_t weights[TILES][OWN / 16][4];
    typedef float of_rows[2 * TILES]; /* a lane's rows: 8 apart, from lane / 4 on; a quad shares them */

    /* This lane's first row; its others are 8 apart. */
    static __device__ int first_row()
    {
        return (int)blockIdx.x * ROWS + (int)threadIdx.x / 32 % ROW_WARPS * WARP_ROWS + (int)threadIdx.x % 32 / 4;
    }

    /* Where a row's piece lies in a slot: eight rows' pieces of one number meet all banks, since an odd number of
     * pieces is a row's length, or else since rows have them in different orders. */
    static __device__ int place(int row, int piece)
    {
        return row * HEAD + 8 * (SWIZZLED ? piece ^ row % 8 : piece);
    }

    /* From the place of a row's piece 0 or 1 to that of dimension `d`, a multiple of 16, and the next: d is known. */
    static __device__ int along(int from, int d)
    {
        return SWIZZLED ? (from ^ d % 64) + d / 64 * 64 : from + d;
    }

    /* ---- keys and values on their way ---- */

    /* In values: */
    struct stream {
        const uint16_t *next, *after; /* the keys or values that come next, and the others; at this thread's piece */
        int at;                       /* the next step's first slot; from the cache's end on it begins again */
        int left, there;              /* positions, from the next step's first on, and from this thread's; 0: none */
        int slot;                     /* of the ring */
        bool values;                  /* come next */
    };

    static __device__ stream begin_stream(const card_attention &a, int kv_head, int begin, int end)
    {
        const int line = (int)threadIdx.x / PIECES, d = (int)threadIdx.x % PIECES * 8;
        const size_t from = (size_t)kv_head * (size_t)a.capacity * (size_t)a.head_dim + (size_t)d;
        stream s;
        s.next = as_number(a.k + from);
        s.after = as_number(a.v + from);
        s.at = begin % a.capacity * a.head_dim;
        s.left = line < LINES ? end - begin : 0;
        s.there = d < a.head_dim ? s.left - line : 0; /* beyond head_dim: zeros */
        s.slot = 0;
        s.values = false;
        return s;
    }

    /* FLASH_KEYS of them into the next slot, zeros for what is not there. */
    static __device__ void copy(stream &s, const card_attention &a, uint16_t *ring)
    {
        const int line = (int)threadIdx.x / PIECES, wrap = a.capacity * a.head_dim;
        if (s.left > 0) {
            uint16_t *const to = ring + s.slot * SLOT + place(line, (int)threadIdx.x % PIECES);
#pragma unroll
            for (int i = 0; i < (FLASH_KEYS + LINES - 1) / LINES; i++) {
                int from = s.at + (line + i * LINES) * a.head_dim; /* what rows see is less than once around */
                from -= from >= wrap ? wrap : 0;
                if (FLASH_KEYS % LINES == 0 || line + i * LINES < FLASH_KEYS)
                    copy_async(to + i * LINES * HEAD, s.next + from, i * LINES < s.there);
            }
        }
        copy_group();
        const uint16_t *const copied = s.next;
        s.next = s.after;
        s.after = copied;
        if (s.values) {
            s.at += FLASH_KEYS * a.head_dim;
            s.left -= FLASH_KEYS;
            s.there -= FLASH_KEYS;
        }
        s.values = !s.values;
        s.slot = s.slot + 1 < SLOTS ? s.slot + 1 : 0;
    }

    /* ---- products ---- */

    /* Queries as they are multiplied, scaled so that the softmax is of powers of two. */
    struct queries {
        uint32_t whole[TILES][HEAD / 16][4], last[TILES][2];
    };

    static __device__ uint32_t query_pair(const card_attention &a, const float *q, int row, int d)
    {
        const float scale = a.scale * 1.4426950408889634f, most = 65504;
        if (row >= a.rows || d >= a.head_dim)
            return 0;
        const float2 pair = *(const float2 *)(q + (size_t)row * (size_t)(a.n_heads * a.head_dim) + (size_t)d);
        return pack_half(fminf(fmaxf(pair.x * scale, -most), most), fminf(fmaxf(pair.y * scale, -most), most));
    }

    static __device__ void load_queries(queries &to, const card_attention &a, int head)
    {
        const float *q = a.q + (size_t)head * (size_t)a.head_dim;
        const int d = (int)threadIdx.x % 4 * 2, row = first_row();
#pragma unroll
        for (int tile = 0; tile < TILES; tile++) {
#pragma unroll
            for (int k = 0; k < HEAD / 16; k++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    to.whole[tile][k][i] = query_pair(a, q, row + 16 * tile + i % 2 * 8, 16 * k + i / 2 * 8 + d);
#pragma unroll
            for (int i = 0; rest && i < 2; i++)
                to.last[tile][i] = query_pair(a, q, row + 16 * tile + i * 8, HEAD - 8 + d);
        }
    }

    /* s = queries times this warp's keys, the first of them at `keys`, less the rows' bases */
    static __device__ void score(scores &s, const queries &q, const of_rows &base, const uint16_t *keys)
    {
        const int lane = (int)threadIdx.x % 32, from = place(lane % 8 + lane / 16 * 8, lane / 8 % 2);
#pragma unroll
        for (int tile = 0; tile < TILES; tile++)
#pragma unroll
            for (int n = 0; n < OWN / 8; n++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    s[tile][n][i] = -base[2 * tile + i / 2];
#pragma unroll
        for (int k = 0; k < HEAD / 16; k++)
#pragma unroll
            for (int n = 0; n < OWN / 16; n++) {
                uint32_t b[4];
                load_matrices(b, keys + 16 * n * HEAD + along(from, 16 * k));
#pragma unroll
                for (int tile = 0; tile < TILES; tile++) {
                    multiply_half(s[tile][2 * n], q.whole[tile][k], b[0], b[1]);
                    multiply_half(s[tile][2 * n + 1], q.whole[tile][k], b[2], b[3]);
                }
            }
#pragma unroll
        for (int n = 0; rest && n < OWN / 32; n++) {
            uint32_t b[4]; /* of 8 keys each */
            load_matrices(b, keys + 32 * n * HEAD + place(lane, PIECES - 1));
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int tile = 0; tile < TILES; tile++)
                    multiply_half_8(s[tile][4 * n + i], q.last[tile], b[i]);
        }
    }

    /* out += weights times this warp's values */
    static __device__ void weigh(sums &out, const weights &w, const uint16_t *values)
    {
        const int lane = (int)threadIdx.x % 32, from = place(lane % 16, lane / 16);
        uint32_t last[4]; /* the last 8 dimensions of 8 keys each */
#pragma unroll
        for (int k = 0; k < OWN / 16; k++) {
            if (rest && k % 2 == 0)
                load_matrices_transposed(last, values + 16 * k * HEAD + place(lane, PIECES - 1));
#pragma unroll
            for (int n = 0; n < HEAD / 16; n++) {
                uint32_t b[4]; /* dimensions 0-7 of keys 0-7 and 8-15, then dimensions 8-15 */
                load_matrices_transposed(b, values + 16 * k * HEAD + along(from, 16 * n));
#pragma unroll
                for (int tile = 0; tile < TILES; tile++) {
                    multiply_half(out[tile][2 * n], w[tile][k], b[0], b[1]);
                    multiply_half(out[tile][2 * n + 1], w[tile][k], b[2], b[3]);
                }
            }
#pragma unroll
            for (int tile = 0; rest && tile < TILES; tile++)
                multiply_half(out[tile][HEAD / 8 - 1], w[tile][k], last[k % 2 * 2], last[k % 2 * 2 + 1]);
        }
    }

    /* ---- softmax ---- */

    /* What rows do not see. Seldom done: intervals are not kept in registers. */
    static __device__ void mask(scores &s, const card_attention &a, int first)
    {
        const int row = first_row();
#pragma unroll
        for (int i = 0; i < 2 * TILES; i++) {
            const int lo = row + 8 * i < a.rows ? a.lo[row + 8 * i] : 0,
                      hi = row + 8 * i < a.rows ? a.hi[row + 8 * i] : 0;
#pragma unroll
            for (int k = 0; k < OWN / 4; k++) {
                const int position = first + k / 2 * 8 + (int)threadIdx.x % 4 * 2 + k % 2;
                if (position < lo || position >= hi)
                    s[i / 2][k / 2][i % 2 * 2 + k % 2] = -INFINITY;
            }
        }
    }

    /* A row's softmax: weights are 2^(score - base). */
    struct softmax {
        of_rows base, total; /* of the weights of this lane's keys so far */
        of_rows limit;       /* how far above the base a score may be */
    };

    /* Scores, less the base, to weights. A row's base rises to its largest score only when that is far above, seldom
     * more than once, while what was summed has to shrink each time; weights of up to 2^8 are as exact. The first keys
     * that a row sees make its base. */
    static __device__ void soften(weights &w, scores &s, sums &out, softmax &soft)
    {
        const float far = 8;
        of_rows rise;
        bool rises = false;
#pragma unroll
        for (int row = 0; row < 2 * TILES; row++) {
            float largest = -INFINITY;
#pragma unroll
            for (int i = 0; i < OWN / 4; i++)
                largest = fmaxf(largest, s[row / 2][i / 2][row % 2 * 2 + i % 2]);
            largest = fmaxf(largest, __shfl_xor_sync(0xffffffff, largest, 1));
            largest = fmaxf(largest, __shfl_xor_sync(0xffffffff, largest, 2));
            const bool above = largest > soft.limit[row];
            rise[row] = above ? largest : 0;
            soft.limit[row] = above ? far : soft.limit[row];
            rises |= above;
        }
        if (rises) {
#pragma unroll
            for (int row = 0; row < 2 * TILES; row++) {
                const float factor = power_of_two(fminf(-rise[row], 0)); /* the first may go down: nothing is summed */
                soft.base[row] += rise[row];
                soft.total[row] *= factor;
#pragma unroll
                for (int i = 0; i < HEAD / 4; i++)
                    out[row / 2][i / 2][row % 2 * 2 + i % 2] *= factor;
#pragma unroll
                for (int i = 0; i < OWN / 4; i++)
                    s[row / 2][i / 2][row % 2 * 2 + i % 2] -= rise[row];
            }
        }
#pragma unroll
        for (int row = 0; row < 2 * TILES; row++)
#pragma unroll
            for (int n = 0; n < OWN / 8; n++) { /* what a product leaves in a lane is what the next one takes */
                const float *const pair = &s[row / 2][n][row % 2 * 2];
                const float x = power_of_two(pair[0]), y = power_of_two(pair[1]);
                soft.total[row] += x + y;
                w[row / 2][n / 2][n % 2 * 2 + row % 2] = pack_half(x, y);
            }
    }

    /* ---- the answer ---- */

    /* Of warps that took different keys for the same rows into the first of them, in their order. */
    static __device__ void merge(sums &out, softmax &soft, uint16_t *memory)
    {
        static_assert(KEY_WARPS == 1 || TILES == 1, "a lane's bases and totals are four floats");
        float base[2], *const total = soft.total;
        for (int row = 0; row < 2; row++)
            base[row] = soft.limit[row] > 0 ? soft.base[row] : UNSEEN;
        const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, key_warp = warp / ROW_WARPS;
        float4 *const shared = (float4 *)memory + warp % ROW_WARPS * (HEAD / 8 + 1) * 32 + lane;
        for (int from = 1; from < KEY_WARPS; from++) {
            __syncthreads(); /* nobody uses the memory any more */
            if (key_warp == from) {
#pragma unroll
                for (int n = 0; n < HEAD / 8; n++)
                    shared[32 * n] = make_float4(out[0][n][0], out[0][n][1], out[0][n][2], out[0][n][3]);
                shared[HEAD / 8 * 32] = make_float4(base[0], base[1], total[0], total[1]);
            }
            __syncthreads();
            if (key_warp)
                continue;
            const float4 other = shared[HEAD / 8 * 32];
            const float to[2] = {fmaxf(base[0], other.x), fmaxf(base[1], other.y)};
            const float own[2] = {power_of_two(base[0] - to[0]), power_of_two(base[1] - to[1])};
            const float its[2] = {power_of_two(other.x - to[0]), power_of_two(other.y - to[1])};
            base[0] = to[0];
            base[1] = to[1];
            total[0] = total[0] * own[0] + other.z * its[0];
            total[1] = total[1] * own[1] + other.w * its[1];
#pragma unroll
            for (int n = 0; n < HEAD / 8; n++) {
                const float4 part = shared[32 * n];
                out[0][n][0] = out[0][n][0] * own[0] + part.x * its[0];
                out[0][n][1] = out[0][n][1] * own[0] + part.y * its[0];
                out[0][n][2] = out[0][n][2] * own[1] + part.z * its[1];
                out[0][n][3] = out[0][n][3] * own[1] + part.w * its[1];
            }
        }
    }

    static __device__ void put(const card_attention &a, const sums &out, const of_rows &total, int head)
    {
        const int column = (int)threadIdx.x % 4 * 2;
#pragma unroll
        for (int i = 0; i < 2 * TILES; i++) {
            const int row = first_row() + 8 * i;
            float sum = total[i];
            sum += __shfl_xor_sync(0xffffffff, sum, 1);
            sum += __shfl_xor_sync(0xffffffff, sum, 2);
            if (row >= a.rows)
                continue;
            const float scale = sum > 0 ? 1 / sum : 0; /* nothing seen: zeros */
#pragma unroll
            for (int n = 0; n < HEAD / 8; n++)
                if (8 * n < a.head_dim)
                    put_pair(a, row, head * a.head_dim + 8 * n + column, out[i / 2][n][i % 2 * 2] * scale,
                             out[i / 2][n][i % 2 * 2 + 1] * scale);
        }
    }

    /* ---- the whole ---- */

    /* The positions that one or all of some rows see; rows that are not there change nothing. */
    struct seen {
        int first, end;         /* by any */
        int all_first, all_end; /* by every one */
    };

    template <int COUNT> static __device__ seen look(const card_attention &a, int first_row)
    {
        const int none = 0x7fffffff;
        seen s = {none, 0, 0, none};
        for (int i = (int)threadIdx.x % 32; i < COUNT; i += 32)
            if (first_row + i < a.rows) {
                const int lo = a.lo[first_row + i], hi = a.hi[first_row + i];
                if (lo < hi) {
                    s.first = lo < s.first ? lo : s.first;
                    s.end = hi > s.end ? hi : s.end;
                }
                s.all_first = lo > s.all_first ? lo : s.all_first;
                s.all_end = hi < s.all_end ? hi : s.all_end;
            }
        s.first = warp_least(s.first);
        s.end = -warp_least(-s.end);
        s.all_first = -warp_least(-s.all_first);
        s.all_end = warp_least(s.all_end);
        return s;
    }

    /* grid (rows / ROWS, heads); head_dim a multiple of 8 */
    static __device__ void attend(const card_attention &a)
    {
        BLOCK_MEMORY(uint16_t, flash_memory);
        const int head = blockIdx.y, warp = (int)threadIdx.x / 32, key_warp = warp / ROW_WARPS;
        const int block_row = (int)blockIdx.x * ROWS, warp_row = block_row + warp % ROW_WARPS * WARP_ROWS;
        const seen of_block = look<ROWS>(a, block_row), of_warp = look<WARP_ROWS>(a, warp_row);

        stream from = begin_stream(a, head / (a.n_heads / a.n_kv_heads), of_block.first, of_block.end);
        for (int i = 0; i < SLOTS - 1; i++)
            copy(from, a, flash_memory);
        queries q;
        load_queries(q, a, head);
        sums out;
        softmax soft;
#pragma unroll
        for (int i = 0; i < 2 * TILES; i++) {
            soft.base[i] = soft.total[i] = 0;
            soft.limit[i] = UNSEEN;
#pragma unroll
            for (int n = 0; n < HEAD / 4; n++)
                out[i / 2][n / 2][i % 2 * 2 + n % 2] = 0;
        }
        int slot = 0;
        for (int step = of_block.first; step < of_block.end; step += FLASH_KEYS) {
            const int first = step + OWN * key_warp;
            const bool sees = first < of_warp.end;
            weights w;
            copy_wait<SLOTS - 2>();
            __syncthreads(); /* the keys are there, and what was used last is free */
            copy(from, a, flash_memory);
            if (sees) {
                scores s;
                score(s, q, soft.base, flash_memory + slot * SLOT + key_warp * OWN * HEAD);
                if (first < of_warp.all_first || first + OWN > of_warp.all_end)
                    mask(s, a, first);
                soften(w, s, out, soft);
            }
            slot = slot + 1 < SLOTS ? slot + 1 : 0;
            copy_wait<SLOTS - 2>();
            __syncthreads(); /* the same of the values */
            copy(from, a, flash_memory);
            if (sees)
                weigh(out, w, flash_memory + slot * SLOT + key_warp * OWN * HEAD);
            slot = slot + 1 < SLOTS ? slot + 1 : 0;
        }
        merge(out, soft, flash_memory);
        if (key_warp == 0)
            put(a, out, soft.total, head);
        if (head == a.n_heads - 1)
            fill_up(a, block_row, a.rows - block_row < ROWS ? a.rows - block_row : ROWS, THREADS);
    }
};

#define FLASH_KERNEL(head, tiles, row_warps, key_warps, slots)                                                         \
    extern "C" __global__ void __launch_bounds__(32 * row_warps * key_warps) flash_##head(card_attention a)            \
    {                                                                                                                  \
        wait_for_previous();                                                                                           \
        flash<head, tiles, row_warps, key_warps, FLASH_SLOTS(slots)>::attend(a);                                       \
    }
FLASH_KERNELS(FLASH_KERNEL)

#endif
