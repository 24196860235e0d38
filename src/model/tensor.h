/* A matrix of weights where it lies in a mapped file. */
#ifndef WARD_MODEL_TENSOR_H
#define WARD_MODEL_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Floats, then GGUF's blocks of quantized values (model/blocks.h), under ggml's names. */
enum tensor_type {
    TENSOR_F32,
    TENSOR_F16,
    TENSOR_BF16,
    TENSOR_Q8_0,
    TENSOR_Q4_0,
    TENSOR_Q4_1,
    TENSOR_Q5_0,
    TENSOR_Q5_1,
    TENSOR_Q4_K,
    TENSOR_Q5_K,
    TENSOR_Q6_K,
    TENSOR_TYPES,
};

struct tensor_format {
    const char *name; /* "f32", "bf16", "q4_k", ... */
    int block;        /* values that are stored together; 1 for floats. A row is a whole number of blocks */
    int bytes;        /* of a block */
};

extern const struct tensor_format tensor_formats[TENSOR_TYPES];

/* rows x cols, row-major, cols contiguous (a linear map out = W x has rows outputs and cols inputs); a vector has one
 * row. The data may be misaligned for its type: files do not promise alignment. */
struct tensor {
    const void *data; /* NULL: absent */
    enum tensor_type type;
    int rows, cols;
};

static inline bool tensor_is_float(enum tensor_type type)
{
    return type <= TENSOR_BF16;
}

/* Bytes of n values, n a multiple of the type's block. */
static inline size_t tensor_bytes(enum tensor_type type, size_t n)
{
    return n / (size_t)tensor_formats[type].block * (size_t)tensor_formats[type].bytes;
}

static inline size_t tensor_row_bytes(const struct tensor *t)
{
    return tensor_bytes(t->type, (size_t)t->cols);
}

static inline const void *tensor_row(const struct tensor *t, int row)
{
    return (const uint8_t *)t->data + (size_t)row * tensor_row_bytes(t);
}

static inline const char *tensor_type_name(enum tensor_type type)
{
    return tensor_formats[type].name;
}

#endif
