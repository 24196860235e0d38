/* Ctrl-C and its like: work ends where it can, and a second one ends the program. */
#ifndef WARD_CLI_INTERRUPT_H
#define WARD_CLI_INTERRUPT_H

#include <stdbool.h>

/* From now on the first such signal is noted for interrupt_pending and interrupt_take, which tells and forgets it; a
 * second before that ends the program. A read from a terminal ends, too. */
void interrupt_catch(int signal_number);
bool interrupt_pending(void);
bool interrupt_take(void);

#endif
