/* The limits: the loops of src/bench, timed as the kernels are. */
#include "bench.h"

#include "bench/peak.h"

#include <stdatomic.h>

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
    const struct peak_loop loop = peak_multiply(c->k.isa, g->rounding);
    struct multiply m = {loop.run, 100000};
    if (!m.loop)
        return 0;
    const double rate = loop.operations * (double)m.n * pool_threads(c->pool) / time_ns(c, multiply_work, &m) * 1e9;
    int i = 0;
    while (known[i].loop && known[i].loop != m.loop)
        i++;
    known[i].loop = m.loop;
    known[i].rate = rate > known[i].rate ? rate : known[i].rate;
    return known[i].rate;
}

/* ---- reading ---- */

struct reading {
    const uint8_t *data;
    size_t bytes;
    atomic_uint_fast64_t sum;
};

enum { READ_CHUNK = 1 << 20 };

static void read_task(void *arg, int task, int thread)
{
    struct reading *r = arg;
    (void)thread;
    atomic_fetch_add(&r->sum, peak_read(r->data + (size_t)task * READ_CHUNK, READ_CHUNK));
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
