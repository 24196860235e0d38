/* Many rows of x times a matrix, on tensor cores: x and the weights in bf16, sums in float32. Quantized weights become
 * bf16 on their way to shared memory. Where more than bf16 is asked for, x is two parts (16 of a float's 24 bits), and
 * weights of more bits than bf16 are two parts as well; the products of both small parts are left out. */
#ifndef WARD_CUDA_MATRIX_CUH
#define WARD_CUDA_MATRIX_CUH

#include "cuda/kernels/epilogue.cuh"
#include "cuda/kernels/formats.cuh"

/* x [rows][cols] as bf16 [rows][parts][16 units]: the value and, with two parts, what it left. A thread for a pair of
 * values: grid (pairs / ROW_THREADS, rows). */
extern "C" __global__ void pack_rows(uint32_t *out, const float *x, int cols, int units, int parts)
{
    wait_for_previous();
    const int pair = (int)(blockIdx.x * blockDim.x + threadIdx.x), pairs = units * (UNIT / 2), row = blockIdx.y;
    if (pair >= pairs)
        return;
    x += (size_t)row * (size_t)cols;
    out += (size_t)row * (size_t)parts * (size_t)pairs + (size_t)pair;
    const float a = 2 * pair < cols ? x[2 * pair] : 0, b = 2 * pair + 1 < cols ? x[2 * pair + 1] : 0;
    const uint32_t whole = pack_bf16(a, b);
    out[0] = whole;
    if (parts > 1)
        out[pairs] = rest_of(whole, a, b);
}

/* ---- places ------------------------------------------------------------------------------------------------------ */

/* The tile of this block: blocks that run at the same time take GROUP rows of tiles, so that what they read of x and of
 * the weights is read by others as well while it is in the card's cache. */
__device__ inline void this_tile(int *row, int *output)
{
    enum { GROUP = 8 };
    const int wide = gridDim.x, at = blockIdx.y * wide + blockIdx.x, first = at / (GROUP * wide) * GROUP;
    const int high = (int)gridDim.y - first < GROUP ? (int)gridDim.y - first : GROUP, within = at - first * wide;
    *row = first + within % high;
    *output = within / high;
}

/* The row of the weights that gives a tile's output; none: w.rows. */
__device__ inline int weight_row(const card_map &map, int output)
{
    return output < map.w.rows ? output : map.w.rows;
}

/* Steps of the products: first of x whole by the weights, then of what is left of x, then of x whole by what is left of
 * weights that are finer than bf16. */
struct matrix_steps {
    int each, x_parts, total;
    __device__ matrix_steps(const card_matrix &w, int depth, int x_parts_, int w_parts)
        : each(w.units * UNIT / depth), x_parts(x_parts_), total(each * (x_parts_ + w_parts - 1))
    {
    }
    __device__ int of_x(int i) const /* in a row of x [parts][16 units] */
    {
        return i < x_parts * each ? i : i - x_parts * each;
    }
    __device__ int of_w(int i) const
    {
        return i < each ? i : i < 2 * each ? i - each : i - 2 * each;
    }
    __device__ bool of_rest(int i) const
    {
        return i >= x_parts * each;
    }
};

/* Rows in shared memory are DEPTH values, 32 or 64: four or eight pieces of 16 bytes, of which eight meet all banks. A
 * piece lies where its number and its row say, so that eight rows' pieces of one number meet all banks, too. With 64
 * values that is NVIDIA's 128-byte swizzle. */
template <int DEPTH> __device__ inline int piece_at(int row, int piece)
{
    return row * DEPTH + ((piece ^ (DEPTH == 64 ? row % 8 : row / 2 % 4)) * 8);
}

/* The map of a launch that has this tile among those of a row of tiles. */
__device__ inline int map_of(const card_maps &maps, int tile)
{
    int i = 0;
    while (i + 1 < maps.n && tile >= maps.map[i + 1].first_block)
        i++;
    return i;
}

