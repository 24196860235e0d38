/* The products of matrix.cuh by Hopper's tensor cores, which read shared memory themselves (PTX ISA, "Asynchronous
 * Warpgroup Level Matrix Multiply-Accumulate Instructions"): sm_90a and nothing else has them. */
#ifndef WARD_CUDA_WGMMA_CUH
#define WARD_CUDA_WGMMA_CUH

#include "cuda/kernels/matrix.cuh"

enum {
    SWIZZLE_BYTES = 1024, /* eight rows of 128 bytes: what the swizzle repeats itself after, and is aligned to */
    WGMMA_PAIRS = WGMMA_OUTPUTS / 8,
};

#ifndef WARD_EMULATED

/* What threads have written to shared memory, by stores or by copies that have arrived, is there for the tensor cores
 * once the block has waited for its threads. */
__device__ inline void publish_shared()
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/* Sums belong to the products that follow, until these are waited for. */
__device__ inline void wgmma_begin()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ inline void wgmma_group()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/* Until at most `left` of the latest groups are under way. */
template <int left> __device__ inline void wgmma_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(left) : "memory");
}

/* Nobody reads or writes the sums before this place when the program does so after it, nor the other way round. */
__device__ inline void keep_sums(float (&sums)[2][WGMMA_PAIRS][4])
{
#pragma unroll
    for (int half = 0; half < 2; half++)
#pragma unroll
        for (int i = 0; i < WGMMA_PAIRS; i++)
            asm volatile(""
                         : "+f"(sums[half][i][0]), "+f"(sums[half][i][1]), "+f"(sums[half][i][2]),
                           "+f"(sums[half][i][3])::"memory");
}

/* sums [64][144] += a [64][16] b [144][16]^T, both where their descriptors say, of four warps together: warp w % 4 has
 * the rows 16 (w % 4) to 16 (w % 4) + 15, and of them sums[i] are columns 8i to 8i + 7 as multiply_bf16 leaves them. */
__device__ inline void wgmma_multiply(float (&sums)[WGMMA_PAIRS][4], uint64_t a, uint64_t b)
{
#define FOUR(i) "+f"(sums[i][0]), "+f"(sums[i][1]), "+f"(sums[i][2]), "+f"(sums[i][3])
    asm volatile("{.reg .pred add; setp.ne.b32 add, 1, 0; "
                 "wgmma.mma_async.sync.aligned.m64n144k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, "
                 "%18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, "
                 "%36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, "
                 "%54, %55, %56, %57, %58, %59, %60, %61, %62, %63, %64, %65, %66, %67, %68, %69, %70, %71}, "
                 "%72, %73, add, 1, 1, 0, 0;}"
                 : FOUR(0), FOUR(1), FOUR(2), FOUR(3), FOUR(4), FOUR(5), FOUR(6), FOUR(7), FOUR(8), FOUR(9), FOUR(10),
                   FOUR(11), FOUR(12), FOUR(13), FOUR(14), FOUR(15), FOUR(16), FOUR(17)
                 : "l"(a), "l"(b)
                 : "memory");
#undef FOUR
}

#endif

/* Where rows of 64 values lie in shared memory, as the tensor cores take it ("Matrix Descriptor Format"): bits 0-13 the
 * address / 16; 16-29 the leading offset, which with a swizzle is not used and is 1; 32-45 the offset / 16 from eight
 * rows to the next eight; 49-51 the base offset, 0 for what is aligned to SWIZZLE_BYTES; 62-63 the swizzle, 1 for 128
 * bytes. 16 values further on in the rows the address is 32 more: the swizzle is a matter of the address' bits. */
__device__ inline uint64_t rows_descriptor(const uint16_t *rows)
{
    return (uint64_t)(shared_address(rows) >> 4 & 0x3fff) | (uint64_t)1 << 16 | (uint64_t)(SWIZZLE_BYTES >> 4) << 32 |
           (uint64_t)1 << 62;
}

/* A tile of WGMMA_ROWS rows of x and WGMMA_OUTPUTS outputs by two warpgroups, which take half of the rows each: two
 * products of 64 rows. A warp has 16 rows of either, which in the tile are 32 side by side. */
