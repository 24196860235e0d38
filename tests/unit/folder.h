/* A temporary folder of files for one test. */
#ifndef WARD_TESTS_FOLDER_H
#define WARD_TESTS_FOLDER_H

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct folder {
    char path[256];
};

static inline void folder_fail(const char *what, const char *path)
{
    fprintf(stderr, "%s %s: %s\n", what, path, strerror(errno));
    abort();
}

static inline void folder_open(struct folder *f)
{
    const char *base = getenv("TMPDIR");
    snprintf(f->path, sizeof f->path, "%s/ward-test-XXXXXX", base && *base ? base : "/tmp");
    if (!mkdtemp(f->path))
        folder_fail("mkdtemp", f->path);
}

/* Writes a file, making the folders on its way. */
static inline void folder_write(const struct folder *f, const char *name, const void *data, size_t size)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", f->path, name);
    for (char *slash = path + strlen(f->path) + 1; (slash = strchr(slash, '/')); *slash++ = '/') {
        *slash = '\0';
        if (mkdir(path, 0777) && errno != EEXIST)
            folder_fail("mkdir", path);
    }
    FILE *file = fopen(path, "wb");
    if (!file || (size && fwrite(data, size, 1, file) != 1) || fclose(file))
        folder_fail("write", path);
}

static inline void folder_write_text(const struct folder *f, const char *name, const char *text)
{
    folder_write(f, name, text, strlen(text));
}

static inline int folder_remove_entry(const char *path, const struct stat *st, int type, struct FTW *where)
{
    (void)st;
    (void)type;
    (void)where;
    if (remove(path))
        folder_fail("remove", path);
    return 0;
}

static inline void folder_close(struct folder *f)
{
    nftw(f->path, folder_remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

#endif
