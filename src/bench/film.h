/* A drawn picture in place of a patient's: something like a chest film, the same on every machine. */
#ifndef WARD_BENCH_FILM_H
#define WARD_BENCH_FILM_H

#include "base/error.h"

enum { FILM_SIDE = 2048 };

/* A gray PNG of FILM_SIDE x FILM_SIDE pixels; free() *bytes. Pixels are the same everywhere, bytes as zlib packs them.
 */
WARD_CHECKED int film_draw(uint8_t **bytes, size_t *length, struct ward_error *err);

#endif
