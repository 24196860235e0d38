/* Passphrases, typed at the terminal without an echo. */
#ifndef WARD_CLI_PASSPHRASE_H
#define WARD_CLI_PASSPHRASE_H

#include "ward.h"

enum { PASSPHRASE_LIMIT = 1024 };

/* The one that opens `name`. Without a terminal it is the first line of standard input. */
WARD_CHECKED int passphrase_ask(char out[PASSPHRASE_LIMIT], const char *name, struct ward_error *err);
/* A new one for `name`, typed twice; it must not be empty. */
WARD_CHECKED int passphrase_new(char out[PASSPHRASE_LIMIT], const char *name, struct ward_error *err);

#endif
