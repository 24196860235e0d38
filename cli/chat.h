/* `ward run` without a question, on a terminal: a chat. */
#ifndef WARD_CLI_CHAT_H
#define WARD_CLI_CHAT_H

#include "answer.h"

struct chat {
    const ward_model *model;
    ward_session *session;
    const struct answer_options *answer;
    const struct ward_image_options *image;
    const char *system;        /* or NULL */
    struct pictures *pictures; /* given with -i: for the first question */
    bool timings;
    double load_ms, decode_ms;
};

/* Until /exit or Ctrl-D; returns the exit status. What is typed and answered is kept in memory only. */
int chat_run(const struct chat *chat);

#endif
