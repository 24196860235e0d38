#ifndef WARD_BASE_CLOCK_H
#define WARD_BASE_CLOCK_H

/* Monotonic time in milliseconds. */
double clock_ms(void);

#endif
