/* What the files of the portable reference share. */
#ifndef WARD_KERNELS_REF_H
#define WARD_KERNELS_REF_H

#include "model/tensor.h"

/* n values of a row as float32, a whole number of blocks; `in` at any address */
typedef void to_float_fn(float *out, const void *in, int n);
extern to_float_fn *const ref_to_float[TENSOR_TYPES];

#endif
