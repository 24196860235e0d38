/* An open checkpoint. */
#ifndef WARD_ENGINE_MODEL_H
#define WARD_ENGINE_MODEL_H

#include "engine/backend.h"
#include "engine/image_cache.h"
#include "model/checkpoint.h"

struct ward_model {
    struct checkpoint checkpoint;
    struct backend *backend;
    struct readahead *readahead; /* of the weights, while it goes on */
    struct image_cache *images; /* shared by the sessions; NULL: a text-only checkpoint */
};

#endif
