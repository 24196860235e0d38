/* The kernel table: what differs from one instruction set to the next, and nothing else. ref.c fills it with portable
 * C; each file under x86/ overrides entries with its own. One thread, plain pointers; compute.h builds whole operations
 * of it.
 *
 * Float accumulation is float32. Order of summation may differ between instruction sets, never between calls or thread
 * counts. */
#ifndef WARD_KERNELS_KERNELS_H
#define WARD_KERNELS_KERNELS_H

#include "model/tensor.h"

#include <stdbool.h>

/* Instruction sets in ascending order of what they are worth. A processor may lack one in the middle; each adds to
 * those before it. */
enum isa { ISA_NONE, ISA_AVX2, ISA_AVX_VNNI, ISA_AVX512, ISA_AVX512_VNNI, ISA_AVX512_BF16, ISA_AMX, ISA_COUNT };

/* A blocked matrix product C = X W^T. X and W are packed into panels of mr and nr rows. Within a panel the columns
 * follow one another in groups of k_step, each of x_group bytes in a panel of X and w_group bytes in one of W; all else
 * of the layout is between pack and tile. k is rounded up to a multiple of k_step with zeros, missing rows are zeros.
 * Panels and scratch tiles are aligned to KERNELS_ALIGN. */
enum {
    KERNELS_ALIGN = 64,
    GEMM_MAX_MR = 32,
    GEMM_MAX_NR = 32,
    GEMM_K_PARTS = 256, /* a product is cut along k at multiples of this: of every k_step and of every block of a type */
};

/* What x loses in its panel. In panels of bf16 and of fixed point w is rounded likewise, quantized w as to_float widens
 * it; with x as in struct x8, w is exact. */
enum rounding { ROUND_NOTHING, ROUND_BF16, ROUND_FIXED, ROUND_X8 };

/* Fixed point: k_step columns of a row, FIXED_BLOCK at most, become scale * q, scale = the largest of their magnitudes / FIXED_MOST, q
 * rounded to nearest, ties to even; all 0 where none reaches FIXED_LEAST. */
enum { FIXED_BLOCK = 128, FIXED_MOST = 4095 };
#define FIXED_LEAST 0x1p-100f

struct gemm {
    int mr, nr, k_step;
    size_t x_group, w_group;
    /* of x with each block of weights, at most, so that a block's outputs stay in the second-level cache while parts of
     * k are added to them; 0: the multiply is too slow for that to matter */
    int block_rows;
    enum rounding rounding;
    /* rows (<= mr) of x, `stride` floats apart, k columns */
    void (*pack_x)(void *panel, const float *x, size_t stride, int rows, int k);
    /* rows (<= nr) of w of each type, `row_bytes` apart, k columns; NULL: this product does not take the type */
    void (*pack_w[TENSOR_TYPES])(void *panel, const void *w, size_t row_bytes, int rows, int k);
    /* the same panel from the transposed matrix: k rows of cols (<= nr) columns; for the values of attention; floats
     * only */
    void (*pack_w_transposed[TENSOR_TYPES])(void *panel, const void *w, size_t row_bytes, int k, int cols);
    /* what a thread does before its first tile and after its last; NULL: nothing */
    void (*begin)(void);
    void (*end)(void);
    /* c [mr][nr], `c_stride` floats between rows: c = x w^T, or c += when accumulate. k a multiple of k_step. */
    void (*tile)(float *c, size_t c_stride, const void *x_panel, const void *w_panel, int k, bool accumulate);
    /* the same for the first nr / 2 columns of c alone */
    void (*tile_half)(float *c, size_t c_stride, const void *x_panel, const void *w_panel, int k, bool accumulate);
};

static inline void gemm_begin(const struct gemm *g)
{
    if (g->begin)
        g->begin();
}

static inline void gemm_end(const struct gemm *g)
{
    if (g->end)
        g->end();
}

/* A row of x as whole numbers of 8 bits in blocks of 32: x[i] = scale[i / 32] * q[i], scale = the block's largest |x| /
 * 127, q rounded to nearest, ties to even. cols is a multiple of 32. In memory: q, then scale, then sum. */
struct x8 {
    const int8_t *q;      /* [cols] */
    const float *scale;   /* [cols / 32] */
    const int32_t *sum;   /* [cols / 16] of q over each half block */
};

