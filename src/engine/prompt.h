/* A conversation as the tokens that the decoder reads, and the images among them. */
#ifndef WARD_ENGINE_PROMPT_H
#define WARD_ENGINE_PROMPT_H

#include "engine/model.h"

struct prompt_image {
    int first;                      /* position of its first token; it takes config.image_tokens */
    const struct ward_image *image; /* borrowed from the messages */
};

struct prompt {
    struct ids ids;
    struct prompt_image *images; /* [n_images] in the order of the text */
    int n_images;
};

WARD_CHECKED int prompt_build(struct prompt *out, const struct ward_model *m, const struct ward_message *messages,
                              size_t n_messages, struct ward_error *err);
void prompt_clear(struct prompt *p);

#endif
