/* The limits: multiplies on registers alone, as many independent sums as hide how long one takes; reading. */
#include "bench.h"

#include <stdatomic.h>
#include <string.h>

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
#define BYTES_256(i) "%{vex%} vpdpbusd %%ymm14, %%ymm15, %%ymm" i "\n\t"
#define BYTES_512(i) "vpdpbusd %%zmm14, %%zmm15, %%zmm" i "\n\t"

LOOP(float_128, FLOAT_128)
LOOP_AVX(float_256, FLOAT_256)
LOOP_AVX(float_512, FLOAT_512)
LOOP_AVX(bf16_512, BF16_512)
LOOP_AVX(bytes_avx2, BYTES_AVX2)
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

/* The multiply of a product, and the operations of twelve of them. */
static void (*multiply_of(const struct compute *c, const struct gemm *g, double *operations))(long n)
{
    const enum isa isa = c->k.isa;
    const int sums_256 = 8, sums_512 = 16;
    if (isa == ISA_NONE) {
        *operations = 12 * 2 * 4;
        return float_128;
    }
    switch (g->rounding) {
    case ROUND_BF16:
        *operations = isa == ISA_AMX ? 12 * 2 * 16 * 16 * 32 : 12 * 2 * 2 * sums_512;
        return isa == ISA_AMX ? bf16_tiles : bf16_512;
    case ROUND_X8:
        if (isa >= ISA_AVX512_VNNI && isa_present(ISA_AVX512_VNNI)) {
            *operations = 12 * 2 * 4 * sums_512;
            return bytes_512;
        }
        *operations = 12 * 2 * 4 * sums_256;
        return isa >= ISA_AVX_VNNI && isa_present(ISA_AVX_VNNI) ? bytes_256 : bytes_avx2;
    default:
        *operations = isa >= ISA_AVX512 ? 12 * 2 * sums_512 : 12 * 2 * sums_256;
        return isa >= ISA_AVX512 ? float_512 : float_256;
    }
}

#else

/* Nothing is known of other processors' instructions here. */
static void (*multiply_of(const struct compute *c, const struct gemm *g, double *operations))(long n)
{
    (void)c, (void)g, (void)operations;
    return NULL;
}

#endif

struct multiply {
    void (*loop)(long n);
    long n;
};

static void multiply_task(void *arg, int task, int thread)
{
    const struct multiply *m = arg;
    (void)task, (void)thread;
    m->loop(m->n);
}

static void multiply_work(const struct compute *c, void *arg)
{
    pool_run(c->pool, multiply_task, arg, pool_threads(c->pool));
}

double multiply_peak(const struct compute *c, const struct gemm *g)
{
    static struct {
        void (*loop)(long n);
        double rate;
    } known[16]; /* the highest so far of each: a machine that does something else now and then disturbs less */
    double operations = 0;
    struct multiply m = {multiply_of(c, g, &operations), 100000};
    if (!m.loop)
        return 0;
    const double rate = operations * (double)m.n * pool_threads(c->pool) / time_ns(c, multiply_work, &m) * 1e9;
    int i = 0;
    while (known[i].loop && known[i].loop != m.loop)
        i++;
    known[i].loop = m.loop;
    known[i].rate = rate > known[i].rate ? rate : known[i].rate;
    return known[i].rate;
}

/* ---- reading ---- */

struct reading {
    const uint64_t *data;
    size_t bytes;
    atomic_uint_fast64_t sum; /* so that reading cannot be left out */
};

enum { READ_CHUNK = 1 << 20 };

static void read_task(void *arg, int task, int thread)
{
    struct reading *r = arg;
    const uint64_t *at = r->data + (size_t)task * (READ_CHUNK / sizeof *at);
    uint64_t sums[8] = {0};
    (void)thread;
    for (size_t i = 0; i < READ_CHUNK / sizeof *at; i += 8)
        for (size_t j = 0; j < 8; j++)
            sums[j] += at[i + j];
    for (int j = 1; j < 8; j++)
        sums[0] += sums[j];
    atomic_fetch_add(&r->sum, sums[0]);
}

static void read_work(const struct compute *c, void *arg)
{
    const struct reading *r = arg;
    pool_run(c->pool, read_task, arg, (int)(r->bytes / READ_CHUNK));
}

double read_peak(const struct compute *c, const void *data, size_t bytes)
{
    static double highest;
    struct reading r = {.data = data, .bytes = bytes};
    const double rate = (double)bytes / time_ns(c, read_work, &r) * 1e9;
    highest = rate > highest ? rate : highest;
    return highest;
}