enum { X8_BLOCK = 32, GEMV_MAX_N = 8 };

static inline size_t x8_bytes(int cols)
{
    return (size_t)cols + (size_t)(cols / X8_BLOCK) * (sizeof(float) + 2 * sizeof(int32_t));
}

static inline struct x8 x8_at(const void *row, int cols)
{
    const int8_t *q = row;
    const float *scale = (const void *)(q + cols);
    return (struct x8){q, scale, (const void *)(scale + cols / X8_BLOCK)};
}

struct kernels {
    enum isa isa;
    /* the product used for weights of each type: float32 panels; for f16 and bf16 bf16 panels where the multiply takes
     * bf16, panels of fixed point where that is faster; 8-bit panels for quantized weights where that is faster. That of
     * TENSOR_F32 takes every type, and rounds nothing. */
    const struct gemm *gemm[TENSOR_TYPES];
    /* The products of attention, queries by keys and weights by values: in bf16 or in fixed point where there is one,
     * else that of TENSOR_F32. Both take the float types, and tiles of as many rows. */
    const struct gemm *gemm_scores, *gemm_values;
    /* out[i][rows] = w [rows][cols] x[i] for n <= GEMV_MAX_N rows of x, x_stride bytes apart: float32, or what
     * quantize_x makes where the type has one. Rows of w lie row_bytes apart, those of out out_stride floats. Each
     * result is the same whatever n and rows are. */
    void (*gemv[TENSOR_TYPES])(float *out, size_t out_stride, const void *w, size_t row_bytes, int rows, int cols,
                               const void *x, size_t x_stride, int n);
    /* Rounds a row of x [cols] to 8 bits for gemv, into x8_bytes(cols) bytes (struct x8). NULL: gemv takes floats. */
    void (*quantize_x[TENSOR_TYPES])(void *out, const float *x, int cols);
    /* out[cols] += sum over rows of p[row] * v[row][cols]; floats only */
    void (*weighted_rows[TENSOR_TYPES])(float *out, const float *p, const void *v, size_t row_bytes, int rows,
                                        int cols);
    /* out = x * weight / sqrt(mean(x^2) + eps); weight holds Gemma's 1 + w. out may be x. */
    void (*rms_norm)(float *out, const float *x, const float *weight, int n, float eps);
    /* out = (x - mean) / sqrt(var + eps) * weight + bias. out may be x. */
    void (*layer_norm)(float *out, const float *x, const float *weight, const float *bias, int n, float eps);
    /* x = gelu_tanh(x): 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) */
    void (*gelu)(float *x, int n);
    /* out = gelu_tanh(gate) * up. out may be either. */
    void (*gelu_multiply)(float *out, const float *gate, const float *up, int n);
    /* x += y */
    void (*add)(float *x, const float *y, int n);
    /* x *= s */
    void (*scale)(float *x, float s, int n);
    /* x = exp(x - max) for x <= max; returns the sum. Entries of -INFINITY become 0. */
    float (*exp_sum)(float *x, float max, int n);
    float (*max)(const float *x, int n);
    /* Rotates one head: pairs (i, i + n/2) by the angles whose cosines and sines are given [n/2]. */
    void (*rope)(float *x, const float *cosine, const float *sine, int n);
    /* between float32 and a row of each type */
    void (*to_float[TENSOR_TYPES])(float *out, const void *in, int n);
    void (*from_float[TENSOR_TYPES])(void *out, const float *in, int n); /* floats only */
};

/* Whether this processor and operating system offer the set. */
bool isa_present(enum isa isa);
const char *isa_name(enum isa isa); /* "none", "avx2", "avxvnni", "avx512", "avx512vnni", "avx512bf16", "amx" */
/* A name to its set; NULL: the widest; -1: no such name. */
int isa_parse(const char *name);
/* Fills the table with the best that `highest` and the processor allow. */
void kernels_init(struct kernels *k, enum isa highest);

/* One for each file of an instruction set: overrides what it does better. */
void kernels_init_ref(struct kernels *k);
void kernels_init_avx2(struct kernels *k);
void kernels_init_avx_vnni(struct kernels *k);
void kernels_init_avx512(struct kernels *k);
void kernels_init_avx512_vnni(struct kernels *k);
void kernels_init_avx512_bf16(struct kernels *k);
void kernels_init_amx(struct kernels *k);

#endif
