#include "model/tensor.h"

const char *tensor_type_name(enum tensor_type type)
{
    static const char *const names[TENSOR_TYPES] = {[TENSOR_F32] = "f32", [TENSOR_F16] = "f16", [TENSOR_BF16] = "bf16"};
    return names[type];
}
