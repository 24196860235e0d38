/* The tar files of bundles: POSIX ustar, regular files only, each name once. Reading makes an index by headers alone;
 * everything that another reader could take in another way is refused. */
#ifndef WARD_BUNDLE_TAR_H
#define WARD_BUNDLE_TAR_H

#include "base/error.h"

enum { TAR_BLOCK = 512 };

struct tar_entry {
    char *path;
    uint64_t offset, size; /* of its bytes */
    bool executable;
};

struct tar_index {
    struct tar_entry *entries; /* [n], in the order of the file */
    size_t n;
};

/* Reads `size` bytes at an offset; 0 or an errno. */
typedef int tar_read_fn(void *user, void *out, size_t size, uint64_t offset);

/* prefix: the folder that every name has to begin with, "ward-bundle/"; it is taken off. At most `limit` files. */
WARD_CHECKED int tar_read_index(struct tar_index *out, tar_read_fn *read, void *user, uint64_t size,
                                const char *prefix, size_t limit, const char *name, struct ward_error *err);
void tar_index_free(struct tar_index *index);

/* The header of a file. false: the path is too long for it. */
bool tar_header(uint8_t out[TAR_BLOCK], const char *path, uint64_t size, bool executable, int64_t mtime);
/* Bytes of a file in a tar, header and zeros included. */
uint64_t tar_size(uint64_t size);

#endif
