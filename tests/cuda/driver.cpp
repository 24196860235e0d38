/* libcuda.so.1 as ward calls it, over the emulated card: the calls of src/cuda/driver.h, with what of their manners
 * matters. Work is done when somebody waits for it; copies from page-locked memory read it only then; memory ends at a
 * page that cannot be touched. The environment makes it fail:
 *
 *   WARD_EMULATED_MEMORY=MB       what the card has (8192)
 *   WARD_EMULATED_FAIL=WHAT       init, old (a driver without graphs is not modelled: it would lack the symbol), none
 * (no card), capability (an older card), image (no kernels for it), launch:N (the N-th launch), skip:NAME (kernels that
 *                                 begin so do nothing)
 *   WARD_EMULATED_ORDER=reverse|SEED   of threads and blocks
 */
#include "kernel_table.h"
#include "start.h"

#include <deque>
#include <functional>
#include <map>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <string>
#include <sys/mman.h>
#include <vector>

namespace
{

typedef std::function<int()> work; /* returns a CUresult */
enum {
    INVALID = 1,
    OUT_OF_MEMORY = 2,
    NO_BINARY = 209,
    OPERATING_SYSTEM = 304,
    NOT_FOUND = 500,
    LAUNCH_FAILED = 719,
    UNKNOWN = 999
};
enum { PAGE = 4096, ALIGN = 256 };

struct graph {
    std::vector<work> steps;
};

std::deque<work> queue;
graph *capturing;
int failure; /* of the queue: stays, as on a card */
std::map<char *, size_t> blocks, locked;
size_t used;

bool fails(const char *what)
{
    const char *wanted = getenv("WARD_EMULATED_FAIL");
    return wanted && strcmp(wanted, what) == 0;
}

size_t card_memory()
{
    const char *megabytes = getenv("WARD_EMULATED_MEMORY");
    return (size_t)(megabytes ? atol(megabytes) : 8192) << 20;
}

int drain()
{
    while (!failure && !queue.empty()) {
        failure = queue.front()();
        queue.pop_front();
    }
    return failure;
}

int submit(work w)
{
    if (failure)
        return failure;
    if (capturing)
        capturing->steps.push_back(w);
    else
        queue.push_back(w);
    return 0;
}

bool is_locked(const void *p)
{
    auto at = locked.upper_bound((char *)p);
    return at != locked.begin() && (--at, (char *)p < at->first + at->second);
}

/* The kernels of WARD_EMULATED_FAIL=skip:NAME... do nothing. */
bool is_skipped(const char *name)
{
    const char *wanted = getenv("WARD_EMULATED_FAIL");
    return wanted && strncmp(wanted, "skip:", 5) == 0 && strncmp(name, wanted + 5, strlen(wanted + 5)) == 0;
}

bool this_launch_fails()
{
    static long launches;
    const char *wanted = getenv("WARD_EMULATED_FAIL");
    launches++;
    return wanted && strncmp(wanted, "launch:", 7) == 0 && launches == atol(wanted + 7);
}

} // namespace

#define CALL extern "C" __attribute__((visibility("default"))) int

CALL cuInit(unsigned)
{
    return fails("init") ? UNKNOWN : emulated_start() ? 0 : OPERATING_SYSTEM;
}

CALL cuDriverGetVersion(int *version)
{
    *version = 12080;
    return 0;
}

CALL cuGetErrorName(int error, const char **name)
{
    *name = error == OUT_OF_MEMORY      ? "CUDA_ERROR_OUT_OF_MEMORY"
            : error == LAUNCH_FAILED    ? "CUDA_ERROR_LAUNCH_FAILED"
            : error == NO_BINARY        ? "CUDA_ERROR_NO_BINARY_FOR_GPU"
            : error == OPERATING_SYSTEM ? "CUDA_ERROR_OPERATING_SYSTEM"
                                        : "CUDA_ERROR_UNKNOWN";
    return 0;
}

CALL cuGetErrorString(int error, const char **text)
{
    *text = error == LAUNCH_FAILED ? "unspecified launch failure" : "emulated";
    return 0;
}

CALL cuDeviceGetCount(int *count)
{
    *count = fails("none") ? 0 : 1;
    return 0;
}

CALL cuDeviceGet(int *device, int)
{
    *device = 0;
    return 0;
}

CALL cuDeviceGetName(char *name, int length, int)
{
    snprintf(name, (size_t)length, "Emulated Card");
    return 0;
}

CALL cuDeviceGetAttribute(int *value, int attribute, int)
{
    *value = attribute == 16   ? 4
             : attribute == 38 ? 1 << 20
             : attribute == 75 ? (fails("capability") ? 6 : 8)
             : attribute == 76 ? 6
             : attribute == 97 ? 101376
                               : 0;
    return 0;
}

CALL cuDeviceGetPCIBusId(char *id, int length, int)
{
    snprintf(id, (size_t)length, "0000:01:00.0");
    return 0;
}

CALL cuDeviceTotalMem_v2(size_t *bytes, int)
{
    *bytes = card_memory();
    return 0;
}

CALL cuDevicePrimaryCtxRetain(void **context, int)
{
    *context = &queue;
    return 0;
}

