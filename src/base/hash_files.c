#include "base/hash_files.h"

#include "base/cpus.h"
#include "base/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Of a read: what was copied is still in the second level cache when it is hashed. At 256 KB it is a third slower. */
enum { PIECE = 64 << 10, MAX_THREADS = 64 };
/* What the disk is asked for before it is read, or it would rest while a piece is hashed. */
enum { AHEAD = 8 << 20 };

struct work {
    struct hashed_file *files;
    size_t *order; /* the largest first, so that no thread is left alone with one at the end */
    size_t n;
    const struct hash_options *options;
    atomic_size_t next;
    atomic_uint_fast64_t done;
    atomic_bool stop;
    uint64_t total;
    pthread_mutex_t mutex; /* of what follows */
    pthread_cond_t ended;
    int running;
    int rc;                /* of the first failure */
    struct ward_error error;
};

/* ---- stamps ------------------------------------------------------------------------------------------------------ */

static struct file_stamp stamp_of(const struct stat *st)
{
    return (struct file_stamp){
        .device = (uint64_t)st->st_dev,
        .inode = (uint64_t)st->st_ino,
        .size = (uint64_t)st->st_size,
        .mtime_s = (int64_t)st->st_mtim.tv_sec,
        .ctime_s = (int64_t)st->st_ctim.tv_sec,
        .mtime_ns = (int32_t)st->st_mtim.tv_nsec,
        .ctime_ns = (int32_t)st->st_ctim.tv_nsec,
    };
}

bool file_stamp_equal(const struct file_stamp *a, const struct file_stamp *b)
{
    return a->device == b->device && a->inode == b->inode && a->size == b->size && a->mtime_s == b->mtime_s &&
           a->mtime_ns == b->mtime_ns && a->ctime_s == b->ctime_s && a->ctime_ns == b->ctime_ns;
}

static int take_stamp(struct file_stamp *out, const struct stat *st, const char *path, struct ward_error *err)
{
    if (!S_ISREG(st->st_mode))
        return error_set(err, WARD_EIO, "%s: is not a regular file", path);
    *out = stamp_of(st);
    return 0;
}

static int stamp_at(struct file_stamp *out, const char *path, const struct hash_options *options,
                    struct ward_error *err)
{
    struct stat st;
    const int folder = options->folder ? options->folder : AT_FDCWD;
    if (fstatat(folder, path, &st, options->no_links ? AT_SYMLINK_NOFOLLOW : 0))
        return error_set(err, WARD_EIO, "%s: cannot be opened: %s", path, strerror(errno));
    return take_stamp(out, &st, path, err);
}

int file_stamp_read(struct file_stamp *out, const char *path, struct ward_error *err)
{
    static const struct hash_options defaults;
    return stamp_at(out, path, &defaults, err);
}

static uint64_t size_of(const struct hashed_file *file)
{
    return file->is_part ? file->length : file->stamp.size;
}

/* ---- one file ---------------------------------------------------------------------------------------------------- */

/* What is read of a file, and where else it goes. */
struct flow {
    struct work *work;
    struct hashed_file *file;
    int in, out; /* out: -1 where there is no copy */
    uint8_t *piece;
};

static int fail(const char *path, const char *what, int error, struct ward_error *err)
{
    return error_set(err, WARD_EIO, "%s: cannot be %s: %s", path, what, strerror(error));
}

/* Reads, hashes and copies; *got: bytes, fewer than `length` where the file ends or the work is stopped. */
static int pump(const struct flow *f, uint64_t length, uint64_t *got, struct ward_error *err)
{
    struct sha256_ctx context;
    uint64_t asked = 0;
    sha256_init(&context);
    for (*got = 0; *got < length && !atomic_load_explicit(&f->work->stop, memory_order_relaxed);) {
        if (asked < length && asked < *got + AHEAD) {
            posix_fadvise(f->in, (off_t)(f->file->offset + asked), AHEAD, POSIX_FADV_WILLNEED);
            asked += AHEAD;
        }
        const size_t want = length - *got < PIECE ? (size_t)(length - *got) : PIECE;
        const ssize_t n = pread(f->in, f->piece, want, (off_t)(f->file->offset + *got));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail(f->file->path, "read", errno, err);
        if (n == 0)
            break;
        sha256_update(&context, (size_t)n, f->piece);
        const int error =
            f->out >= 0 ? disk_write(f->out, f->piece, (size_t)n, f->file->copy_offset + *got) : 0;
        if (error)
            return fail(f->file->copy_to, "written", error, err);
        *got += (uint64_t)n;
        atomic_fetch_add_explicit(&f->work->done, (uint64_t)n, memory_order_relaxed);
    }
    sha256_digest(&context, SHA256_BYTES, f->file->sha256);
    return f->out >= 0 && fsync(f->out) ? fail(f->file->copy_to, "written", errno, err) : 0;
}

