#ifndef WARD_BASE_CPUS_H
#define WARD_BASE_CPUS_H

/* Processors that this process may use: its affinity, and no more than the CPU quota of its cgroups rounded up. At
 * least 1. */
int cpus_available(void);

#endif
