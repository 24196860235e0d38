#include "engine/readahead.h"

#include "base/meminfo.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* The kernel takes no more than a device's largest request from one call, and throws the rest of the range away. */
enum { STEP = 512 << 10 };

struct readahead {
    pthread_t thread;
    atomic_bool stop;
    size_t n;
    struct tensor at[];
};

/* What is in memory already costs 15 ms a gigabyte. (mincore would tell for less, but not to those who may only read a
 * file.) Returns early when told to stop. */
static void ask(struct readahead *r, const struct tensor *t)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const uintptr_t begin = (uintptr_t)t->data & ~(page - 1);
    const uintptr_t end = (uintptr_t)t->data + (size_t)t->rows * tensor_row_bytes(t);
    for (uintptr_t at = begin; at < end && !atomic_load_explicit(&r->stop, memory_order_relaxed); at += STEP)
        (void)madvise((void *)at, end - at < STEP ? end - at : STEP, MADV_WILLNEED);
}

static void *run(void *arg)
{
    struct readahead *r = arg;
    for (size_t i = 0; i < r->n; i++)
        ask(r, &r->at[i]);
    return NULL;
}

/* ---- what, in which order ---------------------------------------------------------------------------------------- */

struct listing {
    struct readahead *r;
    size_t bytes;
    const struct weights *weights;
};

/* The projector is a copy in memory, and small. Of the embedding the prompt's rows come first, which are few; as the
 * head it is used last. */
static void add(void *user, struct tensor *t)
{
    struct listing *list = user;
    if (t == &list->weights->text.embed || t == &list->weights->vision.projector)
        return;
    list->r->at[list->r->n++] = *t;
    list->bytes += (size_t)t->rows * tensor_row_bytes(t);
}

struct readahead *readahead_open(struct weights *weights, const struct model_config *config)
{
    const size_t most = 2 + 6 * (size_t)config->vision.n_layers + 7 * (size_t)config->text.n_layers + 1;
    struct readahead *r = calloc(1, sizeof *r + most * sizeof *r->at);
    if (!r)
        return NULL;
    struct listing list = {.r = r, .weights = weights};
    weights_visit(weights, config, &(struct weights_visitor){.matrix = add, .user = &list});
    if (list.bytes > memory_available() || pthread_create(&r->thread, NULL, run, r)) {
        free(r);
        return NULL;
    }
    return r;
}

void readahead_close(struct readahead **readahead)
{
    struct readahead *r = *readahead;
    if (!r)
        return;
    atomic_store(&r->stop, true);
    pthread_join(r->thread, NULL);
    free(r);
    *readahead = NULL;
}
