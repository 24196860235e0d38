/* What the machine has used of energy since a moment, as its own meters tell: Intel's and AMD's RAPL counters
 * (powercap), or the INA3221 sensors of a Jetson board, whose power is integrated between readings; and an NVIDIA card's
 * (NVML). */
#ifndef WARD_BENCH_ENERGY_H
#define WARD_BENCH_ENERGY_H

#include "cuda/nvml.h"

#include <stdint.h>

enum { ENERGY_MOST = 16, ENERGY_PATH = 160 };

struct energy {
    const char *root;
    struct energy_counter { /* a package or its memory: microjoules that begin again at `range` */
        char path[ENERGY_PATH];
        int64_t last, range;
    } counters[ENERGY_MOST];
    struct energy_rail { /* millivolts times milliamperes */
        char volts[ENERGY_PATH], amperes[ENERGY_PATH];
    } rails[ENERGY_MOST];
    int n_counters, n_rails;
    const struct nvml_card *card; /* NULL: none, or none is wanted */
    double card_joules;           /* of its counter, when it was last read */
    double joules;      /* since energy_open */
    double last_ms;     /* when the rails were read */
    double last_watts;
    const char *source; /* "rapl", "ina3221", "nvml", "rapl, nvml"; NULL: there is no meter that may be read */
    const char *reason; /* why not, a sentence without its full stop */
};

/* root: "" for this machine, or a folder that holds a sys to be read instead (tests); it must outlive `energy`. */
void energy_open(struct energy *energy, const char *root);
/* From now on the card of that number is metered as well, if it counts. */
void energy_add_card(struct energy *energy, int card);
/* Joules since energy_open, at `now_ms` of clock_ms. To be called more often than a counter takes to begin again (a
 * minute at the least). One thread at a time. */
double energy_joules(struct energy *energy, double now_ms);

#endif
