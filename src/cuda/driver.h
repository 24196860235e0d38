/* NVIDIA's driver interface, found when it is asked for: ward neither links nor needs it, and the same program runs where
 * there is none. The declarations are ward's own, of the calls it makes (CUDA Driver API reference), so that the
 * toolkit is only needed to compile kernels. */
#ifndef WARD_CUDA_DRIVER_H
#define WARD_CUDA_DRIVER_H

#include "base/error.h"

typedef int cu_result; /* 0: success */
typedef int cu_device;
typedef unsigned long long cu_pointer;
typedef struct cu_context *cu_context;
typedef struct cu_module *cu_module;
typedef struct cu_function *cu_function;
typedef struct cu_stream *cu_stream;
typedef struct cu_event *cu_event;
typedef struct cu_graph *cu_graph;
typedef struct cu_graph_exec *cu_graph_exec;

enum { CU_CARDS = 16 }; /* of a machine, as far as ward counts them */
enum { CU_INVALID = 1, CU_OUT_OF_MEMORY = 2 }; /* CUresult: INVALID_VALUE, OUT_OF_MEMORY */

enum { /* CUdevice_attribute */
    CU_MULTIPROCESSORS = 16,
    CU_INTEGRATED = 18,
    CU_CACHE = 38, /* L2_CACHE_SIZE */
    CU_MAJOR = 75,
    CU_MINOR = 76,
    CU_SHARED_OPTIN = 97,
};

/* CUlaunchAttribute and CUlaunchConfig, of cuLaunchKernelEx. */
enum { CU_PROGRAMMATIC_SERIALIZATION = 6 }; /* CUlaunchAttributeID: PROGRAMMATIC_STREAM_SERIALIZATION */
struct cu_launch_attribute {
    int id;
    int unused;
    union {
        char whole[64];
        cu_pointer aligned; /* as the pointers among its members */
        int programmatic_serialization;
    } value;
};
struct cu_launch_config {
    unsigned grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes;
    cu_stream stream;
    struct cu_launch_attribute *attributes;
    unsigned n_attributes;
};

enum { CU_SHARED_SIZE = 8 };       /* CUfunction_attribute: MAX_DYNAMIC_SHARED_SIZE_BYTES */
enum { CU_CAPTURE_THREAD = 1 };    /* CUstreamCaptureMode: THREAD_LOCAL */
enum { CU_STREAM_NON_BLOCKING = 1, CU_EVENT_NO_TIMING = 2 };

/* name in ward, symbol in libcuda.so.1, arguments */
#define CU_CALLS(C)                                                                                                    \
    C(init, cuInit, (unsigned flags))                                                                                  \
    C(driver_version, cuDriverGetVersion, (int *version))                                                              \
    C(error_name, cuGetErrorName, (cu_result error, const char **name))                                                \
    C(error_string, cuGetErrorString, (cu_result error, const char **text))                                            \
    C(device_count, cuDeviceGetCount, (int *count))                                                                    \
    C(device_get, cuDeviceGet, (cu_device *device, int ordinal))                                                       \
    C(device_name, cuDeviceGetName, (char *name, int length, cu_device device))                                        \
    C(device_attribute, cuDeviceGetAttribute, (int *value, int attribute, cu_device device))                           \
    C(device_bus_id, cuDeviceGetPCIBusId, (char *id, int length, cu_device device))                                    \
    C(device_memory, cuDeviceTotalMem_v2, (size_t *bytes, cu_device device))                                           \
    C(context_retain, cuDevicePrimaryCtxRetain, (cu_context *context, cu_device device))                               \
    C(context_release, cuDevicePrimaryCtxRelease_v2, (cu_device device))                                               \
    C(context_set, cuCtxSetCurrent, (cu_context context))                                                              \
    C(memory_info, cuMemGetInfo_v2, (size_t *free, size_t *total))                                                     \
    C(alloc, cuMemAlloc_v2, (cu_pointer *out, size_t bytes))                                                           \
    C(free, cuMemFree_v2, (cu_pointer memory))                                                                         \
    C(host_alloc, cuMemHostAlloc, (void **out, size_t bytes, unsigned flags))                                          \
    C(host_free, cuMemFreeHost, (void *memory))                                                                        \
    C(copy_in, cuMemcpyHtoDAsync_v2, (cu_pointer to, const void *from, size_t bytes, cu_stream stream))                \
    C(copy_out, cuMemcpyDtoHAsync_v2, (void *to, cu_pointer from, size_t bytes, cu_stream stream))                     \
    C(copy_within, cuMemcpyDtoDAsync_v2, (cu_pointer to, cu_pointer from, size_t bytes, cu_stream stream))             \
    C(set_bytes, cuMemsetD8Async, (cu_pointer to, unsigned char value, size_t bytes, cu_stream stream))                \
    C(stream_create, cuStreamCreate, (cu_stream *out, unsigned flags))                                                 \
    C(stream_wait, cuStreamSynchronize, (cu_stream stream))                                                            \
    C(event_create, cuEventCreate, (cu_event *out, unsigned flags))                                                    \
    C(event_record, cuEventRecord, (cu_event event, cu_stream stream))                                                 \
    C(event_wait, cuEventSynchronize, (cu_event event))                                                                \
    C(module_load, cuModuleLoadDataEx,                                                                                 \
      (cu_module *out, const void *image, unsigned n_options, int *options, void **values))                            \
    C(module_function, cuModuleGetFunction, (cu_function *out, cu_module module, const char *name))                    \
    C(function_set, cuFuncSetAttribute, (cu_function function, int attribute, int value))                              \
    C(launch, cuLaunchKernel,                                                                                          \
      (cu_function function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,    \
       unsigned block_z, unsigned shared_bytes, cu_stream stream, void **arguments, void **extra))                     \
    C(capture_begin, cuStreamBeginCapture_v2, (cu_stream stream, int mode))                                            \
    C(capture_end, cuStreamEndCapture, (cu_stream stream, cu_graph *out))                                              \
    C(graph_instantiate, cuGraphInstantiateWithFlags,                                                                  \
      (cu_graph_exec *out, cu_graph graph, unsigned long long flags))                                                  \
    C(graph_launch, cuGraphLaunch, (cu_graph_exec graph, cu_stream stream))                                            \
    C(graph_exec_destroy, cuGraphExecDestroy, (cu_graph_exec graph))                                                   \
    C(graph_destroy, cuGraphDestroy, (cu_graph graph))

/* Those of later releases: NULL where the driver lacks them. */
#define CU_LATER_CALLS(C)                                                                                              \
    C(launch_ex, cuLaunchKernelEx,                                                                                     \
      (const struct cu_launch_config *config, cu_function function, void **arguments, void **extra))

struct cu_driver {
#define CU_MEMBER(name, symbol, arguments) cu_result(*name) arguments;
    CU_CALLS(CU_MEMBER)
    CU_LATER_CALLS(CU_MEMBER)
#undef CU_MEMBER
};

/* Brings the driver's code into the process, once, and nothing more: no device is opened, no thread started. False: there
 * is none. */
bool cu_driver_load(void);
/* The driver, started once for the process; NULL with a sentence that says what is missing. */
const struct cu_driver *cu_driver_open(struct ward_error *err);

/* "CUDA_ERROR_ILLEGAL_ADDRESS, an illegal memory access was encountered" */
void cu_describe(const struct cu_driver *cu, cu_result result, char *text, size_t size);

#endif
