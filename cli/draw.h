/* An image in the characters of a terminal. */
#ifndef WARD_CLI_DRAW_H
#define WARD_CLI_DRAW_H

#include "image/image.h"

/* `columns` wide: coloured half blocks where standard output is a terminal, else shades of ASCII. */
WARD_CHECKED int draw_image(const struct ward_image *image, int columns, struct ward_error *err);

#endif
