/* The compiled kernels, which are part of the program (image.S). */
#ifndef WARD_CUDA_IMAGE_H
#define WARD_CUDA_IMAGE_H

#include <stddef.h>

extern const unsigned char cuda_image[];      /* machine code for each kind of card (a fatbin) */
extern const size_t cuda_image_bytes;         /* 0: built without nvcc */
extern const unsigned char cuda_portable_image[]; /* PTX for others, and for drivers older than the toolkit */

#endif
