/* What the subcommands of `ward audit` share. */
#ifndef WARD_CLI_CMD_AUDIT_H
#define WARD_CLI_CMD_AUDIT_H

#include "cli.h"

#include "audit/keys.h"
#include "audit/reader.h"
#include "offline/offline.h"

extern const struct command command_audit_init, command_audit_keygen, command_audit_rekey;      /* cmd_audit_keys.c */
extern const struct command command_audit_verify, command_audit_checkpoint, command_audit_status; /* ..._verify.c */
extern const struct command command_audit_rotate, command_audit_prune;                           /* ..._keep.c */
extern const struct command command_audit_show, command_audit_search, command_audit_export;      /* ..._show.c */

/* The folder that --log gave, or else the one that is configured; ends the program where there is neither. */
const char *audit_command_log(const struct command *command, const char *given);
/* --anchor: 64 hexadecimal digits, or a file that holds them or is a key file. NULL stays NULL. */
const uint8_t *audit_command_anchor(uint8_t out[AUDIT_KEY], const char *given);
/* From now on nothing but the log is read, and what the policy has already; or written, where `writes`. */
void audit_command_lock(struct offline_policy *policy, const char *log, bool writes);
/* An auditor's key file, its passphrase asked for. */
void audit_command_key(struct audit_auditor *out, const char *path);

#endif
