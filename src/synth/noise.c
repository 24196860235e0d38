#include "synth/noise.h"

#include "base/half.h"
#include "base/random.h"

enum { PER_DRAW = 4 }; /* values that the 64 bits of a draw make */

/* Quantiles by adding up the density from the middle outwards. Sums and products alone: a library's exp differs from
 * another's in the last bit, and the files would too. */
void noise_init(struct noise *noise, double mean, double deviation)
{
    const double step = 1.0 / 1024, square = step * step;
    const double ratio = 1 - square + square * square / 2;               /* exp(-step^2) */
    double factor = 1 - square / 2 + square * square / 8;                /* exp(-step^2 / 2): f(x + step) / f(x) */
    double density = 0.398942280401432678, x = 0, below = 0.5, next = 0; /* f(0) = 1 / sqrt(2 pi) */
    for (int i = NOISE_LEVELS / 2; i < NOISE_LEVELS; i++) {
        const double wanted = (i + 0.5) / NOISE_LEVELS;
        for (;;) {
            next = below + step * density * (1 + factor) / 2;
            if (next >= wanted)
                break;
            below = next;
            density *= factor;
            factor *= ratio;
            x += step;
        }
        const double z = x + step * (wanted - below) / (next - below);
        noise->level[i] = bf16_from_float((float)(mean + deviation * z));
        noise->level[NOISE_LEVELS - 1 - i] = bf16_from_float((float)(mean - deviation * z));
    }
}

/* FNV-1a of the name, mixed with the seed. */
uint64_t noise_key(uint64_t seed, const char *name)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (; *name; name++)
        hash = (hash ^ (uint8_t)*name) * UINT64_C(0x100000001b3);
    return random_mix(hash ^ random_mix(seed + RANDOM_STEP));
}

static uint64_t draw(uint64_t key, uint64_t number)
{
    return random_mix(key + (number + 1) * RANDOM_STEP);
}

static uint16_t value_of(const struct noise *noise, uint64_t bits, unsigned i)
{
    return noise->level[bits >> (64 / PER_DRAW * i) & (NOISE_LEVELS - 1)];
}

void noise_fill(const struct noise *noise, uint16_t *out, size_t n, uint64_t key, uint64_t first)
{
    size_t i = 0;
    for (; i < n && (first + i) % PER_DRAW; i++)
        out[i] = value_of(noise, draw(key, (first + i) / PER_DRAW), (first + i) % PER_DRAW);
    for (uint64_t number = (first + i) / PER_DRAW; i + PER_DRAW <= n; i += PER_DRAW, number++) {
        const uint64_t bits = draw(key, number);
        for (unsigned k = 0; k < PER_DRAW; k++)
            out[i + k] = value_of(noise, bits, k);
    }
    for (; i < n; i++)
        out[i] = value_of(noise, draw(key, (first + i) / PER_DRAW), (first + i) % PER_DRAW);
}
