/* libcuda.so.1 as ward calls it, over the emulated card: the calls of src/cuda/driver.h, with what of their manners
 * matters. Work is done when somebody waits for it; copies from page-locked memory read it only then; memory ends at a
 * page that cannot be touched. What a recording may not hold (waiting, taking memory, copies of memory that is not
 * page-locked) ends it; calls need a context in their thread; a launch is held to a card's limits; after a failure
 * everything fails. The environment makes it fail:
 *
 *   WARD_EMULATED_MEMORY=MB       what the card has (8192)
 *   WARD_EMULATED_FAIL=WHAT       init, lock (it wants a socket to begin with), old (a driver without graphs is not
 *                                 modelled: it would lack the symbol), none (no card), capability (an older card), image
 *                                 (no kernels for it), launch:N (the N-th launch), skip:NAME (kernels that begin so do
 *                                 nothing)
 *   WARD_EMULATED_KIND=100        its compute capability; 90 has Hopper's kernels as well
 *   WARD_EMULATED_ORDER=reverse|SEED   of threads and blocks
 *   WARD_EMULATED_INTEGRATED=1    its memory is the system's, and full of what files left there
 *   WARD_EMULATED_COPIES=early    what is asynchronous in shared memory happens at its other end (machine.cpp)
 */
#include "kernel_table.h"
#include "start.h"

#include <deque>
#include <functional>
#include <limits.h>
#include <map>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <string>
#include <sys/mman.h>
#include <sys/socket.h>
#include <vector>

