/* What the decoders share; private to src/image. */
#ifndef WARD_IMAGE_FORMATS_H
#define WARD_IMAGE_FORMATS_H

#include "image/image.h"

/* A file to decode, and what is known of it. */
struct image_source {
    const uint8_t *bytes;
    size_t length;
    const char *name;    /* for errors */
    char warning[256];   /* out: empty, or how the pixels were interpreted */
    int orientation;     /* out: 1..8, EXIF's numbers */
};

/* Checks a size that a file claims and allocates the pixels. `format` names it in errors ("PNG"). */
WARD_CHECKED int image_allocate(struct ward_image *out, uint64_t width, uint64_t height, const char *format,
                                const char *name, struct ward_error *err);

/* Fill *out (empty on entry), its hash left out, and the source's warning and orientation. On failure *out may hold
 * pixels. */
WARD_CHECKED int image_decode_jpeg(struct ward_image *out, struct image_source *source, struct ward_error *err);
WARD_CHECKED int image_decode_png(struct ward_image *out, struct image_source *source, struct ward_error *err);

/* The orientation that EXIF data (a TIFF structure, any "Exif\0\0" before it skipped) or an XMP packet holds: 1..8, 1
 * too for a value without meaning; 0 when there is none. */
int image_exif_orientation(const uint8_t *exif, size_t length);
int image_xmp_orientation(const char *xmp, size_t length);

/* Turns the pixels so that they stand as EXIF's orientation (1..8) says. */
WARD_CHECKED int image_orient(struct ward_image *image, int orientation, struct ward_error *err);

#endif
