#include "harness.h"

#include "base/half.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

bool fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    printf("# ");
    vprintf(format, args);
    printf("\n");
    va_end(args);
    return false;
}

bool near(const char *what, int at, double got, double expected, double bound)
{
    if (isnan(expected) ? isnan(got) : fabs(got - expected) <= bound || got == expected)
        return true;
    return fail("%s: element %d is %.9g, expected %.9g within %.3g", what, at, got, expected, bound);
}

/* ---- random numbers ---- */

static uint64_t state;

void random_seed(uint64_t seed)
{
    state = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
}

uint32_t random_bits(void)
{
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(state >> 32);
}

int random_int(int low, int high)
{
    return low + (int)(random_bits() % (uint32_t)(high - low + 1));
}

float random_float(void)
{
    return (float)(random_bits() >> 8) * 0x1p-23f - 1.0f;
}

void random_fill(float *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const int extreme = random_int(0, 15);
        out[i] = random_float() * (extreme == 0 ? 1000.0f : extreme == 1 ? 0.001f : 1.0f);
    }
}

/* ---- buffers ---- */

enum { MOST_BUFFERS = 64, CANARY = 0xa5, UNSET = 0xff };

static struct area {
    uint8_t *map, *data;
    size_t map_size, size; /* map_size: without the guard */
} areas[MOST_BUFFERS];
static int n_areas;

void *buffer(size_t size, size_t slack)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), usable = (size + slack + page - 1) / page * page + page;
    uint8_t *map = mmap(NULL, usable + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED || n_areas == MOST_BUFFERS || mprotect(map + usable, page, PROT_NONE)) {
        fprintf(stderr, "no memory for a buffer of %zu bytes\n", size);
        exit(2);
    }
    struct area *a = &areas[n_areas++];
    *a = (struct area){.map = map, .map_size = usable, .data = map + usable - slack - size, .size = size};
    memset(map, CANARY, usable);
    memset(a->data, UNSET, size);
    return a->data;
}

float *float_buffer(size_t n)
{
    return buffer(n * sizeof(float), 0);
}

bool buffers_intact(void)
{
    for (int i = 0; i < n_areas; i++) {
        const struct area *a = &areas[i];
        for (const uint8_t *p = a->map; p < a->map + a->map_size; p++) {
            if (p == a->data)
                p += a->size;
            if (p < a->map + a->map_size && *p != CANARY)
                return fail("byte %td of a buffer of %zu was overwritten", p - a->data, a->size);
        }
    }
    return true;
}

void buffers_release(void)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    while (n_areas > 0) {
        n_areas--;
        munmap(areas[n_areas].map, areas[n_areas].map_size + page);
    }
}

/* Blocks of random bits, every one of them a value, but for the float16 scales, which must be finite. */
static void random_blocks(uint8_t *out, enum tensor_type type, size_t n_blocks)
{
    const size_t bytes = (size_t)tensor_formats[type].bytes, scale = type == TENSOR_Q6_K ? bytes - 2 : 0;
    const bool two = type == TENSOR_Q4_1 || type == TENSOR_Q5_1 || type == TENSOR_Q4_K || type == TENSOR_Q5_K;
    for (size_t i = 0; i < n_blocks; i++, out += bytes) {
        for (size_t j = 0; j < bytes; j++)
            out[j] = (uint8_t)(random_int(0, 7) ? random_bits() : random_int(0, 1) ? 0x80 : 0xff);
        for (size_t j = 0; j < (two ? 2 : 1); j++) {
            const uint16_t bits = f16_from_float(random_float() * (random_int(0, 7) ? 1.0f : 0.0001f));
            memcpy(out + scale + 2 * j, &bits, sizeof bits);
        }
    }
}

void *random_matrix(enum tensor_type type, int rows, int cols, bool odd, float *values)
{
    const size_t n = (size_t)rows * (size_t)cols;
    struct kernels ref;
    kernels_init_ref(&ref);
    void *w = buffer(tensor_bytes(type, n), odd ? 1 : 0);
    if (tensor_is_float(type)) {
        random_fill(values, n);
        ref.from_float[type](w, values, (int)n);
    } else {
        random_blocks(w, type, n / (size_t)tensor_formats[type].block);
    }
    ref.to_float[type](values, w, (int)n);
    return w;
}

int whole_blocks(enum tensor_type type, int n)
{
    const int block = tensor_formats[type].block;
    return (n + block - 1) / block * block;
}

void magnitudes(enum tensor_type type, float *out, const float *values, int n)
{
    const int together = tensor_is_float(type) ? 1 : X8_BLOCK;
    for (int start = 0; start < n; start += together) {
        float most = 0;
        for (int i = start; i < start + together; i++)
            most = fmaxf(most, fabsf(values[i]));
        for (int i = start; i < start + together; i++)
            out[i] = most;
    }
}

bool rounds_weights(enum rounding rounding)
{
    return rounding == ROUND_BF16 || rounding == ROUND_FIXED;
}

/* In blocks of n with a scale each, up to whole numbers of `high`. */
static void as_whole(float *out, const float *x, int n, float high, float least)
{
    float most = 0;
    for (int i = 0; i < n; i++)
        most = fmaxf(most, fabsf(x[i]));
    const float scale = most / high, inverse = most > least ? high / most : 0.0f;
    for (int i = 0; i < n; i++)
        out[i] = scale * nearbyintf(x[i] * inverse);
}

void as_rounded(enum rounding rounding, int block, float *out, const float *x, int n)
{
    block = rounding == ROUND_FIXED ? block : X8_BLOCK;
    for (int start = 0; start < n; start += block) {
        const int part = n - start < block ? n - start : block;
        if (rounding == ROUND_X8)
            as_whole(out + start, x + start, part, 127.0f, 0);
        else if (rounding == ROUND_FIXED)
            as_whole(out + start, x + start, part, FIXED_MOST, FIXED_LEAST);
        else
            for (int i = start; i < start + part; i++)
                out[i] = rounding == ROUND_BF16 ? bf16_to_float(bf16_from_float(x[i])) : x[i];
    }
}
