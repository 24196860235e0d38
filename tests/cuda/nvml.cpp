/* libnvidia-ml.so.1 as ward calls it: the emulated card takes 100 watts, by the clock. */
#include <dlfcn.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define CALL extern "C" __attribute__((visibility("default"))) int

CALL nvmlInit_v2()
{
    return 0;
}

CALL nvmlSystemGetDriverVersion(char *version, unsigned length)
{
    snprintf(version, length, "570.00.01");
    return 0;
}

CALL nvmlDeviceGetHandleByPciBusId_v2(const char *, void **device)
{
    static int card;
    *device = &card;
    return 0;
}

/* What the emulated driver has given, and 300 MB for itself. */
struct process {
    unsigned pid;
    unsigned long long bytes;
    unsigned instances[2];
};
CALL nvmlDeviceGetComputeRunningProcesses_v3(void *, unsigned *count, process *out)
{
    void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    const auto used = driver ? (size_t(*)())dlsym(driver, "emulated_used") : nullptr;
    out[0] = {1, 12345, {}};
    out[1] = {(unsigned)getpid(), (used ? used() : 0) + 300000000, {}};
    *count = 2;
    return 0;
}

CALL nvmlDeviceGetTotalEnergyConsumption(void *, unsigned long long *millijoules)
{
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    *millijoules = 100 * ((unsigned long long)now.tv_sec * 1000 + (unsigned long long)now.tv_nsec / 1000000);
    return 0;
}

CALL nvmlDeviceGetPowerUsage(void *, unsigned *milliwatts)
{
    *milliwatts = 100000;
    return 0;
}

CALL nvmlDeviceGetEnforcedPowerLimit(void *, unsigned *milliwatts)
{
    *milliwatts = 250000;
    return 0;
}

CALL nvmlDeviceGetClockInfo(void *, int clock, unsigned *mhz)
{
    *mhz = clock == 2 ? 5000 : 1500;
    return 0;
}

CALL nvmlDeviceGetMaxClockInfo(void *, int, unsigned *mhz)
{
    *mhz = 1800;
    return 0;
}

CALL nvmlDeviceGetTemperature(void *, int, unsigned *celsius)
{
    *celsius = 61;
    return 0;
}

CALL nvmlDeviceGetCurrentClocksThrottleReasons(void *, unsigned long long *reasons)
{
    *reasons = 0;
    return 0;
}
