#include "base/mapping.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Opens a regular file and tells its size. Never blocks on a pipe or a device. */
static int open_regular(int *fd, size_t *size, const char *path, struct ward_error *err)
{
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0)
        return error_set(err, WARD_EIO, "%s: cannot be opened: %s", path, strerror(errno));
    struct stat st;
    if (fstat(*fd, &st) == 0 && S_ISREG(st.st_mode)) {
        *size = (size_t)st.st_size;
        return 0;
    }
    close(*fd);
    return error_set(err, WARD_EIO, "%s: is not a regular file", path);
}

int mapping_open(struct mapping *out, const char *path, struct ward_error *err)
{
    *out = (struct mapping){0};
    int fd;
    size_t size;
    int rc = open_regular(&fd, &size, path, err);
    if (rc)
        return rc;
    if (size) {
        void *data = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED)
            rc = error_set(err, WARD_EIO, "%s: cannot be mapped: %s", path, strerror(errno));
        else
            *out = (struct mapping){data, size};
    }
    close(fd);
    return rc;
}

void mapping_close(struct mapping *map)
{
    if (map->data)
        munmap((void *)(uintptr_t)map->data, map->size);
    *map = (struct mapping){0};
}

void mapping_release(const void *data, size_t size)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const uintptr_t begin = ((uintptr_t)data + page - 1) / page * page, end = ((uintptr_t)data + size) / page * page;
    if (begin < end)
        madvise((void *)begin, end - begin, MADV_DONTNEED);
}

int file_read(char **out, size_t *length, const char *path, size_t limit, struct ward_error *err)
{
    *out = NULL;
    *length = 0;
    int fd;
    size_t size;
    int rc = open_regular(&fd, &size, path, err);
    if (rc)
        return rc;
    char *text = NULL;
    if (size > limit) {
        rc = error_set(err, WARD_EFORMAT, "%s: is %zu bytes long; at most %zu are expected", path, size, limit);
        goto done;
    }
    text = malloc(size + 1);
    if (!text) {
        rc = error_no_memory(err, path, size + 1);
        goto done;
    }
    size_t got = 0;
    while (got < size) {
        ssize_t n = read(fd, text + got, size - got);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            rc = error_set(err, WARD_EIO, "%s: cannot be read: %s", path, n ? strerror(errno) : "it became shorter");
            goto done;
        }
        got += (size_t)n;
    }
    text[size] = '\0';
    *out = text;
    *length = size;
    text = NULL;
done:
    free(text);
    close(fd);
    return rc;
}

bool file_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

bool is_git_lfs_pointer(const uint8_t *data, size_t size)
{
    static const char pointer[] = "version https://git-lfs.github.com/spec/";
    return size >= sizeof pointer - 1 && !memcmp(data, pointer, sizeof pointer - 1);
}
