/* --messages FILE.json: a conversation as OpenAI's chat completions take it. */
#ifndef WARD_CLI_MESSAGES_H
#define WARD_CLI_MESSAGES_H

#include "conversation.h"

/* Told of the files that a conversation names, before the first is opened. */
struct messages_watch {
    void (*named)(void *user, const char *path); /* each image file */
    void (*ready)(void *user);                   /* all were named */
    void *user;
};

/* Reads `path`: a list of messages, or an object that holds nothing but "messages". Content is a string or a list of
 * parts {"type": "text"|"image_url"|"image"}. An image is a path (relative: to the folder of `path`), a file: or a
 * base64 data: URL; one on a network is refused. On failure the conversation is as it was. */
WARD_CHECKED int messages_read(struct conversation *c, const char *path, const struct ward_image_options *options,
                               const struct messages_watch *watch, struct ward_error *err);

#endif
