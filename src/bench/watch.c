#include "bench/watch.h"

#include "base/clock.h"
#include "bench/sysfs.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct watch {
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    pthread_t thread;
    bool stop;
    double period_ms, opened_ms, cpu_ms;
    int statm;
    size_t page;
    struct energy *energy;
    struct watch_sample *at;
    size_t n, capacity;
};

/* Under the mutex. Without memory for one more sample the last one is overwritten. */
static struct watch_sample look(struct watch *w)
{
    char text[128];
    struct watch_sample s = {.ms = clock_ms()};
    const ssize_t length = pread(w->statm, text, sizeof text - 1, 0);
    unsigned long long resident = 0, shareable = 0;
    if (length > 0) {
        text[length] = '\0';
        sscanf(text, "%*u %llu %llu", &resident, &shareable);
    }
    s.resident = resident * w->page;
    s.shareable = shareable * w->page;
    s.joules = w->energy ? energy_joules(w->energy, s.ms) : 0;
    if (w->n == w->capacity) {
        struct watch_sample *more = reallocarray(w->at, 2 * w->capacity, sizeof *more);
        if (more) {
            w->at = more;
            w->capacity *= 2;
        } else {
            w->n--;
        }
    }
    w->at[w->n++] = s;
    return s;
}

static void *run(void *arg)
{
    struct watch *w = arg;
    struct timespec until, used;
    clock_gettime(CLOCK_MONOTONIC, &until);
    pthread_mutex_lock(&w->mutex);
    while (!w->stop) {
        look(w);
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
        w->cpu_ms = (double)used.tv_sec * 1e3 + (double)used.tv_nsec * 1e-6;
        const long long next = (long long)until.tv_nsec + (long long)(w->period_ms * 1e6);
        until.tv_sec += (time_t)(next / 1000000000);
        until.tv_nsec = (long)(next % 1000000000);
        pthread_cond_timedwait(&w->wake, &w->mutex, &until);
    }
    pthread_mutex_unlock(&w->mutex);
    return NULL;
}

void watch_meter(struct watch *w, struct energy *energy)
{
    pthread_mutex_lock(&w->mutex);
    w->energy = energy;
    pthread_mutex_unlock(&w->mutex);
}

int watch_open(struct watch **out, double period_ms, struct energy *energy, struct ward_error *err)
{
    enum { FIRST = 4096 };
    struct watch *w = calloc(1, sizeof *w);
    *out = NULL;
    if (!w)
        return error_no_memory(err, "watching memory", sizeof *w);
    *w = (struct watch){.period_ms = period_ms, .opened_ms = clock_ms(), .energy = energy, .capacity = FIRST,
                        .page = (size_t)sysconf(_SC_PAGESIZE)};
    w->at = malloc(FIRST * sizeof *w->at);
    w->statm = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    pthread_condattr_t clock;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&w->wake, &clock);
    pthread_condattr_destroy(&clock);
    pthread_mutex_init(&w->mutex, NULL);
    if (!w->at || pthread_create(&w->thread, NULL, run, w)) {
        w->stop = true; /* there is no thread to join */
        watch_close(&w);
        return error_no_memory(err, "watching memory", FIRST * sizeof *w->at);
    }
    *out = w;
    return 0;
}

void watch_close(struct watch **watch)
{
    struct watch *w = *watch;
    if (!w)
        return;
    if (!w->stop) {
        pthread_mutex_lock(&w->mutex);
        w->stop = true;
        pthread_cond_signal(&w->wake);
        pthread_mutex_unlock(&w->mutex);
        pthread_join(w->thread, NULL);
    }
    if (w->statm >= 0)
        close(w->statm);
    pthread_cond_destroy(&w->wake);
    pthread_mutex_destroy(&w->mutex);
    free(w->at);
    free(w);
    *watch = NULL;
}

struct watch_sample watch_look(struct watch *w)
{
    pthread_mutex_lock(&w->mutex);
    const struct watch_sample s = look(w);
    pthread_mutex_unlock(&w->mutex);
    return s;
}

/* The first sample at or after a moment. */
static size_t first_at(const struct watch *w, double ms)
{
    size_t low = 0, high = w->n;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (w->at[middle].ms < ms)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct watch_sample watch_peak(struct watch *w, double from, double to)
{
    struct watch_sample peak = {0};
    pthread_mutex_lock(&w->mutex);
    const size_t first = first_at(w, from);
    if (first > 0 && first < w->n) /* if nothing was seen within, what was seen next */
        peak = w->at[first];
    for (size_t i = first; i < w->n && w->at[i].ms <= to; i++)
        if (w->at[i].resident >= peak.resident)
            peak = w->at[i];
    pthread_mutex_unlock(&w->mutex);
    return peak;
}

static double joules_at(const struct watch *w, double ms)
{
    const size_t i = first_at(w, ms);
    if (!w->n || i == 0)
        return w->n ? w->at[0].joules : 0;
    if (i == w->n)
        return w->at[w->n - 1].joules;
    const struct watch_sample *a = &w->at[i - 1], *b = &w->at[i];
    return a->joules + (b->ms > a->ms ? (b->joules - a->joules) * (ms - a->ms) / (b->ms - a->ms) : 0);
}

double watch_joules(struct watch *w, double from, double to)
{
    pthread_mutex_lock(&w->mutex);
    const double joules = joules_at(w, to) - joules_at(w, from);
    pthread_mutex_unlock(&w->mutex);
    return joules;
}

size_t watch_series(struct watch *w, double from, double to, struct watch_sample *out, size_t most)
{
    size_t n = 0;
    pthread_mutex_lock(&w->mutex);
    const size_t first = first_at(w, from), end = first_at(w, to), all = end > first ? end - first : 0;
    const size_t stretches = all < most ? all : most;
    for (size_t k = 0; k < stretches; k++) {
        struct watch_sample peak = {0};
        for (size_t i = first + all * k / stretches; i < first + all * (k + 1) / stretches; i++)
            if (w->at[i].resident >= peak.resident)
                peak = w->at[i];
        out[n++] = peak;
    }
    pthread_mutex_unlock(&w->mutex);
    return n;
}

struct watch_cost watch_cost(struct watch *w)
{
    pthread_mutex_lock(&w->mutex);
    const struct watch_cost cost = {w->n, w->cpu_ms, clock_ms() - w->opened_ms};
    pthread_mutex_unlock(&w->mutex);
    return cost;
}

/* ---- what the kernel keeps --------------------------------------------------------------------------------------- */

static uint64_t kilobytes(const char *file, const char *key)
{
    char text[64];
    return sysfs_value(text, sizeof text, "", file, key) ? strtoull(text, NULL, 10) * 1024 : 0;
}

void memory_now(struct memory_now *out)
{
    *out = (struct memory_now){
        .peak = kilobytes("/proc/self/status", "VmHWM"),
        .resident = kilobytes("/proc/self/status", "VmRSS"),
        .anonymous = kilobytes("/proc/self/status", "RssAnon"),
        .mapped = kilobytes("/proc/self/status", "RssFile"),
        .shared = kilobytes("/proc/self/status", "RssShmem"),
        .proportional = kilobytes("/proc/self/smaps_rollup", "Pss"),
    };
}
