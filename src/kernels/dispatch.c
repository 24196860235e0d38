/* Which kernels this processor gets. */
#include "kernels/kernels.h"

#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

static const char *const names[ISA_COUNT] = {"none", "avx2", "avx512", "avx512bf16"};

#if defined(__x86_64__)
/* The register state that the operating system saves (XCR0): instructions whose registers it does not save must not be
 * used, whatever cpuid says of the processor. */
static uint64_t saved_state(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

enum isa kernels_detect(void)
{
    const uint64_t ymm = 0x06, zmm = 0xe6; /* of XCR0: sse and avx; those, opmask and both parts of the zmm registers */
    const uint32_t avx512 = bit_AVX512F | bit_AVX512DQ | bit_AVX512BW | bit_AVX512VL;
    uint32_t eax, ebx, ecx, edx, seven_ebx;

    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & bit_OSXSAVE) || (saved_state() & ymm) != ymm ||
        !(ecx & bit_AVX) || !(ecx & bit_FMA) || !(ecx & bit_F16C))
        return ISA_NONE;
    if (!__get_cpuid_count(7, 0, &eax, &seven_ebx, &ecx, &edx) || !(seven_ebx & bit_AVX2))
        return ISA_NONE;
    if ((seven_ebx & avx512) != avx512 || (saved_state() & zmm) != zmm)
        return ISA_AVX2;
    if (eax < 1 || !__get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) || !(eax & bit_AVX512BF16))
        return ISA_AVX512;
    return ISA_AVX512_BF16;
}
#else
enum isa kernels_detect(void)
{
    return ISA_NONE;
}
#endif

const char *isa_name(enum isa isa)
{
    return names[isa];
}

int isa_parse(const char *name)
{
    if (!name || strcmp(name, "amx") == 0)
        return ISA_COUNT - 1;
    for (int i = 0; i < ISA_COUNT; i++)
        if (strcmp(name, names[i]) == 0)
            return i;
    return -1;
}

void kernels_init(struct kernels *k, enum isa highest)
{
    const enum isa present = kernels_detect(), isa = highest < present ? highest : present;

    kernels_init_ref(k);
#if defined(__x86_64__)
    if (isa >= ISA_AVX2)
        kernels_init_avx2(k);
    if (isa >= ISA_AVX512)
        kernels_init_avx512(k);
    if (isa >= ISA_AVX512_BF16)
        kernels_init_avx512_bf16(k);
#endif
    k->isa = isa;
}
