/* PNG files: as they are, and with the checksums of their chunks made right, since none survives a mutation. */
#include "image.h"

#include <zlib.h>

static void put32(uint8_t *at, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> (24 - 8 * i));
}

static uint32_t get32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* Chunks: length, type, data, checksum of type and data. */
static void mend(uint8_t *png, size_t size)
{
    for (size_t at = 8; size >= 12 && at <= size - 12;) {
        const uint32_t length = get32(png + at);
        if (length > size - at - 12)
            break;
        put32(png + at + 8 + length, (uint32_t)crc32(0, png + at + 4, length + 4));
        at += length + 12;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *mended = malloc(size ? size : 1);
    REQUIRE(mended);
    if (size)
        memcpy(mended, data, size);
    mend(mended, size);
    if (size && memcmp(mended, data, size))
        fuzz_decode_image(data, size);
    fuzz_decode_image(mended, size);
    free(mended);
    return 0;
}
