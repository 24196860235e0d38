/* The control groups of this process: its own and those around it, any of which may limit it. */
#ifndef WARD_BASE_CGROUP_H
#define WARD_BASE_CGROUP_H

#include <stdbool.h>

/* The first `most` numbers of a group's file, "max" read as none; how many there are. */
int cgroup_numbers(long long *out, int most, const char *folder, const char *file);

/* Called with the folder of a group; v2 tells how its files are called. */
typedef void cgroup_visit_fn(void *user, const char *folder, bool v2);
/* Visits the groups of this process under cgroup v2, and those of `controller` ("cpu", "memory") under v1, from the
 * innermost outwards. root: "" for this machine, or a folder that stands for it (tests). */
void cgroup_visit(const char *root, const char *controller, cgroup_visit_fn *visit, void *user);

#endif
