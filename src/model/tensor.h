/* A matrix of weights where it lies in a mapped file. */
#ifndef WARD_MODEL_TENSOR_H
#define WARD_MODEL_TENSOR_H

#include <stddef.h>
#include <stdint.h>

enum tensor_type { TENSOR_F32, TENSOR_F16, TENSOR_BF16, TENSOR_TYPES };

/* rows x cols, row-major, cols contiguous (a linear map out = W x has rows outputs and cols inputs); a vector has one
 * row. The data may be misaligned for its type: files do not promise alignment. */
struct tensor {
    const void *data; /* NULL: absent */
    enum tensor_type type;
    int rows, cols;
};

static inline size_t tensor_element_size(enum tensor_type type)
{
    return type == TENSOR_F32 ? 4 : 2;
}

static inline size_t tensor_row_bytes(const struct tensor *t)
{
    return (size_t)t->cols * tensor_element_size(t->type);
}

static inline const void *tensor_row(const struct tensor *t, int row)
{
    return (const uint8_t *)t->data + (size_t)row * tensor_row_bytes(t);
}

const char *tensor_type_name(enum tensor_type type); /* "f32", "f16", "bf16" */

#endif
