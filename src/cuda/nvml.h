/* A card's own meters, by NVIDIA's management library, which comes with the driver and is found when it is asked for.
 */
#ifndef WARD_CUDA_NVML_H
#define WARD_CUDA_NVML_H

#include "base/error.h"

#include <stddef.h>

struct nvml_card;

struct nvml_state {
    double joules;         /* since the driver was loaded; negative: the card does not count them (before Volta) */
    double watts;          /* now */
    double mhz, mhz_limit; /* of its multiprocessors; the highest that is allowed */
    double memory_mhz;     /* of its memory */
    double watts_limit;    /* that it may take */
    double celsius;
    bool slowed; /* by heat, by its power limit or by a brake */
};               /* what the card does not tell is 0 */

/* Brings the library's code into the process, as cu_driver_load. */
bool nvml_load(void);
/* The meters of the card of that number (as card_open counts); NULL with a sentence. It lasts as long as the process.
 */
const struct nvml_card *nvml_open(int index, struct ward_error *err);
/* Of the card's memory, what this process has, the driver's own included; 0: not told (in a container, for one). */
size_t nvml_process_bytes(const struct nvml_card *card);
void nvml_read(const struct nvml_card *card, struct nvml_state *out);
/* "580.65.06", once a card's meters were opened; empty where it is not told. */
const char *nvml_driver(void);

#endif
