/* The kernels that measure a card do what they are timed for. */
#ifndef WARD_TESTS_CUDA_MEASURING_H
#define WARD_TESTS_CUDA_MEASURING_H

#include <stdbool.h>

bool measuring(void);

#endif
