/* The system's memory. */
#ifndef WARD_BASE_MEMINFO_H
#define WARD_BASE_MEMINFO_H

#include <stddef.h>

/* Bytes that could be had without swapping, or the most there is where the system does not say. */
size_t memory_available(void);

#endif
