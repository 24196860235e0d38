/* An open checkpoint. */
#ifndef WARD_ENGINE_MODEL_H
#define WARD_ENGINE_MODEL_H

#include "engine/backend.h"
#include "engine/image_cache.h"
#include "engine/placement.h"
#include "model/checkpoint.h"

struct ward_model {
    struct checkpoint checkpoint;
    struct backend *backend;
    struct placement *placement;   /* of the weights in the backend's memory; NULL: used where they lie in the files */
    const struct weights *weights; /* the checkpoint's, or those placed: their matrices are for the backend alone */
    char device_note[sizeof(((struct ward_error *)0)->text) + 64]; /* what is to be told of the device, or empty */
    struct readahead *readahead; /* of the weights, while it goes on */
    struct image_cache *images; /* shared by the sessions; NULL: a text-only checkpoint */
};

#endif
