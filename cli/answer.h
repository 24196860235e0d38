/* One answer: generation with its callbacks, streamed to standard output, ended cleanly by Ctrl-C. */
#ifndef WARD_CLI_ANSWER_H
#define WARD_CLI_ANSWER_H

#include "conversation.h"

struct answer_options {
    struct ward_generate_options generate; /* callbacks and user are set by answer_generate */
    bool show_thinking;
    bool stream; /* false: nothing is written to standard output */
};

struct answer_step { /* a generated token */
    struct ward_logprob token;
    struct ward_logprob *top; /* [n_top] */
    int n_top;
};

struct answer {
    struct ward_result result;
    struct answer_step *steps; /* [n_steps]; kept only when not streaming */
    size_t n_steps;
};

/* Answers the conversation. The stream ends with a newline, and is withheld no longer than one token. */
WARD_CHECKED int answer_generate(ward_session *session, const struct conversation *conversation,
                                 const struct answer_options *options, struct answer *out, struct ward_error *err);
void answer_clear(struct answer *answer);
/* As JSON and the audit log call it. */
const char *answer_finish_name(enum ward_finish finish);
/* One line on stderr: what was computed and how fast. */
void answer_print_timings(const struct ward_result *result, double load_ms, double decode_ms);

#endif
