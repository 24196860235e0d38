/* Rows of weights of every type as float32. */
#ifndef WARD_MODEL_TO_FLOAT_H
#define WARD_MODEL_TO_FLOAT_H

#include "model/tensor.h"

/* n values of a row as float32, a whole number of blocks; `in` at any address */
typedef void to_float_fn(float *out, const void *in, int n);
extern to_float_fn *const tensor_to_float[TENSOR_TYPES];

#endif