namespace
{

typedef std::function<int()> work; /* returns a CUresult */
enum {
    INVALID = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    INVALID_CONTEXT = 201,
    NO_BINARY = 209,
    OPERATING_SYSTEM = 304,
    ILLEGAL_STATE = 401,
    NOT_FOUND = 500,
    LAUNCH_FAILED = 719,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
    UNKNOWN = 999
};
enum { PAGE = 4096, ALIGN = 256, SHARED = 49152, MOST_THREADS = 1024, MOST_YZ = 65535 };

struct graph {
    std::vector<work> steps;
};

std::deque<work> queue;
graph *capturing;
bool spoiled; /* what is being captured: by something that it may not hold */
bool after_kernel;
int failure; /* of the queue: stays, as on a card */
std::map<char *, size_t> blocks, locked;
std::map<const emulated_kernel *, unsigned> shared_allowed; /* beyond what every kernel has */
size_t used;
bool initialized;
/* Where the thread's block is, not in a piece of its own: LeakSanitizer takes what stands before a piece of one byte,
 * allocated as the first of its size, for its bounds, and crashes. */
__attribute__((tls_model("initial-exec"))) thread_local bool has_context;

bool fails(const char *what)
{
    const char *wanted = getenv("WARD_EMULATED_FAIL");
    return wanted && strcmp(wanted, what) == 0;
}

int capability()
{
    const char *kind = getenv("WARD_EMULATED_KIND");
    return fails("capability") ? 66 : kind ? atoi(kind) : 100;
}

bool is_hopper()
{
    return capability() == 90;
}

/* Bytes of shared memory that a block can have. */
int shared_bytes()
{
    return is_hopper() ? 227 << 10 : 99 << 10;
}

size_t card_memory()
{
    const char *megabytes = getenv("WARD_EMULATED_MEMORY");
    return (size_t)(megabytes ? atol(megabytes) : 8192) << 20;
}

/* Every call's beginning: 0, or why it does nothing. */
int ready()
{
    return !initialized ? NOT_INITIALIZED : !has_context ? INVALID_CONTEXT : failure;
}

/* The beginning of one that may not come in a recording. */
int ready_outside()
{
    const int error = ready();
    if (error || !capturing)
        return error;
    spoiled = true;
    return CAPTURE_UNSUPPORTED;
}

bool contains(const std::map<char *, size_t> &pieces, const void *from, size_t bytes)
{
    auto at = pieces.upper_bound((char *)from);
    return at != pieces.begin() && (--at, (char *)from + bytes <= at->first + at->second);
}

bool on_card(unsigned long long at, size_t bytes)
{
    return contains(blocks, (const void *)at, bytes);
}

int drain()
{
    while (!failure && !queue.empty()) {
        failure = queue.front()();
        queue.pop_front();
    }
    return failure;
}

/* is_kernel: what is asked for is a kernel, behind which the next one may be launched early. */
int submit(work w, bool is_kernel = false)
{
    after_kernel = is_kernel;
    if (capturing)
        capturing->steps.push_back(w);
    else
        queue.push_back(w);
    return 0;
}

/* A copy between the card and the host. */
int submit_copy(const void *host, unsigned long long card, size_t bytes, work w)
{
    const int error = contains(locked, host, bytes) ? ready() : ready_outside();
    return error ? error : on_card(card, bytes) ? submit(w) : INVALID;
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

void hide_memory(bool hidden)
{
    for (const auto &block : blocks) {
        const size_t pages = (block.second + PAGE - 1) / PAGE * PAGE;
        mprotect(block.first + block.second - pages, pages, hidden ? PROT_NONE : PROT_READ | PROT_WRITE);
    }
}

bool has_memory(const void *at)
{
    auto block = blocks.upper_bound((char *)at);
    return block != blocks.begin() && (--block, (const char *)at < block->first + block->second);
}

} // namespace

#define CALL extern "C" __attribute__((visibility("default"))) int

extern "C" __attribute__((visibility("default"))) size_t emulated_used()
{
    return used;
}

CALL cuInit(unsigned)
{
    const bool refused = fails("lock") && socket(AF_UNIX, SOCK_STREAM, 0) < 0;
    const int error = fails("init") || refused ? UNKNOWN : emulated_start() ? 0 : OPERATING_SYSTEM;
    initialized = !error;
    return error;
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
             : attribute == 75 ? capability() / 10
             : attribute == 76 ? capability() % 10
             : attribute == 97 ? shared_bytes()
             : attribute == 18 ? getenv("WARD_EMULATED_INTEGRATED") != nullptr
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

CALL cuCtxSetCurrent(void *context)
{
    has_context = context != nullptr;
    return initialized ? 0 : NOT_INITIALIZED;
}

CALL cuMemGetInfo_v2(size_t *free_bytes, size_t *total)
{
    *total = card_memory();
    *free_bytes = getenv("WARD_EMULATED_INTEGRATED") ? (size_t)PAGE : *total > used ? *total - used : 0;
    return ready();
}

/* The end of a block, rounded up to ALIGN, is the end of its pages. What was never written is not a number. */
CALL cuMemAlloc_v2(unsigned long long *out, size_t bytes)
{
    const size_t size = (bytes + ALIGN - 1) / ALIGN * ALIGN, pages = (size + PAGE - 1) / PAGE * PAGE;
    const int error = ready_outside();
    if (error || used + size > card_memory())
        return error ? error : OUT_OF_MEMORY;
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
    const int error = ready_outside();
    if (error || block == blocks.end())
        return error ? error : INVALID;
    const size_t size = block->second, pages = (size + PAGE - 1) / PAGE * PAGE;
    munmap(block->first + size - pages, pages + PAGE);
    used -= size;
    blocks.erase(block);
    return 0;
}

CALL cuMemHostAlloc(void **out, size_t bytes, unsigned)
{
    const int error = ready_outside();
    if (error || !(*out = malloc(bytes)))
        return error ? error : OUT_OF_MEMORY;
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
    if (contains(locked, from, bytes))
        return submit_copy(from, to, bytes, [=] { return memcpy((void *)to, from, bytes), 0; });
    const std::string copy((const char *)from, bytes);
    return submit_copy(from, to, bytes, [=] { return memcpy((void *)to, copy.data(), bytes), 0; });
}

CALL cuMemcpyDtoHAsync_v2(void *to, unsigned long long from, size_t bytes, void *)
{
    return submit_copy(to, from, bytes, [=] { return memcpy(to, (const void *)from, bytes), 0; });
}

CALL cuMemcpyDtoDAsync_v2(unsigned long long to, unsigned long long from, size_t bytes, void *)
{
    if (const int error = ready())
        return error;
    return on_card(to, bytes) && on_card(from, bytes)
               ? submit([=] { return memmove((void *)to, (const void *)from, bytes), 0; })
               : INVALID;
}

CALL cuMemsetD8Async(unsigned long long to, unsigned char value, size_t bytes, void *)
{
    if (const int error = ready())
        return error;
    return on_card(to, bytes) ? submit([=] { return memset((void *)to, value, bytes), 0; }) : INVALID;
}

CALL cuStreamCreate(void **out, unsigned)
{
    *out = &queue;
    return 0;
}

CALL cuStreamSynchronize(void *)
{
    const int error = ready_outside();
    return error ? error : drain();
}

CALL cuEventCreate(void **out, unsigned)
{
    *out = &queue;
    return 0;
}

CALL cuEventRecord(void *, void *)
{
    return ready();
}

CALL cuEventSynchronize(void *)
{
    const int error = ready_outside();
    return error ? error : drain();
}

CALL cuModuleLoadDataEx(void **out, const void *image, unsigned, int *, void **)
{
    *out = &queue;
    return !image || fails("image") ? NO_BINARY : 0;
}

CALL cuModuleGetFunction(void **out, void *, const char *name)
{
    *out = strncmp(name, "wgmma", 5) == 0 && !is_hopper() ? nullptr : (void *)emulated_find(name);
    return *out ? 0 : NOT_FOUND;
}

CALL cuFuncSetAttribute(void *function, int attribute, int value)
{
    if (attribute != 8 || value < 0 || value > shared_bytes())
        return INVALID;
    shared_allowed[(const emulated_kernel *)function] = (unsigned)value;
    return ready();
}

CALL cuLaunchKernel(void *function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned, unsigned,
                    unsigned shared, void *, void **arguments, void **)
{
    enum { WATCHED = 3 }; /* launches of each kernel */
    static std::map<const emulated_kernel *, int> launches;
    const auto *kernel = (const emulated_kernel *)function;
    if (const int error = ready())
        return error;
    const auto allowed = shared_allowed.find(kernel);
    if (!x || x > INT_MAX || !y || !z || y > MOST_YZ || z > MOST_YZ || !threads || threads > MOST_THREADS ||
        shared > (allowed == shared_allowed.end() ? (unsigned)SHARED : allowed->second))
        return INVALID;
    const emulated_launch launch = {{x, y, z},
                                    threads,
                                    shared,
                                    kernel->bind(arguments),
                                    launches[kernel]++ < WATCHED ? hide_memory : nullptr,
                                    has_memory};
    const bool breaks = this_launch_fails();
    if (is_skipped(kernel->name))
        return submit([] { return 0; }, true);
    return submit([=] { return breaks || !emulated_run(launch) ? LAUNCH_FAILED : 0; }, true);
}

/* CUlaunchAttribute and CUlaunchConfig, as NVIDIA describes them. */
struct launch_attribute {
    int id;
    char pad[8 - sizeof(int)];
    union {
        char pad[64];
        int programmaticStreamSerializationAllowed;
        void *pointer;
    } value;
};
struct launch_config {
    unsigned grid[3], block[3], shared_bytes;
    void *stream;
    launch_attribute *attributes;
    unsigned n_attributes;
};
enum { PROGRAMMATIC_STREAM_SERIALIZATION = 6 };

/* Only as ward needs it: with the one attribute, behind a kernel, on a card that has it. */
CALL cuLaunchKernelEx(const launch_config *c, void *function, void **arguments, void **extra)
{
    if (c->n_attributes != 1 || c->attributes->id != PROGRAMMATIC_STREAM_SERIALIZATION ||
        c->attributes->value.programmaticStreamSerializationAllowed != 1 || !after_kernel || capability() < 90)
        return INVALID;
    return cuLaunchKernel(function, c->grid[0], c->grid[1], c->grid[2], c->block[0], c->block[1], c->block[2],
                          c->shared_bytes, c->stream, arguments, extra);
}

CALL cuStreamBeginCapture_v2(void *, int)
{
    if (capturing)
        return ILLEGAL_STATE;
    after_kernel = false;
    capturing = new graph;
    spoiled = false;
    return ready();
}

CALL cuStreamEndCapture(void *, void **out)
{
    if (!capturing)
        return ILLEGAL_STATE;
    *out = spoiled ? nullptr : capturing;
    if (spoiled)
        delete capturing;
    after_kernel = false;
    capturing = nullptr;
    return spoiled ? CAPTURE_INVALIDATED : ready();
}

CALL cuGraphInstantiateWithFlags(void **out, void *from, unsigned long long)
{
    if (!from)
        return INVALID;
    *out = new graph(*(graph *)from);
    return ready();
}

CALL cuGraphLaunch(void *which, void *)
{
    if (const int error = ready_outside())
        return error;
    for (const work &step : ((graph *)which)->steps)
        submit(step);
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
