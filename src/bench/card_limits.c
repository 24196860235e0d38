#include "bench/card_limits.h"

#include "base/clock.h"
#include "base/json.h"
#include "bench/tally.h"
#include "cuda/card.h"

enum {
    ROUNDS = 5,  /* each figure is looked for in all of them, */
    RUNS = 2,    /* so often, */
    RUN_MS = 20, /* for so long at least: of a wait for a card some microseconds are the wait's */
    CACHES = 32, /* that a buffer would fill */
    COPIERS = 8, /* blocks of a multiprocessor: all the threads that it has */
    MULTIPLIERS = 2,
    LEAST = 2 << 20, /* bytes of a buffer */
};
static const size_t USUAL_BUFFER = (size_t)32 << 20;

/* Something to be timed: a kernel, launched `launches` times, told to do `turns`. Doubling either doubles the work. */
struct job {
    enum card_kernel kernel;
    unsigned blocks;
    void *to, *from;
    size_t words;
    int launches, turns, *doubled;
    double amount; /* of a launch and turn */
    struct tally tally;
};

static int run(struct card *card, struct job *job, double *ms, struct ward_error *err)
{
    const double start = clock_ms();
    void *copy[] = {&job->to, &job->from, &job->words}, *multiply[] = {&job->to, &job->turns};
    for (int i = 0; i < job->launches; i++)
        card_launch(card, job->kernel, (struct card_grid){job->blocks, 1, 1}, MEASURE_THREADS, 0,
                    job->from ? copy : multiply);
    const int rc = card_finish(card, err);
    *ms = clock_ms() - start;
    return rc;
}

/* The first runs find how much fills RUN_MS, and let the card reach its clock. */
static int measure(struct card *card, struct job *job, struct ward_error *err)
{
    enum { MOST = 1 << 24 };
    double ms;
    for (int i = 0; i < RUNS;) {
        const int rc = run(card, job, &ms, err);
        if (rc)
            return rc;
        if (ms < RUN_MS && !job->tally.ms && *job->doubled < MOST) {
            *job->doubled *= 2;
        } else {
            tally_add(&job->tally, job->amount * job->launches * job->turns, ms);
            i++;
        }
    }
    return 0;
}

/* By one turn, whether the kernel multiplies on this card: else it leaves zeros. */
static int look_for(struct card *card, struct job *job, bool *there, struct ward_error *err)
{
    float sum = 0;
    double ms;
    const int rc = run(card, job, &ms, err);
    card_read(card, &sum, job->to, sizeof sum);
    *there = sum != 0;
    return rc;
}

static int measure_all(struct card_limits *out, struct card *card, void *from, void *to, struct ward_error *err)
{
    static const struct {
        enum card_kernel kernel;
        double operations; /* of a block and turn */
    } multiplies[CARD_MULTIPLIES] = {
        {KERNEL_measure_multiply, MEASURE_THREADS / 32 * MEASURE_SUMS * 2.0 * 16 * 8 * 16},
        {KERNEL_measure_group, MEASURE_THREADS / 128 * MEASURE_GROUP_PRODUCTS * 2.0 * 64 * 256 * 16},
    };
    bool there[CARD_MULTIPLIES];
    const unsigned n = (unsigned)card_info(card)->multiprocessors;
    struct job copy = {.kernel = KERNEL_measure_copy,
                       .blocks = COPIERS * n,
                       .to = to,
                       .from = from,
                       .words = out->buffer_bytes / 16,
                       .launches = 1,
                       .turns = 1,
                       .doubled = &copy.launches,
                       .amount = 2.0 * (double)out->buffer_bytes};
    struct job multiply[CARD_MULTIPLIES];
    for (int kind = 0; kind < CARD_MULTIPLIES; kind++) {
        struct job *job = &multiply[kind];
        *job = (struct job){.kernel = multiplies[kind].kernel,
                            .blocks = MULTIPLIERS * n,
                            .to = to,
                            .launches = 1,
                            .turns = 1,
                            .doubled = &job->turns};
        job->amount = job->blocks * multiplies[kind].operations;
        const int rc = look_for(card, job, &there[kind], err);
        if (rc)
            return rc;
    }
    for (int round = 0; round < ROUNDS; round++) {
        int rc = measure(card, &copy, err);
        for (int kind = 0; !rc && kind < CARD_MULTIPLIES; kind++)
            rc = there[kind] ? measure(card, &multiply[kind], err) : 0;
        if (rc)
            return rc;
    }
    out->copy_bytes = copy.tally.best;
    out->copy_bytes_mean = tally_mean(&copy.tally);
    for (int kind = 0; kind < CARD_MULTIPLIES; kind++) {
        out->multiply[kind] = multiply[kind].tally.best;
        out->multiply_mean[kind] = tally_mean(&multiply[kind].tally);
    }
    return 0;
}