/* Sums of this block's share of the depth. */
__device__ inline void put_sums(const card_parts &parts, int row, int rows, int column, float4 v)
{
    if (row < rows)
        *(float4 *)(parts.sums + ((size_t)blockIdx.z * (size_t)rows + (size_t)row) * (size_t)parts.width +
                    (size_t)column) = v;
}

/* ---- weights ----------------------------------------------------------------------------------------------------- */

/* Values as pairs of bf16; rest: what bf16 leaves of them. */
template <class Format>
__device__ inline void unit_pairs(uint32_t pairs[UNIT / 2], const Format &f, int unit, bool rest)
{
    float v[UNIT];
    unit_values(v, f, unit);
#pragma unroll
    for (int i = 0; i < UNIT / 2; i++)
        pairs[i] = pack_bf16(v[2 * i], v[2 * i + 1]);
    if (Format::floats && rest)
#pragma unroll
        for (int i = 0; i < UNIT / 2; i++)
            pairs[i] = rest_of(pairs[i], v[2 * i], v[2 * i + 1]);
}

/* The units of a step that a thread brings to shared memory through its registers: every THREADS-th of them, row by
 * row. Rows that are not there are zeros. */
template <class Format, int OUTPUTS, int DEPTH, int THREADS> struct weight_units {
    enum { direct = 0, EACH = DEPTH / UNIT, ALL = OUTPUTS * EACH, UNITS = (ALL + THREADS - 1) / THREADS };
    Format f[UNITS];

    static __device__ int row(int u)
    {
        return ((int)threadIdx.x + u * THREADS) / EACH;
    }
    static __device__ int unit()
    {
        return (int)threadIdx.x % EACH;
    }
    static __device__ bool is_there(int u)
    {
        return ALL % THREADS == 0 || u + 1 < UNITS || row(u) < OUTPUTS;
    }
    __device__ void load(const card_map &map, int first, int step)
    {
#pragma unroll
        for (int u = 0; u < UNITS; u++) {
            const int at = weight_row(map, first + row(u));
            if (is_there(u))
                f[u].load(map.w, at < map.w.rows ? at : 0, step * EACH + unit());
        }
    }
    __device__ void put(uint16_t *to, const card_map &map, int first, int step, bool rest) const
    {
#pragma unroll
        for (int u = 0; u < UNITS; u++) {
            if (!is_there(u))
                continue;
            const bool valid = weight_row(map, first + row(u)) < map.w.rows;
            uint32_t pairs[UNIT / 2];
            unit_pairs(pairs, f[u], step * EACH + unit(), rest);
#pragma unroll
            for (int i = 0; i < UNIT / 2; i++)
                pairs[i] = valid ? pairs[i] : 0;
            uint4 *const left = (uint4 *)(to + piece_at<DEPTH>(row(u), 2 * unit()));
            uint4 *const right = (uint4 *)(to + piece_at<DEPTH>(row(u), 2 * unit() + 1));
            *left = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
            *right = make_uint4(pairs[4], pairs[5], pairs[6], pairs[7]);
        }
    }
};

/* bf16 needs no hands. */
template <int OUTPUTS, int DEPTH, int THREADS> struct weight_units<format_bf16, OUTPUTS, DEPTH, THREADS> {
    enum { direct = 1 };
    __device__ void load(const card_map &, int, int)
    {
    }
    __device__ void put(uint16_t *, const card_map &, int, int, bool) const
    {
    }
};

