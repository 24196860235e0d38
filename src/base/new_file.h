/* Writing a file that appears under its name whole, or not at all. */
#ifndef WARD_BASE_NEW_FILE_H
#define WARD_BASE_NEW_FILE_H

#include "base/error.h"

struct new_file {
    char *path;
    char *temporary; /* beside it, until the commit; NULL: a pipe or device, which is written to and never replaced */
    int fd;          /* -1 once closed */
    bool secret;
};

/* Makes a temporary file beside `path`, readable by whom the umask lets. After a failure there is nothing to discard. */
WARD_CHECKED int new_file_open(struct new_file *out, const char *path, struct ward_error *err);
/* As new_file_open, readable for its owner alone; the commit then replaces nothing: a key that is there is kept. */
WARD_CHECKED int new_file_open_secret(struct new_file *out, const char *path, struct ward_error *err);
/* Appends; one thread. */
WARD_CHECKED int new_file_write(struct new_file *file, const void *data, size_t size, struct ward_error *err);
/* Writes at an offset, from any thread. 0, or an errno. */
int new_file_write_at(const struct new_file *file, const void *data, size_t size, uint64_t offset);
/* Hands what was written to the disk. */
WARD_CHECKED int new_file_sync(struct new_file *file, struct ward_error *err);
/* Gives the file its name, replacing what has it, and closes. What has to survive a loss of power is synced before. A
 * failure leaves nothing but what had the name before. */
WARD_CHECKED int new_file_commit(struct new_file *file, struct ward_error *err);
/* Removes what was not committed. Does nothing to a file that was, or that is all zeros. */
void new_file_discard(struct new_file *file);

/* Hands the folder in which `path` lies to the disk: only then is a new name in it safe. */
void new_file_sync_folder(const char *path);

/* All of a small file: open, write, sync, commit. */
WARD_CHECKED int new_file_put(const char *path, const void *data, size_t size, struct ward_error *err);
WARD_CHECKED int new_file_put_secret(const char *path, const void *data, size_t size, struct ward_error *err);

#endif
