#include "cuda/card.h"

#include "base/meminfo.h"
#include "cuda/driver.h"
#include "cuda/image.h"
#include "cuda/nvml.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STAGES = 2, OLDEST_MAJOR = 7, OLDEST_MINOR = 5 };

/* A piece of page-locked memory on its way to the card, and where it arrives when it is not the place it is for. */
struct stage {
    void *host;
    cu_pointer arrived;
    cu_event sent; /* the copy out of `host`, and what was asked for with it, is done */
};

struct card {
    const struct cu_driver *cu;
    cu_context context;
    cu_module module;
    cu_stream stream;
    cu_function kernels[CARD_KERNEL_COUNT];
    struct stage stages[STAGES];
    int next_stage;
    pthread_mutex_t mutex; /* recursive */
    struct card_info info;
    cu_result failure;
    char failed[64]; /* what was being done */
    bool recording;
    bool integrated;   /* its memory is the system's */
    bool overlaps;     /* a kernel may begin while the one before it ends (begins_early) */
    bool after_kernel; /* what was asked for last is a kernel */
    size_t used, peak; /* bytes of its memory */
};

static const char PORTABLE[] = "ptx"; /* kernels that the driver compiles */

static const char *const kernel_names[CARD_KERNEL_COUNT] = {
#define CARD_NAME(name) #name,
    CARD_KERNELS(CARD_NAME) CARD_WGMMA_KERNELS(CARD_NAME)
#undef CARD_NAME
};

/* ---- failures ---------------------------------------------------------------------------------------------------- */

/* Remembers the first failure; true when there was none ever. */
static bool passed(struct card *c, cu_result result, const char *doing)
{
    if (result && !c->failure) {
        c->failure = result;
        snprintf(c->failed, sizeof c->failed, "%s", doing);
    }
    return !c->failure;
}

static int failure_error(struct card *c, struct ward_error *err)
{
    char text[256];
    cu_describe(c->cu, c->failure, text, sizeof text);
    return error_set(err, WARD_EIO, "%s failed in %s: %s; nothing that it computed since is used", c->info.name,
                     c->failed, text);
}

void card_lock(struct card *c)
{
    pthread_mutex_lock(&c->mutex);
    c->cu->context_set(c->context); /* of the calling thread */
}