/* ROWS rows of bf16 to shared memory, step after step: a thread copies one piece of every APART-th row. */
template <int ROWS, int DEPTH, int THREADS> struct row_copies {
    enum { PIECES = DEPTH / 8, APART = THREADS / PIECES, EACH = (ROWS + APART - 1) / APART };
    const uint4 *from;
    uint32_t offsets[EACH], valid;
    int to;

    static __device__ int row(int i)
    {
        return (int)threadIdx.x / PIECES + APART * i;
    }
    __device__ row_copies(const void *from_) : from((const uint4 *)from_), valid(0)
    {
        to = piece_at<DEPTH>(row(0), (int)threadIdx.x % PIECES);
    }
    /* Row i of this thread's is row `at` there, of `pieces` pieces; exists false: zeros. */
    __device__ void set(int i, int at, int pieces, bool exists)
    {
        offsets[i] = (uint32_t)(exists ? at : 0) * (uint32_t)pieces + threadIdx.x % PIECES;
        valid |= (uint32_t)exists << i;
    }
    __device__ void copy(uint16_t *stage, int step) const
    {
#pragma unroll
        for (int i = 0; i < EACH; i++)
            if (ROWS % APART == 0 || i + 1 < EACH || row(i) < ROWS)
                copy_async(stage + to + i * APART * DEPTH, from + (offsets[i] + (uint32_t)(step * PIECES)),
                           valid >> i & 1);
    }
};

/* A tile's rows of the weights. */
template <class W> __device__ inline void set_weights(W &w, const card_map &map, int first_output)
{
    for (int i = 0; i < W::EACH; i++) {
        const int row = weight_row(map, first_output + w.row(i));
        w.set(i, row, map.w.units * (UNIT / 8), row < map.w.rows);
    }
}

/* ---- sums -------------------------------------------------------------------------------------------------------- */

/* A warp's sums, 16 M rows of 8 N outputs as multiply_bf16 leaves them, become what they are for; or, of a share of the
 * depth, a part of it: column: that of the first output among those of all maps. They go by way of the warp's share of
 * the block's memory, PUT_ROWS rows at a time, so that neighbouring lanes put what lies side by side, and the code for
 * it is there once. */
enum { PUT_ROWS = 32 };
constexpr int put_bytes(int warps, int outputs) /* what that takes */
{
    return warps * PUT_ROWS * (outputs + 8) * (int)sizeof(float);
}

template <int M, int N>
__device__ inline void put(const card_map &map, const float (&sums)[M][N][4], int row, int output, int rows,
                           const card_parts &parts, int column)
{
    BLOCK_MEMORY(float, passing);
    enum { WIDE = 8 * N, PITCH = WIDE + 8, ACROSS = WIDE / 4, RUN = 4, APART = PUT_ROWS / RUN };
    static_assert(ACROSS * APART % 32 == 0, "every lane has as many");
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    float *const mine = passing + warp * PUT_ROWS * PITCH;
    __syncthreads(); /* nobody multiplies any more */
#pragma unroll
    for (int turn = 0; turn < 16 * M / PUT_ROWS; turn++) {
#pragma unroll
        for (int m = 0; m < PUT_ROWS / 16; m++)
#pragma unroll
            for (int half = 0; half < 2; half++)
#pragma unroll
                for (int n = 0; n < N; n++)
                    *(float2 *)(mine + (16 * m + 8 * half + lane / 4) * PITCH + 8 * n + lane % 4 * 2) = make_float2(
                        sums[PUT_ROWS / 16 * turn + m][n][2 * half], sums[PUT_ROWS / 16 * turn + m][n][2 * half + 1]);
        __syncwarp();
#pragma unroll 1
        for (int i = lane; i < ACROSS * APART; i += 32) {
            const int at = i / ACROSS, to = i % ACROSS * 4;
            float4 v[RUN];
#pragma unroll
            for (int r = 0; r < RUN; r++)
                v[r] = *(const float4 *)(mine + (at + r * APART) * PITCH + to);
            if (gridDim.z == 1)
                put_rows(map, row + PUT_ROWS * turn + at, APART, rows, output + to, v);
            else
#pragma unroll
                for (int r = 0; r < RUN; r++)
                    put_sums(parts, row + PUT_ROWS * turn + at + r * APART, rows, column + to, v[r]);
        }
        __syncwarp();
    }
}

