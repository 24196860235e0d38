/* All kernels of a card in one module. */
#include "cuda/kernels/flash.cuh"
#include "cuda/kernels/matrix.cuh"
#include "cuda/kernels/measure.cuh"
#include "cuda/kernels/place.cuh"
#include "cuda/kernels/rows.cuh"
#include "cuda/kernels/sample.cuh"
#include "cuda/kernels/vector.cuh"
#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || defined(WARD_EMULATED)
#include "cuda/kernels/wgmma.cuh"
#endif
