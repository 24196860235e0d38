/* The one way to report a failure: set once, where the fault is found. */
#ifndef WARD_BASE_ERROR_H
#define WARD_BASE_ERROR_H

#include "ward.h"

/* Fills err (may be NULL) with a code and one printf-formatted sentence, and returns the code: `return error_set(err,
 * ...)`. */
int error_set(struct ward_error *err, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* The sentence for a failed allocation of `bytes` for `what`. */
int error_no_memory(struct ward_error *err, const char *what, size_t bytes);

/* out = a * b, or false when that does not fit. */
static inline bool size_multiply(size_t a, size_t b, size_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

#endif
