#include "base/cpus.h"

#include <limits.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* cgroup v2 states a group's quota in cpu.max as "QUOTA PERIOD" or "max PERIOD". */
static int quota_of(const char *folder)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "/sys/fs/cgroup%s/cpu.max", folder) >= (int)sizeof path)
        return INT_MAX;
    FILE *f = fopen(path, "re");
    if (!f)
        return INT_MAX;
    long quota, period;
    const int found = fscanf(f, "%ld %ld", &quota, &period);
    fclose(f);
    if (found != 2 || quota <= 0 || period <= 0)
        return INT_MAX;
    const long cpus = (quota + period - 1) / period;
    return cpus < 1 ? 1 : cpus > INT_MAX ? INT_MAX : (int)cpus;
}

/* The tightest quota of this process's group and of those around it. */
static int cgroup_quota(void)
{
    char line[PATH_MAX] = "";
    FILE *f = fopen("/proc/self/cgroup", "re");
    if (!f)
        return INT_MAX;
    char *group = NULL;
    while (fgets(line, sizeof line, f))
        if (strncmp(line, "0::/", 4) == 0) {
            group = line + 3;
            group[strcspn(group, "\n")] = '\0';
            break;
        }
    fclose(f);
    int tightest = quota_of("");
    while (group && *group && strcmp(group, "/") != 0) {
        const int quota = quota_of(group);
        if (quota < tightest)
            tightest = quota;
        *strrchr(group, '/') = '\0';
    }
    return tightest;
}

int cpus_available(void)
{
    /* The set is as large as the kernel's own; a machine with more than 1,024 processors needs a larger one than
     * cpu_set_t. */
    int cpus = 1;
    for (size_t limit = 1024; limit <= 1 << 20; limit *= 4) {
        cpu_set_t *set = CPU_ALLOC(limit);
        if (!set)
            break;
        const size_t size = CPU_ALLOC_SIZE(limit);
        const bool ok = sched_getaffinity(0, size, set) == 0;
        if (ok)
            cpus = CPU_COUNT_S(size, set);
        CPU_FREE(set);
        if (ok)
            break;
    }
    const int quota = cgroup_quota();
    return cpus < quota ? cpus : quota;
}
