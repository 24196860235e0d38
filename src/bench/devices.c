#include "bench/devices.h"

#include "base/text.h"

#include <ctype.h>
#include <stddef.h>

/* Sources, and how missing figures were derived: docs/doctor.md. */
static const struct device devices[] = {
    {"RTX 3050", MACHINE_DESKTOP_GPU, 8, 224, 18, false},
    {"RTX 3060", MACHINE_DESKTOP_GPU, 12, 360, 25.5, false},
    {"RTX 3060 Ti", MACHINE_DESKTOP_GPU, 8, 448, 32.4, false},
    {"RTX 3070", MACHINE_DESKTOP_GPU, 8, 448, 40.6, false},
    {"RTX 3070 Ti", MACHINE_DESKTOP_GPU, 8, 608, 43.5, false},
    {"RTX 3080", MACHINE_DESKTOP_GPU, 10, 760, 59.5, false},
    {"RTX 3080 Ti", MACHINE_DESKTOP_GPU, 12, 912, 68.2, false},
    {"RTX 3090", MACHINE_DESKTOP_GPU, 24, 936, 71, false},
    {"RTX 3090 Ti", MACHINE_DESKTOP_GPU, 24, 1008, 80, false},
    {"RTX 4060", MACHINE_DESKTOP_GPU, 8, 272, 30.2, false},
    {"RTX 4060 Ti", MACHINE_DESKTOP_GPU, 16, 288, 44.1, false},
    {"RTX 4070", MACHINE_DESKTOP_GPU, 12, 504, 58.3, false},
    {"RTX 4070 Super", MACHINE_DESKTOP_GPU, 12, 504, 71, false},
    {"RTX 4070 Ti", MACHINE_DESKTOP_GPU, 12, 504, 80.2, false},
    {"RTX 4070 Ti Super", MACHINE_DESKTOP_GPU, 16, 672, 88.2, false},
    {"RTX 4080", MACHINE_DESKTOP_GPU, 16, 717, 97.5, false},
    {"RTX 4080 Super", MACHINE_DESKTOP_GPU, 16, 736, 104.4, false},
    {"RTX 4090", MACHINE_DESKTOP_GPU, 24, 1008, 165.2, false},
    {"RTX 5050", MACHINE_DESKTOP_GPU, 8, 320, 26.3, false},
    {"RTX 5060", MACHINE_DESKTOP_GPU, 8, 448, 38.4, false},
    {"RTX 5060 Ti", MACHINE_DESKTOP_GPU, 16, 448, 47.4, false},
    {"RTX 5070", MACHINE_DESKTOP_GPU, 12, 672, 61.7, false},
    {"RTX 5070 Ti", MACHINE_DESKTOP_GPU, 16, 896, 87.9, false},
    {"RTX 5080", MACHINE_DESKTOP_GPU, 16, 960, 112.6, false},
    {"RTX 5090", MACHINE_DESKTOP_GPU, 32, 1792, 209.5, false},
    {"H100 80GB HBM3", MACHINE_DESKTOP_GPU, 80, 3350, 989.4, false},
    {"H100 PCIe", MACHINE_DESKTOP_GPU, 80, 2000, 756, false},
    {"H200", MACHINE_DESKTOP_GPU, 141, 4800, 989.4, false},
    {"Jetson AGX Orin", MACHINE_EDGE, 64, 204.8, 42.5, true},
    {"Jetson AGX Orin 32GB", MACHINE_EDGE, 32, 204.8, 27, true},
    {"Jetson Orin NX 16GB", MACHINE_EDGE, 16, 102.4, 12.5, true},
    {"Jetson Orin NX 8GB", MACHINE_EDGE, 8, 102.4, 10.4, true},
    {"Jetson Orin Nano", MACHINE_EDGE, 8, 68, 10, true},
    {"Jetson Orin Nano Super", MACHINE_EDGE, 8, 102, 16.8, true},
    {"M1", MACHINE_LAPTOP, 16, 68.25, 2.6, true},
    {"M1 Pro", MACHINE_LAPTOP, 32, 200, 5.2, true},
    {"M1 Max", MACHINE_LAPTOP, 64, 400, 10.4, true},
    {"M1 Ultra", MACHINE_DESKTOP, 128, 800, 21, true},
    {"M2", MACHINE_LAPTOP, 24, 100, 3.6, true},
    {"M2 Pro", MACHINE_LAPTOP, 32, 200, 6.8, true},
    {"M2 Max", MACHINE_LAPTOP, 96, 400, 13.6, true},
    {"M2 Ultra", MACHINE_DESKTOP, 192, 800, 27.2, true},
    {"M3", MACHINE_LAPTOP, 24, 100, 4.1, true},
    {"M3 Pro", MACHINE_LAPTOP, 36, 150, 7.4, true},
    {"M3 Max", MACHINE_LAPTOP, 128, 400, 16.4, true},
    {"M3 Ultra", MACHINE_DESKTOP, 512, 819, 28.2, true},
    {"M4", MACHINE_LAPTOP, 32, 120, 4.3, true},
    {"M4 Pro", MACHINE_LAPTOP, 64, 273, 8.6, true},
    {"M4 Max", MACHINE_LAPTOP, 128, 546, 17.2, true},
};
enum { N_DEVICES = sizeof devices / sizeof *devices };

const struct device *device_at(int i)
{
    return i >= 0 && i < N_DEVICES ? &devices[i] : NULL;
}

/* Letters and digits alone, small, without the maker and without "laptop GPU" and the like. */
static void reduce(char *out, size_t room, const char *name)
{
    static const char *const makers[] = {"nvidia", "geforce", "apple"};
    size_t n = 0;
    for (; *name && n + 1 < room; name++)
        if (isalnum((unsigned char)*name))
            out[n++] = (char)tolower((unsigned char)*name);
    out[n] = '\0';
    for (size_t i = 0; i < sizeof makers / sizeof *makers; i++)
        if (starts_with(out, makers[i]))
            memmove(out, out + strlen(makers[i]), strlen(out + strlen(makers[i])) + 1);
}

const struct device *device_find(const char *name)
{
    char wanted[64], known[64];
    reduce(wanted, sizeof wanted, name);
    for (int i = 0; i < N_DEVICES; i++) {
        reduce(known, sizeof known, devices[i].name);
        if (strcmp(wanted, known) == 0)
            return &devices[i];
    }
    return NULL;
}
