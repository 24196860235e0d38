/* Every kernel by its name in the module, and its number. */
#ifndef WARD_CUDA_KERNEL_NAMES_H
#define WARD_CUDA_KERNEL_NAMES_H

#include "cuda/layout.h"

/* In the order of enum card_format, and of 1, 2, 4, 8 rows. */
#define CARD_VECTOR_KERNELS(K, format) K(vector_##format##_1) K(vector_##format##_2) K(vector_##format##_4) K(vector_##format##_8)
#define CARD_MATRIX_KERNELS(K, kind)                                                                                   \
    K(kind##_f32) K(kind##_f16) K(kind##_bf16) K(kind##_q8) K(kind##_q8m) K(kind##_q4) K(kind##_q4k) K(kind##_q5k)     \
    K(kind##_q6k)
#define CARD_KERNELS(K)                                                                                                \
    K(place_floats) K(place_blocks_32) K(place_blocks_k) K(place_q6_k)                                                 \
    K(embed) K(add_table) K(rms_norm) K(add_rms_norm) K(layer_norm) K(gelu_multiply) K(gelu_multiply_bytes)                  \
    K(store) K(pool) K(choose_parts) K(choose_whole) K(draw_parts) K(draw_gather) K(draw_whole)                         \
    K(quantize_rows) K(pack_rows) K(add_parts) K(attend_few)                                                           \
    K(flash_72) K(flash_128) K(flash_256)                                                                              \
    CARD_VECTOR_KERNELS(K, f32) CARD_VECTOR_KERNELS(K, f16) CARD_VECTOR_KERNELS(K, bf16) CARD_VECTOR_KERNELS(K, q8)    \
    CARD_VECTOR_KERNELS(K, q8m) CARD_VECTOR_KERNELS(K, q4) CARD_VECTOR_KERNELS(K, q4k) CARD_VECTOR_KERNELS(K, q5k)     \
    CARD_VECTOR_KERNELS(K, q6k) CARD_MATRIX_KERNELS(K, matrix) CARD_MATRIX_KERNELS(K, matrix_small)                    \
    K(measure_copy) K(measure_multiply) K(measure_group)

/* Those that only Hopper's module has. */
#define CARD_WGMMA_KERNELS(K)                                                                                          \
    K(wgmma_f16) K(wgmma_bf16) K(wgmma_q8) K(wgmma_q8m) K(wgmma_q4) K(wgmma_q4k) K(wgmma_q5k) K(wgmma_q6k)

#define CARD_NUMBER(name) KERNEL_##name,
enum card_kernel { CARD_KERNELS(CARD_NUMBER) CARD_WGMMA_KERNELS(CARD_NUMBER) CARD_KERNEL_COUNT };
#undef CARD_NUMBER

#endif
