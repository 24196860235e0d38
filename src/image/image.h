/* Images of patients: JPEG and PNG files to the pixels that the vision encoder sees. */
#ifndef WARD_IMAGE_IMAGE_H
#define WARD_IMAGE_IMAGE_H

#include "base/error.h"

struct ward_image {
    int width, height;
    uint8_t *rgb;     /* [height][width][3] */
    uint64_t hash[2]; /* of size and pixels: equal images have equal hashes (not cryptographic) */
};

/* Decoders append nothing and leave *out empty on failure. `name` is named in errors. */
WARD_CHECKED int image_decode(struct ward_image *out, const uint8_t *bytes, size_t length, const char *name, char warning[256],
                              struct ward_error *err);
void image_clear(struct ward_image *image);

/* Pads with black to a centred square; an odd pixel goes right or below. In place. */
WARD_CHECKED int image_pad(struct ward_image *image, struct ward_error *err);

/* Pillow 13's BILINEAR resize, bit for bit (antialiased; the order of its passes included). out: [out_height][out_width][3]. */
WARD_CHECKED int image_resize(const struct ward_image *in, int out_width, int out_height, uint8_t *out, struct ward_error *err);

/* (x * rescale - mean) / std per channel into planes: out [3][size][size], from in [size][size][3]. */
void image_normalize(const uint8_t *in, int size, double rescale, const double mean[3], const double std[3], float *out);

#endif
