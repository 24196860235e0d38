/* The kernels by name, each to be bound to the arguments of a launch. */
#ifndef WARD_TESTS_CUDA_KERNEL_TABLE_H
#define WARD_TESTS_CUDA_KERNEL_TABLE_H

#include "machine.h"

struct emulated_kernel {
    const char *name;
    std::function<void()> (*bind)(void **arguments); /* which are copied, as a launch does */
};

const emulated_kernel *emulated_find(const char *name);

#endif
