/* Orientation: where EXIF and XMP hold it, and turning the pixels. As Pillow's getexif and ImageOps.exif_transpose. */
#include "image/formats.h"

#include "base/private.h"

#include <libexif/exif-data.h>
#include <libexif/exif-utils.h>
#include <stdlib.h>
#include <string.h>

static const uint8_t EXIF_PREFIX[6] = {'E', 'x', 'i', 'f', 0, 0};

/* The types of value that Pillow makes a number of; of several values the first. */
static int entry_orientation(ExifEntry *entry, ExifByteOrder order)
{
    uint32_t value = 1;
    switch (entry->format) {
    case EXIF_FORMAT_SHORT:
    case EXIF_FORMAT_SSHORT:
        if (entry->size >= 2)
            value = exif_get_short(entry->data, order);
        break;
    case EXIF_FORMAT_LONG:
    case EXIF_FORMAT_SLONG:
        if (entry->size >= 4)
            value = exif_get_long(entry->data, order);
        break;
    case EXIF_FORMAT_SBYTE:
        if (entry->size >= 1)
            value = entry->data[0];
        break;
    default:
        break;
    }
    return value >= 1 && value <= 8 ? (int)value : 1;
}

int image_exif_orientation(const uint8_t *exif, size_t length)
{
    for (int i = 0; i < 2 && length >= sizeof EXIF_PREFIX && !memcmp(exif, EXIF_PREFIX, sizeof EXIF_PREFIX); i++) {
        exif += sizeof EXIF_PREFIX;
        length -= sizeof EXIF_PREFIX;
    }
    /* libexif wants its prefix before the TIFF structure, and looks for JPEG markers in anything else. */
    if (length < 8 || length > 1u << 24)
        return 0;
    uint8_t *whole = malloc(sizeof EXIF_PREFIX + length);
    ExifData *data = exif_data_new();
    int orientation = 0;
    if (whole && data) {
        memcpy(whole, EXIF_PREFIX, sizeof EXIF_PREFIX);
        memcpy(whole + sizeof EXIF_PREFIX, exif, length);
        /* Read what is there; never repair it. */
        exif_data_unset_option(data, EXIF_DATA_OPTION_FOLLOW_SPECIFICATION);
        exif_data_load_data(data, whole, (unsigned)(sizeof EXIF_PREFIX + length));
        ExifEntry *entry = exif_content_get_entry(data->ifd[EXIF_IFD_0], EXIF_TAG_ORIENTATION);
        if (entry && entry->data)
            orientation = entry_orientation(entry, exif_data_get_byte_order(data));
    }
    if (data)
        exif_data_unref(data);
    free(whole);
    return orientation;
}

int image_xmp_orientation(const char *xmp, size_t length)
{
    static const char KEY[] = "tiff:Orientation";
    const char *end = xmp + length;
    for (const char *at = xmp; (at = memmem(at, (size_t)(end - at), KEY, sizeof KEY - 1)) != NULL;) {
        at += sizeof KEY - 1;
        const char *digit = NULL;
        if (end - at >= 3 && at[0] == '=' && at[1] == '"')
            digit = at + 2;
        else if (end - at >= 2 && at[0] == '>')
            digit = at + 1;
        if (digit && *digit >= '0' && *digit <= '9')
            return *digit >= '1' && *digit <= '8' ? *digit - '0' : 1;
    }
    return 0;
}

int image_orient(struct ward_image *image, int orientation, struct ward_error *err)
{
    if (orientation <= 1 || orientation > 8)
        return 0;
    const ptrdiff_t w = image->width, h = image->height;
    /* Pixel (x, y) of the result is pixel origin + x * step_x + y * step_y of the source. */
    static const struct {
        bool swap, from_right, from_bottom;
    } TURNS[9] = {
        [2] = {false, true, false}, [3] = {false, true, true}, [4] = {false, false, true}, [5] = {true, false, false},
        [6] = {true, false, true},  [7] = {true, true, true},  [8] = {true, true, false},
    };
    const bool swap = TURNS[orientation].swap, right = TURNS[orientation].from_right;
    const bool bottom = TURNS[orientation].from_bottom;
    const ptrdiff_t origin = (right ? w - 1 : 0) + (bottom ? (h - 1) * w : 0);
    const ptrdiff_t along = right ? -1 : 1, down = bottom ? -w : w;
    const ptrdiff_t step_x = swap ? down : along, step_y = swap ? along : down;
    const ptrdiff_t out_w = swap ? h : w, out_h = swap ? w : h;

    const size_t size = (size_t)w * (size_t)h * 3; /* checked when the image was allocated */
    uint8_t *turned = malloc(size);
    if (!turned)
        return error_no_memory(err, "turning an image", size);
    memory_keep_private(turned, size);
    enum { TILE = 32 }; /* keeps both the rows read and the rows written in cache when rows become columns */
    for (ptrdiff_t tile_y = 0; tile_y < out_h; tile_y += TILE)
        for (ptrdiff_t tile_x = 0; tile_x < out_w; tile_x += TILE)
            for (ptrdiff_t y = tile_y; y < out_h && y < tile_y + TILE; y++)
                for (ptrdiff_t x = tile_x; x < out_w && x < tile_x + TILE; x++)
                    memcpy(turned + (y * out_w + x) * 3, image->rgb + (origin + x * step_x + y * step_y) * 3, 3);
    free(image->rgb);
    image->rgb = turned;
    image->width = (int)out_w;
    image->height = (int)out_h;
    return 0;
}
