#include "cuda/driver.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char LIBRARY[] = "libcuda.so.1", COMPILER[] = "libnvidia-ptxjitcompiler.so.1";

/* The calls that ward cannot do without are all there since CUDA 11.4 (cuGraphInstantiateWithFlags). */
static const char OLDEST[] = "CUDA 11.4 (driver 470)";

static void *library;
static struct cu_driver driver;
static struct ward_error failure;
static pthread_once_t loaded = PTHREAD_ONCE_INIT, started = PTHREAD_ONCE_INIT;

static void load(void)
{
    library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    /* What the driver would load itself to compile the portable kernels, which a locked process cannot. */
    if (library)
        (void)dlopen(COMPILER, RTLD_NOW | RTLD_LOCAL);
}

bool cu_driver_load(void)
{
    pthread_once(&loaded, load);
    return library != NULL;
}

/* Why it may not start, for an error to end with. The driver makes missing devices itself, by starting a program; a
 * locked process does not. */
static const char *advice(void)
{
    if (access("/dev/nvmap", F_OK) && (access("/dev/nvidiactl", F_OK) || access("/dev/nvidia-uvm", F_OK)))
        return "; its devices are not all there: `nvidia-modprobe -u -c=0`, as root, makes them";
    return "; if other programs can use the card, docs/cuda.md says how to see what is in ward's way";
}

static void start(void)
{
    if (!cu_driver_load()) {
        error_set(&failure, WARD_EUNSUPPORTED, "no NVIDIA driver: %s was not found", LIBRARY);
        return;
    }
    const struct {
        const char *symbol;
        void **at;
        bool later;
    } calls[] = {
#define CU_PLACE(name, symbol, arguments) {#symbol, (void **)&driver.name, false},
#define CU_PLACE_LATER(name, symbol, arguments) {#symbol, (void **)&driver.name, true},
        CU_CALLS(CU_PLACE) CU_LATER_CALLS(CU_PLACE_LATER)
#undef CU_PLACE
#undef CU_PLACE_LATER
    };
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        if (!(*calls[i].at = dlsym(library, calls[i].symbol)) && !calls[i].later) {
            error_set(&failure, WARD_EUNSUPPORTED,
                      "the NVIDIA driver is too old: it has no %s; ward needs that of %s or later", calls[i].symbol,
                      OLDEST);
            return;
        }
    /* A cache of compiled kernels in the user's home is none of ward's business, nor possible once it is locked in. */
    setenv("CUDA_CACHE_DISABLE", "1", 0);
    const cu_result result = driver.init(0);
    if (result) {
        char text[200];
        cu_describe(&driver, result, text, sizeof text);
        error_set(&failure, WARD_EUNSUPPORTED, "the NVIDIA driver does not start: %s%s", text, advice());
    }
}

const struct cu_driver *cu_driver_open(struct ward_error *err)
{
    pthread_once(&started, start);
    if (!failure.code)
        return &driver;
    if (err)
        *err = failure;
    return NULL;
}

void cu_describe(const struct cu_driver *cu, cu_result result, char *text, size_t size)
{
    const char *name = NULL, *meaning = NULL;
    if (cu->error_name(result, &name) || !name)
        name = "an unknown error";
    if (cu->error_string(result, &meaning) || !meaning)
        meaning = "no description";
    snprintf(text, size, "%s, %s", name, meaning);
}
