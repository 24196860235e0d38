/* Whether a device computes what it should: asked once, before it is trusted with a model. */
#ifndef WARD_ENGINE_BACKEND_CHECK_H
#define WARD_ENGINE_BACKEND_CHECK_H

#include "engine/backend.h"
#include "model/weights.h"

/* The operations of this model on a few rows: products with the first matrix of each type that it has, attention with
 * its heads, a norm, the choice of a token, each against loops in double precision on the processor. A driver, a card
 * or a kernel that is at fault shows by orders of magnitude; rounding does not. Takes milliseconds. The error names
 * what differs and by how much. */
WARD_CHECKED int backend_check(struct backend *be, const struct weights *weights, const struct model_config *config,
                               struct ward_error *err);

#endif
