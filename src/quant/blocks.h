/* Quantizing rows of float32 to the types of GGUF. */
#ifndef WARD_QUANT_BLOCKS_H
#define WARD_QUANT_BLOCKS_H

#include "model/tensor.h"

/* n values, a whole number of blocks, all finite and, but for f32 and bf16, within float16's range.
 *
 * f32, f16, bf16, q8_0 and q4_0 are, to the last bit, what the Python package `gguf` makes (quants.py), which rounds as
 * ggml's reference quantizers do. q5_0, q4_k, q5_k and q6_k have no such reference there: scales are searched for that leave
 * the least weighted square error, sum (r + |x|) (x - y)^2 with r the root mean square of the values that share a
 * scale; large weights count more, as they do in the product with an activation. */
void quantize_row(enum tensor_type type, void *out, const float *in, size_t n);
/* Whether quantize_row makes this type. */
bool can_quantize(enum tensor_type type);

#endif
