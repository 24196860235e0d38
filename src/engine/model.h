/* An open checkpoint. */
#ifndef WARD_ENGINE_MODEL_H
#define WARD_ENGINE_MODEL_H

#include "engine/backend.h"
#include "engine/image_cache.h"
#include "model/chat.h"
#include "model/weights.h"

struct ward_model {
    char *path;
    struct model_config config;
    struct weights *weights;
    struct tokenizer *tokenizer;
    struct chat_template chat;
    struct backend *backend;
    struct image_cache *images; /* shared by the sessions; NULL: a text-only checkpoint */
};

#endif
