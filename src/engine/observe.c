#include "engine/observe.h"

#include <stdio.h>
#include <stdlib.h>

void observe(const struct observer *o, struct backend *be, const char *name, int number, int first, int rows, int cols,
             const float *data)
{
    if (!o->fn)
        return;
    char full[64];
    if (number >= 0)
        snprintf(full, sizeof full, "%s.%d", name, number);
    else
        snprintf(full, sizeof full, "%s", name);
    const size_t bytes = (size_t)rows * (size_t)cols * sizeof *data;
    float *copy = malloc(bytes);
    if (!copy)
        return;
    be->ops->read(be, copy, data, bytes);
    o->fn(o->user, full, first, rows, cols, copy);
    free(copy);
}
