#include "base/pool.h"

#include "base/cpus.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#if defined(__x86_64__) || defined(__i386__)
#define cpu_relax() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define cpu_relax() __asm__ volatile("yield")
#else
#define cpu_relax() ((void)0)
#endif

/* How long a thread spins before it sleeps: some 20 microseconds. Operations of a decode step follow each other faster
 * than that; a machine that is busy with something else loses no more. */
enum { SPINS = 600 };

/* A ticket holds the generation of the job, its number of tasks and the next one to claim, so that one atomic addition
 * claims a task and tells whether there was one: a thread that comes late cannot mistake one job for another. */
enum { TICKET_BITS = 24 };
#define TICKET_MASK ((UINT64_C(1) << TICKET_BITS) - 1)

struct pool {
    _Alignas(64) atomic_uint_fast64_t ticket;
    _Alignas(64) atomic_int pending;      /* tasks not yet done */
    _Alignas(64) atomic_uint generation;  /* of the job on offer; changes wake the workers */
    pool_task_fn *fn;
    void *arg;
    atomic_bool stop;

    atomic_int sleepers;      /* workers in wake_cond */
    atomic_bool owner_sleeps; /* the caller is in done_cond */
    pthread_mutex_t mutex;    /* of both conditions */
    pthread_cond_t wake_cond, done_cond;
    pthread_mutex_t turn;     /* held by the caller that runs a job */

    int n_threads, n_started;
    struct worker {
        struct pool *pool;
        pthread_t thread;
        int number;
    } *workers; /* [n_threads - 1] */
};

/* Runs tasks of the job on offer until there are none left. */
static void work(struct pool *p, int thread)
{
    for (;;) {
        const uint64_t ticket = atomic_fetch_add_explicit(&p->ticket, 1, memory_order_acq_rel);
        const uint64_t task = ticket & TICKET_MASK, n = (ticket >> TICKET_BITS) & TICKET_MASK;
        if (task >= n)
            return;
        p->fn(p->arg, (int)task, thread);
        if (atomic_fetch_sub(&p->pending, 1) == 1 && atomic_load(&p->owner_sleeps)) {
            pthread_mutex_lock(&p->mutex);
            pthread_cond_signal(&p->done_cond);
            pthread_mutex_unlock(&p->mutex);
        }
    }
}

static void *worker_main(void *arg)
{
    const struct worker *self = arg;
    struct pool *p = self->pool;
    unsigned seen = 0;
    for (;;) {
        for (int i = 0; i < SPINS && atomic_load_explicit(&p->generation, memory_order_acquire) == seen; i++)
            cpu_relax();
        if (atomic_load(&p->generation) == seen) {
            pthread_mutex_lock(&p->mutex);
            atomic_fetch_add(&p->sleepers, 1);
            while (atomic_load(&p->generation) == seen)
                pthread_cond_wait(&p->wake_cond, &p->mutex);
            atomic_fetch_sub(&p->sleepers, 1);
            pthread_mutex_unlock(&p->mutex);
        }
        if (atomic_load(&p->stop))
            return NULL;
        seen = atomic_load(&p->generation);
        work(p, self->number);
    }
}

/* A new generation: spinning workers see it, sleeping ones are woken. */
static void announce(struct pool *p)
{
    atomic_fetch_add(&p->generation, 1);
    if (atomic_load(&p->sleepers) > 0) {
        pthread_mutex_lock(&p->mutex);
        pthread_cond_broadcast(&p->wake_cond);
        pthread_mutex_unlock(&p->mutex);
    }
}

static void wait_until_done(struct pool *p)
{
    for (int i = 0; i < SPINS && atomic_load_explicit(&p->pending, memory_order_acquire); i++)
        cpu_relax();
    if (atomic_load(&p->pending) == 0)
        return;
    pthread_mutex_lock(&p->mutex);
    atomic_store(&p->owner_sleeps, true);
    while (atomic_load(&p->pending))
        pthread_cond_wait(&p->done_cond, &p->mutex);
    atomic_store(&p->owner_sleeps, false);
    pthread_mutex_unlock(&p->mutex);
}

static void run_alone(pool_task_fn *fn, void *arg, int n)
{
    for (int i = 0; i < n; i++)
        fn(arg, i, 0);
}

void pool_run(struct pool *p, pool_task_fn *fn, void *arg, int n)
{
    assert(n >= 0 && (uint64_t)n < TICKET_MASK / 2);
    if (n <= 0)
        return;
    if (!p) {
        run_alone(fn, arg, n);
        return;
    }
    pthread_mutex_lock(&p->turn);
    if (n == 1 || p->n_threads == 1) {
        run_alone(fn, arg, n);
    } else {
        p->fn = fn;
        p->arg = arg;
        atomic_store(&p->pending, n);
        const uint64_t generation = (uint64_t)atomic_load(&p->generation) + 1;
        atomic_store(&p->ticket, generation << (2 * TICKET_BITS) | (uint64_t)n << TICKET_BITS);
        announce(p);
        work(p, 0);
        wait_until_done(p);
    }
    pthread_mutex_unlock(&p->turn);
}

int pool_open(struct pool **out, int threads, struct ward_error *err)
{
    *out = NULL;
    if (threads <= 0)
        threads = cpus_available();
    struct pool *p = aligned_alloc(64, (sizeof *p + 63) / 64 * 64);
    struct worker *workers = calloc((size_t)threads, sizeof *workers);
    if (!p || !workers) {
        free(p);
        free(workers);
        return error_no_memory(err, "the thread pool", sizeof *p + (size_t)threads * sizeof *workers);
    }
    *p = (struct pool){.n_threads = threads, .workers = workers};
    pthread_mutex_init(&p->mutex, NULL);
    pthread_mutex_init(&p->turn, NULL);
    pthread_cond_init(&p->wake_cond, NULL);
    pthread_cond_init(&p->done_cond, NULL);
    for (int i = 0; i < threads - 1; i++) {
        workers[i] = (struct worker){.pool = p, .number = i + 1};
        if (pthread_create(&workers[i].thread, NULL, worker_main, &workers[i])) {
            pool_close(&p);
            return error_set(err, WARD_ENOMEM, "thread %d of %d cannot be started", i + 2, threads);
        }
        p->n_started++;
    }
    *out = p;
    return 0;
}

void pool_close(struct pool **pool)
{
    struct pool *p = *pool;
    if (!p)
        return;
    atomic_store(&p->stop, true);
    announce(p);
    for (int i = 0; i < p->n_started; i++)
        pthread_join(p->workers[i].thread, NULL);
    pthread_cond_destroy(&p->done_cond);
    pthread_cond_destroy(&p->wake_cond);
    pthread_mutex_destroy(&p->turn);
    pthread_mutex_destroy(&p->mutex);
    free(p->workers);
    free(p);
    *pool = NULL;
}

int pool_threads(const struct pool *pool)
{
    return pool->n_threads;
}
