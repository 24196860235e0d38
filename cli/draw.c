#include "draw.h"
#include "cli.h"
#include "output.h"

#include <stdio.h>
#include <stdlib.h>

/* The nearest of the 256 colours that every terminal has: a ramp of 24 grays, and a cube of 6 x 6 x 6. */
static int palette_index(const uint8_t *rgb)
{
    int r = rgb[0], g = rgb[1], b = rgb[2];
    if (abs(r - g) < 12 && abs(g - b) < 12) {
        int gray = (r + g + b) / 3;
        if (gray < 4)
            return 16;
        return gray > 246 ? 231 : 232 + (gray - 3) * 23 / 240;
    }
    return 16 + 36 * ((r * 5 + 127) / 255) + 6 * ((g * 5 + 127) / 255) + (b * 5 + 127) / 255;
}

static void draw_colours(const uint8_t *rgb, int columns, int rows)
{
    for (int y = 0; y + 1 < rows; y += 2) {
        const uint8_t *upper = rgb + (size_t)y * (size_t)columns * 3, *lower = upper + (size_t)columns * 3;
        for (int x = 0; x < columns; x++) {
            char cell[48];
            int n = snprintf(cell, sizeof cell, "\033[38;5;%d;48;5;%dm\u2580", palette_index(upper + 3 * x),
                             palette_index(lower + 3 * x));
            output_bytes(cell, (size_t)n);
        }
        output_text("\033[0m\n");
    }
}

static void draw_shades(const uint8_t *rgb, int columns, int rows)
{
    static const char shades[] = " .:-=+*#%@";
    for (int y = 0; y + 1 < rows; y += 2) {
        for (int x = 0; x < columns; x++) {
            const uint8_t *upper = rgb + ((size_t)y * (size_t)columns + (size_t)x) * 3;
            const uint8_t *lower = upper + (size_t)columns * 3;
            int sum = upper[0] + upper[1] + upper[2] + lower[0] + lower[1] + lower[2];
            output_bytes(&shades[sum * 9 / (6 * 255)], 1);
        }
        output_text("\n");
    }
}

int draw_image(const struct ward_image *image, int columns, struct ward_error *err)
{
    /* A character is about twice as high as wide: two pixels one above the other are one character. */
    double ratio = (double)image->height / image->width;
    int rows = ratio < 4 ? (int)(columns * ratio + 0.5) : 4 * columns;
    rows = rows < 2 ? 2 : rows + rows % 2;
    uint8_t *rgb = must_realloc(NULL, (size_t)columns * (size_t)rows, 3);
    int rc = image_resize(image, columns, rows, rgb, NULL, err);
    if (rc == 0) {
        if (output_is_terminal())
            draw_colours(rgb, columns, rows);
        else
            draw_shades(rgb, columns, rows);
    }
    free(rgb);
    return rc;
}