/* ---- products ---------------------------------------------------------------------------------------------------- */

/* A tile of ROWS rows of x and OUTPUTS outputs by four warps, a quarter each. */
template <class Format, int ROWS, int OUTPUTS> struct matrix_tile {
    enum { M = ROWS / 2 / 16, N = OUTPUTS / 2 / 8, STAGE = (ROWS + OUTPUTS) * MATRIX_DEPTH };
    typedef weight_units<Format, OUTPUTS, MATRIX_DEPTH, MATRIX_THREADS> units;
    static_assert(put_bytes(4, OUTPUTS / 2) <= MATRIX_STAGES * STAGE * (int)sizeof(uint16_t), "fits the stages");

    /* What a warp multiplies in a step of 16 values. */
    struct fragments {
        uint32_t a[M][4], b[N / 2][4];

        __device__ void load(const uint16_t *stage, int k)
        {
            const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
            const uint16_t *const x = stage + warp / 2 * (ROWS / 2) * MATRIX_DEPTH;
            const uint16_t *const w = stage + (ROWS + warp % 2 * (OUTPUTS / 2)) * MATRIX_DEPTH;
#pragma unroll
            for (int m = 0; m < M; m++) /* quarters of 16 x 16: rows 0-7, rows 8-15, then the right half of both */
                load_matrices(a[m], x + 16 * m * MATRIX_DEPTH + piece_at<MATRIX_DEPTH>(lane % 16, k / 8 + lane / 16));
#pragma unroll
            for (int n = 0; n < N / 2; n++) /* outputs 0-7 left and right, outputs 8-15 left and right */
                load_matrices(b[n], w + 16 * n * MATRIX_DEPTH +
                                        piece_at<MATRIX_DEPTH>(lane % 8 + lane / 16 * 8, k / 8 + lane / 8 % 2));
        }
    };

    static __device__ void multiply(float (&sums)[M][N][4], const fragments &f)
    {
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int n = 0; n < N; n++)
                multiply_bf16(sums[m][n], f.a[m], f.b[n / 2][n % 2 * 2], f.b[n / 2][n % 2 * 2 + 1]);
    }

    static __device__ void compute(const card_maps &maps, const uint16_t *x, int rows, int x_parts, int w_parts,
                                   const card_parts &parts)
    {
        BLOCK_MEMORY(uint16_t, tiles);
        int first_row, tile;
        this_tile(&first_row, &tile);
        const card_map &map = maps.map[map_of(maps, tile)];
        const int first_output = (tile - map.first_block) * OUTPUTS;
        first_row *= ROWS;
        const matrix_steps steps(map.w, MATRIX_DEPTH, x_parts, w_parts);
        const int share = (steps.total + (int)gridDim.z - 1) / (int)gridDim.z, begin = (int)blockIdx.z * share;
        const int end = begin + share < steps.total ? begin + share : steps.total;

        row_copies<ROWS, MATRIX_DEPTH, MATRIX_THREADS> x_copies(x);
        row_copies<OUTPUTS, MATRIX_DEPTH, MATRIX_THREADS> w_copies(map.w.low);
        for (int i = 0; i < x_copies.EACH; i++) { /* rows that are not there are not put: any will do */
            const int row = first_row + x_copies.row(i);
            x_copies.set(i, row < rows ? row : rows - 1, x_parts * map.w.units * (UNIT / 8), true);
        }
        set_weights(w_copies, map, first_output);

        units weights;
        const auto stage = [&](int i) { return tiles + (i - begin) % MATRIX_STAGES * STAGE; };
        /* Past the end the weights are those of the last step, for nobody: a branch would keep their conversion apart
         * from the products. */
        const auto load = [&](int i) { weights.load(map, first_output, steps.of_w(i < end ? i : end - 1)); };
        /* Step i on its way to shared memory; its weights have been loaded. */
        const auto start = [&](int i) {
            if (i < end) {
                x_copies.copy(stage(i), steps.of_x(i));
                if (units::direct)
                    w_copies.copy(stage(i) + ROWS * MATRIX_DEPTH, steps.of_w(i));
            }
            copy_group();
            weights.put(stage(i) + ROWS * MATRIX_DEPTH, map, first_output, steps.of_w(i), steps.of_rest(i));
        };
        /* Two sets of fragments: while one is multiplied the other is on its way. */
        float sums[M][N][4] = {};
        fragments even, odd;
        load(begin);
        for (int i = begin; i < begin + MATRIX_STAGES - 1; i++) {
            start(i);
            load(i + 1);
        }
        copy_wait<MATRIX_STAGES - 2>();
        __syncthreads();
        even.load(stage(begin), 0);
        for (int i = begin; i < end; i++) {
            odd.load(stage(i), 16);
            start(i + MATRIX_STAGES - 1);
            load(i + MATRIX_STAGES);
            multiply(sums, even);
            copy_wait<MATRIX_STAGES - 2>();
            __syncthreads(); /* step i + 1 has arrived for all; all have fetched step i: its place is free */
            even.load(stage(i + 1), 0);
            multiply(sums, odd);
        }
        const int warp = (int)threadIdx.x / 32, within = warp % 2 * (OUTPUTS / 2);
        put(map, sums, first_row + warp / 2 * (ROWS / 2), first_output + within, rows, parts, tile * OUTPUTS + within);
    }
};

