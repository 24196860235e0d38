/* Images of patients: JPEG and PNG files to the pixels that the vision encoder sees. */
#ifndef WARD_IMAGE_IMAGE_H
#define WARD_IMAGE_IMAGE_H

#include "base/error.h"
#include "base/pool.h"

struct ward_image {
    int width, height;
    uint8_t *rgb;     /* [height][width][3] */
    uint64_t hash[2]; /* of size and pixels: equal images have equal hashes (not cryptographic) */
};

/* Decodes a JPEG or PNG, told apart by its content, to the pixels that transformers' load_image gives: turned as EXIF
 * or XMP says, then RGB with alpha dropped. 16-bit grayscale is scaled to 8 bits instead of clipped (docs/images.md).
 * `name` is the file to name in errors. `warning` (may be NULL) is a sentence, or empty. *out is empty after a failure;
 * image_clear it otherwise. Errors: WARD_EFORMAT (damaged), WARD_EUNSUPPORTED (another format, or a kind of JPEG that
 * is not read), WARD_ENOMEM. */
WARD_CHECKED int image_decode(struct ward_image *out, const uint8_t *bytes, size_t length, const char *name,
                              char warning[256], struct ward_error *err);
void image_clear(struct ward_image *image);

/* Pads with black to a centred square; an odd pixel goes right or below. In place; unchanged on failure. `name` is the
 * file to name in errors. */
WARD_CHECKED int image_pad(struct ward_image *image, const char *name, struct ward_error *err);

/* Pillow 13's Image.resize(BILINEAR), bit for bit (antialiased; the order of its passes included).
 * out: [out_height][out_width][3]. pool: whose threads share the rows; NULL: the caller's alone. */
WARD_CHECKED int image_resize(const struct ward_image *in, int out_width, int out_height, uint8_t *out,
                              struct pool *pool, struct ward_error *err);

/* The square patches that an encoder's convolution takes, row by row: out [(size / patch)^2][3][patch][patch], from in
 * [size][size][3]. Each value is (x * rescale - mean) / std of its channel, equal to rescale and normalize of
 * transformers' image_transforms: the product in double, then all in float32. pool: as of image_resize. */
void image_patches(const uint8_t *in, int size, int patch, double rescale, const double mean[3], const double std[3],
                   float *out, struct pool *pool);

/* Writes rgb [height][width][3] as a binary PPM, under a temporary name first: a reader never sees half of it. */
WARD_CHECKED int image_write_ppm(const char *path, const uint8_t *rgb, int width, int height, struct ward_error *err);

#endif
