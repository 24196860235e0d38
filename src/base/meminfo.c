#include "base/meminfo.h"

#include <stdint.h>
#include <stdio.h>

size_t memory_available(void)
{
    size_t kilobytes = SIZE_MAX / 1024;
    char line[128];
    FILE *file = fopen("/proc/meminfo", "re");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "MemAvailable: %zu kB", &kilobytes) == 1)
            break;
    if (file)
        fclose(file);
    return kilobytes * 1024;
}
