/* Whether a machine will do: what is asked of it beside what it has. */
#ifndef WARD_BENCH_DOCTOR_H
#define WARD_BENCH_DOCTOR_H

#include "bench/card_facts.h"
#include "bench/card_limits.h"
#include "bench/devices.h"
#include "bench/machine.h"
#include "bench/predict.h"

enum doctor_verdict { DOCTOR_OK, DOCTOR_BAD, DOCTOR_UNKNOWN, DOCTOR_WARNING };
const char *doctor_verdict_name(enum doctor_verdict verdict); /* "ok", "missing", "unknown", "warning" */

struct doctor_check {
    const char *name;
    char needed[64], found[400];
    enum doctor_verdict verdict;
};

enum { DOCTOR_REQUIREMENTS = 4, DOCTOR_SAFETY = 4 };

/* What is known of the machine. */
struct doctor_facts {
    const struct machine *machine; /* this one */
    const struct device *device;   /* one not yet bought, in its place; NULL */
    uint64_t memory;               /* bytes, for a device that shares its memory and is not this machine */
    uint64_t disk_free;            /* where the model lies or would; 0: not known */
    uint64_t disk_held;            /* what the model takes there already */
    const struct card_facts *card; /* that ward computes on, of this machine; NULL: none, the processor computes */
    const char *card_fault;        /* why a card that is there is not used; NULL */
    struct predict_shares shares;  /* of a card, this machine's or the device's */
};

/* The page's minimum: something to compute with, RAM, disk, driver. True: nothing is missing. */
bool doctor_requirements(struct doctor_check out[DOCTOR_REQUIREMENTS], const struct doctor_facts *facts);

/* What a type of checkpoint takes and gives on the machine: on the card if there is one, else on the processor. */
struct doctor_type {
    struct predict_need need;
    struct predict_latency latency;
    bool predicted;         /* latency is known */
    uint64_t room, missing; /* bytes of memory that there are for it; by how much it does not fit, 0: it does */
};
void doctor_type(struct doctor_type *out, const struct model_config *config, enum predict_type type,
                 const struct doctor_facts *facts, const struct limits *limits, const struct card_limits *card);

#endif
