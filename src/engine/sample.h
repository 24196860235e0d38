/* From logits to the next token. */
#ifndef WARD_ENGINE_SAMPLE_H
#define WARD_ENGINE_SAMPLE_H

#include "base/error.h"

struct sampler_options {
    float temperature; /* 0: greedy */
    int top_k;         /* 0: off */
    float top_p;       /* 0 or 1: off */
    float min_p;       /* 0: off */
};

/* A token to be drawn elsewhere, as sample_token would: the number in [0, 1) that decides. */
struct draw {
    double number;
    struct sampler_options options;
};

struct sampler {
    uint64_t random;                 /* state of the generator */
    struct ward_logprob *candidates; /* [vocab] work */
    int vocab;
};

WARD_CHECKED int sampler_open(struct sampler *s, int vocab, struct ward_error *err);
void sampler_close(struct sampler *s);
void sampler_seed(struct sampler *s, uint64_t seed);

/* The number of the draw that follows `ahead` further ones. */
double sample_number(const struct sampler *s, int ahead);
/* A token was drawn by the next number. */
void sample_advance(struct sampler *s);

/* Log of the sum of exp(logits): logits[i] minus it is the log-probability of i. */
double sample_log_sum(const float *logits, int vocab);
/* The n likeliest tokens with their log-probabilities, most likely first, the lower id first among equals. */
void sample_top(struct sampler *s, const float *logits, double log_sum, int n, struct ward_logprob *top);
/* Draws a token. The order is that of transformers: temperature, then top-k, top-p and min-p. The same seed and logits
 * give the same token. */
int32_t sample_token(struct sampler *s, const float *logits, const struct sampler_options *options);

#endif
