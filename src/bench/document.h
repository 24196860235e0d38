/* The results as JSON: what everything else (tables, reports, comparisons) is made of, now or later. docs/bench.md
 * explains it, docs/bench.schema.json describes it. */
#ifndef WARD_BENCH_DOCUMENT_H
#define WARD_BENCH_DOCUMENT_H

#include "base/json.h"
#include "bench/protocol.h"

#define BENCH_FORMAT "ward-bench"
enum { BENCH_VERSION = 1 };

/* What the results have in common. */
struct bench_document {
    const struct bench_settings *protocol; /* model, prompt_tokens, max_tokens and threads are each result's own */
    const struct machine *machine;
    const char *started;       /* "2026-01-31T12:00:00Z" */
    const char *prompt_sha256; /* NULL: no question was asked */
    bool prompt_given;         /* it is not the default question */
    double target_ms;          /* 0: none */
    const char *target_from;   /* "option", or the class of machine */
    bool complete;
};

/* Appends the object. `results` [n]; n_most: how many were to come. */
void bench_write_document(struct json_writer *w, const struct bench_document *d, const struct bench_result *results,
                          size_t n);

#endif