/* Much more than the cache, but no more than a quarter of the memory that is free. */
static size_t buffer_size(struct card *card)
{
    const size_t quarter = card_free(card) / 4;
    size_t size = CACHES * card_info(card)->cache;
    size = size < USUAL_BUFFER ? USUAL_BUFFER : size;
    return (size < quarter ? size : quarter) / 4096 * 4096;
}

int card_limits_measure(struct card_limits *out, int index, struct ward_error *err)
{
    const double start = clock_ms();
    struct card *card = card_open(index, err);
    *out = (struct card_limits){.ms = 0};
    if (!card)
        return WARD_EUNSUPPORTED;
    out->buffer_bytes = buffer_size(card);
    if (out->buffer_bytes < LEAST)
        return error_set(err, WARD_ENOMEM, "%s: measuring takes %d MB, and %.0f are free", card_info(card)->name,
                         4 * LEAST >> 20, (double)card_free(card) / 1e6);
    void *from = NULL, *to = NULL;
    int rc = card_alloc(card, &from, out->buffer_bytes, "measuring how fast it copies", err);
    if (!rc)
        rc = card_alloc(card, &to, out->buffer_bytes, "measuring how fast it copies", err);
    if (!rc)
        rc = measure_all(out, card, from, to, err);
    card_release(card, to);
    card_release(card, from);
    out->ms = clock_ms() - start;
    return rc;
}

void card_limits_keep_best(struct card_limits *best, const struct card_limits *now)
{
    best->copy_bytes = fmax(best->copy_bytes, now->copy_bytes);
    best->copy_bytes_mean = fmax(best->copy_bytes_mean, now->copy_bytes_mean);
    for (int kind = 0; kind < CARD_MULTIPLIES; kind++) {
        best->multiply[kind] = fmax(best->multiply[kind], now->multiply[kind]);
        best->multiply_mean[kind] = fmax(best->multiply_mean[kind], now->multiply_mean[kind]);
    }
    best->buffer_bytes = now->buffer_bytes;
    best->ms = now->ms;
}

const char *card_multiply_name(enum card_multiply kind)
{
    static const char *const names[CARD_MULTIPLIES] = {"mma.sync", "wgmma"};
    return names[kind];
}

static double highest(const double rates[CARD_MULTIPLIES])
{
    double most = 0;
    for (int kind = 0; kind < CARD_MULTIPLIES; kind++)
        most = fmax(most, rates[kind]);
    return most;
}

double card_limits_peak(const struct card_limits *limits)
{
    return highest(limits->multiply);
}

double card_limits_peak_mean(const struct card_limits *limits)
{
    return highest(limits->multiply_mean);
}

static void write_peak(struct json_writer *w, const char *key, double peak)
{
    json_write_open(w, key, '{');
    json_write_number(w, "bf16", peak / 1e9, 2);
    json_write_close(w, '}');
}

void card_limits_write_json(struct json_writer *w, const char *key, const struct card_limits *l)
{
    json_write_open(w, key, '{');
    json_write_number(w, "copy_gbs", l->copy_bytes / 1e9, 2);
    json_write_number(w, "copy_mean_gbs", l->copy_bytes_mean / 1e9, 2);
    write_peak(w, "multiply_gops", card_limits_peak(l));
    write_peak(w, "multiply_mean_gops", card_limits_peak_mean(l));
    json_write_open(w, "instruction_gops", '{');
    for (int kind = 0; kind < CARD_MULTIPLIES; kind++)
        json_write_number(w, card_multiply_name((enum card_multiply)kind),
                          l->multiply[kind] > 0 ? l->multiply[kind] / 1e9 : NAN, 2);
    json_write_close(w, '}');
    json_write_integer(w, "buffer_bytes", (int64_t)l->buffer_bytes);
    json_write_number(w, "ms", l->ms, 1);
    json_write_close(w, '}');
}
