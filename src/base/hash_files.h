/* The SHA-256 of many files at once: as fast as the disk, or as the processors. */
#ifndef WARD_BASE_HASH_FILES_H
#define WARD_BASE_HASH_FILES_H

#include "base/error.h"
#include "base/sha256.h"

/* What the kernel tells of a file, and changes when somebody writes to it. ctime cannot be set by a program. */
struct file_stamp {
    uint64_t device, inode, size;
    int64_t mtime_s, ctime_s;
    int32_t mtime_ns, ctime_ns;
};

struct hashed_file {
    const char *path;   /* in; borrowed */
    bool known;         /* in: stamp and hash are filled already, the file is left alone */
    bool is_part;       /* in: only `length` bytes from `offset` on are meant: a file in an archive */
    uint64_t offset, length;
    const char *copy_to; /* in, NULL: nowhere. The bytes are written there too, from copy_offset on; the file is made
                            where it is not there, and is on disk when hash_files returns */
    uint64_t copy_offset;
    bool executable;    /* of a copy that is made */
    struct file_stamp stamp;
    uint8_t sha256[SHA256_BYTES];
};

/* Called on the caller's thread now and then. Nonzero ends the work with WARD_ECANCELLED. */
typedef int hash_progress_fn(void *user, uint64_t done, uint64_t total);

struct hash_options {
    int folder;      /* a descriptor that paths start from; 0: the working directory */
    bool no_links;   /* a symbolic link in place of a file is refused */
    int copy_folder; /* as folder, for copy_to */
    int threads;     /* 0: as many as this process may use */
    hash_progress_fn *progress; /* may be NULL */
    void *user;
};

/* Fills stamp and hash of every file that is not known. A file that changes meanwhile is an error. */
WARD_CHECKED int hash_files(struct hashed_file *files, size_t n, const struct hash_options *options,
                            struct ward_error *err);

/* Of a regular file, links followed. */
WARD_CHECKED int file_stamp_read(struct file_stamp *out, const char *path, struct ward_error *err);
bool file_stamp_equal(const struct file_stamp *a, const struct file_stamp *b);

#endif