CALL cuDevicePrimaryCtxRelease_v2(int)
{
    return 0;
}

CALL cuCtxSetCurrent(void *)
{
    return 0;
}

CALL cuMemGetInfo_v2(size_t *free_bytes, size_t *total)
{
    *total = card_memory();
    *free_bytes = *total > used ? *total - used : 0;
    return 0;
}

/* The end of a block, rounded up to ALIGN, is the end of its pages. What was never written is not a number. */
CALL cuMemAlloc_v2(unsigned long long *out, size_t bytes)
{
    const size_t size = (bytes + ALIGN - 1) / ALIGN * ALIGN, pages = (size + PAGE - 1) / PAGE * PAGE;
    if (used + size > card_memory())
        return OUT_OF_MEMORY;
    char *memory = (char *)mmap(nullptr, pages + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return OUT_OF_MEMORY;
    mprotect(memory + pages, PAGE, PROT_NONE);
    char *at = memory + pages - size;
    memset(at, 0xff, size);
    blocks[at] = size;
    used += size;
    *out = (unsigned long long)at;
    return 0;
}

CALL cuMemFree_v2(unsigned long long memory)
{
    auto block = blocks.find((char *)memory);
    if (block == blocks.end())
        return INVALID;
    const size_t size = block->second, pages = (size + PAGE - 1) / PAGE * PAGE;
    munmap(block->first + size - pages, pages + PAGE);
    used -= size;
    blocks.erase(block);
    return 0;
}

CALL cuMemHostAlloc(void **out, size_t bytes, unsigned)
{
    *out = malloc(bytes);
    if (!*out)
        return OUT_OF_MEMORY;
    locked[(char *)*out] = bytes;
    return 0;
}

CALL cuMemFreeHost(void *memory)
{
    locked.erase((char *)memory);
    free(memory);
    return 0;
}

CALL cuMemcpyHtoDAsync_v2(unsigned long long to, const void *from, size_t bytes, void *)
{
    if (is_locked(from))
        return submit([=] { return memcpy((void *)to, from, bytes), 0; });
    const std::string copy((const char *)from, bytes);
    return submit([=] { return memcpy((void *)to, copy.data(), bytes), 0; });
}

CALL cuMemcpyDtoHAsync_v2(void *to, unsigned long long from, size_t bytes, void *)
{
    return submit([=] { return memcpy(to, (const void *)from, bytes), 0; });
}

CALL cuMemcpyDtoDAsync_v2(unsigned long long to, unsigned long long from, size_t bytes, void *)
{
    return submit([=] { return memmove((void *)to, (const void *)from, bytes), 0; });
}

CALL cuMemsetD8Async(unsigned long long to, unsigned char value, size_t bytes, void *)
{
    return submit([=] { return memset((void *)to, value, bytes), 0; });
}

CALL cuStreamCreate(void **out, unsigned)
{
    *out = &queue;
    return 0;
}

CALL cuStreamSynchronize(void *)
{
    return capturing ? INVALID : drain();
}

CALL cuEventCreate(void **out, unsigned)
{
    *out = &queue;
    return 0;
}

CALL cuEventRecord(void *, void *)
{
    return failure;
}

CALL cuEventSynchronize(void *)
{
    return drain();
}

CALL cuModuleLoadDataEx(void **out, const void *image, unsigned, int *, void **)
{
    *out = &queue;
    return !image || fails("image") ? NO_BINARY : 0;
}

CALL cuModuleGetFunction(void **out, void *, const char *name)
{
    *out = (void *)emulated_find(name);
    return *out ? 0 : NOT_FOUND;
}

CALL cuFuncSetAttribute(void *, int, int value)
{
    return value <= 101376 ? 0 : INVALID;
}

CALL cuLaunchKernel(void *function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned, unsigned,
                    unsigned shared_bytes, void *, void **arguments, void **)
{
    if (!x || !y || !z || y > 65535 || z > 65535)
        return INVALID;
    const emulated_launch launch = {
        {x, y, z}, threads, shared_bytes, ((const emulated_kernel *)function)->bind(arguments)};
    const bool breaks = this_launch_fails();
    if (is_skipped(((const emulated_kernel *)function)->name))
        return 0;
    return submit([=] { return breaks || !emulated_run(launch) ? LAUNCH_FAILED : 0; });
}

CALL cuStreamBeginCapture_v2(void *, int)
{
    capturing = new graph;
    return 0;
}

CALL cuStreamEndCapture(void *, void **out)
{
    *out = capturing;
    capturing = nullptr;
    return 0;
}

CALL cuGraphInstantiateWithFlags(void **out, void *from, unsigned long long)
{
    *out = new graph(*(graph *)from);
    return 0;
}

CALL cuGraphLaunch(void *which, void *)
{
    for (const work &step : ((graph *)which)->steps)
        if (int result = submit(step))
            return result;
    return 0;
}

CALL cuGraphExecDestroy(void *which)
{
    delete (graph *)which;
    return 0;
}

CALL cuGraphDestroy(void *which)
{
    delete (graph *)which;
    return 0;
}