/* The shares of the depth that blocks have summed, added in their order. A thread for four outputs: grid (width / 4 /
 * ROW_THREADS, rows). */
extern "C" __global__ void add_parts(card_maps maps, card_parts parts, int splits)
{
    wait_for_previous();
    const int at = 4 * (int)(blockIdx.x * blockDim.x + threadIdx.x), row = blockIdx.y, rows = gridDim.y;
    if (at >= parts.width)
        return;
    float4 v[1] = {make_float4(0, 0, 0, 0)};
    for (int i = 0; i < splits; i++) {
        const size_t from = ((size_t)i * (size_t)rows + (size_t)row) * (size_t)parts.width + (size_t)at;
        const float4 part = *(const float4 *)(parts.sums + from);
        v[0] = make_float4(v[0].x + part.x, v[0].y + part.y, v[0].z + part.z, v[0].w + part.w);
    }
    const card_map &map = maps.map[map_of(maps, at / parts.tile)];
    put_rows(map, row, 0, rows, at - map.first_block * parts.tile, v);
}

/* matrix_FORMAT: large tiles; matrix_small_FORMAT: of few rows. Grid (tiles of the outputs of all maps, rows / of a
 * tile, shares of the depth). x [rows][x_parts][16 units]. */
#define MATRIX_KERNEL(format)                                                                                          \
    extern "C" __global__ void __launch_bounds__(MATRIX_THREADS, MATRIX_AT_ONCE)                                       \
        matrix_##format(card_maps maps, const void *x, int rows, int x_parts, int w_parts, card_parts parts)           \
    {                                                                                                                  \
        wait_for_previous();                                                                                           \
        matrix_tile<format_##format, MATRIX_ROWS, MATRIX_OUTPUTS>::compute(maps, (const uint16_t *)x, rows, x_parts,   \
                                                                           w_parts, parts);                            \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(MATRIX_THREADS, SMALL_AT_ONCE)                                        \
        matrix_small_##format(card_maps maps, const void *x, int rows, int x_parts, int w_parts, card_parts parts)     \
    {                                                                                                                  \
        wait_for_previous();                                                                                           \
        matrix_tile<format_##format, SMALL_ROWS, SMALL_OUTPUTS>::compute(maps, (const uint16_t *)x, rows, x_parts,     \
                                                                         w_parts, parts);                              \
    }
CARD_FORMAT_NAMES(MATRIX_KERNEL)

#endif
