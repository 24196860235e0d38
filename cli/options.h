/* Options: getopt_long's order-free parsing with errors that teach, and values checked for their range. Whatever is
 * wrong ends the program with status 2. --help and --allow-unlocked are of every command and handled here. */
#ifndef WARD_CLI_OPTIONS_H
#define WARD_CLI_OPTIONS_H

#include "cli.h"

#include <getopt.h>

/* The next option as getopt_long returns it, or -1 when only operands are left. Short options are those of `options`
 * whose `val` is a letter. --help prints the command's help and exits. */
int options_next(const struct command *command, int argc, char **argv, const struct option *options);
/* Whether --allow-unlocked was given. */
bool options_allow_unlocked(void);

long long option_integer(const struct command *command, const char *name, const char *text, long long low,
                         long long high);
unsigned long long option_unsigned(const struct command *command, const char *name, const char *text);
double option_number(const struct command *command, const char *name, const char *text, double low, double high);
/* The index of text in the NULL-terminated list. */
int option_choice(const struct command *command, const char *name, const char *text, const char *const *choices);
/* The value of --device: auto, cpu, cuda, cuda:N. */
const char *option_device(const struct command *command, const char *text);

#endif
