#include "cuda/nvml.h"

#include "cuda/driver.h"

#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <unistd.h>

static const char LIBRARY[] = "libnvidia-ml.so.1";

typedef struct nvml_device *nvml_device;

enum { CLOCK_SM = 1, CLOCK_MEMORY = 2, SENSOR_GPU = 0 };
/* Reasons for a lower clock: the power limit, a brake of the hardware, heat as the software and the hardware see it, a
 * brake from outside. */
enum { SLOWED = 0x4 | 0x8 | 0x20 | 0x40 | 0x80 };

struct nvml_process {
    unsigned pid;
    unsigned long long bytes; /* all ones: not known */
    unsigned instances[2];
};
enum { MOST_PROCESSES = 64 };

/* name in ward, symbol, arguments. A library that lacks one does as a card that does not have it. */
#define NVML_CALLS(C)                                                                                                  \
    C(init, nvmlInit_v2, (void))                                                                                       \
    C(driver, nvmlSystemGetDriverVersion, (char *version, unsigned length))                                            \
    C(handle, nvmlDeviceGetHandleByPciBusId_v2, (const char *bus_id, nvml_device *device))                             \
    C(processes, nvmlDeviceGetComputeRunningProcesses_v3,                                                              \
      (nvml_device device, unsigned *count, struct nvml_process *out))                                                 \
    C(energy, nvmlDeviceGetTotalEnergyConsumption, (nvml_device device, unsigned long long *millijoules))              \
    C(power, nvmlDeviceGetPowerUsage, (nvml_device device, unsigned *milliwatts))                                      \
    C(power_limit, nvmlDeviceGetEnforcedPowerLimit, (nvml_device device, unsigned *milliwatts))                        \
    C(clock, nvmlDeviceGetClockInfo, (nvml_device device, int type, unsigned *mhz))                                    \
    C(clock_limit, nvmlDeviceGetMaxClockInfo, (nvml_device device, int type, unsigned *mhz))                           \
    C(temperature, nvmlDeviceGetTemperature, (nvml_device device, int sensor, unsigned *celsius))                      \
    C(reasons, nvmlDeviceGetCurrentClocksThrottleReasons, (nvml_device device, unsigned long long *reasons))

static struct {
#define NVML_MEMBER(name, symbol, arguments) int(*name) arguments;
    NVML_CALLS(NVML_MEMBER)
#undef NVML_MEMBER
} calls;

#define ASK(name, ...) (calls.name ? calls.name(__VA_ARGS__) : -1)

struct nvml_card {
    nvml_device device; /* NULL: not opened */
};

static void *library;
static bool ready;
static char driver_version[80];
static struct nvml_card cards[CU_CARDS];
static pthread_once_t loaded = PTHREAD_ONCE_INIT, started = PTHREAD_ONCE_INIT;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static void load(void)
{
    library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
}

bool nvml_load(void)
{
    pthread_once(&loaded, load);
    return library != NULL;
}

static void start(void)
{
    const struct {
        const char *symbol;
        void **at;
    } table[] = {
#define NVML_PLACE(name, symbol, arguments) {#symbol, (void **)&calls.name},
        NVML_CALLS(NVML_PLACE)
#undef NVML_PLACE
    };
    if (!nvml_load())
        return;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        *table[i].at = dlsym(library, table[i].symbol);
    ready = calls.handle && ASK(init) == 0;
    if (!ready || ASK(driver, driver_version, sizeof driver_version))
        *driver_version = '\0';
}

const struct nvml_card *nvml_open(int index, struct ward_error *err)
{
    const struct cu_driver *cu = cu_driver_open(err);
    if (!cu)
        return NULL;
    pthread_once(&started, start);
    char bus_id[32];
    cu_device device;
    struct nvml_card *card = NULL;
    pthread_mutex_lock(&mutex);
    if (ready && index >= 0 && index < CU_CARDS && !cu->device_get(&device, index) &&
        !cu->device_bus_id(bus_id, sizeof bus_id, device) &&
        (cards[index].device || !calls.handle(bus_id, &cards[index].device)))
        card = &cards[index];
    pthread_mutex_unlock(&mutex);
    if (!card)
        error_set(err, WARD_EUNSUPPORTED, "card %d has no meters that ward reads (%s)", index, LIBRARY);
    return card;
}

size_t nvml_process_bytes(const struct nvml_card *card)
{
    struct nvml_process processes[MOST_PROCESSES];
    unsigned n = MOST_PROCESSES;
    if (ASK(processes, card->device, &n, processes) || n > MOST_PROCESSES)
        return 0;
    for (unsigned i = 0; i < n; i++)
        if (processes[i].pid == (unsigned)getpid() && processes[i].bytes != ULLONG_MAX)
            return (size_t)processes[i].bytes;
    return 0;
}

void nvml_read(const struct nvml_card *card, struct nvml_state *out)
{
    unsigned long long millijoules = 0, reasons = 0;
    unsigned milliwatts = 0, most = 0, mhz = 0, limit = 0, memory = 0, celsius = 0;
    const bool counts = ASK(energy, card->device, &millijoules) == 0;
    (void)ASK(power, card->device, &milliwatts);
    (void)ASK(power_limit, card->device, &most);
    (void)ASK(clock, card->device, CLOCK_SM, &mhz);
    (void)ASK(clock, card->device, CLOCK_MEMORY, &memory);
    (void)ASK(clock_limit, card->device, CLOCK_SM, &limit);
    (void)ASK(temperature, card->device, SENSOR_GPU, &celsius);
    (void)ASK(reasons, card->device, &reasons);
    *out = (struct nvml_state){
        .joules = counts ? (double)millijoules * 1e-3 : -1,
        .watts = milliwatts * 1e-3,
        .mhz = mhz,
        .mhz_limit = limit,
        .memory_mhz = memory,
        .watts_limit = most * 1e-3,
        .celsius = celsius,
        .slowed = (reasons & SLOWED) != 0,
    };
}

const char *nvml_driver(void)
{
    return driver_version;
}