void card_unlock(struct card *c)
{
    pthread_mutex_unlock(&c->mutex);
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static int attribute(const struct card *c, int which, cu_device device)
{
    int value = 0;
    return c->cu->device_attribute(&value, which, device) ? 0 : value;
}

/* The compiled kernels of this card's kind, or the portable ones, which the driver compiles. */
static int load_module(struct card *c, struct ward_error *err)
{
    if (cuda_image_bytes == 0)
        return error_set(
            err, WARD_EUNSUPPORTED,
            "this build of ward has no kernels for NVIDIA cards: nvcc of CUDA 11.4 or later was not there");
    cu_result result = c->cu->module_load(&c->module, cuda_image, 0, NULL, NULL);
    if (result) {
        result = c->cu->module_load(&c->module, cuda_portable_image, 0, NULL, NULL);
        snprintf(c->info.kernels, sizeof c->info.kernels, "%s", PORTABLE);
        if (result) {
            char text[256];
            cu_describe(c->cu, result, text, sizeof text);
            return error_set(err, WARD_EUNSUPPORTED, "%s: the driver does not take ward's kernels: %s", c->info.name,
                             text);
        }
    }
    for (int i = 0; i < KERNEL_wgmma_f16; i++)
        if (c->cu->module_function(&c->kernels[i], c->module, kernel_names[i]))
            return error_set(err, WARD_EUNSUPPORTED, "%s: the kernel %s is missing", c->info.name, kernel_names[i]);
    return 0;
}

/* Hopper's kernels, all or none. */
static void find_wgmma(struct card *c)
{
    c->info.wgmma = c->info.shared_bytes >= WGMMA_SHARED;
    for (int i = KERNEL_wgmma_f16; c->info.wgmma && i < CARD_KERNEL_COUNT; i++)
        c->info.wgmma = !c->cu->module_function(&c->kernels[i], c->module, kernel_names[i]) &&
                        !c->cu->function_set(c->kernels[i], CU_SHARED_SIZE, WGMMA_SHARED);
    if (c->info.wgmma)
        snprintf(c->info.kernels, sizeof c->info.kernels, "sm_90a");
}

/* Whether kernels are launched so that the next one's blocks are there when the present one's last block begins
 * (programmatic dependent launch: CUDA programming guide, "Programmatic Dependent Launch and Synchronization"). Its
 * time to start, and what it asks of memory before it waits (wait_for_previous in kernels/device.cuh), then costs
 * nothing. Cards have it from 9.0 on, in machine code for them: what a driver makes of the portable kernels does not
 * wait. A recording keeps such a dependency since CUDA 12.3, whose graphs have edges of that kind. */
static bool begins_early(const struct card *c, int major)
{
    enum { LEAST_VERSION = 12030, LEAST_MAJOR = 9 };
    return c->cu->launch_ex && c->info.cuda >= LEAST_VERSION && major >= LEAST_MAJOR &&
           strcmp(c->info.kernels, PORTABLE) != 0;
}

/* Kernels that use more shared memory than every card gives have to ask. Those that this card has not enough for are
 * not launched: the caller looks at shared_bytes. */
static void allow_shared(struct card *c)
{
    for (int i = 0; i < CARD_FORMATS; i++)
        c->cu->function_set(c->kernels[KERNEL_matrix_f32 + i], CU_SHARED_SIZE, MATRIX_SHARED);
    for (int i = 0; i < FLASH_SHAPES; i++) {
        const int bytes = flash_shared(&flash_shapes[i], c->info.shared_bytes);
        if (bytes <= c->info.shared_bytes)
            c->cu->function_set(c->kernels[KERNEL_flash_72 + i], CU_SHARED_SIZE, bytes);
    }
}

static int open_stages(struct card *c, struct ward_error *err)
{
    bool ok = c->cu->stream_create(&c->stream, CU_STREAM_NON_BLOCKING) == 0;
    for (int i = 0; ok && i < STAGES; i++) {
        struct stage *s = &c->stages[i];
        ok = c->cu->host_alloc(&s->host, CARD_PIECE, 0) == 0 && c->cu->alloc(&s->arrived, CARD_PIECE) == 0 &&
             c->cu->event_create(&s->sent, CU_EVENT_NO_TIMING) == 0;
    }
    c->used = c->peak = STAGES * (size_t)CARD_PIECE;
    return ok ? 0
              : error_set(err, WARD_ENOMEM, "%s has not %d MB free to begin with", c->info.name,
                          STAGES * CARD_PIECE >> 20);
}

/* What a card that could not be opened has taken; its context takes the rest with it. */
static void give_back(struct card *c, cu_device device)
{
    for (int i = 0; i < STAGES; i++)
        if (c->stages[i].host)
            c->cu->host_free(c->stages[i].host);
    c->cu->context_release(device);
}

static int open_card(struct card *c, const struct cu_driver *cu, int index, struct ward_error *err)
{
    cu_device device;
    c->cu = cu;
    c->info.index = index;
    if (cu->device_get(&device, index) || cu->device_name(c->info.name, sizeof c->info.name, device) ||
        cu->device_memory(&c->info.memory, device))
        return error_set(err, WARD_EUNSUPPORTED, "card %d does not answer", index);
    const int major = attribute(c, CU_MAJOR, device), minor = attribute(c, CU_MINOR, device);
    snprintf(c->info.kernels, sizeof c->info.kernels, "sm_%d%d", major, minor);
    c->info.multiprocessors = attribute(c, CU_MULTIPROCESSORS, device);
    c->info.shared_bytes = attribute(c, CU_SHARED_OPTIN, device);
    c->info.cache = (size_t)attribute(c, CU_CACHE, device);
    c->integrated = attribute(c, CU_INTEGRATED, device) != 0;
    (void)cu->driver_version(&c->info.cuda);
    if (major < OLDEST_MAJOR || (major == OLDEST_MAJOR && minor < OLDEST_MINOR))
        return error_set(err, WARD_EUNSUPPORTED, "%s has compute capability %d.%d; ward needs %d.%d or later",
                         c->info.name, major, minor, OLDEST_MAJOR, OLDEST_MINOR);
    cu_result result = cu->context_retain(&c->context, device);
    if (!result && (result = cu->context_set(c->context)))
        cu->context_release(device);
    if (result) {
        char text[256];
        cu_describe(cu, result, text, sizeof text);
        return error_set(err, WARD_EUNSUPPORTED, "%s cannot be used: %s", c->info.name, text);
    }
    int rc = load_module(c, err);
    if (!rc)
        rc = open_stages(c, err);
    if (rc) {
        give_back(c, device);
        return rc;
    }
    allow_shared(c);
    find_wgmma(c);
    c->overlaps = begins_early(c, major);
    return 0;
}

static pthread_mutex_t cards_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct card *cards[CU_CARDS];

static struct card *open_once(const struct cu_driver *cu, int index, struct ward_error *err)
{
    if (cards[index])
        return cards[index];
    struct card *c = calloc(1, sizeof *c);
    if (!c) {
        error_no_memory(err, "the card", sizeof *c);
        return NULL;
    }
    pthread_mutexattr_t recursive;
    pthread_mutexattr_init(&recursive);
    pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&c->mutex, &recursive);
    pthread_mutexattr_destroy(&recursive);
    if (open_card(c, cu, index, err)) {
        pthread_mutex_destroy(&c->mutex);
        free(c);
        return NULL;
    }
    return cards[index] = c;
}