static int hash_open_file(const struct flow *f, struct ward_error *err)
{
    struct hashed_file *file = f->file;
    struct stat before, after;
    uint64_t got = 0;
    if (fstat(f->in, &before))
        return fail(file->path, "read", errno, err);
    int rc = take_stamp(&file->stamp, &before, file->path, err);
    if (rc)
        return rc;
    posix_fadvise(f->in, 0, 0, POSIX_FADV_SEQUENTIAL);
    const uint64_t length = size_of(file);
    rc = pump(f, length, &got, err);
    if (rc || atomic_load(&f->work->stop))
        return rc;
    struct file_stamp now = {0};
    if (fstat(f->in, &after) == 0)
        now = stamp_of(&after);
    if (got != length || !file_stamp_equal(&now, &file->stamp))
        return error_set(err, WARD_EIO, "%s: changed while it was read", file->path);
    return 0;
}

static int hash_file(struct work *w, struct hashed_file *file, uint8_t *piece, struct ward_error *err)
{
    const struct hash_options *o = w->options;
    struct flow f = {.work = w, .file = file, .out = -1, .piece = piece};
    f.in = openat(o->folder ? o->folder : AT_FDCWD, file->path,
                  O_RDONLY | O_CLOEXEC | O_NONBLOCK | (o->no_links ? O_NOFOLLOW : 0));
    if (f.in < 0)
        return fail(file->path, "opened", errno, err);
    int rc = 0;
    if (file->copy_to) {
        f.out = openat(o->copy_folder ? o->copy_folder : AT_FDCWD, file->copy_to,
                       O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, file->executable ? 0777 : 0666);
        if (f.out < 0)
            rc = fail(file->copy_to, "written", errno, err);
    }
    if (!rc)
        rc = hash_open_file(&f, err);
    if (f.out >= 0)
        close(f.out);
    close(f.in);
    return rc;
}

/* ---- all of them ------------------------------------------------------------------------------------------------- */

static void *run_thread(void *arg)
{
    struct work *w = arg;
    struct ward_error error = {0};
    uint8_t *piece = malloc(PIECE);
    int rc = piece ? 0 : error_no_memory(&error, "hashing", PIECE);
    size_t i;
    while (!rc && !atomic_load(&w->stop) && (i = atomic_fetch_add(&w->next, 1)) < w->n)
        rc = hash_file(w, &w->files[w->order[i]], piece, &error);
    free(piece);
    pthread_mutex_lock(&w->mutex);
    if (rc && !w->rc) {
        w->rc = rc;
        w->error = error;
    }
    if (rc)
        atomic_store(&w->stop, true);
    w->running--;
    pthread_cond_signal(&w->ended);
    pthread_mutex_unlock(&w->mutex);
    return NULL;
}

/* The caller's thread: reports ten times a second until the others are done. */
static int watch(struct work *w)
{
    int cancelled = 0;
    pthread_mutex_lock(&w->mutex);
    while (w->running) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 100000000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&w->ended, &w->mutex, &until);
        if (!w->options->progress || cancelled)
            continue;
        pthread_mutex_unlock(&w->mutex);
        cancelled = w->options->progress(w->options->user, atomic_load(&w->done), w->total);
        if (cancelled)
            atomic_store(&w->stop, true);
        pthread_mutex_lock(&w->mutex);
    }
    pthread_mutex_unlock(&w->mutex);
    return cancelled;
}

static int run_threads(struct work *w, struct ward_error *err)
{
    pthread_t threads[MAX_THREADS];
    int n = w->options->threads ? w->options->threads : cpus_available(), started = 0;
    n = n > MAX_THREADS ? MAX_THREADS : n;
    n = (size_t)n > w->n ? (int)w->n : n;
    pthread_mutex_init(&w->mutex, NULL);
    pthread_cond_init(&w->ended, NULL);
    w->running = n;
    while (started < n && pthread_create(&threads[started], NULL, run_thread, w) == 0)
        started++;
    pthread_mutex_lock(&w->mutex);
    w->running -= n - started;
    pthread_mutex_unlock(&w->mutex);
    const int cancelled = watch(w);
    for (int i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    pthread_cond_destroy(&w->ended);
    pthread_mutex_destroy(&w->mutex);
    if (w->rc)
        return error_set(err, w->rc, "%s", w->error.text);
    if (cancelled)
        return error_set(err, WARD_ECANCELLED, "cancelled");
    return started || !n ? 0 : error_set(err, WARD_ENOMEM, "no thread could be started to hash with");
}

static int by_size(const void *a, const void *b, void *files)
{
    const struct hashed_file *all = files;
    const uint64_t left = size_of(&all[*(const size_t *)a]), right = size_of(&all[*(const size_t *)b]);
    return left > right ? -1 : left < right;
}

int hash_files(struct hashed_file *files, size_t n, const struct hash_options *options, struct ward_error *err)
{
    static const struct hash_options defaults;
    struct work w = {.files = files, .options = options ? options : &defaults};
    int rc = 0;
    w.order = calloc(n ? n : 1, sizeof *w.order);
    if (!w.order)
        return error_no_memory(err, "hashing", n * sizeof *w.order);
    for (size_t i = 0; i < n && !rc; i++) {
        if (files[i].known)
            continue;
        rc = stamp_at(&files[i].stamp, files[i].path, w.options, err);
        w.order[w.n++] = i;
        w.total += size_of(&files[i]);
    }
    qsort_r(w.order, w.n, sizeof *w.order, by_size, files);
    if (!rc)
        rc = run_threads(&w, err);
    free(w.order);
    return rc;
}
