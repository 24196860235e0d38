/* The compiled kernels as bytes of the program; without nvcc, none. In the section in which NVIDIA's tools (cuobjdump) look
 * for them. */
    .section .nv_fatbin, "a", %progbits
    .globl cuda_image, cuda_image_bytes, cuda_portable_image
    .hidden cuda_image, cuda_image_bytes, cuda_portable_image
    .balign 64
cuda_image:
#ifdef CUDA_IMAGE
    .incbin CUDA_IMAGE
#endif
cuda_image_end:
    .balign 64
cuda_portable_image:
#ifdef CUDA_PORTABLE_IMAGE
    .incbin CUDA_PORTABLE_IMAGE
#endif
    .byte 0
    .section .rodata
    .balign 8
cuda_image_bytes:
    .quad cuda_image_end - cuda_image
    .section .note.GNU-stack, "", %progbits
