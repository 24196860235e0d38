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

/* Instruction sets in ascending order; a set includes those before it. */
enum isa { ISA_NONE, ISA_AVX2, ISA_AVX512, ISA_AVX512_BF16, ISA_COUNT };

/* A blocked matrix product C = X W^T. X and W are packed into panels of mr and nr rows. Within a panel the columns
 * follow one another in groups of k_step, so the part from column k0 on (a multiple of k_step) begins mr * k0 * element
 * bytes into it; all else of the layout is between pack and tile. k is rounded up to a multiple of k_step with zeros,
 * missing rows are zeros: a panel takes mr * round_up(k, k_step) * element bytes (nr for W). W panels and scratch tiles
 * are aligned to KERNELS_ALIGN. */
enum { KERNELS_ALIGN = 64, GEMM_MAX_MR = 16, GEMM_MAX_NR = 32 };

struct gemm {
    int mr, nr, k_step;
    size_t element;
    /* rows (<= mr) of x, `stride` floats apart, k columns */
    void (*pack_x)(void *panel, const float *x, size_t stride, int rows, int k);
    /* rows (<= nr) of w of each type, `row_bytes` apart, k columns */
    void (*pack_w[TENSOR_TYPES])(void *panel, const void *w, size_t row_bytes, int rows, int k);
    /* the same panel from the transposed matrix: k rows of cols (<= nr) columns; for the values of attention */
    void (*pack_w_transposed[TENSOR_TYPES])(void *panel, const void *w, size_t row_bytes, int k, int cols);
    /* c [mr][nr], `c_stride` floats between rows: c = x w^T, or c += when accumulate. k a multiple of k_step. */
    void (*tile)(float *c, size_t c_stride, const void *x_panel, const void *w_panel, int k, bool accumulate);
    /* the same for the first nr / 2 columns of c alone */
    void (*tile_half)(float *c, size_t c_stride, const void *x_panel, const void *w_panel, int k, bool accumulate);
};

struct kernels {
    enum isa isa;
    /* the product used for weights of each type: float32 panels, or bf16 panels where the multiply takes bf16 */
    const struct gemm *gemm[TENSOR_TYPES];
    /* out[rows] = w [rows][cols] x: rows lie row_bytes apart; x float32, products float32 */
    void (*gemv[TENSOR_TYPES])(float *out, const void *w, size_t row_bytes, int rows, int cols, const float *x);
    /* out[cols] += sum over rows of p[row] * v[row][cols] */
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
    void (*from_float[TENSOR_TYPES])(void *out, const float *in, int n);
};

/* The widest instruction set that this processor and operating system offer. */
enum isa kernels_detect(void);
const char *isa_name(enum isa isa); /* "none", "avx2", "avx512", "avx512bf16" */
/* "none", "avx2", ... to the set; NULL: the widest; -1: no such name. "amx", which no build has yet, is the widest. */
int isa_parse(const char *name);
/* Fills the table with the best that `highest` and the processor allow. */
void kernels_init(struct kernels *k, enum isa highest);

/* One for each file of an instruction set: overrides what it does better. */
void kernels_init_ref(struct kernels *k);
void kernels_init_avx2(struct kernels *k);
void kernels_init_avx512(struct kernels *k);
void kernels_init_avx512_bf16(struct kernels *k);

#endif
