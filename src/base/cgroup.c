#include "base/cgroup.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

int cgroup_numbers(long long *out, int most, const char *folder, const char *file)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/%s", folder, file) >= (int)sizeof path)
        return 0;
    FILE *f = fopen(path, "re");
    int n = 0;
    while (f && n < most && fscanf(f, "%lld", &out[n]) == 1)
        n++;
    if (f)
        fclose(f);
    return n;
}

/* Whether a name is in a list like "cpu,cpuacct". */
static bool lists(char *controllers, const char *controller)
{
    char *rest = controllers, *name;
    while ((name = strsep(&rest, ",")))
        if (strcmp(name, controller) == 0)
            return true;
    return false;
}

/* A container sees its own group as the root of the hierarchy while /proc names it as the host does: the root counts in
 * any case. */
static void visit_upwards(const char *mount, char *group, bool v2, cgroup_visit_fn *visit, void *user)
{
    char folder[PATH_MAX];
    for (;;) {
        const bool top = !*group || strcmp(group, "/") == 0;
        if (snprintf(folder, sizeof folder, "%s%s", mount, top ? "" : group) < (int)sizeof folder)
            visit(user, folder, v2);
        if (top)
            return;
        *strrchr(group, '/') = '\0';
    }
}

/* Lines of /proc/self/cgroup: "0::/GROUP" (v2), "4:cpu,cpuacct:/GROUP" (v1). */
void cgroup_visit(const char *root, const char *controller, cgroup_visit_fn *visit, void *user)
{
    char line[PATH_MAX], path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/proc/self/cgroup", root) >= (int)sizeof path)
        return;
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':'), *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group || group[1] != '/')
            continue;
        *group++ = '\0';
        const bool v2 = controllers[1] == '\0';
        if (!v2 && !lists(controllers + 1, controller))
            continue;
        if (snprintf(path, sizeof path, "%s/sys/fs/cgroup%s%s", root, v2 ? "" : "/", v2 ? "" : controller) <
            (int)sizeof path)
            visit_upwards(path, group, v2, visit, user);
    }
    if (f)
        fclose(f);
}
