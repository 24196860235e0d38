#include "base/cpus.h"

#include "base/cgroup.h"

#include <limits.h>
#include <sched.h>

/* The processors that a quota is worth, rounded up; INT_MAX: no limit. */
static int quota_cpus(long long quota, long long period)
{
    if (quota <= 0 || period <= 0)
        return INT_MAX;
    const long long cpus = quota / period + (quota % period != 0);
    return cpus > INT_MAX ? INT_MAX : (int)cpus;
}

/* cgroup v2 has "QUOTA PERIOD" or "max PERIOD" in cpu.max, v1 a file for each, -1 for none. */
static void visit_quota(void *user, const char *folder, bool v2)
{
    int *tightest = user;
    long long numbers[2];
    const bool found = v2 ? cgroup_numbers(numbers, 2, folder, "cpu.max") == 2
                          : cgroup_numbers(&numbers[0], 1, folder, "cpu.cfs_quota_us") == 1 &&
                                cgroup_numbers(&numbers[1], 1, folder, "cpu.cfs_period_us") == 1;
    const int quota = found ? quota_cpus(numbers[0], numbers[1]) : INT_MAX;
    *tightest = quota < *tightest ? quota : *tightest;
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
    int quota = INT_MAX;
    cgroup_visit("", "cpu", visit_quota, &quota);
    return cpus < quota ? cpus : quota;
}
