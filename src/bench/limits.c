#include "bench/limits.h"

#include "base/clock.h"
#include "base/json.h"
#include "base/pool.h"
#include "bench/machine.h"
#include "bench/peak.h"
#include "bench/tally.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    READ_CHUNK = 1 << 20, /* that a thread claims at a time */
    ROUNDS = 5,           /* each figure is looked for in all of them, for so long: */
    READ_MS = 120,
    MULTIPLY_MS = 50,
    TURN_MS = 5, /* of one run of a multiply, about */
};
static const size_t LEAST_BUFFER = (size_t)64 << 20, USUAL_BUFFER = (size_t)256 << 20, MOST_BUFFER = (size_t)1 << 30;

/* ---- multiplying ------------------------------------------------------------------------------------------------- */

struct multiply_job {
    struct peak_loop loop;
    long turns;
    struct tally tally;
};

static void multiply_task(void *arg, int task, int thread)
{
    const struct multiply_job *job = arg;
    (void)task, (void)thread;
    job->loop.run(job->turns);
}

/* The first runs find how many turns fill TURN_MS, and let the processor reach its clock. */
static void multiply(struct pool *pool, struct multiply_job *job)
{
    const int threads = pool_threads(pool);
    for (const double end = clock_ms() + MULTIPLY_MS; job->loop.run && clock_ms() < end;) {
        const double start = clock_ms();
        pool_run(pool, multiply_task, job, threads);
        const double ms = clock_ms() - start;
        if (ms < TURN_MS && !job->tally.ms)
            job->turns *= 2;
        else
            tally_add(&job->tally, job->loop.operations * (double)job->turns * threads, ms);
    }
}

static const enum rounding rounding_of[LIMITS_MULTIPLIES] = {ROUND_NOTHING, ROUND_BF16, ROUND_FIXED, ROUND_X8};

/* Whether a set's matrix products are made of it. */
static bool has_rounding(const struct kernels *k, enum rounding rounding)
{
    for (int type = 0; type < TENSOR_TYPES; type++)
        if (k->gemm[type]->rounding == rounding)
            return true;
    return false;
}

const char *limits_multiply_name(enum limits_multiply kind)
{
    static const char *const names[LIMITS_MULTIPLIES] = {"f32", "bf16", "int16", "int8"};
    return names[kind];
}

static enum limits_multiply multiply_of(const struct gemm *g)
{
    int kind = 0;
    while (rounding_of[kind] != g->rounding)
        kind++;
    return (enum limits_multiply)kind;
}

enum limits_multiply limits_multiply_of(enum isa isa, enum tensor_type type)
{
    struct kernels k = {0};
    kernels_init(&k, isa);
    return multiply_of(k.gemm[type]);
}

