/* What NVIDIA's driver asks of the system when it starts. */
#ifndef WARD_TESTS_CUDA_START_H
#define WARD_TESTS_CUDA_START_H

/* False when it was refused something that the driver does not start without. */
bool emulated_start();

#endif