struct card *card_open(int index, struct ward_error *err)
{
    const struct cu_driver *cu = cu_driver_open(err);
    if (!cu)
        return NULL;
    int count = 0;
    if (cu->device_count(&count) || count == 0) {
        error_set(err, WARD_EUNSUPPORTED, "the NVIDIA driver finds no card");
        return NULL;
    }
    count = count < CU_CARDS ? count : CU_CARDS;
    if (index >= count) {
        error_set(err, WARD_EUNSUPPORTED, "there is no card %d: the NVIDIA driver finds %d, counted from 0", index,
                  count);
        return NULL;
    }
    pthread_mutex_lock(&cards_mutex);
    struct card *c = NULL;
    for (int i = index < 0 ? 0 : index; !c && i < (index < 0 ? count : index + 1); i++)
        c = open_once(cu, i, err);
    pthread_mutex_unlock(&cards_mutex);
    return c;
}

bool card_load_driver(void)
{
    (void)nvml_load();
    return cu_driver_load();
}

const struct card_info *card_info(const struct card *c)
{
    return &c->info;
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

/* A block's size stands before it. */
enum { HEADER = PLANE_ALIGN };

static cu_pointer pointer_of(const void *memory)
{
    return (cu_pointer)(uintptr_t)memory;
}

/* Bytes that can be had. In the system's memory what it keeps of files gives way, which the driver does not count. */
static cu_result free_memory(struct card *c, size_t *bytes)
{
    size_t all = 0;
    const cu_result result = c->cu->memory_info(bytes, &all);
    if (!result && c->integrated) {
        const size_t available = memory_available();
        const size_t most = available < all ? available : all;
        *bytes = *bytes > most ? *bytes : most;
    }
    return result;
}

int card_alloc(struct card *c, void **out, size_t bytes, const char *what, struct ward_error *err)
{
    *out = NULL;
    const size_t total = bytes + HEADER;
    cu_pointer memory = 0;
    card_lock(c);
    c->after_kernel = false;
    int rc = 0;
    size_t free_bytes = 0;
    cu_result result = CU_OUT_OF_MEMORY;
    if (passed(c, free_memory(c, &free_bytes), "asking for memory") && total >= bytes && total <= free_bytes)
        result = c->cu->alloc(&memory, total);
    if (result == CU_OUT_OF_MEMORY && !c->failure)
        rc = error_set(err, WARD_ENOMEM, "%s: %s takes %.0f MB, and of its %.0f MB %.0f are free", c->info.name, what,
                       (double)bytes / 1e6, (double)c->info.memory / 1e6, (double)free_bytes / 1e6);
    else if (!passed(c, result, "taking memory") ||
             !passed(c, c->cu->set_bytes(memory, 0, total, c->stream), "clearing memory") ||
             !passed(c, c->cu->copy_in(memory, &total, sizeof total, c->stream), "clearing memory") ||
             !passed(c, c->cu->stream_wait(c->stream), "clearing memory"))
        rc = failure_error(c, err);
    else
        *out = (char *)(uintptr_t)memory + HEADER;
    c->used += rc ? 0 : total;
    c->peak = c->used > c->peak ? c->used : c->peak;
    card_unlock(c);
    return rc;
}

void card_release(struct card *c, void *memory)
{
    if (!memory)
        return;
    card_lock(c);
    const cu_pointer begin = pointer_of(memory) - HEADER;
    size_t total = 0;
    c->after_kernel = false;
    c->cu->copy_out(&total, begin, sizeof total, c->stream);
    c->cu->stream_wait(c->stream); /* what was asked for may still use it */
    if (total && !c->failure)      /* a patient's, perhaps: nobody is to find it there */
        c->cu->set_bytes(begin, 0, total, c->stream);
    c->cu->stream_wait(c->stream);
    c->cu->free(begin);
    c->used -= total <= c->used ? total : 0;
    if (c->used == STAGES * (size_t)CARD_PIECE) /* nobody has any: what comes is another use */
        c->peak = c->used;
    card_unlock(c);
}

void card_used(struct card *c, size_t *now, size_t *peak)
{
    card_lock(c);
    *now = c->used;
    *peak = c->peak;
    card_unlock(c);
}

size_t card_free(struct card *c)
{
    size_t left = 0;
    card_lock(c);
    if (free_memory(c, &left))
        left = 0;
    card_unlock(c);
    return left;
}

/* Page-locked memory to copy from: the driver reads it while we go on. */
static struct stage *next_stage(struct card *c)
{
    c->after_kernel = false;
    struct stage *s = &c->stages[c->next_stage];
    c->next_stage = (c->next_stage + 1) % STAGES;
    passed(c, c->cu->event_wait(s->sent), "waiting for a copy");
    return s;
}

void card_write(struct card *c, void *to, const void *from, size_t bytes)
{
    card_lock(c);
    for (size_t at = 0; at < bytes && !c->failure; at += CARD_PIECE) {
        const size_t size = bytes - at < CARD_PIECE ? bytes - at : CARD_PIECE;
        struct stage *s = next_stage(c);
        memcpy(s->host, (const char *)from + at, size);
        passed(c, c->cu->copy_in(pointer_of(to) + at, s->host, size, c->stream), "copying to the card");
        passed(c, c->cu->event_record(s->sent, c->stream), "copying to the card");
    }
    card_unlock(c);
}

void *card_piece(struct card *c, const void *from, size_t bytes)
{
    card_lock(c);
    if (bytes > CARD_PIECE) { /* a row of more than half a million values: no model has such */
        passed(c, CU_INVALID, "laying out a matrix");
        bytes = 0;
    }
    struct stage *s = next_stage(c);
    memcpy(s->host, from, bytes);
    passed(c, c->cu->copy_in(s->arrived, s->host, bytes, c->stream), "copying to the card");
    /* The kernel that reads `arrived` comes before the next copy into it: one queue. */
    passed(c, c->cu->event_record(s->sent, c->stream), "copying to the card");
    card_unlock(c);
    return (void *)(uintptr_t)s->arrived;
}

void card_read(struct card *c, void *to, const void *from, size_t bytes)
{
    card_lock(c);
    c->after_kernel = false;
    if (!c->failure && passed(c, c->cu->copy_out(to, pointer_of(from), bytes, c->stream), "copying from the card"))
        passed(c, c->cu->stream_wait(c->stream), "computing");
    if (c->failure)
        memset(to, 0, bytes);
    card_unlock(c);
}

void card_copy(struct card *c, void *to, const void *from, size_t bytes)
{
    card_lock(c);
    c->after_kernel = false;
    if (!c->failure)
        passed(c, c->cu->copy_within(pointer_of(to), pointer_of(from), bytes, c->stream), "copying on the card");
    card_unlock(c);
}

int card_finish(struct card *c, struct ward_error *err)
{
    card_lock(c);
    if (!c->failure)
        passed(c, c->cu->stream_wait(c->stream), "computing");
    const int rc = c->failure ? failure_error(c, err) : 0;
    card_unlock(c);
    return rc;
}

/* ---- work -------------------------------------------------------------------------------------------------------- */

/* Every kernel waits for the one before it to be complete, in all its threads, before it reads or writes anything that
 * kernels write; so when a kernel's wait is over, all before it are complete, as with plain launches. Behind anything
 * but a kernel the launch is a plain one: copies know nothing of early ends. */
static cu_result launch(struct card *c, cu_function kernel, struct card_grid grid, unsigned threads,
                        unsigned shared_bytes, void **arguments)
{
    if (!c->overlaps || !c->after_kernel)
        return c->cu->launch(kernel, grid.x, grid.y, grid.z, threads, 1, 1, shared_bytes, c->stream, arguments, NULL);
    struct cu_launch_attribute early = {.id = CU_PROGRAMMATIC_SERIALIZATION, .value.programmatic_serialization = 1};
    const struct cu_launch_config config = {
        .grid_x = grid.x,
        .grid_y = grid.y,
        .grid_z = grid.z,
        .block_x = threads,
        .block_y = 1,
        .block_z = 1,
        .shared_bytes = shared_bytes,
        .stream = c->stream,
        .attributes = &early,
        .n_attributes = 1,
    };
    return c->cu->launch_ex(&config, kernel, arguments, NULL);
}

void card_launch(struct card *c, enum card_kernel kernel, struct card_grid grid, unsigned threads,
                 unsigned shared_bytes, void **arguments)
{
    card_lock(c);
    if (!c->failure)
        passed(c, launch(c, c->kernels[kernel], grid, threads, shared_bytes, arguments), kernel_names[kernel]);
    c->after_kernel = true;
    card_unlock(c);
}

bool card_begin(struct card *c, void **recording)
{
    card_lock(c);
    c->after_kernel = false;
    if (*recording) {
        if (!c->failure)
            passed(c, c->cu->graph_launch(*recording, c->stream), "a recorded step");
        card_unlock(c);
        return true;
    }
    c->recording =
        !c->failure && passed(c, c->cu->capture_begin(c->stream, CU_CAPTURE_THREAD), "beginning a recording");
    return false; /* locked until the end */
}

void card_end(struct card *c, void **recording)
{
    cu_graph graph = NULL;
    cu_graph_exec exec = NULL;
    if (c->recording && passed(c, c->cu->capture_end(c->stream, &graph), "ending a recording")) {
        if (passed(c, c->cu->graph_instantiate(&exec, graph, 0), "making a recording")) {
            *recording = exec;
            passed(c, c->cu->graph_launch(exec, c->stream), "a recorded step");
        }
        c->cu->graph_destroy(graph);
    }
    c->recording = false;
    c->after_kernel = false;
    card_unlock(c);
}

void card_forget(struct card *c, void **recording)
{
    card_lock(c);
    if (*recording) {
        c->cu->stream_wait(c->stream);
        c->cu->graph_exec_destroy(*recording);
    }
    *recording = NULL;
    card_unlock(c);
}
