#include "bench/film.h"

#include <png.h>
#include <stdlib.h>

/* Integers only, so that every compiler draws the same: two dark lungs in a light body, ribs across them, and the grain
 * that keeps a film from being packed to nothing. */
static uint8_t shade(int x, int y)
{
    const int64_t side = FILM_SIDE, cx = x < FILM_SIDE / 2 ? side * 3 / 10 : side * 7 / 10;
    const int64_t dx = x - cx, dy = y - side / 2;
    const int64_t a = side * 17 / 100, b = side * 32 / 100;
    const int64_t lung = dx * dx * 1000 / (a * a) + dy * dy * 1000 / (b * b); /* below 1000: inside the ellipse */
    int value = lung < 1000 ? 60 + (int)(lung * 90 / 1000) : 150;
    if (lung < 1000 && (y + (int)(dx * dx / 900)) % 150 < 40)
        value += 35;
    uint32_t grain = (uint32_t)x * 0x9e3779b1u ^ (uint32_t)y * 0x85ebca77u;
    grain ^= grain >> 15;
    grain *= 0x2c1b3c6du;
    grain ^= grain >> 13;
    return (uint8_t)(value + (int)(grain % 17) - 8);
}

int film_draw(uint8_t **bytes, size_t *length, struct ward_error *err)
{
    png_image image = {
        .version = PNG_IMAGE_VERSION, .width = FILM_SIDE, .height = FILM_SIDE, .format = PNG_FORMAT_GRAY};
    png_alloc_size_t room = PNG_IMAGE_PNG_SIZE_MAX(image);
    uint8_t *pixels = malloc((size_t)FILM_SIDE * FILM_SIDE);
    *bytes = malloc(room);
    int rc = 0;
    if (!pixels || !*bytes)
        rc = error_no_memory(err, "a drawn image", room);
    for (int y = 0; !rc && y < FILM_SIDE; y++)
        for (int x = 0; x < FILM_SIDE; x++)
            pixels[(size_t)y * FILM_SIDE + (size_t)x] = shade(x, y);
    if (!rc && !png_image_write_to_memory(&image, *bytes, &room, 0, pixels, 0, NULL))
        rc = error_set(err, WARD_EIO, "a drawn image cannot be made: %s", image.message);
    *length = room;
    free(pixels);
    if (rc) {
        free(*bytes);
        *bytes = NULL;
    }
    return rc;
}
