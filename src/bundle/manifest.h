/* The list of a bundle's files, SHA256SUMS: what sha256sum prints and `sha256sum -c` reads, held to one spelling. */
#ifndef WARD_BUNDLE_MANIFEST_H
#define WARD_BUNDLE_MANIFEST_H

#include "base/error.h"
#include "base/sha256.h"

#define MANIFEST_NAME "SHA256SUMS"
#define MANIFEST_SIGNATURE "SHA256SUMS.minisig"

enum { MANIFEST_FILES = 4096, MANIFEST_LIMIT = 1 << 20, MANIFEST_PATH = 250 };

struct manifest_line {
    const char *path;
    uint8_t sha256[SHA256_BYTES];
};

struct manifest {
    struct manifest_line *lines; /* [n], ascending by the bytes of their paths */
    size_t n;
    char *text; /* that the paths lie in */
};

/* Whether a file of a bundle may have this path: relative, UTF-8, at most MANIFEST_PATH bytes, no empty part, none that
 * begins with a dot ("..", hidden files), no backslash, no control character, and not the list or its signature. */
bool manifest_path_ok(const char *path);

/* "HASH  PATH\n" for each file: lower case, two blanks, paths as above in ascending order, none twice, none that is a
 * folder of another. */
WARD_CHECKED int manifest_parse(struct manifest *out, const char *text, size_t length, const char *name,
                                struct ward_error *err);
/* NULL: no such line. */
const struct manifest_line *manifest_find(const struct manifest *manifest, const char *path);
void manifest_free(struct manifest *manifest);

#endif
