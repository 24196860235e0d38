#include "base/cpus.h"

#include <limits.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The processors that a quota is worth, rounded up; INT_MAX: no limit. */
static int quota_cpus(long quota, long period)
{
    if (quota <= 0 || period <= 0)
        return INT_MAX;
    const long cpus = (quota + period - 1) / period;
    return cpus < 1 ? 1 : cpus > INT_MAX ? INT_MAX : (int)cpus;
}

/* The first `most` numbers of a file; how many there are. */
static int read_numbers(long *out, int most, const char *root, const char *group, const char *name)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "/sys/fs/cgroup%s%s/%s", root, group, name) >= (int)sizeof path)
        return 0;
    FILE *f = fopen(path, "re");
    int n = 0;
    while (f && n < most && fscanf(f, "%ld", &out[n]) == 1)
        n++;
    if (f)
        fclose(f);
    return n;
}

/* cgroup v2 has "QUOTA PERIOD" or "max PERIOD" in cpu.max, v1 a file for each, -1 for none. */
static int quota_of(const char *root, const char *group)
{
    long numbers[2];
    if (!*root)
        return read_numbers(numbers, 2, root, group, "cpu.max") == 2 ? quota_cpus(numbers[0], numbers[1]) : INT_MAX;
    if (read_numbers(&numbers[0], 1, root, group, "cpu.cfs_quota_us") == 1 &&
        read_numbers(&numbers[1], 1, root, group, "cpu.cfs_period_us") == 1)
        return quota_cpus(numbers[0], numbers[1]);
    return INT_MAX;
}

/* The tightest quota of a group and of those around it. A container sees its own group as the root of the hierarchy
 * while /proc names it as the host does: the root counts in any case. */
static int tightest_quota(const char *root, char *group)
{
    int tightest = quota_of(root, "");
    while (*group && strcmp(group, "/") != 0) {
        const int quota = quota_of(root, group);
        tightest = quota < tightest ? quota : tightest;
        *strrchr(group, '/') = '\0';
    }
    return tightest;
}

/* Whether "cpu" is in a list like "cpu,cpuacct". */
static bool lists_cpu(char *controllers)
{
    char *rest = controllers, *name;
    while ((name = strsep(&rest, ",")))
        if (strcmp(name, "cpu") == 0)
            return true;
    return false;
}

/* Lines of /proc/self/cgroup: "0::/GROUP" (v2), "4:cpu,cpuacct:/GROUP" (v1). */
static int cgroup_quota(void)
{
    char line[PATH_MAX];
    int tightest = INT_MAX;
    FILE *f = fopen("/proc/self/cgroup", "re");
    while (f && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':'), *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group || group[1] != '/')
            continue;
        *group++ = '\0';
        const bool v2 = controllers[1] == '\0';
        if (v2 || lists_cpu(controllers + 1)) {
            const int quota = tightest_quota(v2 ? "" : "/cpu", group);
            tightest = quota < tightest ? quota : tightest;
        }
    }
    if (f)
        fclose(f);
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
