#include "base/disk.h"

#include <errno.h>
#include <sys/statvfs.h>
#include <unistd.h>

int disk_free(const char *path, uint64_t *bytes)
{
    struct statvfs st;
    if (statvfs(path, &st))
        return errno;
    *bytes = (uint64_t)st.f_bavail * (st.f_frsize ? st.f_frsize : st.f_bsize);
    return 0;
}

int disk_write(int fd, const void *data, size_t size, uint64_t offset)
{
    const uint8_t *at = data;
    while (size) {
        const ssize_t n = pwrite(fd, at, size, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n ? errno : EIO;
        at += n;
        offset += (uint64_t)n;
        size -= (size_t)n;
    }
    return 0;
}

int disk_read(int fd, void *out, size_t size, uint64_t offset)
{
    uint8_t *at = out;
    while (size) {
        const ssize_t n = pread(fd, at, size, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n ? errno : EIO;
        at += n;
        offset += (uint64_t)n;
        size -= (size_t)n;
    }
    return 0;
}
