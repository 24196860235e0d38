/* The NVIDIA card that computes, as its driver describes it, and its meters. Nothing here names its owner: no serial
 * number, no identifier. */
#ifndef WARD_BENCH_CARD_FACTS_H
#define WARD_BENCH_CARD_FACTS_H

#include "cuda/card.h"
#include "cuda/nvml.h"

struct card_facts {
    struct card_info info;
    size_t free_bytes;             /* of its memory, now */
    size_t context_bytes;          /* of it, what the driver has for this process; 0: not told */
    const char *driver;            /* its version; empty: not told; NULL: this is no card */
    const struct nvml_card *meter; /* NULL: it has none that ward reads */
};

/* index: as card_open. What cannot be used is an error with the reason. */
WARD_CHECKED int card_facts_read(struct card_facts *out, int index, struct ward_error *err);

struct json_writer;
/* {"name", "index", "kernels", "multiprocessors", "memory_bytes", "free_bytes", "context_bytes", "cache_bytes",
 *  "driver", "cuda"} */
void card_facts_write_json(struct json_writer *w, const char *key, const struct card_facts *facts);
/* {"mhz", "mhz_limit", "memory_mhz", "celsius", "watts", "watts_limit", "slowed"}; null: state is NULL */
void card_state_write_json(struct json_writer *w, const char *key, const struct nvml_state *state);

#endif
