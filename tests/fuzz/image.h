/* What the targets of images share. */
#ifndef WARD_TESTS_FUZZ_IMAGE_H
#define WARD_TESTS_FUZZ_IMAGE_H

#include "fuzz.h"

#include "image/image.h"

#include <stdlib.h>
#include <string.h>

/* Decodes, and lets the pixels of what is not too large go the way to the encoder. */
static inline void fuzz_decode_image(const uint8_t *data, size_t size)
{
    enum { SIDE = 7, MANY = 1 << 20 };
    struct ward_image image;
    struct ward_error err = {0};
    char warning[256];
    uint8_t small[SIDE * SIDE * 3];
    const int rc = image_decode(&image, data, size, "input", warning, &err);
    fuzz_check_result(rc, &err);
    REQUIRE(!rc == (image.rgb != NULL));
    if (rc)
        return;
    REQUIRE(memchr(warning, 0, sizeof warning));
    REQUIRE(image.width > 0 && image.height > 0);
    const size_t side = (size_t)(image.width > image.height ? image.width : image.height);
    if (side * side <= MANY) {
        REQUIRE(!image_pad(&image, "input", &err));
        REQUIRE(!image_resize(&image, SIDE, SIDE, small, NULL, &err));
    }
    image_clear(&image);
}

#endif
