/* Where EXIF and XMP say how an image is turned. */
#include "fuzz.h"

#include "image/formats.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const int exif = image_exif_orientation(data, size), xmp = image_xmp_orientation((const char *)data, size);
    REQUIRE(exif >= 0 && exif <= 8);
    REQUIRE(xmp >= 0 && xmp <= 8);
    return 0;
}
