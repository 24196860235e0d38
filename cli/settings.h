/* What a site configures: where the audit log is. docs/cli.md describes the files. */
#ifndef WARD_CLI_SETTINGS_H
#define WARD_CLI_SETTINGS_H

#include "base/error.h"

struct settings {
    char *audit;     /* folder of the log, or NULL: there is none; free() it */
    bool audit_text; /* questions and answers themselves go into it */
};

/* The first of /etc/ward/ward.conf, the environment (WARD_AUDIT) and ward/ward.conf in the user's folder of
 * configuration that names a log. Whoever administers the machine has the first word. */
WARD_CHECKED int settings_read(struct settings *out, struct ward_error *err);
/* One file: lines "key = value", "#" begins a comment. Keys that are given there replace those of *settings. */
WARD_CHECKED int settings_parse(struct settings *settings, const char *text, size_t length, const char *name,
                              struct ward_error *err);

#endif
