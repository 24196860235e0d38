/* The thread pool: every task once, from any number of threads, callers taking turns. */
#include "base/cpus.h"
#include "base/pool.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>

#include <cmocka.h>

enum { TASKS = 1000 };

struct count {
    atomic_int runs[TASKS];
    atomic_int bad_thread;
    int threads;
};

static void count_task(void *arg, int task, int thread)
{
    struct count *c = arg;
    atomic_fetch_add(&c->runs[task], 1);
    if (thread < 0 || thread >= c->threads)
        atomic_fetch_add(&c->bad_thread, 1);
}

static void every_task_runs_once(void **state)
{
    (void)state;
    for (int threads = 1; threads <= 5; threads++) {
        struct pool *pool;
        assert_int_equal(pool_open(&pool, threads, NULL), 0);
        assert_int_equal(pool_threads(pool), threads);
        struct count *c = calloc(1, sizeof *c);
        c->threads = threads;
        int jobs = 0;
        for (int n = 0; n <= TASKS; n += 1 + n / 7, jobs++) {
            for (int t = 0; t < TASKS; t++)
                atomic_store(&c->runs[t], 0);
            pool_run(pool, count_task, c, n);
            for (int t = 0; t < TASKS; t++)
                assert_int_equal(atomic_load(&c->runs[t]), t < n);
        }
        assert_true(jobs > 20);
        assert_int_equal(atomic_load(&c->bad_thread), 0);
        free(c);
        pool_close(&pool);
        assert_null(pool);
    }
}

static void nothing(void *arg, int task, int thread)
{
    (void)thread;
    atomic_fetch_add((atomic_long *)arg, task);
}

static void many_short_jobs(void **state)
{
    (void)state;
    struct pool *pool;
    assert_int_equal(pool_open(&pool, 4, NULL), 0);
    atomic_long sum = 0;
    for (int i = 0; i < 20000; i++)
        pool_run(pool, nothing, &sum, 3);
    assert_int_equal(atomic_load(&sum), 20000 * 3);
    pool_close(&pool);
}

struct caller {
    struct pool *pool;
    atomic_long sum;
};

static void *call_often(void *arg)
{
    struct caller *c = arg;
    for (int i = 0; i < 3000; i++)
        pool_run(c->pool, nothing, &c->sum, 4);
    return NULL;
}

static void callers_take_turns(void **state)
{
    (void)state;
    struct pool *pool;
    assert_int_equal(pool_open(&pool, 3, NULL), 0);
    struct caller callers[3];
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) {
        callers[i].pool = pool;
        atomic_init(&callers[i].sum, 0);
        assert_int_equal(pthread_create(&threads[i], NULL, call_often, &callers[i]), 0);
    }
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(atomic_load(&callers[i].sum), 3000 * 6);
    }
    pool_close(&pool);
}

static void default_is_within_the_machine(void **state)
{
    (void)state;
    assert_true(cpus_available() >= 1);
    struct pool *pool;
    assert_int_equal(pool_open(&pool, 0, NULL), 0);
    assert_int_equal(pool_threads(pool), cpus_available());
    pool_close(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_task_runs_once),
        cmocka_unit_test(many_short_jobs),
        cmocka_unit_test(callers_take_turns),
        cmocka_unit_test(default_is_within_the_machine),
    };
    return cmocka_run_group_tests_name("pool", tests, NULL, NULL);
}
