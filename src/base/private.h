/* Memory that holds what comes of a patient's image and words. */
#ifndef WARD_BASE_PRIVATE_H
#define WARD_BASE_PRIVATE_H

#include <stddef.h>

/* Leaves the whole pages of `memory` out of every dump, and out of swap as far as the user's limit (ulimit -l) allows.
 * Pages that were never touched still cost nothing. Best effort: what is not allowed is no failure. */
void memory_keep_private(void *memory, size_t bytes);

#endif
