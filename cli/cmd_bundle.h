/* What the subcommands of `ward bundle` share. */
#ifndef WARD_CLI_CMD_BUNDLE_H
#define WARD_CLI_CMD_BUNDLE_H

#include "cli.h"

#include "bundle/bundle.h"

extern const struct command command_bundle_keygen, command_bundle_create;                            /* ..._create.c */
extern const struct command command_bundle_verify, command_bundle_install, command_bundle_rollback; /* cmd_bundle.c */

/* From now on the first Ctrl-C, SIGTERM or SIGHUP ends the work; `what` is the word before the bar. */
struct bundle_progress bundle_command_progress(const char *what, int threads);

#endif
