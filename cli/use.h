/* This use of ward as the audit log will have it, if one is configured (docs/audit-log.md): a record before anything is
 * shown, another before the program says that it is done. Without a log all of this does nothing.
 *
 *     use_open();             once the options are read: without a log that can be written to the program ends here
 *     lock_enforce(&policy);  lets the log through
 *     use_image(...), use_model(...)       what becomes known on the way
 *     use_begin_answer(...); use_end_answer(...)      for each answer; other commands: use_begin()
 *
 * A program that ends with a failure before a beginning leaves a note that it refused; after one, an end that says so.
 * Whenever the log cannot be written the program ends: nothing is answered that is not recorded. */
#ifndef WARD_CLI_USE_H
#define WARD_CLI_USE_H

#include "cli.h"
#include "conversation.h"

#include "offline/offline.h"

/* main's, and that of commands with commands of their own: what is run. */
void use_command(const struct command *command);
/* --user NAME, --audit-text; a text that lasts. --study, --series, --instance UID; each may come again. */
void use_set_user(const char *name);
void use_set_text(void);
void use_add_uid(const char *kind, const char *uid);

void use_open(void);
bool use_is_recorded(void);
void use_allow(struct offline_policy *policy);

/* A picture that was decoded from these bytes. */
void use_image(const ward_image *image, const void *bytes, size_t length);
/* The same, from a file. */
void use_image_file(const ward_image *image, const char *path);
/* As ward_model_info has it, with the hash of all of it if that is known (or NULL). */
void use_model(const struct ward_model_info *info, const char *sha256);

/* One of several models that a command measures, with its hash if that is known (or NULL). */
void use_add_measured(const char *path, const char *sha256);

/* What was asked for was refused, and the program goes on. */
void use_refused(void);
/* The beginning of what is no answer; its end is that of the program. */
void use_begin(void);
void use_begin_answer(const struct conversation *conversation, const struct ward_generate_options *options);
/* result NULL: ward_generate returned rc. */
void use_end_answer(const struct ward_result *result, int rc);

#endif