template <class Format> struct wgmma_tile {
    enum {
        X_STAGE = WGMMA_ROWS * WGMMA_DEPTH,
        STAGE = X_STAGE + WGMMA_OUTPUTS * WGMMA_DEPTH,
        AHEAD = WGMMA_STAGES - 2, /* steps: one stage is being multiplied, one may still be by the other warpgroup */
        NEXT = 16 * 2 >> 4,       /* 16 values in a descriptor */
        LOWER = 64 * WGMMA_DEPTH * 2 >> 4, /* 64 rows in a descriptor */
    };
    typedef weight_units<Format, WGMMA_OUTPUTS, WGMMA_DEPTH, WGMMA_THREADS> units;
    typedef row_copies<WGMMA_ROWS, WGMMA_DEPTH, WGMMA_THREADS> x_rows;
    static_assert(put_bytes(WGMMA_THREADS / 32, WGMMA_OUTPUTS) <= WGMMA_SHARED, "fits the stages");

    /* The row of the tile that lies in that row of a stage. */
    static __device__ int tile_row(int row)
    {
        return row / 128 * 128 + row % 64 / 16 * 32 + row / 64 % 2 * 16 + row % 16;
    }

    static __device__ void compute(const card_maps &maps, const uint16_t *x, int rows, int x_parts, int w_parts,
                                   const card_parts &parts)
    {
        BLOCK_MEMORY(uint16_t, unaligned);
        uint16_t *const tiles = unaligned + (0u - shared_address(unaligned)) % SWIZZLE_BYTES / sizeof *tiles;
        int first_row, tile;
        this_tile(&first_row, &tile);
        const card_map &map = maps.map[map_of(maps, tile)];
        const int first_output = (tile - map.first_block) * WGMMA_OUTPUTS;
        first_row *= WGMMA_ROWS;
        const matrix_steps steps(map.w, WGMMA_DEPTH, x_parts, w_parts);
        const int share = (steps.total + (int)gridDim.z - 1) / (int)gridDim.z, begin = (int)blockIdx.z * share;
        const int end = begin + share < steps.total ? begin + share : steps.total;

        x_rows x_copies(x);
        row_copies<WGMMA_OUTPUTS, WGMMA_DEPTH, WGMMA_THREADS> w_copies(map.w.low);
        for (int i = 0; i < x_rows::EACH; i++) { /* of rows that are not there nothing is read */
            const int row = first_row + tile_row(x_rows::row(i));
            x_copies.set(i, row, x_parts * map.w.units * (UNIT / 8), row < rows);
        }
        set_weights(w_copies, map, first_output);

        units weights; /* as in matrix_tile */
        const auto stage = [&](int i) { return tiles + (i - begin) % WGMMA_STAGES * STAGE; };
        const auto load = [&](int i) { weights.load(map, first_output, steps.of_w(i < end ? i : end - 1)); };
        const auto start = [&](int i) {
            if (i < end) {
                x_copies.copy(stage(i), steps.of_x(i));
                if (units::direct)
                    w_copies.copy(stage(i) + X_STAGE, steps.of_w(i));
            }
            copy_group();
            weights.put(stage(i) + X_STAGE, map, first_output, steps.of_w(i), steps.of_rest(i));
        };
        const int warp = (int)threadIdx.x / 32, half = warp / 4 * (WGMMA_ROWS / 2);
        /* By a shuffle, so that the compiler knows it for the same in all lanes. */
        const bool there = __shfl_sync(0xffffffff, first_row + half < rows, 0);
        float sums[2][WGMMA_PAIRS][4] = {};
        load(begin);
        for (int i = begin; i < begin + AHEAD; i++) {
            start(i);
            load(i + 1);
        }
        keep_sums(sums);
        for (int i = begin; i < end; i++) {
            copy_wait<AHEAD - 1>();
            publish_shared();
            __syncthreads(); /* step i has arrived for all; all are done with step i - 2: its place is free */
            const uint64_t a = rows_descriptor(stage(i) + half * WGMMA_DEPTH);
            const uint64_t b = rows_descriptor(stage(i) + X_STAGE);
            if (there) {
                wgmma_begin();
#pragma unroll
                for (int k = 0; k < WGMMA_DEPTH / 16; k++) {
                    wgmma_multiply(sums[0], a + k * NEXT, b + k * NEXT);
                    wgmma_multiply(sums[1], a + LOWER + k * NEXT, b + k * NEXT);
                }
                wgmma_group();
            }
            start(i + AHEAD);
            load(i + AHEAD + 1);
            wgmma_wait<1>(); /* step i - 1 */
        }
        wgmma_wait<0>();
        keep_sums(sums);
        put(map, sums, first_row + half + warp % 4 * 32, first_output, rows, parts, tile * WGMMA_OUTPUTS);
    }
};

/* wgmma_FORMAT: as matrix_FORMAT. */
#define WGMMA_KERNEL(format)                                                                                           \
    extern "C" __global__ void __launch_bounds__(WGMMA_THREADS, 1)                                                     \
        wgmma_##format(card_maps maps, const void *x, int rows, int x_parts, int w_parts, card_parts parts)            \
    {                                                                                                                  \
        wait_for_previous();                                                                                           \
        wgmma_tile<format_##format>::compute(maps, (const uint16_t *)x, rows, x_parts, w_parts, parts);                \
    }
CARD_WGMMA_NAMES(WGMMA_KERNEL)

#endif
