/* The disk that files lie on. */
#ifndef WARD_BASE_DISK_H
#define WARD_BASE_DISK_H

#include <stddef.h>
#include <stdint.h>

/* What is free for everybody on the disk of a file or folder. 0, or an errno. */
int disk_free(const char *path, uint64_t *bytes);
/* Writes all of it at `offset`. 0, or an errno. */
int disk_write(int fd, const void *data, size_t size, uint64_t offset);
/* Reads `size` bytes at `offset`, all of them. 0, or an errno: EIO where the file ends before. */
int disk_read(int fd, void *out, size_t size, uint64_t offset);

#endif
