/* Memory and energy of this process while it works: a thread looks every few milliseconds, and the figures of any while
 * are taken from what it saw. A look costs some microseconds (/proc/self/statm, the meters). */
#ifndef WARD_BENCH_WATCH_H
#define WARD_BENCH_WATCH_H

#include "base/error.h"
#include "bench/energy.h"

struct watch_sample {
    double ms;                  /* of clock_ms */
    uint64_t resident, shareable; /* bytes; shareable: pages of files and shared memory among them */
    double joules;
};

struct watch_cost {
    size_t samples;
    double cpu_ms, wall_ms; /* of the thread; since watch_open */
};

struct watch;
/* energy may be NULL; it belongs to the watch until watch_close. */
WARD_CHECKED int watch_open(struct watch **out, double period_ms, struct energy *energy, struct ward_error *err);
/* Another meter, or the same that has changed; NULL: none, so that it can be changed meanwhile. */
void watch_meter(struct watch *watch, struct energy *energy);
void watch_close(struct watch **watch);
/* Looks now, and returns what it saw: at the borders of a while, so that a short one has samples too. */
struct watch_sample watch_look(struct watch *watch);
/* The sample with the largest resident set from `from` to `to` (clock_ms); all 0 when there is none. */
struct watch_sample watch_peak(struct watch *watch, double from, double to);
/* Joules between two moments, interpolated. */
double watch_joules(struct watch *watch, double from, double to);
/* At most `most` samples of a while, evenly chosen, the peak of each stretch in its place. Returns how many. */
size_t watch_series(struct watch *watch, double from, double to, struct watch_sample *out, size_t most);
struct watch_cost watch_cost(struct watch *watch);

/* What the kernel keeps of this process; 0 where it does not tell. */
struct memory_now {
    uint64_t peak;                     /* the largest resident set so far */
    uint64_t resident, anonymous, mapped, shared; /* mapped: of files; shared: of shared memory */
    uint64_t proportional;             /* PSS: pages shared with other processes count in part */
};
void memory_now(struct memory_now *out);

#endif
