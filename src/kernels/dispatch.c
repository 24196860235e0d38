/* Which kernels this processor gets. */
#include "kernels/kernels.h"

#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

static const struct {
    const char *name;
    void (*init)(struct kernels *k); /* NULL: this build has none */
} sets[ISA_COUNT] = {
    [ISA_NONE] = {"none", kernels_init_ref},
#if defined(__x86_64__)
    [ISA_AVX2] = {"avx2", kernels_init_avx2},
    [ISA_AVX_VNNI] = {"avxvnni", kernels_init_avx_vnni},
    [ISA_AVX512] = {"avx512", kernels_init_avx512},
    [ISA_AVX512_VNNI] = {"avx512vnni", kernels_init_avx512_vnni},
    [ISA_AVX512_BF16] = {"avx512bf16", kernels_init_avx512_bf16},
    [ISA_AMX] = {"amx", kernels_init_amx},
#else
    [ISA_AVX2] = {"avx2", NULL},
    [ISA_AVX_VNNI] = {"avxvnni", NULL},
    [ISA_AVX512] = {"avx512", NULL},
    [ISA_AVX512_VNNI] = {"avx512vnni", NULL},
    [ISA_AVX512_BF16] = {"avx512bf16", NULL},
    [ISA_AMX] = {"amx", NULL},
#endif
};

#if defined(__x86_64__)
/* The register state that the operating system saves (XCR0): instructions whose registers it does not save must not be
 * used, whatever cpuid says of the processor. */
static uint64_t saved_state(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

/* Bit i: set i is there. */
static unsigned detect(void)
{
    const uint64_t ymm = 0x06, zmm = 0xe6; /* of XCR0: sse and avx; those, opmask and both parts of the zmm registers */
    const uint64_t tiles = 0x60000;        /* their shapes and what they hold */
    const uint32_t amx = 1u << 24 | 1u << 22; /* of leaf 7: AMX-TILE, AMX-BF16; compilers name them differently */
    const uint32_t avx512 = bit_AVX512F | bit_AVX512DQ | bit_AVX512BW | bit_AVX512VL;
    uint32_t eax, ebx, ecx, edx, seven_ebx, seven_ecx, seven_edx, one_eax = 0;
    unsigned found = 1u << ISA_NONE;

    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & bit_OSXSAVE) || (saved_state() & ymm) != ymm ||
        !(ecx & bit_AVX) || !(ecx & bit_FMA) || !(ecx & bit_F16C))
        return found;
    if (!__get_cpuid_count(7, 0, &eax, &seven_ebx, &seven_ecx, &seven_edx) || !(seven_ebx & bit_AVX2))
        return found;
    found |= 1u << ISA_AVX2;
    if (eax >= 1)
        __get_cpuid_count(7, 1, &one_eax, &ebx, &ecx, &edx);
    if (one_eax & bit_AVXVNNI)
        found |= 1u << ISA_AVX_VNNI;
    if ((seven_ebx & avx512) != avx512 || (saved_state() & zmm) != zmm)
        return found;
    found |= 1u << ISA_AVX512;
    if (seven_ecx & bit_AVX512VNNI)
        found |= 1u << ISA_AVX512_VNNI;
    if (one_eax & bit_AVX512BF16)
        found |= 1u << ISA_AVX512_BF16;
    if ((one_eax & bit_AVX512BF16) && (seven_edx & amx) == amx && (saved_state() & tiles) == tiles)
        found |= 1u << ISA_AMX;
    return found;
}

/* Linux gives a process the tile registers when it asks for them, since they make its signal frames 8 KB larger. It
 * refuses where a signal stack is too small for that, and where it is too old to know. Asking again is harmless. */
static bool tiles_permitted(void)
{
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 }; /* ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA */
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}
#else
static unsigned detect(void)
{
    return 1u << ISA_NONE;
}

static bool tiles_permitted(void)
{
    return false;
}
#endif

bool isa_present(enum isa isa)
{
    return sets[isa].init && detect() >> isa & 1 && (isa != ISA_AMX || tiles_permitted());
}

const char *isa_name(enum isa isa)
{
    return sets[isa].name;
}

int isa_parse(const char *name)
{
    if (!name)
        return ISA_COUNT - 1;
    for (int i = 0; i < ISA_COUNT; i++)
        if (strcmp(name, sets[i].name) == 0)
            return i;
    return -1;
}

void kernels_init(struct kernels *k, enum isa highest)
{
    for (int isa = ISA_NONE; isa <= (int)highest; isa++)
        if (isa_present((enum isa)isa)) {
            sets[isa].init(k);
            k->isa = (enum isa)isa;
        }
}
