#include "model/tensor.h"

#include "model/blocks.h"

const struct tensor_format tensor_formats[TENSOR_TYPES] = {
    [TENSOR_F32] = {"f32", 1, 4},
    [TENSOR_F16] = {"f16", 1, 2},
    [TENSOR_BF16] = {"bf16", 1, 2},
    [TENSOR_Q8_0] = {"q8_0", BLOCK_32, sizeof(struct block_q8_0)},
    [TENSOR_Q4_0] = {"q4_0", BLOCK_32, sizeof(struct block_q4_0)},
    [TENSOR_Q4_1] = {"q4_1", BLOCK_32, sizeof(struct block_q4_1)},
    [TENSOR_Q5_0] = {"q5_0", BLOCK_32, sizeof(struct block_q5_0)},
    [TENSOR_Q5_1] = {"q5_1", BLOCK_32, sizeof(struct block_q5_1)},
    [TENSOR_Q4_K] = {"q4_k", BLOCK_K, sizeof(struct block_q4_k)},
    [TENSOR_Q5_K] = {"q5_k", BLOCK_K, sizeof(struct block_q5_k)},
    [TENSOR_Q6_K] = {"q6_k", BLOCK_K, sizeof(struct block_q6_k)},
};
