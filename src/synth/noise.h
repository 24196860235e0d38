/* Random weights: values of a normal distribution as bf16. Value i of a key is the same on every machine and from every
 * thread, whatever was asked for before. */
#ifndef WARD_SYNTH_NOISE_H
#define WARD_SYNTH_NOISE_H

#include <stddef.h>
#include <stdint.h>

enum { NOISE_LEVELS = 4096 };

/* The values that a weight may take, all equally likely: the distribution's quantiles at (i + 1/2) / NOISE_LEVELS. */
struct noise {
    uint16_t level[NOISE_LEVELS];
};

void noise_init(struct noise *noise, double mean, double deviation);
/* The key of what has a name. */
uint64_t noise_key(uint64_t seed, const char *name);
/* out[i] = value first + i of the key. */
void noise_fill(const struct noise *noise, uint16_t *out, size_t n, uint64_t key, uint64_t first);

#endif
