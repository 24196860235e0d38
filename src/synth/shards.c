#include "synth/shards.h"

#include "base/new_file.h"
#include "base/pool.h"
#include "synth/noise.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TASK_BYTES = 1 << 20,  /* that a thread makes and writes at a time */
    BATCH_BYTES = 1 << 26, /* between two calls of progress */
    AHEAD = 4,             /* batches that the disk may be behind */
};

struct job {
    const struct synth_plan *plan;
    const struct synth_options *options;
    struct ward_error *err;
    struct pool *pool;
    uint16_t **buffers; /* for each thread: TASK_BYTES */
    struct noise noise[SYNTH_KINDS];
    uint64_t *keys; /* of each tensor */
    uint64_t done, total;
};

/* A file being written. */
struct shard {
    struct job *job;
    const struct synth_file *file;
    struct new_file out;
    uint64_t data_start, batch; /* where in the file the data begin; where in the data the batch does */
    atomic_int error;           /* errno of a failed write */
};

/* The tensor of a file that byte `at` of its data lies in. */
static const struct synth_tensor *tensor_at(const struct synth_plan *plan, const struct synth_file *file, uint64_t at)
{
    size_t low = file->first, high = file->first + file->n;
    while (high - low > 1) {
        const size_t middle = (low + high) / 2;
        *(plan->tensors[middle].offset <= at ? &low : &high) = middle;
    }
    return &plan->tensors[low];
}

static void shard_task(void *arg, int task, int thread)
{
    struct shard *s = arg;
    const struct job *job = s->job;
    const uint64_t begin = s->batch + (uint64_t)task * TASK_BYTES;
    const uint64_t end = begin + TASK_BYTES < s->file->bytes ? begin + TASK_BYTES : s->file->bytes;
    uint16_t *out = job->buffers[thread];
    if (atomic_load(&s->error))
        return;
    for (uint64_t at = begin; at < end;) {
        const struct synth_tensor *t = tensor_at(job->plan, s->file, at);
        const uint64_t stop = t->offset + t->bytes < end ? t->offset + t->bytes : end;
        noise_fill(&job->noise[t->kind], out + (at - begin) / 2, (size_t)(stop - at) / 2,
                   job->keys[t - job->plan->tensors], (at - t->offset) / 2);
        at = stop;
    }
    const int error = new_file_write_at(&s->out, out, (size_t)(end - begin), s->data_start + begin);
    if (error)
        atomic_store(&s->error, error);
}

/* Has the disk begin with a batch, and waits for an earlier one: what was written then stays the measure of what is on
 * disk, and little is left to wait for at the end. File systems that cannot are waited for there. */
static void pace(const struct shard *s)
{
#ifdef SYNC_FILE_RANGE_WRITE
    const uint64_t behind = (uint64_t)AHEAD * BATCH_BYTES;
    (void)sync_file_range(s->out.fd, (off_t)(s->data_start + s->batch), BATCH_BYTES, SYNC_FILE_RANGE_WRITE);
    if (s->batch >= behind)
        (void)sync_file_range(s->out.fd, (off_t)(s->data_start + s->batch - behind), BATCH_BYTES,
                              SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
#else
    (void)s;
#endif
}

static int fail(const struct shard *s, int error)
{
    return error_set(s->job->err, WARD_EIO, "%s: cannot be written: %s", s->out.path, strerror(error));
}

static int write_head(struct shard *s)
{
    uint8_t length[8];
    for (int i = 0; i < 8; i++)
        length[i] = (uint8_t)((uint64_t)s->file->header_size >> 8 * i);
    s->data_start = sizeof length + s->file->header_size;
    /* A file system that cannot reserve says so, and is written to all the same. */
    int error = fallocate(s->out.fd, 0, 0, (off_t)synth_file_size(s->file)) && errno != EOPNOTSUPP && errno != ENOSYS
                    ? errno
                    : 0;
    if (!error)
        error = new_file_write_at(&s->out, length, sizeof length, 0);
    if (!error)
        error = new_file_write_at(&s->out, s->file->header, s->file->header_size, sizeof length);
    return error ? fail(s, error) : 0;
}

static int write_data(struct shard *s)
{
    struct job *job = s->job;
    const struct synth_options *o = job->options;
    for (s->batch = 0; s->batch < s->file->bytes; s->batch += BATCH_BYTES) {
        const uint64_t left = s->file->bytes - s->batch, n = left < BATCH_BYTES ? left : BATCH_BYTES;
        pool_run(job->pool, shard_task, s, (int)((n + TASK_BYTES - 1) / TASK_BYTES));
        if (atomic_load(&s->error))
            return fail(s, atomic_load(&s->error));
        pace(s);
        job->done += n;
        if (o->progress && o->progress(o->user, job->done, job->total))
            return error_set(job->err, WARD_ECANCELLED, "stopped on request; nothing was written");
    }
    return new_file_sync(&s->out, job->err);
}

static int write_shard(struct job *job, const struct synth_file *file, const struct synth_folder *folder)
{
    struct shard s = {.job = job, .file = file};
    char *path;
    if (asprintf(&path, "%s/%s", folder->temporary, file->name) < 0)
        return error_no_memory(job->err, file->name, strlen(file->name));
    int rc = new_file_open(&s.out, path, job->err);
    free(path);
    if (!rc)
        rc = write_head(&s);
    if (!rc)
        rc = write_data(&s);
    if (!rc)
        rc = new_file_commit(&s.out, job->err);
    new_file_discard(&s.out);
    return rc;
}

static int prepare(struct job *job)
{
    static const struct {
        double mean, deviation;
    } kinds[SYNTH_KINDS] = {[SYNTH_MATRIX] = {0, 0.02}, [SYNTH_RESIDUAL] = {0, 0.01}, [SYNTH_UNIT] = {1, 0.02}};
    const struct synth_plan *plan = job->plan;
    int rc = pool_open(&job->pool, job->options->threads, job->err);
    if (rc)
        return rc;
    const size_t threads = (size_t)pool_threads(job->pool);
    for (int kind = 0; kind < SYNTH_KINDS; kind++)
        noise_init(&job->noise[kind], kinds[kind].mean, kinds[kind].deviation);
    job->keys = calloc(plan->n, sizeof *job->keys);
    job->buffers = calloc(threads, sizeof *job->buffers);
    bool failed = !job->keys || !job->buffers;
    for (size_t i = 0; i < plan->n && !failed; i++)
        job->keys[i] = noise_key(job->options->seed, plan->tensors[i].name);
    for (size_t i = 0; i < threads && !failed; i++)
        failed = !(job->buffers[i] = malloc(TASK_BYTES));
    for (int i = 0; i < plan->n_files; i++)
        job->total += plan->files[i].bytes;
    return failed ? error_no_memory(job->err, "the weights being made", threads * TASK_BYTES) : 0;
}

int synth_write_shards(const struct synth_plan *plan, const struct synth_folder *folder,
                       const struct synth_options *options, struct ward_error *err)
{
    struct job job = {.plan = plan, .options = options, .err = err};
    int rc = prepare(&job);
    for (int i = 0; i < plan->n_files && !rc; i++)
        rc = write_shard(&job, &plan->files[i], folder);
    for (int i = 0; job.buffers && i < pool_threads(job.pool); i++)
        free(job.buffers[i]);
    free(job.buffers);
    free(job.keys);
    pool_close(&job.pool);
    return rc;
}
