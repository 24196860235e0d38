/* Files mapped read-only. */
#ifndef WARD_BASE_MAPPING_H
#define WARD_BASE_MAPPING_H

#include "base/error.h"

struct mapping {
    const uint8_t *data; /* NULL for an empty file */
    size_t size;
};

/* Maps a regular file whole. The mapping stays valid when the file is replaced by rename. */
WARD_CHECKED int mapping_open(struct mapping *out, const char *path, struct ward_error *err);
void mapping_close(struct mapping *map);
/* Lets go of the resident pages of a part of a mapping; the data stays, and comes back from the page cache when it is
 * read. */
void mapping_release(const void *data, size_t size);

/* Reads a whole small file (config, template) of at most `limit` bytes into memory, NUL-terminated; free() it. */
WARD_CHECKED int file_read(char **out, size_t *length, const char *path, size_t limit, struct ward_error *err);
bool file_exists(const char *path);
/* What a clone without Git LFS holds in place of a large file. */
bool is_git_lfs_pointer(const uint8_t *data, size_t size);

#endif
