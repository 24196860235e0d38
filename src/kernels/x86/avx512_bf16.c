/* AVX-512 BF16: products of bf16 weights with x rounded to bf16, two at a time, summed in float32. */
#include "kernels/kernels.h"
#include "kernels/x86/pairs512.h"

/* Panels hold pairs of columns: [k / 2][TILE_ROWS][2] and [k / 2][TILE_COLS][2]. */
enum {
    TILE_ROWS = 14, /* 28 registers of sums, 2 of weights, 1 of x */
    TILE_COLS = 2 * LANES,
    PREFETCH_TILE = 256, /* columns from which on the outputs of a tile are worth fetching before they are summed */
};

static void pack_x(void *panel, const float *x, size_t stride, int rows, int k)
{
    uint32_t *out = panel;
    for (int i = 0; i < k; i += VECTOR_COLS) {
        __m512 block[LANES];
        load_block(block, (const uint8_t *)x, stride * sizeof *x, rows, i, k - i, load_f32);
        for (int p = 0; p < LANES && i + PAIR * p < k; p++, out += TILE_ROWS)
            _mm512_mask_storeu_ps(out, (1u << TILE_ROWS) - 1, block[p]);
    }
}

static inline __attribute__((always_inline)) void pack_w(void *panel, const void *w, size_t row_bytes, int rows, int k,
                                                         load_fn *load)
{
    for (int first = 0; first < TILE_COLS; first += LANES) {
        uint32_t *out = (uint32_t *)panel + first;
        for (int i = 0; i < k; i += VECTOR_COLS) {
            __m512 block[LANES];
            load_block(block, (const uint8_t *)w + (size_t)first * row_bytes, row_bytes, rows - first, i, k - i, load);
            for (int p = 0; p < LANES && i + PAIR * p < k; p++, out += TILE_COLS)
                _mm512_storeu_ps(out, block[p]);
        }
    }
}

static void pack_w_f32(void *panel, const void *w, size_t row_bytes, int rows, int k)
{
    pack_w(panel, w, row_bytes, rows, k, load_f32);
}

static void pack_w_f16(void *panel, const void *w, size_t row_bytes, int rows, int k)
{
    pack_w(panel, w, row_bytes, rows, k, load_f16);
}

static void pack_w_bf16(void *panel, const void *w, size_t row_bytes, int rows, int k)
{
    pack_w(panel, w, row_bytes, rows, k, load_bf16);
}

static inline __attribute__((always_inline)) void pack_w_transposed(void *panel, const void *w, size_t row_bytes, int k,
                                                                    int cols, load_fn *load)
{
    uint32_t *out = panel;
    for (int i = 0; i < k; i += PAIR, out += TILE_COLS) {
        const uint8_t *row = (const uint8_t *)w + (size_t)i * row_bytes;
        const __m512i even = load(row, 0, cols),
                      odd = i + 1 < k ? load(row + row_bytes, 0, cols) : _mm512_setzero_si512();
        __m512i pairs[2];
        interleave(pairs, even, odd);
        _mm512_storeu_si512(out, pairs[0]);
        _mm512_storeu_si512(out + LANES, pairs[1]);
    }
}

static void pack_w_transposed_f32(void *panel, const void *w, size_t row_bytes, int k, int cols)
{
    pack_w_transposed(panel, w, row_bytes, k, cols, load_f32);
}

static void pack_w_transposed_f16(void *panel, const void *w, size_t row_bytes, int k, int cols)
{
    pack_w_transposed(panel, w, row_bytes, k, cols, load_f16);
}

static void pack_w_transposed_bf16(void *panel, const void *w, size_t row_bytes, int k, int cols)
{
    pack_w_transposed(panel, w, row_bytes, k, cols, load_bf16);
}

static inline __attribute__((always_inline)) void tile_vectors(float *c, size_t c_stride, const int32_t *x,
                                                               const uint8_t *w, int k, bool accumulate,
                                                               const int vectors)
{
    __m512 sum[TILE_ROWS][2];
#pragma GCC unroll 16
    for (int i = 0; i < TILE_ROWS; i++)
        sum[i][0] = sum[i][1] = _mm512_setzero_ps();
    for (int i = 0; k >= PREFETCH_TILE && i < TILE_ROWS; i++) {
        __builtin_prefetch(c + (size_t)i * c_stride, 1);
        __builtin_prefetch(c + (size_t)i * c_stride + vectors * LANES - 1, 1);
    }

    for (int p = 0; p < k; p += PAIR, x += TILE_ROWS, w += PAIR * TILE_COLS * sizeof(uint16_t)) {
        const __m512bh w0 = (__m512bh)_mm512_loadu_si512(w), w1 = (__m512bh)_mm512_loadu_si512(w + 64);
#pragma GCC unroll 16
        for (int i = 0; i < TILE_ROWS; i++) {
            const __m512bh xi = (__m512bh)_mm512_set1_epi32(x[i]);
            sum[i][0] = _mm512_dpbf16_ps(sum[i][0], xi, w0);
            if (vectors == 2)
                sum[i][1] = _mm512_dpbf16_ps(sum[i][1], xi, w1);
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < TILE_ROWS; i++, c += c_stride)
        for (int j = 0; j < vectors; j++) {
            float *to = c + j * LANES;
            _mm512_storeu_ps(to, accumulate ? _mm512_add_ps(_mm512_loadu_ps(to), sum[i][j]) : sum[i][j]);
        }
}

static void tile(float *c, size_t c_stride, const void *x_panel, const void *w_panel, int k, bool accumulate)
{
    tile_vectors(c, c_stride, x_panel, w_panel, k, accumulate, 2);
}

static void tile_half(float *c, size_t c_stride, const void *x_panel, const void *w_panel, int k, bool accumulate)
{
    tile_vectors(c, c_stride, x_panel, w_panel, k, accumulate, 1);
}

static const struct gemm gemm_bf16 = {
    .mr = TILE_ROWS,
    .nr = TILE_COLS,
    .k_step = PAIR,
    .x_group = TILE_ROWS * PAIR * sizeof(uint16_t),
    .w_group = TILE_COLS * PAIR * sizeof(uint16_t),
    .rounding = ROUND_BF16,
    .pack_x = pack_x,
    .pack_w = {[TENSOR_F32] = pack_w_f32, [TENSOR_F16] = pack_w_f16, [TENSOR_BF16] = pack_w_bf16},
    .pack_w_transposed = {[TENSOR_F32] = pack_w_transposed_f32,
                          [TENSOR_F16] = pack_w_transposed_f16,
                          [TENSOR_BF16] = pack_w_transposed_bf16},
    .tile = tile,
    .tile_half = tile_half,
};

void kernels_init_avx512_bf16(struct kernels *k)
{
    k->gemm[TENSOR_F16] = k->gemm[TENSOR_BF16] = k->gemm_scores = k->gemm_values = &gemm_bf16;
}
