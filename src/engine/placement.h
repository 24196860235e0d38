/* Weights in a backend's own memory. */
#ifndef WARD_ENGINE_PLACEMENT_H
#define WARD_ENGINE_PLACEMENT_H

#include "engine/backend.h"
#include "model/weights.h"

struct placement {
    struct backend *be;
    struct weights weights; /* of the backend's memory, but for `type` and `mapped_bytes` */
    void *memory;           /* all of them */
    size_t bytes;
};

/* Copies the weights; *out is NULL where the backend uses them where they lie. `from` is not needed after. */
WARD_CHECKED int placement_open(struct placement **out, struct backend *be, const struct weights *from,
                                const struct model_config *config, struct ward_error *err);
void placement_close(struct placement **placement);

#endif
