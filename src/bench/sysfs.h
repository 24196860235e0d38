/* Small files of /proc and /sys. A path is root, then the rest as printf makes it. root: "" for this machine, or a
 * folder that stands for it (tests). */
#ifndef WARD_BENCH_SYSFS_H
#define WARD_BENCH_SYSFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* NULL when it cannot be opened; the caller closes it. */
FILE *sysfs_open(const char *root, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The first line, without what surrounds it; out is empty when there is none. */
bool sysfs_line(char *out, size_t room, const char *root, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* The number that a file begins with; *out stays as it is when there is none. */
bool sysfs_integer(int64_t *out, const char *root, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* VALUE of the first line "KEY: VALUE", "KEY VALUE" or "KEY=VALUE" of a file, without what surrounds it. */
bool sysfs_value(char *out, size_t room, const char *root, const char *file, const char *key);
/* Names that match a pattern of glob(3) within root, from root's end on, sorted: as many as there is room for. Returns
 * how many. */
enum { SYSFS_NAME = 160 };
int sysfs_list(char (*out)[SYSFS_NAME], int most, const char *root, const char *pattern);

#endif
