#include "bench/peak.h"

#include <stddef.h>

#if defined(__x86_64__)

/* A loop of 12 multiplies into registers 0 .. 11 of 14 and 15, or of whichever a multiply is made of. */
#define TWELVE(X) X("0") X("1") X("2") X("3") X("4") X("5") X("6") X("7") X("8") X("9") X("10") X("11")
#define CLEAR(i) "pxor %%xmm" i ", %%xmm" i "\n\t"
#define LOOP(name, multiply)                                                                                           \
    static void name(long n)                                                                                           \
    {                                                                                                                  \
        __asm__ volatile(TWELVE(CLEAR) CLEAR("12") CLEAR("13") CLEAR("14") CLEAR("15") "1:\n\t" TWELVE(multiply)       \
                         "dec %0\n\tjnz 1b\n\t"                                                                        \
                         : "+r"(n)                                                                                     \
                         :                                                                                             \
                         : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",       \
                           "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");                                      \
    }
#define LOOP_AVX(name, multiply) LOOP(name##_loop, multiply)                                                           \
    static void name(long n)                                                                                           \
    {                                                                                                                  \
        name##_loop(n);                                                                                                \
        __asm__ volatile("vzeroupper" : : : "memory");                                                                 \
    }

#define FLOAT_128(i) "movaps %%xmm15, %%xmm14\n\tmulps %%xmm13, %%xmm14\n\taddps %%xmm14, %%xmm" i "\n\t"
#define FLOAT_256(i) "vfmadd231ps %%ymm14, %%ymm15, %%ymm" i "\n\t"
#define FLOAT_512(i) "vfmadd231ps %%zmm14, %%zmm15, %%zmm" i "\n\t"
#define BF16_512(i) "vdpbf16ps %%zmm14, %%zmm15, %%zmm" i "\n\t"
#define BYTES_AVX2(i) "vpmaddubsw %%ymm14, %%ymm15, %%ymm13\n\tvpaddw %%ymm13, %%ymm" i ", %%ymm" i "\n\t"
#define WORDS_AVX2(i) "vpmaddwd %%ymm14, %%ymm15, %%ymm13\n\tvpaddd %%ymm13, %%ymm" i ", %%ymm" i "\n\t"
#define BYTES_256(i) "%{vex%} vpdpbusd %%ymm14, %%ymm15, %%ymm" i "\n\t"
#define BYTES_512(i) "vpdpbusd %%zmm14, %%zmm15, %%zmm" i "\n\t"

LOOP(float_128, FLOAT_128)
LOOP_AVX(float_256, FLOAT_256)
LOOP_AVX(float_512, FLOAT_512)
LOOP_AVX(bf16_512, BF16_512)
LOOP_AVX(bytes_avx2, BYTES_AVX2)
LOOP_AVX(words_avx2, WORDS_AVX2)
LOOP_AVX(bytes_256, BYTES_256)
LOOP_AVX(bytes_512, BYTES_512)

/* Four tiles of sums, as amx.c has; three times, to make twelve. */
static void bf16_tiles(long n)
{
    static const uint8_t config[64] = {[0] = 1, [16] = 64, [18] = 64, [20] = 64, [22] = 64, [24] = 64, [26] = 64,
                                       [48] = 16, [49] = 16, [50] = 16, [51] = 16, [52] = 16, [53] = 16};
#define FOUR                                                                                                           \
    "tdpbf16ps %%tmm5, %%tmm4, %%tmm0\n\ttdpbf16ps %%tmm5, %%tmm4, %%tmm1\n\t"                                         \
    "tdpbf16ps %%tmm5, %%tmm4, %%tmm2\n\ttdpbf16ps %%tmm5, %%tmm4, %%tmm3\n\t"
    __asm__ volatile("ldtilecfg (%1)\n\t1:\n\t" FOUR FOUR FOUR "dec %0\n\tjnz 1b\n\ttilerelease\n\t"
                     : "+r"(n)
                     : "r"(config)
                     : "cc", "memory");
}

struct peak_loop peak_multiply(enum isa isa, enum rounding rounding)
{
    const int sums_256 = 8, sums_512 = 16;
    if (isa == ISA_NONE)
        return (struct peak_loop){float_128, 12 * 2 * 4};
    switch (rounding) {
    case ROUND_BF16:
        if (isa == ISA_AMX)
            return (struct peak_loop){bf16_tiles, 12 * 2 * 16 * 16 * 32};
        return (struct peak_loop){bf16_512, 12 * 2 * 2 * sums_512};
    case ROUND_FIXED: return (struct peak_loop){words_avx2, 12 * 2 * 2 * sums_256};
    case ROUND_X8:
        if (isa >= ISA_AVX512_VNNI && isa_present(ISA_AVX512_VNNI))
            return (struct peak_loop){bytes_512, 12 * 2 * 4 * sums_512};
        if (isa >= ISA_AVX_VNNI && isa_present(ISA_AVX_VNNI))
            return (struct peak_loop){bytes_256, 12 * 2 * 4 * sums_256};
        return (struct peak_loop){bytes_avx2, 12 * 2 * 4 * sums_256};
    case ROUND_NOTHING: break;
    }
    if (isa >= ISA_AVX512)
        return (struct peak_loop){float_512, 12 * 2 * sums_512};
    return (struct peak_loop){float_256, 12 * 2 * sums_256};
}

#else

/* Four floats at a time, the width that every processor of 64 bits has; a product and its addition stay apart, as in
 * ref.c. */
typedef float floats __attribute__((vector_size(16)));

static void float_128(long turns)
{
    enum { SUMS = 12 };
    static volatile float one = 1, kept;
    const floats a = {one, one, one, one};
    floats sums[SUMS] = {0};
    for (; turns > 0; turns--)
        for (int i = 0; i < SUMS; i++)
            sums[i] = sums[i] * a + a;
    for (int i = 1; i < SUMS; i++)
        sums[0] += sums[i];
    kept = sums[0][0];
    (void)kept;
}

struct peak_loop peak_multiply(enum isa isa, enum rounding rounding)
{
    const struct peak_loop none = {0}, plain = {float_128, 12 * 2 * 4};
    return isa == ISA_NONE && rounding == ROUND_NOTHING ? plain : none;
}

#endif

/* From four places at once, as the kernels read: a core then waits for more lines of the memory at a time, which on
 * Zen 3 makes a third more. */
uint64_t peak_read(const void *data, size_t bytes)
{
    enum { PLACES = 4, WORDS = 8 };
    const size_t quarter = bytes / sizeof(uint64_t) / PLACES;
    const uint64_t *at = data;
    uint64_t sums[WORDS] = {0};
    for (size_t i = 0; i < quarter; i += WORDS)
        for (size_t place = 0; place < PLACES; place++)
            for (size_t j = 0; j < WORDS; j++)
                sums[j] += at[place * quarter + i + j];
    for (int j = 1; j < WORDS; j++)
        sums[0] += sums[j];
    return sums[0];
}
