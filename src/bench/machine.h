/* The machine as the kernel describes it: what does not change while a program runs, and what does. Nothing here names
 * its owner: no host name, no serial number, no path of a user. */
#ifndef WARD_BENCH_MACHINE_H
#define WARD_BENCH_MACHINE_H

#include "kernels/kernels.h"

#include <stdint.h>

/* What the default targets are chosen by. */
enum machine_class { MACHINE_DESKTOP, MACHINE_DESKTOP_GPU, MACHINE_LAPTOP, MACHINE_EDGE };

/* Where memory may be written to that is not in use: what was once a patient's lies there until it is overwritten. */
enum swap_state {
    SWAP_OFF,
    SWAP_IN_MEMORY, /* zram without a disk behind it */
    SWAP_ENCRYPTED, /* every place lies on dm-crypt */
    SWAP_PLAIN,     /* one at least does not, as far as the kernel tells */
    SWAP_UNKNOWN,   /* /proc/swaps cannot be read */
};

enum { MACHINE_MAX_GPUS = 4 };

/* Texts are empty and figures 0 where the kernel does not tell. */
struct machine {
    char cpu[96];               /* "AMD Ryzen 7 5800X 8-Core Processor" */
    int cpu_family, cpu_model;  /* x86: they tell apart what virtual machines call by one name */
    char architecture[16];      /* "x86_64" */
    char product[96];           /* of a board that has a device tree: "NVIDIA Jetson AGX Orin Developer Kit" */
    int sockets, cores, cpus;   /* cpus: with the threads of each core */
    int cpus_usable;            /* by this process */
    size_t l1d_bytes, l2_bytes; /* of one core */
    size_t l3_bytes;            /* of the whole machine */
    enum isa isa;               /* the widest set of kernels */
    uint64_t memory_bytes;      /* RAM */
    uint64_t memory_limit;      /* the tightest of the control groups; 0: none */
    char system[96], kernel[96]; /* "Debian GNU/Linux 12 (bookworm)", "6.1.0-18-amd64" */
    char container[16];         /* "docker", "podman", ...; empty: none that is known */
    bool virtual_machine;
    enum machine_class class;
    enum swap_state swap;
    uint64_t swap_bytes;
    char gpus[MACHINE_MAX_GPUS][64]; /* NVIDIA's, as their driver calls them; "NVIDIA GPU" without it */
    int n_gpus;
    char gpu_driver[32]; /* its version; empty: it is not loaded */
};

/* What may differ between the beginning and the end of a measurement. */
struct machine_state {
    char governor[32];       /* of the clock: "performance", "schedutil"; "mixed" */
    char power_mode[56];     /* "balanced", "low-power", "nvpmodel 0, MAXN", ... */
    double mhz, mhz_limit;   /* mean over the processors; the highest that is allowed now */
    double celsius;          /* of the hottest sensor of the processor; 0: none */
    int64_t throttled;       /* the kernel's counts of cores slowed by heat, added up: growth is what tells; -1: none */
    bool on_battery;
    double load;             /* mean number of runnable threads over the last minute */
    int64_t ticks, idle_ticks; /* of all processors since the start: their differences tell how busy a while was */
    uint64_t memory_available, swap_free;
};

/* root: "" for this machine, or a folder that holds a proc and a sys to be read instead (tests). */
void machine_read(struct machine *out, const char *root);
void machine_read_state(struct machine_state *out, const char *root);

const char *machine_class_name(enum machine_class class); /* "desktop", "desktop_gpu", "laptop", "edge" */
const char *swap_state_name(enum swap_state state);       /* "off", "memory", "encrypted", "plain", "unknown" */
/* The page's target for one image and its answer: 2,000 ms for a desktop with a GPU, 5,000 for all else. */
double machine_target_ms(enum machine_class class);
/* What this process may use of the memory: RAM, or less in a container. */
uint64_t machine_memory(const struct machine *machine);

struct json_writer;
void machine_write_json(struct json_writer *w, const char *key, const struct machine *machine);
void machine_state_write_json(struct json_writer *w, const char *key, const struct machine_state *state);

#endif
