/* The disk that files lie on. */
#ifndef WARD_BASE_DISK_H
#define WARD_BASE_DISK_H

#include <stdint.h>

/* What is free for everybody on the disk of a file or folder. 0, or an errno. */
int disk_free(const char *path, uint64_t *bytes);

#endif
