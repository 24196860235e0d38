/* Text from standard input. */
#ifndef WARD_CLI_INPUT_H
#define WARD_CLI_INPUT_H

#include <stddef.h>

enum { INPUT_LIMIT = 16 << 20 };

/* All of standard input, NUL-terminated (it may hold NUL inside); free() it. Ends the program when it cannot be read or
 * is longer than INPUT_LIMIT bytes. */
char *input_read(size_t *length);

#endif
