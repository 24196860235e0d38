#include "bench/limits.h"

#include "base/clock.h"
#include "base/json.h"
#include "base/pool.h"
#include "bench/peak.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    READ_CHUNK = 1 << 20, /* that a thread claims at a time */
    READ_MS = 500,        /* how long each figure is looked for */
    MULTIPLY_MS = 200,
    TURN_MS = 5, /* of one run of a multiply, about */
};
static const size_t LEAST_BUFFER = (size_t)64 << 20, USUAL_BUFFER = (size_t)256 << 20, MOST_BUFFER = (size_t)1 << 30;

/* ---- multiplying ------------------------------------------------------------------------------------------------- */

struct multiply_job {
    struct peak_loop loop;
    long turns;
};

static void multiply_task(void *arg, int task, int thread)
{
    const struct multiply_job *job = arg;
    (void)task, (void)thread;
    job->loop.run(job->turns);
}

/* The first runs find how many turns fill TURN_MS, and let the processor reach its clock. */
static double multiply_rate(struct pool *pool, struct peak_loop loop)
{
    struct multiply_job job = {loop, 1000};
    const int threads = pool_threads(pool);
    double best = 0;
    if (!loop.run)
        return 0;
    for (const double end = clock_ms() + MULTIPLY_MS; clock_ms() < end;) {
        const double start = clock_ms();
        pool_run(pool, multiply_task, &job, threads);
        const double ms = clock_ms() - start;
        if (ms < TURN_MS)
            job.turns *= 2;
        else
            best = fmax(best, loop.operations * (double)job.turns * threads / ms * 1e3);
    }
    return best;
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

enum limits_multiply limits_multiply_of(enum isa isa, enum tensor_type type)
{
    struct kernels k = {0};
    kernels_init(&k, isa);
    int kind = 0;
    while (rounding_of[kind] != k.gemm[type]->rounding)
        kind++;
    return (enum limits_multiply)kind;
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

static double read_rate(struct pool *pool, struct read_job *job, size_t bytes)
{
    double best = 0;
    for (const double end = clock_ms() + READ_MS; clock_ms() < end;) {
        const double start = clock_ms();
        pool_run(pool, read_task, job, (int)(bytes / READ_CHUNK));
        best = fmax(best, (double)bytes / (clock_ms() - start) * 1e3);
    }
    return best;
}

/* Four times the last level of the caches, but no more than a quarter of the memory that is free. */
static size_t buffer_size(void)
{
    const long cache = sysconf(_SC_LEVEL3_CACHE_SIZE), pages = sysconf(_SC_AVPHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    size_t size = USUAL_BUFFER;
    if (cache > 0 && (size_t)cache > size / 4)
        size = (size_t)cache < MOST_BUFFER / 4 ? 4 * (size_t)cache : MOST_BUFFER;
    if (pages > 0 && page > 0 && size > (size_t)pages * (size_t)page / 4)
        size = (size_t)pages * (size_t)page / 4;
    return (size < LEAST_BUFFER ? LEAST_BUFFER : size) / READ_CHUNK * READ_CHUNK;
}

static int measure_reading(struct limits *out, struct pool *pool, struct pool *one, struct ward_error *err)
{
    struct read_job job = {aligned_alloc(READ_CHUNK, out->buffer_bytes), 0};
    if (!job.data)
        return error_no_memory(err, "measuring how fast memory is read", out->buffer_bytes);
    pool_run(pool, fill_task, &job, (int)(out->buffer_bytes / READ_CHUNK));
    out->read_bytes = read_rate(pool, &job, out->buffer_bytes);
    out->read_bytes_one = out->threads == 1 ? out->read_bytes : read_rate(one, &job, out->buffer_bytes);
    free(job.data);
    return 0;
}

/* ---- all of it --------------------------------------------------------------------------------------------------- */

int limits_measure(struct limits *out, int threads, enum isa highest, struct ward_error *err)
{
    const double start = clock_ms();
    struct pool *pool = NULL, *one = NULL;
    struct kernels k = {0};
    kernels_init(&k, highest);
    *out = (struct limits){.isa = k.isa, .buffer_bytes = buffer_size()};
    int rc = pool_open(&pool, threads, err);
    if (!rc)
        rc = pool_open(&one, 1, err);
    if (!rc) {
        out->threads = pool_threads(pool);
        for (int kind = 0; kind < LIMITS_MULTIPLIES; kind++)
            if (has_rounding(&k, rounding_of[kind]))
                out->multiply[kind] = multiply_rate(pool, peak_multiply(k.isa, rounding_of[kind]));
        rc = measure_reading(out, pool, one, err);
    }
    pool_close(&pool);
    pool_close(&one);
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

void limits_write_json(struct json_writer *w, const char *key, const struct limits *limits)
{
    json_write_open(w, key, '{');
    json_write_text(w, "kernels", isa_name(limits->isa));
    json_write_integer(w, "threads", limits->threads);
    write_rate(w, "read_gbs", limits->read_bytes);
    write_rate(w, "read_one_gbs", limits->read_bytes_one);
    json_write_open(w, "multiply_gops", '{');
    for (int kind = 0; kind < LIMITS_MULTIPLIES; kind++)
        write_rate(w, limits_multiply_name((enum limits_multiply)kind), limits->multiply[kind]);
    json_write_close(w, '}');
    json_write_integer(w, "buffer_bytes", (int64_t)limits->buffer_bytes);
    json_write_number(w, "ms", limits->ms, 1);
    json_write_close(w, '}');
}
