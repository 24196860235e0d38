#include "base/private.h"

#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

void memory_keep_private(void *memory, size_t bytes)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), at = (uintptr_t)memory;
    const uintptr_t begin = (at + page - 1) / page * page, end = (at + bytes) / page * page;
    if (!memory || begin >= end)
        return;
    (void)madvise((void *)begin, end - begin, MADV_DONTDUMP);
    (void)mlock2((void *)begin, end - begin, MLOCK_ONFAULT);
}
