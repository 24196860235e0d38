/* Hands activations to an observer, for comparison with another implementation. */
#ifndef WARD_ENGINE_OBSERVE_H
#define WARD_ENGINE_OBSERVE_H

#include "engine/backend.h"

struct observer {
    ward_observe_fn *fn; /* NULL: nobody looks */
    void *user;
};

/* Calls the observer with rows [rows][cols] from the backend's memory; with `number` >= 0 the name is "name.number". */
void observe(const struct observer *o, struct backend *be, const char *name, int number, int first, int rows, int cols,
             const float *data);

#endif
