/* A conversation that owns its texts and images, in the form that ward_generate takes. */
#ifndef WARD_CLI_CONVERSATION_H
#define WARD_CLI_CONVERSATION_H

#include "ward.h"

struct conversation {
    struct ward_message *messages; /* parts, their texts and images are owned */
    size_t n;
    double decode_ms; /* spent in decoding images */
};

struct pictures { /* images for one question, in order; owned until a conversation takes them */
    ward_image **at;
    size_t n;
};

/* role is a string constant. */
void conversation_add_message(struct conversation *c, const char *role);
/* To the last message. */
void conversation_add_text(struct conversation *c, const char *text, size_t length);
void conversation_add_image(struct conversation *c, ward_image *image);
/* A user's message: the images before the text, or where the text holds <image> marks, one for each image. Takes the
 * images and empties `pictures`; a count of marks that is not that of images is refused and takes nothing. */
WARD_CHECKED int conversation_add_question(struct conversation *c, const char *text, size_t length,
                                           struct pictures *pictures, struct ward_error *err);
/* Forgets the messages from index n on. */
void conversation_truncate(struct conversation *c, size_t n);

/* Decodes an image file and appends it; its warning goes to stderr. */
WARD_CHECKED int pictures_add(struct pictures *pictures, const char *path, const struct ward_image_options *options,
                              double *decode_ms, struct ward_error *err);
void pictures_clear(struct pictures *pictures);

#endif
