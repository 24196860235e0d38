#include "bench/pagecache.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* mincore answers for a file that the caller owns or may write; for others everything counts as resident. */
static bool tells(int fd, const struct stat *st)
{
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return st->st_uid == geteuid() || geteuid() == 0 || access(path, W_OK) == 0;
}

static double resident_share(int fd)
{
    enum { STEP = 1 << 30 }; /* mapped at a time */
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    struct stat st;
    if (fstat(fd, &st) || !tells(fd, &st))
        return -1;
    unsigned char *map = malloc(STEP / page);
    size_t pages = 0, resident = 0;
    bool ok = map != NULL;
    for (off_t at = 0; ok && at < st.st_size; at += STEP) {
        const size_t length = st.st_size - at < STEP ? (size_t)(st.st_size - at) : STEP, n = (length + page - 1) / page;
        void *data = mmap(NULL, length, PROT_READ, MAP_SHARED, fd, at);
        ok = data != MAP_FAILED && mincore(data, length, map) == 0;
        for (size_t i = 0; ok && i < n; i++)
            resident += map[i] & 1;
        pages += n;
        if (data != MAP_FAILED)
            munmap(data, length);
    }
    free(map);
    return !ok ? -1 : pages ? (double)resident / (double)pages : 0;
}

double pagecache_resident(const char *path)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    const double share = fd < 0 ? -1 : resident_share(fd);
    if (fd >= 0)
        close(fd);
    return share;
}

int pagecache_drop(const char *path, double *resident, struct ward_error *err)
{
    *resident = -1;
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return error_set(err, WARD_EIO, "%s: cannot be opened: %s", path, strerror(errno));
    fdatasync(fd); /* a page that is to be written cannot be dropped; a file that was only read has none */
    const int error = posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    *resident = resident_share(fd);
    close(fd);
    if (error)
        return error_set(err, WARD_EIO, "%s: cannot be dropped from the page cache: %s", path, strerror(error));
    return 0;
}
