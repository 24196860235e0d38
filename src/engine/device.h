/* The names of devices: "auto" (or NULL), "cpu", "cuda" (the first card that can be used) and "cuda:N". */
#ifndef WARD_ENGINE_DEVICE_H
#define WARD_ENGINE_DEVICE_H

#include "cuda/driver.h"

#include <stdbool.h>

enum { DEVICE_AUTO = -3, DEVICE_CPU = -2, DEVICE_FIRST_CARD = -1 };

/* One of these, or the number of a card, below CU_CARDS; false: `name` is none. */
bool device_parse(const char *name, int *out);

#endif