enum limits_multiply limits_attention_of(enum isa isa)
{
    struct kernels k = {0};
    kernels_init(&k, isa);
    return multiply_of(k.gemm_scores);
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

struct read_job {
    uint8_t *data;
    atomic_uint_fast64_t sum;
};

/* Each thread touches first what it then may read: pages lie near the threads of all memory controllers. */
static void fill_task(void *arg, int task, int thread)
{
    struct read_job *job = arg;
    (void)thread;
    memset(job->data + (size_t)task * READ_CHUNK, task % 255 + 1, READ_CHUNK);
}

static void read_task(void *arg, int task, int thread)
{
    struct read_job *job = arg;
    (void)thread;
    atomic_fetch_add(&job->sum, peak_read(job->data + (size_t)task * READ_CHUNK, READ_CHUNK));
}

static void read_all(struct pool *pool, struct read_job *job, size_t bytes, struct tally *tally)
{
    for (const double end = clock_ms() + READ_MS; clock_ms() < end;) {
        const double start = clock_ms();
        pool_run(pool, read_task, job, (int)(bytes / READ_CHUNK));
        tally_add(tally, (double)bytes, clock_ms() - start);
    }
}

/* Four times the last level of all caches together, but no more than a quarter of the memory that is free. */
static size_t buffer_size(void)
{
    const long pages = sysconf(_SC_AVPHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    struct machine machine;
    machine_read(&machine, "");
    size_t size = USUAL_BUFFER;
    if (machine.l3_bytes > size / 4)
        size = machine.l3_bytes < MOST_BUFFER / 4 ? 4 * machine.l3_bytes : MOST_BUFFER;
    if (pages > 0 && page > 0 && size > (size_t)pages * (size_t)page / 4)
        size = (size_t)pages * (size_t)page / 4;
    return (size < LEAST_BUFFER ? LEAST_BUFFER : size) / READ_CHUNK * READ_CHUNK;
}

/* ---- all of it --------------------------------------------------------------------------------------------------- */

static void measure(struct limits *out, const struct kernels *k, struct pool *pool, struct pool *one,
                    struct read_job *read)
{
    struct multiply_job jobs[LIMITS_MULTIPLIES] = {{.turns = 0}};
    struct tally all = {0}, alone = {0};
    for (int kind = 0; kind < LIMITS_MULTIPLIES; kind++) {
        jobs[kind].turns = 1000;
        if (has_rounding(k, rounding_of[kind]))
            jobs[kind].loop = peak_multiply(k->isa, rounding_of[kind]);
    }
    pool_run(pool, fill_task, read, (int)(out->buffer_bytes / READ_CHUNK));
    for (int round = 0; round < ROUNDS; round++) {
        for (int kind = 0; kind < LIMITS_MULTIPLIES; kind++)
            multiply(pool, &jobs[kind]);
        read_all(pool, read, out->buffer_bytes, &all);
        if (out->threads > 1)
            read_all(one, read, out->buffer_bytes, &alone);
    }
    for (int kind = 0; kind < LIMITS_MULTIPLIES; kind++) {
        out->multiply[kind] = jobs[kind].tally.best;
        out->multiply_mean[kind] = tally_mean(&jobs[kind].tally);
    }
    out->read_bytes = all.best;
    out->read_bytes_mean = tally_mean(&all);
    out->read_bytes_one = out->threads > 1 ? alone.best : all.best;
}

int limits_measure(struct limits *out, int threads, enum isa highest, struct ward_error *err)
{
    const double start = clock_ms();
    struct pool *pool = NULL, *one = NULL;
    struct kernels k = {0};
    kernels_init(&k, highest);
    *out = (struct limits){.isa = k.isa, .buffer_bytes = buffer_size()};
    struct read_job read = {aligned_alloc(READ_CHUNK, out->buffer_bytes), 0};
    int rc = read.data ? 0 : error_no_memory(err, "measuring how fast memory is read", out->buffer_bytes);
    if (!rc)
        rc = pool_open(&pool, threads, err);
    if (!rc)
        rc = pool_open(&one, 1, err);
    if (!rc) {
        out->threads = pool_threads(pool);
        measure(out, &k, pool, one, &read);
    }
    pool_close(&pool);
    pool_close(&one);
    free(read.data);
    out->ms = clock_ms() - start;
    return rc;
}

static void write_rate(struct json_writer *w, const char *key, double per_second)
{
    if (per_second > 0)
        json_write_number(w, key, per_second / 1e9, 2);
    else
        json_write_null(w, key);
}

static void write_rates(struct json_writer *w, const char *key, const double rates[LIMITS_MULTIPLIES])
{
    json_write_open(w, key, '{');
    for (int kind = 0; kind < LIMITS_MULTIPLIES; kind++)
        write_rate(w, limits_multiply_name((enum limits_multiply)kind), rates[kind]);
    json_write_close(w, '}');
}

void limits_write_json(struct json_writer *w, const char *key, const struct limits *limits)
{
    json_write_open(w, key, '{');
    json_write_text(w, "kernels", isa_name(limits->isa));
    json_write_integer(w, "threads", limits->threads);
    write_rate(w, "read_gbs", limits->read_bytes);
    write_rate(w, "read_one_gbs", limits->read_bytes_one);
    write_rate(w, "read_mean_gbs", limits->read_bytes_mean);
    write_rates(w, "multiply_gops", limits->multiply);
    write_rates(w, "multiply_mean_gops", limits->multiply_mean);
    json_write_integer(w, "buffer_bytes", (int64_t)limits->buffer_bytes);
    json_write_number(w, "ms", limits->ms, 1);
    json_write_close(w, '}');
}
