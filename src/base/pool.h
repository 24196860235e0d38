/* A pool of threads that runs numbered tasks and yields when there is nothing to do. */
#ifndef WARD_BASE_POOL_H
#define WARD_BASE_POOL_H

#include "base/error.h"

struct pool;

/* Runs task number `task` on thread number `thread` (0: the caller's own). */
typedef void pool_task_fn(void *arg, int task, int thread);

/* threads 0: as many as this process may use (affinity and cgroup quota). */
WARD_CHECKED int pool_open(struct pool **out, int threads, struct ward_error *err);
void pool_close(struct pool **pool);
int pool_threads(const struct pool *pool);
/* Runs tasks 0..n-1, each once, and returns when all are done. Threads claim tasks one by one, so a thread that the
 * operating system has set aside delays only the task it holds. Not reentrant; callers on several threads take
 * turns. pool NULL: the caller alone. */
void pool_run(struct pool *pool, pool_task_fn *fn, void *arg, int n);

#endif
