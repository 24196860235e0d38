/* What all commands share. Below cli/ nothing ends the program; here a failure does, with one sentence on stderr. */
#ifndef WARD_CLI_H
#define WARD_CLI_H

#include "ward.h"

enum { EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_INTERRUPTED = 130 /* 128 + SIGINT, as a shell has it */ };

struct command {
    const char *name;
    const char *summary;
    const char *usage; /* one line, after "ward " */
    const char *help;  /* examples, then options */
    int (*run)(int argc, char **argv); /* argv[0] is the command's name; returns the exit status */
    bool audited; /* has the options of use.h */
};
extern const struct command command_doctor;
extern const struct command command_run, command_tokenize, command_preprocess, command_quantize,
                            command_hash, command_bundle, command_synth, command_bench, command_offline, command_audit;

/* "ward: SENTENCE" on stderr. Control characters that a file name or a file brought in are shown as '?'. */
void print_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* "ward: warning: SENTENCE" on stderr. */
void print_warning(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* print_error and exit 1. */
_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void die_error(const struct ward_error *err);
/* print_error, the command's usage line, and exit 2. */
_Noreturn void die_usage(const struct command *command, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Memory or the end of the program. */
void *must_realloc(void *old, size_t n, size_t size);
char *must_strndup(const char *text, size_t length);

#endif
