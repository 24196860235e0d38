#include "base/disk.h"

#include <errno.h>
#include <sys/statvfs.h>

int disk_free(const char *path, uint64_t *bytes)
{
    struct statvfs st;
    if (statvfs(path, &st))
        return errno;
    *bytes = (uint64_t)st.f_bavail * (st.f_frsize ? st.f_frsize : st.f_bsize);
    return 0;
}
